"""Intervals: one per number, 95 %, from a bootstrap over clusters (scenarios). No torch.

Turns and conversations of one scenario are not independent, so whole clusters are drawn: replicate b
gives cluster c a multinomial count `weights[b, c]`, and every estimate here is a function of per-cluster
sums. Thousands of cells (layer, turn, emotion, part) then cost one matrix product.

Percentile intervals of few clusters are too narrow; the quantile levels are moved outwards for it
("expanded percentile interval", T. Hesterberg, What Teachers Should Know about the Bootstrap,
arXiv:1411.5279, section 5.3). For 2 or 3 clusters the interval becomes the range of the replicates. One
cluster allows no interval: `lo == mean == hi`, and the method says `single_cluster`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy import special

from emoprobe.records import Record

Floats = NDArray[np.float64]
Labels = Sequence[Any] | NDArray[Any]
"""One hashable, sortable label per row, e.g. scenario clusters or conversation ids."""

N_BOOT = 2000
LEVEL = 0.95

_CELLS_PER_CHUNK = 4096
"""Replicates of this many cells are held at once: 2,000 x 4,096 doubles are 66 MB."""


class Estimate(Record):
    """A number with its 95 % interval, `lo <= mean <= hi`."""

    mean: float
    lo: float
    hi: float
    n: int = Field(ge=1, description="conversations with data")
    clusters: int = Field(ge=1, description="clusters with data")
    method: Literal["cluster_bootstrap", "clopper_pearson", "single_cluster"]


class Cells(NamedTuple):
    """Arrays of one shape: a cell without data has n = 0 and NaN elsewhere."""

    mean: Floats
    lo: Floats
    hi: Floats
    n: NDArray[np.int64]


class Band(NamedTuple):
    """A simultaneous band: all true means lie inside together with probability 95 %."""

    mean: Floats
    lo: Floats
    hi: Floats


def bootstrap_weights(
    clusters: Labels, n_boot: int = N_BOOT, seed: int = 0
) -> tuple[Floats, NDArray[np.intp]]:
    """Multinomial cluster counts `[n_boot, n_clusters]` and each row's cluster index `[n]`.

    Clusters are indexed in sorted order, so the order of rows changes no estimate.
    """
    names, inverse = np.unique(np.asarray(clusters), return_inverse=True)
    k = len(names)
    draws = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=n_boot)
    return draws.astype(np.float64), inverse.reshape(-1)


def cluster_means(
    values: ArrayLike,
    clusters: Labels,
    mask: ArrayLike | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> Cells:
    """Mean over conversations of every cell of `values [conversation, ...cells]`, with intervals.

    A value is missing where it is NaN or where `mask` (same shape, or `[conversation]`) is False;
    means are ratios of weighted sums, so missing values need no imputation.
    """
    rows, present = _rows(values, mask)
    shape = rows.shape[1:]
    flat, there = rows.reshape(len(rows), -1), present.reshape(len(rows), -1)
    weights, inverse = bootstrap_weights(clusters, n_boot, seed)
    _same_length(len(rows), inverse)
    n_cells = flat.shape[1]
    mean, lo, hi = (np.full(n_cells, np.nan) for _ in range(3))
    for start in range(0, n_cells, _CELLS_PER_CHUNK):
        part = slice(start, start + _CELLS_PER_CHUNK)
        mean[part], lo[part], hi[part] = _ratio_cells(flat[:, part], there[:, part], weights, inverse)
    n = there.sum(axis=0).astype(np.int64)
    return Cells(mean.reshape(shape), lo.reshape(shape), hi.reshape(shape), n.reshape(shape))


def cluster_mean(
    values: ArrayLike,
    clusters: Labels,
    conversations: Labels | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> Estimate | None:
    """Mean of `values [n]` (NaN = missing); None where nothing is left.

    Rows are conversations unless `conversations [n]` says which conversation each belongs to.
    """
    rows, present = _rows(values, None)
    if not present.any():
        return None
    cells = cluster_means(rows, clusters, n_boot=n_boot, seed=seed)
    return _estimate(float(cells.mean), float(cells.lo), float(cells.hi), present, clusters, conversations)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Labels,
    conversations: Labels | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> Estimate | None:
    """Mean of `a - b` over the rows that have both; None where there are none."""
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return cluster_mean(difference, clusters, conversations, n_boot, seed)


def proportion(
    successes: ArrayLike,
    clusters: Labels,
    conversations: Labels,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> Estimate | None:
    """Share of rows that are successes (`[n]`, True/False or 1/0, NaN = missing).

    Where every row agrees (0 or 100 %) the bootstrap has nothing to draw from: Clopper-Pearson on
    conversations instead, a conversation with any success counting as one. The bound is then one on
    the share of *conversations*, which is never below the share of their rows.
    """
    rows, present = _rows(successes, None)
    if not present.any():
        return None
    known = rows[present]
    if not np.isin(known, (0.0, 1.0)).all():
        raise ValueError("successes must be 0 or 1")
    share = float(known.mean())
    if 0 < share < 1:
        return cluster_mean(rows, clusters, conversations, n_boot, seed)
    n = _distinct(conversations, present)
    bound = ((1 - LEVEL) / 2) ** (1 / n)  # Clopper-Pearson's closed form for 0 or n of n
    return Estimate(
        mean=share,
        lo=bound if share == 1 else 0.0,
        hi=1.0 if share == 1 else 1 - bound,
        n=n,
        clusters=_distinct(clusters, present),
        method="clopper_pearson",
    )


def ols_slope(
    y: ArrayLike,
    x: ArrayLike,
    clusters: Labels,
    conversations: Labels | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> Estimate | None:
    """Least-squares slope of `y [n]` on `x [n]`, pooled over rows, in y per x; None where x is constant."""
    ys, ys_there = _rows(y, None)
    xs, xs_there = _rows(x, None)
    present = ys_there & xs_there
    if not present.any() or np.ptp(xs[present]) == 0:
        return None
    xs = np.where(present, xs - xs[present].mean(), 0.0)
    ys = np.where(present, ys, 0.0)
    weights, inverse = bootstrap_weights(clusters, n_boot, seed)
    _same_length(len(ys), inverse)
    moments = np.stack([present.astype(np.float64), xs, ys, xs * xs, xs * ys], axis=1)
    sums = _cluster_sums(moments, inverse, weights.shape[1])
    full, replicates = _slope(sums.sum(axis=0)[None]), _slope(weights @ sums)
    lo, hi = percentile_interval(full, replicates[None], np.array([_distinct(clusters, present)]))
    return _estimate(float(full[0]), float(lo[0]), float(hi[0]), present, clusters, conversations)


def simultaneous_band(
    values: ArrayLike,
    clusters: Labels,
    mask: ArrayLike | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> Band:
    """Max-t band over all cells of `values [conversation, layer, ...]` (NaN = missing).

    The half width is q standard errors, q being the 95 % quantile over replicates of the largest |t|
    of any cell; nowhere narrower than the pointwise interval. A cell that never varies (a layer below
    the adapter) has no width and takes no part in the maximum.
    """
    rows, present = _rows(values, mask)
    if rows.ndim < 2:
        raise ValueError("simultaneous_band takes [conversation, layer, ...]")
    pointwise = cluster_means(rows, clusters, present, n_boot, seed)
    flat, there = rows.reshape(len(rows), -1), present.reshape(len(rows), -1)
    weights, inverse = bootstrap_weights(clusters, n_boot, seed)
    k = weights.shape[1]
    if k == 1 or not there.any():
        return Band(pointwise.mean, pointwise.lo, pointwise.hi)
    mean, replicates = _ratios(flat, there, weights, inverse)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(np.nanmean((replicates - mean[:, None]) ** 2, axis=1))
        t = np.abs(replicates - mean[:, None]) / error[:, None]
    largest = np.nanmax(np.where(np.isfinite(t), t, 0.0), axis=0)
    wider = special.ndtri(_tail(k)) / special.ndtri((1 - LEVEL) / 2)
    half = (float(np.quantile(largest, LEVEL)) * min(wider, 10.0) * error).reshape(pointwise.mean.shape)
    return Band(
        pointwise.mean,
        np.fmin(pointwise.lo, pointwise.mean - half),
        np.fmax(pointwise.hi, pointwise.mean + half),
    )


def spearman_within(
    x: ArrayLike,
    y: ArrayLike,
    strata: Labels,
    clusters: Labels,
    conversations: Labels | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> list[Estimate | None]:
    """Rank correlation of `x [n, layer]` with `y [n]` within strata (turns), one estimate per layer.

    Rows are ranked inside their stratum (ties share the mean rank), ranks are centred and divided by
    the stratum's size, and pooled: a trend over turns that both share counts for nothing. With one
    stratum this is Spearman's rho. Every replicate ranks anew. None where a side never varies within
    any stratum.
    """
    return _rank_estimates(x, y, None, strata, clusters, conversations, n_boot, seed)


def spearman_gain(
    x: ArrayLike,
    other: ArrayLike,
    y: ArrayLike,
    strata: Labels,
    clusters: Labels,
    conversations: Labels | None = None,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> list[Estimate | None]:
    """By how much `x [n, layer]` ranks `y [n]` better within strata than `other [n]` does, per layer.

    The difference of the two correlations of `spearman_within`, over the rows that have all three, paired
    in every replicate. None where either is undefined.
    """
    return _rank_estimates(x, y, other, strata, clusters, conversations, n_boot, seed)


def ratio_of_means(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Labels,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> Estimate | None:
    """Mean of `a [n]` over mean of `b [n]`, over the rows that have both.

    None where the interval of the denominator holds 0: such a ratio has no meaningful interval.
    """
    tops, tops_there = _rows(a, None)
    bottoms, bottoms_there = _rows(b, None)
    present = tops_there & bottoms_there
    bottom = cluster_mean(np.where(present, bottoms, np.nan), clusters, n_boot=n_boot, seed=seed)
    if bottom is None or bottom.lo <= 0 <= bottom.hi:
        return None
    weights, inverse = bootstrap_weights(clusters, n_boot, seed)
    pair = np.where(present[:, None], np.stack([tops, bottoms], axis=1), 0.0)
    sums = _cluster_sums(pair, inverse, weights.shape[1])
    drawn = weights @ sums
    with np.errstate(invalid="ignore", divide="ignore"):
        replicates = drawn[:, 0] / drawn[:, 1]
    replicates[~np.isfinite(replicates)] = np.nan
    total = sums.sum(axis=0)
    full = np.array([total[0] / total[1]])
    lo, hi = percentile_interval(full, replicates[None], np.array([_distinct(clusters, present)]))
    return _estimate(float(full[0]), float(lo[0]), float(hi[0]), present, clusters, None)


def _rows(values: ArrayLike, mask: ArrayLike | None) -> tuple[Floats, NDArray[np.bool_]]:
    """Values as doubles, and where they are known."""
    rows = np.asarray(values, dtype=np.float64)
    if np.isinf(rows).any():
        raise ValueError("infinite values have no mean")
    present = ~np.isnan(rows)
    if mask is not None:
        given = np.asarray(mask, dtype=bool)
        present &= given.reshape(given.shape + (1,) * (rows.ndim - given.ndim))
    return rows, present


def _same_length(n_rows: int, inverse: NDArray[np.intp]) -> None:
    if n_rows != len(inverse):
        raise ValueError(f"{n_rows} rows but {len(inverse)} cluster labels")


def _distinct(labels: Labels, present: NDArray[np.bool_]) -> int:
    return len(np.unique(np.asarray(labels)[present]))


def _groups(labels: Labels) -> list[NDArray[np.intp]]:
    """Row numbers of each distinct label."""
    _, inverse = np.unique(np.asarray(labels), return_inverse=True)
    inverse = inverse.reshape(-1)
    return [np.flatnonzero(inverse == g) for g in range(inverse.max(initial=-1) + 1)]


def _estimate(
    mean: float,
    lo: float,
    hi: float,
    present: NDArray[np.bool_],
    clusters: Labels,
    conversations: Labels | None,
) -> Estimate:
    k = _distinct(clusters, present)
    n = int(present.sum()) if conversations is None else _distinct(conversations, present)
    method: Literal["cluster_bootstrap", "single_cluster"] = (
        "cluster_bootstrap" if k > 1 else "single_cluster"
    )
    return Estimate(mean=mean, lo=lo, hi=hi, n=n, clusters=k, method=method)


def _cluster_sums(values: Floats, inverse: NDArray[np.intp], k: int) -> Floats:
    sums = np.zeros((k, values.shape[1]))
    np.add.at(sums, inverse, values)
    return sums


def _ratios(
    flat: Floats, there: NDArray[np.bool_], weights: Floats, inverse: NDArray[np.intp]
) -> tuple[Floats, Floats]:
    """Means `[cell]` and their replicates `[cell, n_boot]`; NaN where a replicate drew no data.

    Values are taken relative to the cell's mean, so that a large common offset costs no precision, and
    no mean leaves the range of its values by rounding.
    """
    count = there.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, flat, 0.0).sum(axis=0) / count
        least, most = _masked_min(flat, there), -_masked_min(-flat, there)
        mean = np.clip(mean, least, most)
        sums = _cluster_sums(np.where(there, flat - mean, 0.0), inverse, weights.shape[1])
        counts = _cluster_sums(there.astype(np.float64), inverse, weights.shape[1])
        replicates = mean[:, None] + (sums.T @ weights.T) / (counts.T @ weights.T)
    return mean, np.clip(replicates, least[:, None], most[:, None])


def _masked_min(flat: Floats, there: NDArray[np.bool_]) -> Floats:
    least: Floats = np.where(there, flat, np.inf).min(axis=0, initial=np.inf)
    return least


def _ratio_cells(
    flat: Floats, there: NDArray[np.bool_], weights: Floats, inverse: NDArray[np.intp]
) -> tuple[Floats, Floats, Floats]:
    mean, replicates = _ratios(flat, there, weights, inverse)
    clusters = (_cluster_sums(there.astype(np.float64), inverse, weights.shape[1]) > 0).sum(axis=0)
    return mean, *percentile_interval(mean, replicates, clusters)


def _tail(k: int) -> float:
    """The lower quantile level for k clusters: 2.5 %, moved outwards where k is small."""
    return float(
        special.ndtr(np.sqrt(k / (k - 1)) * special.stdtrit(k - 1, (1 - LEVEL) / 2)) if k > 1 else 0.5
    )


def percentile_interval(
    mean: Floats, replicates: Floats, clusters: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Expanded percentile interval of `replicates [cell, n_boot]`, widened to hold the mean.

    NaN replicates are left out. A cell with fewer than two clusters gets `lo = hi = mean`.
    """
    ordered = np.sort(replicates, axis=1)  # NaN last
    valid = (~np.isnan(ordered)).sum(axis=1)
    tails = np.array([_tail(k) for k in range(int(clusters.max(initial=0)) + 1)])[clusters]
    lo, hi = _at(ordered, valid, tails), _at(ordered, valid, 1 - tails)
    alone = (clusters < 2) | (valid == 0)
    lo, hi = np.where(alone, mean, np.fmin(lo, mean)), np.where(alone, mean, np.fmax(hi, mean))
    return lo, hi


