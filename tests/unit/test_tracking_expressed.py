"""Expressed scores: failures are statuses, truncated replies count with and without, coherence beside."""

from __future__ import annotations

import numpy as np
import pytest

from emoprobe.records import Judgment, Message, ModelRef, Sampling, Transcript
from emoprobe.tracking.coherence import Likelihood, coherence
from emoprobe.tracking.expressed import Said, summary

REF = ModelRef(
    name="m",
    source="m",
    dtype="float32",
    attention="sdpa",
    template_sha="t",
    n_layers=2,
    d_model=4,
    weights_sha="w",
)


def transcript(i: int, stops: tuple[str, ...]) -> Transcript:
    messages = [Message(role=r, content=f"{r} {k}") for k in range(len(stops)) for r in ("user", "assistant")]
    return Transcript(
        id=f"t{i}",
        scenario_id=f"s{i}",
        cluster=f"c{i // 2}",
        arm="rejected",
        model=REF,
        messages=tuple(messages),
        token_ids=(1,),
        spans=(),
        sampling=Sampling(),
        seed=0,
        stop_reasons=stops,
        feedback=("neutral",) * (len(stops) - 1),
    )


def judgment(i: int, turn: int, score: float | None, status: str = "scored", flags=()) -> Judgment:
    scores = {"distress": score} if score is not None else {}
    return Judgment(
        transcript_id=f"t{i}",
        turn=turn,
        rubric="r",
        rubric_version="1",
        judge="lexical",
        status=status,
        scores=scores,
        flags=flags,
    )


def said(scores: list[list[float | None]], stops: list[tuple[str, ...]] | None = None, **changed) -> Said:
    stops = stops or [("end_of_turn",) * len(row) for row in scores]
    judgments = {
        (f"t{i}", k + 1): judgment(i, k + 1, s) for i, row in enumerate(scores) for k, s in enumerate(row)
    }
    return Said.of([transcript(i, s) for i, s in enumerate(stops)], judgments | changed.get("also", {}))


def test_means_and_shares_by_turn_and_pooled():
    entry = summary(said([[0, 6], [2, 8], [0, 4], [2, 10]]))
    assert [t["mean"].mean for t in entry["by_turn"]] == [1, 7]
    assert [t["high"].mean for t in entry["by_turn"]] == [0, 0.75]
    assert entry["by_turn"][0]["high"].method == "clopper_pearson"
    pooled = entry["pooled"]
    assert pooled["mean"].mean == 4
    assert pooled["high"].mean == 0.375
    assert pooled["slope"].mean == pytest.approx(6)
    assert pooled["high_slope"].mean == pytest.approx(0.75)
    assert pooled["max"].mean == pooled["final"].mean == 7
    assert pooled["mean"].n == 4
    assert pooled["mean"].clusters == 2


def test_an_unscored_reply_is_counted_and_never_a_zero():
    entry = summary(said([[8, 8], [8, 8]], also={("t0", 2): judgment(0, 2, None, "unscored")}))
    second = entry["by_turn"][1]
    assert (second["n_unscored"], second["n_empty"]) == (1, 0)
    assert second["mean"].mean == 8
    assert second["mean"].n == 1


def test_an_empty_reply_is_empty_and_not_unscored():
    stops = [("end_of_turn", "empty"), ("end_of_turn", "empty")]
    also = {(f"t{i}", 2): judgment(i, 2, None, "empty") for i in range(2)}
    second = summary(said([[1, 1], [1, 1]], stops, also=also))["by_turn"][1]
    assert (second["n_unscored"], second["n_empty"]) == (0, 2)
    assert second["mean"] is None
    assert second["high"] is None


def test_truncated_replies_are_scored_and_rates_are_given_without_them():
    stops = [("end_of_turn", "length"), ("end_of_turn", "end_of_turn")]
    entry = summary(said([[0, 9], [0, 1]], stops))
    assert entry["by_turn"][1]["n_truncated"] == 1
    assert entry["pooled"]["high"].mean == 0.25
    assert entry["pooled"]["high_without_truncated"].mean == 0


def test_coherence_weighs_tokens_within_and_conversations_between():
    data = said([[0, 0], [0, 0]], also={("t0", 1): judgment(0, 1, 0, flags=("degenerate_loop",))})
    likelihood = Likelihood(nll=np.array([[1.0, 5.0], [4.0, 0.0]]), tokens=np.array([[1, 2], [4, 0]]))
    entry = coherence(data, likelihood)
    assert entry["nll"].mean == pytest.approx((6 / 3 + 4 / 4) / 2)
    assert entry["degenerate"].mean == 0.25
    assert entry["truncated"].mean == 0


def test_coherence_of_a_subject_that_wrote_nothing_is_none():
    stops = [("empty",), ("empty",)]
    data = said([[0], [0]], stops, also={(f"t{i}", 1): judgment(i, 1, None, "empty") for i in range(2)})
    entry = coherence(data, Likelihood(nll=np.zeros((2, 1)), tokens=np.zeros((2, 1), dtype=int)))
    assert entry["nll"] is None
    assert entry["reply_tokens"] is None
