"""Does the readout before a reply say how distressed it will be? Internal against expressed. No torch.

Within turn: scores and readouts are ranked among replies of the *same* turn, so a trend that both share over
turns counts for nothing. Only replies after a feedback take part (turn 2 on), the same ones for the readouts
and for every baseline:

    turn_number      constant within a turn, so its correlation is the one pooled over turns; the readouts'
                     own pooled correlations stand in `pooled`, to be compared with that one and no other
    feedback         kinds ordered by the mean score that followed them in this very run: the most that the
                     kind of feedback could say; None where all feedback is of one kind
    previous_score   the judged score of the reply before
    words            out-of-fold prediction (scenarios kept together) of a ridge regression on TF-IDF words of
                     the reply before and the feedback to it, fitted on this run's own scores: a baseline that
                     saw more than the probe did, which was fitted elsewhere
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoprobe import stats
from emoprobe.prose import ranges, say
from emoprobe.records import Arm, Part, Transcript
from emoprobe.stats import Estimate
from emoprobe.tracking.expressed import Said

Floats = NDArray[np.float64]

PART: Part = "pre_reply"
ARM: Arm = "rejected"
BASELINES = ("turn_number", "feedback", "previous_score", "words")
DEPTH = 2 / 3
"""The layer looked at first is fixed before any result: two thirds of the way through the network."""


@dataclass(frozen=True)
class Replies:
    """One row per reply after a feedback: each layer's readout before it, its score, what came before."""

    readout: Floats  # [reply, layer]
    score: Floats
    turn: Floats
    previous: Floats
    feedback: list[str]
    words: list[str]
    clusters: list[str]
    conversations: list[str]

    @classmethod
    def of(cls, readout: Floats, said: Said, transcripts: Sequence[Transcript]) -> Replies:
        """From `readout [conversation, turn, layer]` of the part before each reply."""
        first = 1
        turns = range(first, said.scores.shape[1])
        kept = said.scores[:, first:]
        clusters, conversations = (
            [label for label in labels for _ in turns] for labels in (said.clusters, said.ids)
        )
        return cls(
            readout=readout[:, first:].reshape(kept.size, readout.shape[-1]),
            score=kept.reshape(-1),
            turn=np.broadcast_to(np.arange(first + 1.0, said.scores.shape[1] + 1), kept.shape).reshape(-1),
            previous=said.scores[:, : said.scores.shape[1] - 1].reshape(-1),
            feedback=[t.feedback[k - 1] if t.feedback else "" for t in transcripts for k in turns],
            words=[f"{t.reply(k)}\n{t.messages[2 * k].content}" for t in transcripts for k in turns],
            clusters=clusters,
            conversations=conversations,
        )


def chosen_layer(n_layers: int, layers: Sequence[int]) -> int:
    """The layer of `layers` nearest to two thirds of the depth; the lower of two equally near."""
    return min(layers, key=lambda k: (abs(k - DEPTH * (n_layers - 1)), k))


def agreement(replies: Replies, layers: Sequence[int], n_layers: int) -> dict[str, Any]:
    """The `agreement` entry of summary.json; an estimate is None where it is not defined."""
    entry: dict[str, Any] = {"part": PART, "arm": ARM, "from_turn": 2}
    if not np.isfinite(replies.score).any():
        empty = dict.fromkeys(BASELINES)
        return entry | {
            "chosen_layer": None,
            "best_layer": None,
            "layers": [],
            "pooled": [],
            "baselines": empty,
            "gain_over_words": [],
            "scope": {},
        }
    predictors = {
        "turn_number": replies.turn,
        "feedback": _feedback(replies),
        "previous_score": replies.previous,
        "words": _words(replies),
    }
    within = _rho(replies, replies.readout, replies.turn)
    pooled = _rho(replies, replies.readout, np.zeros_like(replies.turn))
    baselines = {
        name: _rho(
            replies, x[:, None], np.zeros_like(replies.turn) if name == "turn_number" else replies.turn
        )[0]
        for name, x in predictors.items()
    }
    gains = stats.spearman_gain(
        replies.readout,
        predictors["words"],
        replies.score,
        strata=replies.turn,
        clusters=replies.clusters,
        conversations=replies.conversations,
    )
    defined = [(est.mean, layer) for layer, est in zip(layers, within, strict=True) if est]
    return entry | {
        "chosen_layer": chosen_layer(n_layers, layers),
        "best_layer": max(defined)[1] if defined else None,
        "layers": _by_layer(layers, within, "rho"),
        "pooled": _by_layer(layers, pooled, "rho"),
        "baselines": baselines,
        "gain_over_words": _by_layer(layers, gains, "est"),
        "scope": {n: "pooled over turns" if n == "turn_number" else "within turn" for n in BASELINES},
    }


