"""What an adapter did inside, split into shift and gap change: a difference in differences. No torch.

Everything here is read on the *same* token ids under both weights: each rejected conversation of the base
and its "Okay" twin. With z averaged over the turns that follow a feedback, per pair:

    gap_base     z_base(rejected)    - z_base(okay)
    gap_adapter  z_adapter(rejected) - z_adapter(okay)
    raw_change   z_adapter(rejected) - z_base(rejected)
    shift        z_adapter(okay)     - z_base(okay)
    gap_change   gap_adapter - gap_base  =  raw_change - shift

An adapter may move a readout everywhere (calm text too): that is `shift`, an offset of the probe or of the
model's tone. Only `gap_change` is about being rejected. Turn 1 precedes any feedback, so it has no gap and
is left out of the averages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emoprobe import stats
from emoprobe.activations.slots import SPAN_PARTS
from emoprobe.emotions import NEGATIVE
from emoprobe.errors import RunError
from emoprobe.records import HEADLINE_PART
from emoprobe.stats import Band, Estimate
from emoprobe.tracking.curves import Axes, Floats

CONTRASTS = ("gap_base", "gap_adapter", "shift", "raw_change", "gap_change")

SAME_TEXT_TOLERANCE = 1e-3
"""z by which a layer below the adapter may differ on the same ids: kernels, not weights."""


@dataclass(frozen=True)
class Twins:
    """Both arms of the base's conversations under both weights, all `[pair, turn, part, layer, emotion]`."""

    base_rejected: Floats
    base_okay: Floats
    adapter_rejected: Floats
    adapter_okay: Floats
    clusters: tuple[str, ...]

    def contrasts(self) -> dict[str, Floats]:
        """Each contrast per turn, NaN where any of the four readings has no token, so that they add up."""
        base, adapter = self.base_rejected - self.base_okay, self.adapter_rejected - self.adapter_okay
        raw, shift = self.adapter_rejected - self.base_rejected, self.adapter_okay - self.base_okay
        there = np.isfinite(adapter - base)
        values = {
            "gap_base": base,
            "gap_adapter": adapter,
            "shift": shift,
            "raw_change": raw,
            "gap_change": raw - shift,
        }
        return {name: np.where(there, value, np.nan) for name, value in values.items()}


def effect(twins: Twins, axes: Axes, adapted_layers: Sequence[int]) -> dict[str, Any]:
    """The `internal` entry of one adapter in summary.json (estimates as `Estimate`, layers by number).

    `adapted_layers` may not be empty. `gap_change` has a simultaneous (max-t) band over layers, the other
    contrasts pointwise intervals. `over_layers` averages all layers that can move: none is picked.
    Raises RunError where a layer below the adapter reads otherwise than the base on the same ids.
    """
    per_turn = twins.contrasts()
    for arm in ("raw_change", "shift"):
        _assert_equal_below(per_turn[arm], axes, adapted_layers)
    entry: dict[str, Any] = {
        "adapted_layers": list(adapted_layers),
        "equal_by_construction": [k for k in axes.layers if k < min(adapted_layers)],
        "effect_turns": list(range(2, axes.turns + 1)),
    }
    averaged = {name: _mean_over_turns(value[:, 1:]) for name, value in per_turn.items()}
    pointwise = {name: stats.cluster_means(value, twins.clusters) for name, value in averaged.items()}
    for e, emotion in enumerate(axes.rows):
        entry[emotion] = {}
        for p, part in enumerate(SPAN_PARTS):
            columns = {
                name: Band(c.mean[p, :, e], c.lo[p, :, e], c.hi[p, :, e]) for name, c in pointwise.items()
            }
            columns["gap_change"] = stats.simultaneous_band(
                averaged["gap_change"][:, p, :, e], twins.clusters
            )
            entry[emotion][part] = {
                name: _by_layer(column, averaged[name][:, p, :, e], twins.clusters, axes.layers)
                for name, column in columns.items()
            }
    negative, shown = axes.rows.index(NEGATIVE), SPAN_PARTS.index(HEADLINE_PART)
    entry["over_layers"] = _over_layers(
        {name: value[:, shown, :, negative] for name, value in averaged.items()},
        twins.clusters,
        [i for i, k in enumerate(axes.layers) if k >= min(adapted_layers)],
        axes,
    )
    by_turn = per_turn["gap_change"][:, :, shown, :, negative]
    cells = stats.cluster_means(by_turn, twins.clusters)
    entry["gap_change_by_turn"] = [
        {"layer": row["layer"], "turn": t + 1, "part": HEADLINE_PART, "emotion": NEGATIVE, "est": row["est"]}
        for t in range(1, axes.turns)
        for row in _by_layer(
            Band(cells.mean[t], cells.lo[t], cells.hi[t]), by_turn[:, t], twins.clusters, axes.layers
        )
    ]
    return entry


def _assert_equal_below(change: Floats, axes: Axes, adapted_layers: Sequence[int]) -> None:
    below = [i for i, k in enumerate(axes.layers) if k < min(adapted_layers)]
    if not below:
        return
    largest = float(np.nan_to_num(np.abs(change[:, :, :, below])).max(initial=0.0))
    if largest > SAME_TEXT_TOLERANCE:
        raise RunError(
            f"a layer below the adapter's first ({min(adapted_layers)}) changed on the same text by "
            f"{largest:.3g} z: base and adapter were not read on the same weights or ids"
        )


def _mean_over_turns(values: Floats) -> Floats:
    """Mean over the turn axis (1) of what is there; NaN for a pair without any."""
    there = np.isfinite(values)
    count = there.sum(axis=1)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(there, values, 0.0).sum(axis=1) / count
    return mean


def _by_layer(
    band: Band, values: Floats, clusters: Sequence[str], layers: Sequence[int]
) -> list[dict[str, Any]]:
    """`[{"layer", "est"}]` of `values [pair, layer]`; empty where no pair has data."""
    if np.isnan(values).all():
        return []
    return [
        {"layer": layer, "est": _estimate(band.mean[i], band.lo[i], band.hi[i], values[:, i], clusters)}
        for i, layer in enumerate(layers)
    ]


def _estimate(mean: float, lo: float, hi: float, column: Floats, clusters: Sequence[str]) -> Estimate:
    there = np.isfinite(column)
    k = len(set(np.asarray(clusters)[there]))
    return Estimate(
        mean=float(mean),
        lo=float(lo),
        hi=float(hi),
        n=int(there.sum()),
        clusters=k,
        method="cluster_bootstrap" if k > 1 else "single_cluster",
    )


def _over_layers(
    values: dict[str, Floats], clusters: Sequence[str], movable: list[int], axes: Axes
) -> dict[str, Any]:
    """Contrasts averaged over every layer that can move: no layer is picked after the fact."""
    means = {name: value[:, movable].mean(axis=1) for name, value in values.items()} if movable else {}
    return {
        "layers": [axes.layers[i] for i in movable],
        "part": HEADLINE_PART,
        "emotion": NEGATIVE,
        **{name: stats.cluster_mean(value, clusters) for name, value in means.items()},
        "gap_share": (
            stats.ratio_of_means(means["gap_change"], means["raw_change"], clusters) if means else None
        ),
    }
