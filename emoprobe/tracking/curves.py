"""Curves: mean z per layer, turn and part of the rejection arm, one row per cell. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from emoprobe import stats
from emoprobe.activations.slots import SPAN_PARTS
from emoprobe.emotions import NEGATIVE
from emoprobe.records import CURVE_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Axes:
    """Names of the axes of `z [conversation, turn, part, layer, emotion]`; the last emotion is `negative`."""

    turns: int
    layers: tuple[int, ...]
    emotions: tuple[str, ...]

    @property
    def rows(self) -> tuple[str, ...]:
        """The `emotion` axis: the emotions that were asked for, and `negative`."""
        return (*self.emotions, NEGATIVE)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`[turn, part, layer, emotion]`."""
        return self.turns, len(SPAN_PARTS), len(self.layers), len(self.rows)


@dataclass(frozen=True)
class Reading:
    """What one set of weights represents over one set of conversations; NaN where there is no token.

    `adapter` is `base` or a name; `source` is `own` (its own rollouts, read live) or `replay` (the base's
    rollouts, the same ids).
    """

    adapter: str
    source: Literal["own", "replay"]
    z: Floats
    clusters: tuple[str, ...]


def six_digits(value: float) -> float:
    """Rounded to 6 significant digits, and never `-0.0`: what is written is what is compared."""
    return float(f"{value:.6g}") + 0.0


def table(readings: Sequence[Reading], axes: Axes, model: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows of curves.csv in a fixed order, and per `adapter.source` how many cells had no data.

    Order: as `readings` are given, then emotion, layer, turn, part, each in the order of its axis. A cell
    without data (every reply of that turn empty) has no row.
    """
    import pandas as pd

    rows: list[tuple[object, ...]] = []
    missing: dict[str, int] = {}
    for reading in readings:
        assert reading.z.shape[1:] == axes.shape, (reading.z.shape, axes.shape)
        cells = stats.cluster_means(reading.z, reading.clusters)
        missing[f"{reading.adapter}.{reading.source}"] = int((cells.n == 0).sum())
        for e, emotion in enumerate(axes.rows):
            for k, layer in enumerate(axes.layers):
                for turn in range(axes.turns):
                    for p, part in enumerate(SPAN_PARTS):
                        at = (turn, p, k, e)
                        if cells.n[at] == 0:
                            continue
                        interval = (six_digits(c[at]) for c in (cells.mean, cells.lo, cells.hi))
                        rows.append(
                            (
                                model,
                                reading.adapter,
                                reading.source,
                                "probe",
                                emotion,
                                layer,
                                turn + 1,
                                part,
                                *interval,
                                int(cells.n[at]),
                                "z",
                            )
                        )
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS)), missing


def to_csv(curves: pd.DataFrame) -> str:
    """The same table as text, byte for byte the same for the same numbers."""
    return str(curves.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