def sentence(entry: dict[str, Any]) -> str:
    """The readout at the layer fixed in advance, the best one named as such, and what stands beside them."""
    rho = {row["layer"]: row["rho"] for row in entry["layers"]}
    if not rho:
        return (
            "Words and readouts cannot be compared: replies after a feedback have no scores, or all the same."
        )
    fixed, best = entry["chosen_layer"], entry["best_layer"]
    n, clusters = rho[best].n, rho[best].clusters
    at = f"at layer {fixed}, fixed in advance, rho = {say(rho[fixed])}" if fixed in rho else ""
    top = f"the best of {len(rho)} layers, picked after the fact, is {best} with {say(rho[best])}"
    others = ", ".join(
        f"{name.replace('_', ' ')} {say(est)}{' (pooled over turns)' if name == 'turn_number' else ''}"
        for name, est in entry["baselines"].items()
        if est
    )
    return (
        f"Among replies of the same turn ({n} rejected conversations, {clusters} scenarios), the negative "
        f"readout before a reply ranks its score: {'; '.join(s for s in (at, top) if s)}. "
        f"Baselines: {others or 'none'}."
    )


def probes_vs_words(entry: dict[str, Any]) -> str:
    """Where the readouts rank the coming score better than the words before it do, or that they do not."""
    gains: dict[int, Estimate] = {row["layer"]: row["est"] for row in entry["gain_over_words"]}
    if not gains:
        return (
            "Probes and words cannot be compared: replies after a feedback have no scores, or all the same."
        )
    better = [k for k, est in gains.items() if est.lo > 0 and est.method != "single_cluster"]
    worse = [k for k, est in gains.items() if est.hi < 0 and est.method != "single_cluster"]
    caveat = f"(pointwise 95 % intervals over {len(gains)} layers, not corrected for their number)"
    what = "a bag of words of the previous reply and feedback, fitted on this run with scenarios held out"
    if better:
        return (
            f"Probes beat words at layers {ranges(better)}: they rank the coming reply's score better than "
            f"{what} {caveat}."
        )
    against = f"; at layers {ranges(worse)} they do worse" if worse else ""
    return (
        f"Probes do not beat words at any layer in ranking the coming reply's score, words being "
        f"{what}{against} {caveat}."
    )


def _rho(replies: Replies, x: Floats, strata: Floats) -> list[Estimate | None]:
    return stats.spearman_within(
        x, replies.score, strata, replies.clusters, conversations=replies.conversations
    )


def _by_layer(layers: Sequence[int], estimates: Sequence[Estimate | None], key: str) -> list[dict[str, Any]]:
    return [{"layer": k, key: est} for k, est in zip(layers, estimates, strict=True) if est]


def _feedback(replies: Replies) -> Floats:
    """Each reply's kind of feedback as the mean score that followed that kind; constant for one kind."""
    kinds = np.array(replies.feedback)
    value = np.full(len(kinds), np.nan)
    for kind in np.unique(kinds):
        followed = replies.score[kinds == kind]
        if np.isfinite(followed).any():
            value[kinds == kind] = np.nanmean(followed)
    return value


def _words(replies: Replies) -> Floats:
    """Out-of-fold predictions of the score from words, NaN where there is nothing to learn from."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline

    predicted = np.full(len(replies.score), np.nan)
    known = np.flatnonzero(np.isfinite(replies.score))
    groups = np.array(replies.clusters)[known]
    folds = min(5, len(set(groups)))
    if folds < 2:
        return predicted
    texts = np.array(replies.words, dtype=object)
    for train, test in GroupKFold(folds).split(known, groups=groups):
        model = make_pipeline(TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True), Ridge(alpha=1.0))
        model.fit(texts[known[train]], replies.score[known[train]])
        predicted[known[test]] = model.predict(texts[known[test]])
    return predicted
