"""Gemma 3 with random weights, built in memory as a `HookedModel`: speed and memory depend on shape only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from emoprobe.errors import UserError
from emoprobe.model import checks, registry
from emoprobe.model.hooked import HookedModel
from emoprobe.model.weights import ATTENTION
from emoprobe.organism import tokenizer as tokens
from emoprobe.scenarios import library

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REPLY = 48
"""Mean reply, in tokens: this often an id ends a turn, so that rows of a random model stop at odd times."""

_LEAST_BYTES_27B = 70e9


@dataclass(frozen=True)
class Load:
    """How much one round puts through a model.

    Attributes:
        batch, tokens: of the forward pass.
        prompt, steps: tokens behind which decoding starts, and steps of one token per row.
        conversations, turns, max_new_tokens: of the rollouts.
    """

    batch: int
    tokens: int
    prompt: int
    steps: int
    conversations: int
    turns: int
    max_new_tokens: int


LOADS = {
    "tiny": Load(2, 128, 16, 4, 3, 2, 16),
    "100m": Load(2, 256, 32, 6, 16, 8, 96),
    "27b": Load(4, 2048, 1024, 64, 16, 8, 96),
}

_TINY = {
    "n_layers": 6,
    "d_model": 256,
    "n_heads": 2,
    "n_kv_heads": 1,
    "head_dim": 32,
    "d_ffn": 512,
    "vocab": 4096,
    "sliding_window": 64,
}
_100M = {
    "n_layers": 16,
    "d_model": 768,
    "n_heads": 6,
    "n_kv_heads": 2,
    "head_dim": 128,
    "d_ffn": 3072,
    "vocab": 32768,
    "sliding_window": 128,
}


def build(size: str, device: torch.device, dtype: torch.dtype, seed: int) -> HookedModel:
    """A text-only Gemma 3 of this size with random weights, made on the device itself.

    `organism` is the organism's shape. UserError for 27b where there is no GPU that can hold it.
    """
    if size == "27b":
        _check_gpu(device)
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    if size == "organism":
        from emoprobe.organism import train

        config = train.build(train.Recipe(), tokenizer).config
    else:
        config = _config(size, tokenizer)
    end_of_turn = tokens.SPECIAL.index("<end_of_turn>")
    config.eos_token_id = list(range(end_of_turn, config.vocab_size, REPLY))
    from transformers import Gemma3ForCausalLM

    with torch.device(device):
        net = Gemma3ForCausalLM._from_config(config, dtype=dtype, attn_implementation=ATTENTION)
    net = net.eval().requires_grad_(False)
    name = f"random-{size}"
    source = registry.Source(name, name, "random weights", "local")
    model = HookedModel(source, net, tokenizer, f"seed-{seed}", dtype)
    checks.self_check(net, model.decoder, name)
    return model


def n_parameters(model: HookedModel) -> int:
    """All weights, tied ones once."""
    return sum(weight.numel() for weight in model.net.parameters())


def _config(size: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    from transformers import Gemma3TextConfig

    if size == "27b":
        shape = registry.resolve("gemma-3-27b-it").shape
        assert shape is not None
        geometry: dict[str, Any] = vars(shape)
    else:
        geometry = _TINY if size == "tiny" else _100M
    return Gemma3TextConfig(
        vocab_size=geometry["vocab"],
        hidden_size=geometry["d_model"],
        intermediate_size=geometry["d_ffn"],
        num_hidden_layers=geometry["n_layers"],
        num_attention_heads=geometry["n_heads"],
        num_key_value_heads=geometry["n_kv_heads"],
        head_dim=geometry["head_dim"],
        query_pre_attn_scalar=geometry["d_model"] // geometry["n_heads"],
        sliding_window=geometry["sliding_window"],  # five sliding layers to a full one is the class's default
        max_position_embeddings=8192,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    """The organism's kind, fitted on the texts of the scenarios."""
    texts = [s.task for s in library.by_category("numeric", 16, 1)]
    return tokens.train([*texts, *library.feedback("neutral")])


def _check_gpu(device: torch.device) -> None:
    if device.type != "cuda":
        raise UserError("--size 27b needs a CUDA device of 70 GB or more; without one use --size 100m")
    there = torch.cuda.get_device_properties(device).total_memory
    if there < _LEAST_BYTES_27B:
        raise UserError(f"--size 27b needs a CUDA device of 70 GB or more, this one has {there / 1e9:.0f} GB")