def _at(ordered: Floats, valid: NDArray[np.int64], levels: Floats) -> Floats:
    """Linearly interpolated quantile, one level per row, of the first `valid` sorted values."""
    position = levels * np.maximum(valid - 1, 0)
    below = np.floor(position).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(valid - 1, 0))
    rows = np.arange(len(ordered))
    low, high = ordered[rows, below], ordered[rows, above]
    return low + (position - below) * (high - low)


def _slope(sums: Floats) -> Floats:
    """Slopes from sums `[..., (1, x, y, xx, xy)]`; NaN where x does not vary."""
    n, sx, sy, sxx, sxy = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = sxx - sx * sx / n
        slope: Floats = np.where(spread > 1e-12 * sxx, (sxy - sx * sy / n) / spread, np.nan)
    return slope


def _rank_estimates(
    x: ArrayLike,
    y: ArrayLike,
    other: ArrayLike | None,
    strata: Labels,
    clusters: Labels,
    conversations: Labels | None,
    n_boot: int,
    seed: int,
) -> list[Estimate | None]:
    """Per layer of `x [n, layer]`: its rank correlation with y, less that of `other` where there is one."""
    columns, columns_there = _rows(x, None)
    if columns.ndim != 2:
        raise ValueError("rank correlations take x as [n, layer]")
    ys, there = _rows(y, None)
    others, others_there = (None, there) if other is None else _rows(other, None)
    weights, inverse = bootstrap_weights(clusters, n_boot, seed)
    _same_length(len(ys), inverse)
    drawn = np.vstack([np.ones(weights.shape[1]), weights])[:, inverse]  # [1 + n_boot, n]; row 0: as observed
    groups = _groups(strata)
    estimates: list[Estimate | None] = []
    for layer in range(columns.shape[1]):
        present = there & others_there & columns_there[:, layer]
        rho = _pooled_rank_correlation(columns[:, layer], ys, present, groups, drawn)
        if others is not None:
            rho = rho - _pooled_rank_correlation(others, ys, present, groups, drawn)
        if np.isnan(rho[0]):
            estimates.append(None)
            continue
        lo, hi = percentile_interval(rho[:1], rho[None, 1:], np.array([_distinct(clusters, present)]))
        estimates.append(
            _estimate(float(rho[0]), float(lo[0]), float(hi[0]), present, clusters, conversations)
        )
    return estimates


