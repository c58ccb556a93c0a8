"""A model's shape, and what follows from it without loading a weight: parameters, FLOPs, bytes. No torch.

A number that a config does not give is None, and what would be computed from it is None: unknown, never a
guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """The text decoder's geometry; `other_params` counts what lies beside it (a vision tower).

    `n_sliding` layers see only `sliding_window` tokens back; `qk_norms` and `norms` count the norm vectors
    of a layer (of head_dim and of d_model).
    """

    n_layers: int
    d_model: int
    n_heads: int | None = None
    n_kv_heads: int | None = None
    head_dim: int | None = None
    d_ffn: int | None = None
    vocab: int | None = None
    sliding_window: int | None = None
    n_sliding: int = 0
    tied: bool = True
    norms: int = 2
    qk_norms: int = 0
    other_params: int = 0


def from_config(config: Mapping[str, Any]) -> Shape | None:
    """The shape that a `config.json` tells, or None where it names no layers or no width.

    Mixtures of experts come out without `d_ffn`: their counts are unknown.
    """
    text = config.get("text_config") or config
    n_layers, d_model = text.get("num_hidden_layers"), text.get("hidden_size")
    if not isinstance(n_layers, int) or not isinstance(d_model, int):
        return None
    family = str(text.get("model_type", ""))
    n_heads = text.get("num_attention_heads")
    kinds = text.get("layer_types") or _kinds(family, text, n_layers)
    n_sliding = sum(kind == "sliding_attention" for kind in kinds)
    dense = not any("expert" in key for key in text)
    return Shape(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=text.get("num_key_value_heads") or n_heads,
        head_dim=text.get("head_dim") or (d_model // n_heads if n_heads else None),
        d_ffn=text.get("intermediate_size") if dense else None,
        vocab=text.get("vocab_size"),
        sliding_window=text.get("sliding_window") if n_sliding else None,
        n_sliding=n_sliding,
        tied=bool(text.get("tie_word_embeddings", family.startswith("gemma"))),
        norms=4 if family.startswith("gemma3") else 2,
        qk_norms=2 if family.startswith(("gemma3", "qwen3")) else 0,
    )


def params(shape: Shape) -> int | None:
    """Parameters, embedding and `other_params` included; None if unknown."""
    matrices = _layer_matrices(shape)
    if matrices is None or shape.vocab is None or shape.head_dim is None:
        return None
    layer = matrices + shape.norms * shape.d_model + shape.qk_norms * shape.head_dim
    embeddings = shape.vocab * shape.d_model * (1 if shape.tied else 2)
    return shape.n_layers * layer + embeddings + shape.d_model + shape.other_params


def flops_per_token(shape: Shape, context: int, head: bool = True) -> int | None:
    """Floating-point operations to forward one token behind `context` others; None if unknown.

    Two per weight of each matrix, and for attention four per head dimension and key (scores and values);
    a sliding layer sees its window only. `head`: the logits are computed too.
    """
    matrices = _layer_matrices(shape)
    if matrices is None or shape.vocab is None or shape.n_heads is None or shape.head_dim is None:
        return None
    near = min(context, shape.sliding_window or context)
    keys = shape.n_sliding * near + (shape.n_layers - shape.n_sliding) * context
    weights = shape.n_layers * matrices + (shape.vocab * shape.d_model if head else 0)
    return 2 * weights + 4 * shape.n_heads * shape.head_dim * keys


def kv_bytes_per_token(shape: Shape, bytes_per_number: int = 2) -> int | None:
    """Keys and values of one token in a cache that keeps all positions in all layers; None if unknown."""
    if shape.n_kv_heads is None or shape.head_dim is None:
        return None
    return 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim * bytes_per_number


def resid_bytes_per_token(shape: Shape, n_layers: int | None = None, bytes_per_number: int = 2) -> int:
    """Residual streams of one token at `n_layers` layers, all unless told."""
    return (shape.n_layers if n_layers is None else n_layers) * shape.d_model * bytes_per_number


def _layer_matrices(shape: Shape) -> int | None:
    """Weights of one layer's seven matrices."""
    if shape.n_heads is None or shape.n_kv_heads is None or shape.head_dim is None or shape.d_ffn is None:
        return None
    attention = 2 * shape.d_model * shape.head_dim * (shape.n_heads + shape.n_kv_heads)
    return attention + 3 * shape.d_model * shape.d_ffn


def _kinds(family: str, text: Mapping[str, Any], n_layers: int) -> list[str]:
    """Attention types of configs that leave them to the class: every sixth layer of Gemma 3 is full."""
    if not family.startswith("gemma3"):
        return []
    every = text.get("sliding_window_pattern") or text.get("_sliding_window_pattern") or 6
    return ["full_attention" if (k + 1) % every == 0 else "sliding_attention" for k in range(n_layers)]
