"""How well probes read texts they were not fitted on, beside what words alone would have read. No torch.

Every readout (a bag of words, the embedding layer, each decoder layer) is a *column* of scores on the same
test texts, so that their differences are paired in every bootstrap replicate. Whole topics are resampled:
twins share a topic, and so do texts with the same setting. The interval does not cover another choice of
phrases or of fitted texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emoprobe import stats
from emoprobe.probing.linear import solve_logistic
from emoprobe.probing.vignettes import Vignette, bag_of_words
from emoprobe.prose import ranges, say
from emoprobe.stats import Estimate

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SUBSETS = ("plain", "minimal", "all")
WORDS, WORDS_TRANSFER, EMBEDDING = "words", "words_transfer", "embedding"
CONTROLS = (WORDS, WORDS_TRANSFER, EMBEDDING)
"""Columns without context. `words` is fitted within the test pool, cross-validated by topic, so it knows
the test pool's words; `words_transfer` and `embedding` are fitted on the fit pool, as the layers are."""

MACRO = "macro"
"""The mean over emotions, beside them in every table."""

_FOLDS = 5


@dataclass(frozen=True)
class Auroc:
    """AUROC per (column, emotion) and its bootstrap replicates; the last emotion is the macro mean."""

    columns: tuple[str, ...]
    emotions: tuple[str, ...]
    point: Floats  # [column, emotion + 1]
    replicates: Floats  # [column, emotion + 1, n_boot]
    n: NDArray[np.int64]  # [emotion + 1] texts
    clusters: int

    def estimate(self, column: str, emotion: str = MACRO) -> Estimate:
        """One number with its interval."""
        c, e = self.columns.index(column), (*self.emotions, MACRO).index(emotion)
        lo, hi = stats.percentile_interval(
            self.point[c, e : e + 1], self.replicates[c, e : e + 1], np.array([self.clusters])
        )
        return Estimate(
            mean=float(self.point[c, e]),
            lo=float(lo[0]),
            hi=float(hi[0]),
            n=int(self.n[e]),
            clusters=self.clusters,
            method="cluster_bootstrap" if self.clusters > 1 else "single_cluster",
        )


@dataclass(frozen=True)
class Gain:
    """Macro AUROC of each layer minus that of the strongest control, with a band over all layers at once."""

    control: str
    layers: tuple[int, ...]
    point: Floats  # [layer]
    lo: Floats
    hi: Floats

    @property
    def above(self) -> tuple[int, ...]:
        """Layers whose whole band lies above 0."""
        return tuple(layer for layer, low in zip(self.layers, self.lo, strict=True) if low > 0)


def layer_column(layer: int) -> str:
    """Name of a decoder layer's column."""
    return f"layer_{layer}"


def subset(texts: Sequence[Vignette], emotions: Sequence[str], name: str) -> Bools:
    """Which texts count for which emotion, `[text, emotion]`.

    `minimal` holds, for each emotion, the twins one of which has it: each positive stands beside a
    negative of the same words, and a bag of words is at 0.5 by construction.
    """
    if name == "all":
        return np.ones((len(texts), len(emotions)), dtype=bool)
    kind = np.array([t.kind == name for t in texts])
    if name == "plain":
        return np.repeat(kind[:, None], len(emotions), axis=1)
    pairs: dict[str, set[str]] = {}
    for text in texts:
        pairs.setdefault(text.pair_id, set()).add(text.emotion)
    touched = np.array([[emotion in pairs[t.pair_id] for emotion in emotions] for t in texts])
    both: Bools = kind[:, None] & touched
    return both


def is_emotion(texts: Sequence[Vignette], emotions: Sequence[str]) -> Bools:
    """One-vs-rest labels `[text, emotion]`; neutral texts are in none."""
    return np.array([[t.emotion == emotion for emotion in emotions] for t in texts])


