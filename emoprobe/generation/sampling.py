"""Choosing the next token. The noise of token k depends on (seed, conversation, turn, k), on nothing else.

So a conversation comes out the same in any batch, in any order, after any interruption.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def noise(seed: int, conversation: str, turn: int, n: int) -> NDArray[np.float64]:
    """`n` uniform numbers in (0, 1), the k-th for token k of this turn.

    Counter-based: a 64-bit key from a hash of the three names, then SplitMix64 of key and k (Steele, Lea
    and Flood 2014). 48 bits of it are used, so that a product with a sum near 1 cannot round up to it.
    """
    name = f"{seed}\0{conversation}\0{turn}".encode()
    key = np.uint64(int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little"))
    with np.errstate(over="ignore"):
        x = key + _GOLDEN * np.arange(1, n + 1, dtype=np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return ((x >> np.uint64(16)).astype(np.float64) + 0.5) * 2.0**-48


def choose(
    logits: Float[Tensor, "batch vocab"],
    uniform: Float[Tensor, " batch"],
    temperature: float,
    top_p: float = 1.0,
) -> Int[Tensor, " batch"]:
    """The next token of each row: the likeliest at temperature 0, else by the inverse of the CDF in fp64.

    With `top_p` < 1 only the likeliest tokens that together reach it are kept (the last of them included).
    """
    import torch

    if temperature == 0:
        return logits.argmax(dim=-1)
    probability = (logits.double() / temperature).softmax(dim=-1)
    if top_p < 1:
        ordered, order = probability.sort(dim=-1, descending=True, stable=True)
        ordered[ordered.cumsum(dim=-1) - ordered >= top_p] = 0
        probability = ordered.new_zeros(ordered.shape).scatter_(-1, order, ordered)
    cumulative = probability.cumsum(dim=-1)
    target = uniform[:, None] * cumulative[:, -1:]
    # NaN logits give an index behind the last; the caller finds them out by the logit of what was chosen
    index = torch.searchsorted(cumulative, target, right=True)[:, 0]
    return index.clamp(max=logits.shape[-1] - 1)
