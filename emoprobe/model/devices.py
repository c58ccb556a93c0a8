"""Device and number format as a user writes them; checked without torch, chosen with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from emoprobe.errors import UserError, near

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16")
"""float16 is missing on purpose: Gemma 3's residual stream overflows it."""

SPREAD = "spread"
"""Not one device: the layers are spread over all GPUs, as accelerate's `device_map="auto"` does."""

_DEVICE = re.compile(rf"auto|cpu|cuda(:\d+)?|mps|{SPREAD}")


def check_device(text: str) -> str:
    """The text itself if it names a device, whether or not this machine has one; else UserError."""
    if not _DEVICE.fullmatch(text):
        raise UserError(
            f"unknown device '{text}'{near(text, ('auto', 'cpu', 'cuda', 'cuda:0', 'mps', SPREAD))}"
        )
    return text


def check_dtype(text: str) -> str:
    """The text itself if it is one of `DTYPES`; else UserError."""
    if text not in DTYPES:
        raise UserError(f"unknown dtype '{text}'; one of {', '.join(DTYPES)}")
    return text


def pick_device(text: str) -> torch.device:
    """The device, `auto` being the first GPU where there is one, as is where `spread` begins. UserError if
    this machine lacks it."""
    import torch

    check_device(text)
    if text in ("auto", SPREAD):
        text = "cuda" if torch.cuda.is_available() else "cpu"
    if text.startswith("cuda"):
        n = torch.cuda.device_count()
        if int(text.partition(":")[2] or 0) >= n:
            have = f"{n} CUDA devices" if n else "no CUDA device"
            raise UserError(f"device '{text}' is not there: this machine has {have}; try --device cpu")
        return torch.device(text if ":" in text else "cuda:0")
    if text == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not there on this machine; try --device cpu")
    return torch.device(text)


def pick_dtype(text: str, device: torch.device) -> torch.dtype:
    """The number format, `auto` being fp32 on a CPU and bf16 elsewhere."""
    import torch

    check_dtype(text)
    if text == "auto":
        text = "float32" if device.type == "cpu" else "bfloat16"
    return torch.float32 if text == "float32" else torch.bfloat16
