"""A key-value cache for ragged rows: every key stands at the slot of its true position.

A cache that appends a column per step leaves holes in rows that pause, and transformers' own masks then
count slots, not positions: wrong in sliding layers, and a sliding cache drops keys of rows that stopped
early. Here slot = position in every row. Nothing has to be compacted, pads are written behind the row's
last real token (where the next real token overwrites them, and where causality hides them until then),
and a mask needs the positions of the queries only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from emoprobe.errors import UserError

FULL, SLIDING = "full_attention", "sliding_attention"
_ALIGN = 8  # attention kernels on GPUs want the number of keys to be a multiple of this


class _Placement:
    """Where the tokens of the current pass go and which keys they look at, shared by all layers."""

    def __init__(self) -> None:
        self.capacity = 0
        self.windows: dict[str, slice] = {}
        self.gather = False
        self._rows = self._positions = torch.empty(0, dtype=torch.long)
        self._on: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def set(self, rows: Tensor, positions: Tensor, gather: bool, windows: dict[str, slice]) -> None:
        """Take the next pass: rows [batch, 1], positions [batch, token]."""
        self._rows, self._positions, self.gather, self.windows = rows, positions, gather, windows
        self._on = {rows.device: (rows, positions)}

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(rows [batch, 1], positions [batch, token]) on a device."""
        if device not in self._on:
            self._on[device] = self._rows.to(device), self._positions.to(device)
        return self._on[device]


class _PositionLayer(DynamicLayer):
    """One layer's keys and values, `[row, head, position, head_dim]`, written in place."""

    def __init__(self, attention: str, n_rows: int, placement: _Placement) -> None:
        super().__init__()
        self.attention, self.n_rows, self.placement = attention, n_rows, placement

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write `[batch, head, token, head_dim]` at their positions; return what is to be looked at."""
        place = self.placement
        self.keys = self._grown(self.keys, key_states)
        self.values = self._grown(self.values, value_states)
        self.is_initialized = True
        rows, positions = place.on(key_states.device)
        self.keys[rows, :, positions] = key_states.transpose(1, 2)
        self.values[rows, :, positions] = value_states.transpose(1, 2)
        window = place.windows[self.attention]
        keys, values = self.keys[:, :, window], self.values[:, :, window]
        return (keys[rows[:, 0]], values[rows[:, 0]]) if place.gather else (keys, values)

    def _grown(self, old: Tensor | None, like: Tensor) -> Tensor:
        """Room for as many positions as were reserved; what is there stays."""
        capacity = self.placement.capacity
        if old is not None and old.shape[2] >= capacity:
            return old
        # zeros, not empty: a masked key must still be finite
        grown = like.new_zeros(self.n_rows, like.shape[1], capacity, like.shape[3])
        if old is not None:
            grown[:, :, : old.shape[2]] = old
        return grown


class RaggedCache(Cache):
    """Keys and values of `n_rows` conversations of different lengths, for one state of one model.

    Args:
        layer_types: attention type of each decoder layer, `full_attention` or `sliding_attention`.
        sliding_window: tokens that a sliding layer sees, its own included; None without such layers.
        n_rows: conversations.
        state_key: of the model (`HookedModel.state_key`): what the keys and values were computed with.

    `lengths` [row] counts each row's real tokens.
    """

    def __init__(
        self, layer_types: Sequence[str], sliding_window: int | None, n_rows: int, state_key: str
    ) -> None:
        unknown = set(layer_types) - {FULL, SLIDING}
        if unknown:
            raise UserError(f"no masks for layers of type {', '.join(sorted(unknown))}")
        if SLIDING in layer_types and not sliding_window:
            raise ValueError("sliding layers need a window")
        self._placement = _Placement()
        super().__init__(layers=[_PositionLayer(t, n_rows, self._placement) for t in layer_types])
        self.types = tuple(dict.fromkeys(layer_types))
        self.sliding_window = sliding_window
        self.n_rows = n_rows
        self.state_key = state_key
        self.lengths: NDArray[np.int64] = np.zeros(n_rows, dtype=np.int64)

    def check(self, state_key: str) -> None:
        """Raise UserError unless the cache was made with this state of the model."""
        if state_key != self.state_key:
            raise UserError(
                f"a cache made under {self.state_key} cannot be used under {state_key}; "
                "start a new conversation or switch the adapter back"
            )

    def reserve(self, capacity: int) -> None:
        """Announce that positions below `capacity` will come, so that memory is taken once."""
        self._placement.capacity = max(self._placement.capacity, _aligned(capacity))

    def place(
        self,
        rows: NDArray[np.int64],
        n_real: NDArray[np.int64],
        width: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> tuple[Int[Tensor, "batch token"], dict[str, Float[Tensor, "batch 1 token key"]]]:
        """Place a left-padded chunk behind each of `rows` and count its real tokens.

        `n_real` [batch] of the `width` columns are real: the last ones. Returns the positions of all
        columns and an additive mask (0 or -inf) per attention type.
        """
        column = np.arange(width) - (width - n_real[:, None])  # 0 at the first real token
        pads = column < 0
        # a pad takes a slot behind the chunk's last real token
        positions = self.lengths[rows][:, None] + np.where(pads, column + width, column)
        self.lengths[rows] += n_real
        self.reserve(int(positions.max()) + 1)
        seen = _aligned(int(self.lengths[rows].max()))
        windows = {FULL: slice(0, seen)}
        if self.sliding_window:
            oldest = int(positions[~pads].min()) - self.sliding_window + 1
            windows[SLIDING] = slice(max(0, oldest) // _ALIGN * _ALIGN, seen)
        everyone = len(rows) == self.n_rows and bool((np.diff(rows) == 1).all())
        where = torch.from_numpy(positions).to(device)
        self._placement.set(torch.from_numpy(rows[:, None]).to(device), where, not everyone, windows)
        padding = torch.from_numpy(pads).to(device)
        return where, {t: self._mask(t, where, padding, dtype) for t in self.types}

    def _mask(
        self,
        attention: str,
        positions: Int[Tensor, "batch token"],
        pads: Bool[Tensor, "batch token"],
        dtype: torch.dtype,
    ) -> Float[Tensor, "batch 1 token key"]:
        """0 where a query may look, -inf elsewhere. A pad looks everywhere: its result must be finite."""
        window = self._placement.windows[attention]
        keys = torch.arange(window.start, window.stop, device=positions.device)
        query = positions[:, :, None]
        visible = keys <= query
        if attention == SLIDING:
            assert self.sliding_window is not None
            visible &= keys > query - self.sliding_window
        visible |= pads[:, :, None]
        mask = torch.zeros(visible.shape, dtype=dtype, device=positions.device)
        return mask.masked_fill_(~visible, float("-inf"))[:, None]


def _aligned(n: int) -> int:
    return -(-n // _ALIGN) * _ALIGN