def auroc(
    scores: Floats,
    columns: Sequence[str],
    emotions: Sequence[str],
    positive: Bools,
    counted: Bools,
    clusters: Sequence[str],
    n_boot: int = stats.N_BOOT,
    seed: int = 0,
) -> Auroc:
    """One-vs-rest AUROC of `scores [text, column, emotion]` with replicates that draw whole clusters.

    `positive` and `counted` are `[text, emotion]`. Ties count half. For each cell the wins of a
    positive over a negative are summed by pair of clusters, so that a replicate is a quadratic form in
    its cluster counts.
    """
    weights, inverse = stats.bootstrap_weights(list(clusters), n_boot, seed)
    k = weights.shape[1]
    draws = np.vstack([np.ones(k), weights])
    values = np.full((len(columns), len(emotions), len(draws)), np.nan)
    for e in range(len(emotions)):
        pos, neg = (np.flatnonzero(counted[:, e] & side) for side in (positive[:, e], ~positive[:, e]))
        if not len(pos) or not len(neg):
            raise ValueError(f"no texts with or without '{emotions[e]}' to compare")
        of_pos, of_neg = np.eye(k)[inverse[pos]], np.eye(k)[inverse[neg]]
        pairs = (draws @ of_pos.sum(axis=0)) * (draws @ of_neg.sum(axis=0))
        for c in range(len(columns)):
            s = scores[:, c, e]
            wins = (s[pos][:, None] > s[neg]) + 0.5 * (s[pos][:, None] == s[neg])
            by_cluster = of_pos.T @ wins @ of_neg
            with np.errstate(invalid="ignore", divide="ignore"):
                values[c, e] = ((draws @ by_cluster) * draws).sum(axis=1) / pairs
    macro = np.nanmean(values, axis=1, keepdims=True)
    values = np.concatenate([values, macro], axis=1)
    n = counted.sum(axis=0)
    return Auroc(
        tuple(columns),
        tuple(emotions),
        values[..., 0],
        values[..., 1:],
        np.append(n, counted.any(axis=1).sum()),
        len(np.unique(inverse[counted.any(axis=1)])),
    )


def gain(table: Auroc, layers: Sequence[int]) -> Gain:
    """Each layer against the control of highest macro AUROC, as a max-t band over layers.

    The band is nowhere narrower than the pointwise interval.
    """
    control = max(CONTROLS, key=lambda name: float(table.point[table.columns.index(name), -1]))
    rows = [table.columns.index(layer_column(layer)) for layer in layers]
    base = table.columns.index(control)
    point = table.point[rows, -1] - table.point[base, -1]
    replicates = table.replicates[rows, -1] - table.replicates[base, -1]
    lo, hi = stats.percentile_interval(point, replicates, np.full(len(rows), table.clusters))
    error = np.sqrt(((replicates - point[:, None]) ** 2).mean(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.abs(replicates - point[:, None]) / error[:, None]
    half = np.quantile(np.where(np.isfinite(t), t, 0).max(axis=0), stats.LEVEL) * error
    return Gain(control, tuple(layers), point, np.minimum(lo, point - half), np.maximum(hi, point + half))


def word_scores(
    fit: Sequence[Vignette], test: Sequence[Vignette], emotions: Sequence[str], c: float
) -> tuple[Floats, Floats]:
    """Scores `[text, emotion]` of the two bags of words on the test texts: `words`, `words_transfer`."""
    vocabulary = sorted({word for t in (*fit, *test) for word in bag_of_words(t.text)})
    index = {word: i for i, word in enumerate(vocabulary)}

    def counts(texts: Sequence[Vignette]) -> Floats:
        out = np.zeros((len(texts), len(vocabulary)))
        for row, text in enumerate(texts):
            for word, times in bag_of_words(text.text).items():
                out[row, index[word]] = times
        return out

    known, unknown = counts(fit), counts(test)
    transfer = solve_logistic(known, is_emotion(fit, emotions), c)
    topics = sorted({t.topic for t in test})
    fold = np.array([topics.index(t.topic) % _FOLDS for t in test])
    labels = is_emotion(test, emotions)
    within = np.zeros((len(test), len(emotions)))
    for k in range(_FOLDS):
        held = fold == k
        if held.any():
            solved = solve_logistic(unknown[~held], labels[~held], c)
            within[held] = unknown[held] @ solved.weights + solved.bias
    # Equal bags have equal scores: without this, rounding would order twins.
    return np.round(within, 9), np.round(unknown @ transfer.weights + transfer.bias, 9)


def sentence(gains: dict[str, Gain], tables: dict[str, Auroc]) -> str:
    """Where layers beat words on texts of unseen phrases, or that they do not."""
    clauses = []
    for name, label in (("minimal", "minimal pairs"), ("plain", "plain texts")):
        found, table = gains[name], tables[name]
        best = int(np.argmax(found.point))
        layer = found.layers[best]
        numbers = (
            f"{say(table.estimate(layer_column(layer)))} at layer {layer} against "
            f"{say(table.estimate(found.control))} for {_CONTROL_NAMES[found.control]}"
        )
        if found.above:
            clauses.append(
                f"on {label}, layers {ranges(found.above)} beat every readout of words ({numbers})"
            )
        else:
            clauses.append(f"on {label}, no layer beats words (best: {numbers})")
    return "Mean held-out AUROC over emotions: " + "; ".join(clauses) + "."


_CONTROL_NAMES = {
    WORDS: "a bag of words",
    WORDS_TRANSFER: "a bag of words fitted on the other phrases",
    EMBEDDING: "the embedding layer",
}
