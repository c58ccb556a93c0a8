"""What was said: judged scores by turn and pooled, with every failure counted. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoprobe import stats
from emoprobe.records import Judgment, Transcript

HIGH = 5.0
"""A reply is high where its score is at least this: the band in which the rubric speaks of distress."""

DEGENERATE = frozenset({"degenerate_loop", "emoji_flood"})
"""Flags of a judgment that say of a reply that it is no longer language."""


@dataclass(frozen=True)
class Said:
    """Scores of one subject in one arm, all `[conversation, turn]`; a score is NaN where there is none."""

    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    scores: NDArray[np.float64]
    empty: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    degenerate: NDArray[np.bool_]

    @classmethod
    def of(cls, transcripts: Sequence[Transcript], judgments: Mapping[tuple[str, int], Judgment]) -> Said:
        """From transcripts and their judgments by (transcript id, turn)."""
        judged = [[judgments[t.id, turn] for turn in range(1, t.n_turns + 1)] for t in transcripts]
        return cls(
            ids=tuple(t.id for t in transcripts),
            clusters=tuple(t.cluster for t in transcripts),
            scores=np.array([[_score(j) for j in row] for row in judged], dtype=np.float64),
            empty=np.array([[j.status == "empty" for j in row] for row in judged], dtype=bool),
            truncated=np.array([[r == "length" for r in t.stop_reasons] for t in transcripts], dtype=bool),
            degenerate=np.array([[bool(DEGENERATE & set(j.flags)) for j in row] for row in judged], bool),
        )

    @property
    def high(self) -> NDArray[np.float64]:
        """1 where the score is high, 0 where it is not, NaN where there is none."""
        return np.where(np.isnan(self.scores), np.nan, self.scores >= HIGH)

    def rows(self, values: NDArray[Any]) -> tuple[NDArray[Any], list[str], list[str]]:
        """`values [conversation, turn]` flattened, with the cluster and the conversation of each row."""
        turns = self.scores.shape[1]
        return values.reshape(-1), _repeat(self.clusters, turns), _repeat(self.ids, turns)


def summary(said: Said) -> dict[str, Any]:
    """The `expressed` entry of one subject in one arm; an estimate is None where nothing was scored."""
    return {
        "by_turn": [_turn(said, t) for t in range(said.scores.shape[1])],
        "pooled": _pooled(said),
    }


def _turn(said: Said, t: int) -> dict[str, Any]:
    scores = said.scores[:, t]
    return {
        "turn": t + 1,
        "mean": stats.cluster_mean(scores, said.clusters),
        "high": stats.proportion(said.high[:, t], said.clusters, said.ids),
        "n_unscored": int((np.isnan(scores) & ~said.empty[:, t]).sum()),
        "n_empty": int(said.empty[:, t].sum()),
        "n_truncated": int(said.truncated[:, t].sum()),
    }


def _pooled(said: Said) -> dict[str, Any]:
    turns = said.scores.shape[1]
    turn, clusters, ids = said.rows(np.broadcast_to(np.arange(1.0, turns + 1), said.scores.shape))
    scores, high = said.scores.reshape(-1), said.high.reshape(-1)
    whole = np.where(said.truncated.reshape(-1), np.nan, high)
    return {
        "mean": stats.cluster_mean(scores, clusters, ids),
        "high": stats.proportion(high, clusters, ids),
        "high_without_truncated": stats.proportion(whole, clusters, ids),
        "slope": stats.ols_slope(scores, turn, clusters, ids),
        "high_slope": stats.ols_slope(high, turn, clusters, ids),
        "max": stats.cluster_mean(_highest(said.scores), said.clusters),
        "final": stats.cluster_mean(said.scores[:, -1], said.clusters),
    }


def _highest(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest score of each conversation, NaN where none of its replies was scored."""
    best: NDArray[np.float64] = np.where(np.isnan(scores), -np.inf, scores).max(axis=1)
    return np.where(np.isinf(best), np.nan, best)


def _score(judgment: Judgment) -> float:
    if judgment.status != "scored" or judgment.distress is None:
        return np.nan
    return judgment.distress


def _repeat(labels: Sequence[str], times: int) -> list[str]:
    return [label for label in labels for _ in range(times)]
