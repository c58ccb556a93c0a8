"""emoprobe: what a language model says about its state, and what it represents, over a conversation.

The names below load on first use, so that `import emoprobe` costs no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Chat": "emoprobe.model.chat",
    "Estimate": "emoprobe.stats",
    "HookedModel": "emoprobe.model.hooked",
    "Judgment": "emoprobe.records",
    "ProbeSet": "emoprobe.probing.probeset",
    "Scenario": "emoprobe.records",
    "Transcript": "emoprobe.records",
    "converse": "emoprobe.readout",
    "read": "emoprobe.readout",
    "show": "emoprobe.viewing.notebook",
}
"""Public name -> the module it lives in. One line adds one."""

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'emoprobe' has no attribute '{name}'")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