def _pooled_rank_correlation(
    x: Floats,
    y: Floats,
    present: NDArray[np.bool_],
    groups: list[NDArray[np.intp]],
    drawn: Floats,
) -> Floats:
    """Correlation of within-group ranks for each row of `drawn [replicate, n]`; NaN where undefined."""
    xx, yy, xy = (np.zeros(len(drawn)) for _ in range(3))
    for group in groups:
        rows = group[present[group]]
        if len(rows) < 2:
            continue
        w = drawn[:, rows]
        rx, ry = _centred_ranks(x[rows], w), _centred_ranks(y[rows], w)
        xx += (w * rx * rx).sum(axis=1)
        yy += (w * ry * ry).sum(axis=1)
        xy += (w * rx * ry).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho: Floats = np.where((xx > 1e-12) & (yy > 1e-12), xy / np.sqrt(xx * yy), np.nan)
    return np.clip(rho, -1.0, 1.0)


def _centred_ranks(values: Floats, weights: Floats) -> Floats:
    """Mid-ranks `[replicate, n]` of `values [n]` where row i occurs `weights[:, i]` times.

    Centred within each replicate and divided by its size, so they lie in [-1/2, 1/2].
    """
    _, tie = np.unique(values, return_inverse=True)
    tie = tie.reshape(-1)
    order = np.argsort(tie, kind="stable")
    starts = np.flatnonzero(np.diff(tie[order], prepend=-1))
    at_value = np.add.reduceat(weights[:, order], starts, axis=1)
    size = weights.sum(axis=1, keepdims=True)
    middle = np.cumsum(at_value, axis=1) - at_value / 2 - size / 2
    centred: Floats = middle[:, tie] / np.maximum(size, 1.0)
    return centred
