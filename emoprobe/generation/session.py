"""Ragged rows fed to one model, each token once: what live generation and a carried chat stand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from emoprobe.generation.cache import RaggedCache

if TYPE_CHECKING:
    from emoprobe.model.hooked import HookedModel

Tags = NDArray[np.int64]


@dataclass
class ForwardCounts:
    """Positions that went through the model: real tokens, and all columns with pads and waiting rows."""

    forwarded: int = 0
    computed: int = 0
    passes: int = 0


class RaggedSession:
    """`n_rows` conversations of one model with a carried cache.

    Args:
        model: its weights and active adapter must stay as they are; another state is refused (UserError).
        n_rows: conversations.
        counts: counted up as tokens pass; a new one if None.
    """

    def __init__(self, model: HookedModel, n_rows: int, counts: ForwardCounts | None = None) -> None:
        self.model = model
        self.counts = counts or ForwardCounts()
        self.cache = RaggedCache(model.layer_types, model.sliding_window, n_rows, model.state_key)

    def feed(
        self,
        chunks: Sequence[Sequence[int]],
        tags: Sequence[Tags] | None = None,
        room: int = 0,
        every: bool = False,
    ) -> Float[Tensor, "row *token vocab"]:
        """Forward a chunk of ids behind each row (an empty chunk: the row waits), ragged, left-padded.

        `tags` gives each token's row in the active reducers. `room` announces how many tokens per row
        will follow. Returns the logits behind each row's last token, or with `every` those behind every
        token of the left-padded chunks; those of a waiting row mean nothing.
        """
        rows = np.array([r for r, chunk in enumerate(chunks) if len(chunk)], dtype=np.int64)
        n_real = np.array([len(chunks[r]) for r in rows], dtype=np.int64)
        width = int(n_real.max())
        ids = np.zeros((len(rows), width), dtype=np.int64)
        marks = np.full((len(rows), width), -1, dtype=np.int64)
        for k, r in enumerate(rows):
            ids[k, width - n_real[k] :] = chunks[r]
            if tags is not None:
                marks[k, width - n_real[k] :] = tags[r]
        self.cache.reserve(int((self.cache.lengths[rows]).max()) + width + room)
        logits = self._forward(torch.from_numpy(ids).to(self.model.device), marks, rows, n_real, every)
        if len(rows) == len(chunks):
            return logits
        spread = logits.new_zeros(len(chunks), *logits.shape[1:])
        spread[torch.from_numpy(rows).to(logits.device)] = logits
        return spread

    def step(
        self, ids: Tensor, tags: Tags, rows: NDArray[np.int64], alive: NDArray[np.bool_]
    ) -> Float[Tensor, "batch vocab"]:
        """Forward one token behind each of `rows`; where not `alive` it is a pad, read and kept by nobody."""
        return self._forward(ids[:, None], tags[:, None], rows, alive.astype(np.int64))

    def _forward(
        self,
        ids: Tensor,
        tags: Tags,
        rows: NDArray[np.int64],
        n_real: NDArray[np.int64],
        every: bool = False,
    ) -> Float[Tensor, "batch *token vocab"]:
        self.cache.check(self.model.state_key)
        device = self.model.device
        positions, mask = self.cache.place(rows, n_real, ids.shape[1], device, self.model.dtype)
        logits = self.model.forward(
            ids,
            positions=positions,
            mask=mask,
            cache=self.cache,
            tags=torch.from_numpy(tags).to(device),
            logits="all" if every else "last",
        )
        assert logits is not None
        self.counts.forwarded += int(n_real.sum())
        self.counts.computed += ids.numel()
        self.counts.passes += 1
        return logits if every else logits.reshape(len(rows), -1)
