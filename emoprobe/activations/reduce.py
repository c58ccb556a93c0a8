"""Reducers: what a hook keeps of the residual stream as tokens pass. None of them holds a residual.

A forward pass announces the tag of each token (`begin`), then each hooked layer hands over its residual
stream (`layer`), which is reduced on that layer's own device. Sums are fp32. A bf16 residual is never
copied to fp32 whole: it is taken in blocks of a sixteenth of its rows.

Tags of -1 (pads, finished rows, tokens of no part) fall into one spare row behind the last, which no
result shows: an index, not a filter, so that no accelerator has to wait for a count of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from emoprobe.activations.slots import Tagger
from emoprobe.errors import RunError

_MIN_BLOCK = 64


@runtime_checkable
class Reducer(Protocol):
    """What `HookedModel.read` calls. `layers` are the decoder layers it wants, 0-based."""

    layers: tuple[int, ...]

    def begin(self, tags: Int[Tensor, "batch token"] | None) -> None:
        """Announce a forward pass; None: nothing of it is counted."""
        ...

    def layer(self, index: int, resid: Float[Tensor, "batch token d_model"]) -> None:
        """Reduce `resid_post[index]` of the pass announced last."""
        ...

    def nonfinite(self) -> tuple[int, int] | None:
        """(layer, row) of a NaN or infinity among the results, or None."""
        ...


def check_finite(reducer: Reducer, slots: Tagger) -> None:
    """Raise RunError that names layer and transcript if a result is NaN or infinite."""
    bad = reducer.nonfinite()
    if bad is not None:
        layer, row = bad
        raise RunError(f"NaN or infinite activations at layer {layer} in {slots.describe(row)}")


def blocks(
    resid: Float[Tensor, "batch token d_model"],
) -> Iterator[tuple[slice, Float[Tensor, "row d_model"]]]:
    """The residual stream as fp32 rows, in blocks that bound the extra memory; fp32 is passed as it is."""
    flat = resid.detach().flatten(0, 1)
    if flat.dtype == torch.float32:
        yield slice(0, len(flat)), flat
        return
    step = max(_MIN_BLOCK, -(-len(flat) // 16))
    for start in range(0, len(flat), step):
        rows = slice(start, min(start + step, len(flat)))
        yield rows, flat[rows].float()


class _Tagged:
    """The rows of the current pass on each device that asks for them, and how often each was counted."""

    def __init__(self, layers: Sequence[int], n_rows: int) -> None:
        if n_rows < 1:
            raise ValueError("a reducer needs at least one row")
        self.layers = tuple(layers)
        self.n_rows = n_rows
        self._rows: dict[torch.device, Tensor] = {}
        self._tags: Tensor | None = None
        self._counts: Tensor | None = None

    def begin(self, tags: Int[Tensor, "batch token"] | None) -> None:
        """Announce a forward pass; None: nothing of it is counted."""
        self._tags = tags
        self._rows = {}
        if tags is None:
            return
        if self._counts is None:
            self._counts = torch.zeros(self.n_rows + 1, dtype=torch.long, device=tags.device)
        rows = self._rows_on(self._counts.device)
        self._counts.index_add_(0, rows, torch.ones_like(rows))

    @property
    def counts(self) -> Int[Tensor, " row"]:
        """Tokens counted in each row."""
        if self._counts is None:
            return torch.zeros(self.n_rows, dtype=torch.long)
        return self._counts[:-1].cpu()

    def _rows_on(self, device: torch.device) -> Int[Tensor, " token"]:
        """Row of each token of the pass, the spare row (`n_rows`) for those that are not counted."""
        if device not in self._rows:
            assert self._tags is not None
            flat = self._tags.flatten().to(device)
            self._rows[device] = torch.where(flat < 0, self.n_rows, flat)
        return self._rows[device]

    def _first_bad(self, by_layer: Mapping[int, Tensor]) -> tuple[int, int] | None:
        """(layer, row) of the first counted row that holds a NaN or infinity."""
        seen = self.counts > 0
        for layer in self.layers:
            if layer in by_layer:
                bad = seen & ~torch.isfinite(by_layer[layer][:-1]).all(dim=1).cpu()
                if bad.any():
                    return layer, int(bad.nonzero()[0])
        return None


class _SpanSum(_Tagged):
    """Sums per row and layer of `width` numbers per token."""

    def __init__(self, layers: Sequence[int], n_rows: int, width: int) -> None:
        super().__init__(layers, n_rows)
        self.width = width
        self._sums: dict[int, Tensor] = {}

    def layer(self, index: int, resid: Float[Tensor, "batch token d_model"]) -> None:
        """Reduce `resid_post[index]` of the pass announced last."""
        if self._tags is None:
            return
        rows = self._rows_on(resid.device)
        if index not in self._sums:
            self._sums[index] = torch.zeros(
                self.n_rows + 1, self.width, dtype=torch.float32, device=resid.device
            )
        sums = self._sums[index]
        for part, block in blocks(resid):
            sums.index_add_(0, rows[part], self._values(index, block))

    def _values(self, index: int, block: Float[Tensor, "row d_model"]) -> Float[Tensor, "row width"]:
        raise NotImplementedError

    def means(self) -> Float[Tensor, "slot layer width"]:
        """Mean over the tokens of each row, fp32 on the CPU; NaN where a row has no tokens (yet)."""
        out = torch.full((self.n_rows, len(self.layers), self.width), float("nan"))
        counts = self.counts[:, None]
        for k, layer in enumerate(self.layers):
            if layer in self._sums:
                mean = self._sums[layer][:-1].cpu() / counts.clamp(min=1)
                out[:, k] = torch.where(counts > 0, mean, float("nan"))
        return out

    def nonfinite(self) -> tuple[int, int] | None:
        """(layer, row) of a NaN or infinity among the sums, or None."""
        return self._first_bad(self._sums)


class SpanReadout(_SpanSum):
    """Span means of `resid_post[L] @ weights[L]`: a probe's raw scores, without keeping a residual.

    Args:
        weights: [layer, d_model, emotion], one matrix for each of `layers`, in their order.
        layers: decoder layers, 0-based.
        n_slots: rows of the result, usually `len(Slots(...))`.

    The mean of a linear readout is the readout of the mean, so `means()` [slot, layer, emotion] is exact.
    """

    def __init__(
        self, weights: Float[Tensor, "layer d_model emotion"], layers: Sequence[int], n_slots: int
    ) -> None:
        super().__init__(layers, n_slots, width=weights.shape[-1])
        self._weights = _by_layer(weights, self.layers)

    def _values(self, index: int, block: Float[Tensor, "row d_model"]) -> Float[Tensor, "row emotion"]:
        return torch.nn.functional.linear(block, _on_device(self._weights, index, block.device))


class SpanMean(_SpanSum):
    """Span means of the residual stream itself, `means()` [slot, layer, d_model]; probes are fitted on it."""

    def __init__(self, layers: Sequence[int], n_slots: int, d_model: int) -> None:
        super().__init__(layers, n_slots, width=d_model)

    def _values(self, index: int, block: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        return block


class TokenReadout(_Tagged):
    """`resid_post[L] @ weights[L]` of every token: `scores()` [token, layer, emotion], fp32.

    Args as of SpanReadout; `n_tokens` is usually `len(TokenSlots(...))`.
    """

    def __init__(
        self, weights: Float[Tensor, "layer d_model emotion"], layers: Sequence[int], n_tokens: int
    ) -> None:
        super().__init__(layers, n_tokens)
        self.width = weights.shape[-1]
        self._weights = _by_layer(weights, self.layers)
        self._scores: dict[int, Tensor] = {}

    def layer(self, index: int, resid: Float[Tensor, "batch token d_model"]) -> None:
        """Reduce `resid_post[index]` of the pass announced last."""
        if self._tags is None:
            return
        rows = self._rows_on(resid.device)
        if index not in self._scores:
            self._scores[index] = torch.full((self.n_rows + 1, self.width), torch.nan, device=resid.device)
        for part, block in blocks(resid):
            scores = torch.nn.functional.linear(block, _on_device(self._weights, index, block.device))
            self._scores[index].index_copy_(0, rows[part], scores)

    def scores(self) -> Float[Tensor, "token layer emotion"]:
        """Raw scores, fp32 on the CPU; NaN for a token that has not passed."""
        out = torch.full((self.n_rows, len(self.layers), self.width), float("nan"))
        for k, layer in enumerate(self.layers):
            if layer in self._scores:
                out[:, k] = self._scores[layer][:-1].cpu()
        return out

    def nonfinite(self) -> tuple[int, int] | None:
        """(layer, token) of a NaN or infinity among the scores, or None."""
        return self._first_bad(self._scores)


class TokenStore(_Tagged):
    """The residual stream of every token in the model's dtype, on the CPU: for `capture --tokens`.

    Holds `n_tokens x layers x d_model`, so it is made anew for each shard.
    """

    def __init__(self, layers: Sequence[int], n_tokens: int, d_model: int) -> None:
        super().__init__(layers, n_tokens)
        self.d_model = d_model
        self._values: dict[int, Tensor] = {}

    def layer(self, index: int, resid: Float[Tensor, "batch token d_model"]) -> None:
        """Reduce `resid_post[index]` of the pass announced last."""
        if self._tags is None:
            return
        rows = self._rows_on(torch.device("cpu"))
        if index not in self._values:
            self._values[index] = torch.zeros(self.n_rows + 1, self.d_model, dtype=resid.dtype)
        self._values[index].index_copy_(0, rows, resid.detach().flatten(0, 1).cpu())

    def values(self) -> dict[int, Float[Tensor, "token d_model"]]:
        """Residuals by layer; rows in the order of the tags."""
        return {layer: self._values[layer][:-1] for layer in self.layers}

    def nonfinite(self) -> tuple[int, int] | None:
        """(layer, token) of a NaN or infinity among the residuals, or None."""
        return self._first_bad(self._values)


def _by_layer(
    weights: Float[Tensor, "layer d_model emotion"], layers: tuple[int, ...]
) -> dict[int, Float[Tensor, "emotion d_model"]]:
    """Each layer's matrix with `d_model` innermost: for so few columns the product takes half the time.

    What is laid out so already (a view of a ProbeSet's directions) is not copied.
    """
    if len(weights) != len(layers):
        raise ValueError(f"weights have {len(weights)} layers, {len(layers)} are to be read")
    matrices = (weights[k].detach().float().T for k in range(len(layers)))
    rows = (m if m.stride(-1) == 1 else m.contiguous() for m in matrices)
    return dict(zip(layers, rows, strict=True))


def _on_device(weights: dict[int, Tensor], index: int, device: torch.device) -> Tensor:
    """The layer's matrix, moved to the layer's device once."""
    if weights[index].device != device:
        weights[index] = weights[index].to(device)
    return weights[index]
