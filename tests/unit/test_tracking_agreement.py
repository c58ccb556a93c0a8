"""Internal against expressed on simulated replies whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from emoprobe import stats
from emoprobe.tracking.agreement import (
    Replies,
    agreement,
    chosen_layer,
    probes_vs_words,
    sentence,
)

TURNS = 6


def replies(signal: float, wordy: float = 0.0, n: int = 40, seed: int = 0) -> Replies:
    """Scores rise with turn; layer 1 carries `signal` of the state, layer 0 only the turn; words `wordy`."""
    rng = np.random.default_rng(seed)
    turn = np.broadcast_to(np.arange(2.0, TURNS + 1), (n, TURNS - 1))
    state = rng.normal(size=turn.shape)
    score = 2 * turn + state
    readout = np.stack([3 * turn + rng.normal(size=turn.shape), signal * state + turn], axis=-1)
    readout[..., 1] += rng.normal(size=turn.shape) * 0.3
    heard = wordy * state + rng.normal(size=turn.shape) * 0.3
    words = [f"try {'awful' if h > 0 else 'fine'} number {k}" for k, h in enumerate(np.ravel(heard))]
    return Replies(
        readout=readout.reshape(-1, 2),
        score=score.ravel(),
        turn=turn.ravel(),
        previous=rng.normal(size=turn.size),
        feedback=["neutral"] * turn.size,
        words=words,
        clusters=[f"c{i // 2}" for i in range(n) for _ in range(TURNS - 1)],
        conversations=[f"t{i}" for i in range(n) for _ in range(TURNS - 1)],
    )


def rho(entry: dict, key: str = "layers") -> dict[int, stats.Estimate]:
    return {row["layer"]: row["rho"] for row in entry[key]}


def test_a_shared_trend_over_turns_is_no_agreement():
    entry = agreement(replies(signal=1.0), (0, 1), 2)
    assert abs(rho(entry)[0].mean) < 0.2
    assert rho(entry)[1].lo > 0.7
    assert rho(entry, "pooled")[0].mean > 0.8
    assert entry["baselines"]["turn_number"].mean > 0.8
    assert entry["scope"]["turn_number"] == "pooled over turns"
    assert entry["best_layer"] == 1


def test_feedback_of_one_kind_says_nothing():
    entry = agreement(replies(signal=1.0), (0, 1), 2)
    assert entry["baselines"]["feedback"] is None


def test_feedback_that_drives_scores_is_a_strong_baseline():
    data = replies(signal=0.0)
    harsh = np.random.default_rng(1).random(len(data.score)) < 0.5
    data.feedback[:] = ["harsh" if h else "neutral" for h in harsh]
    data.score[harsh] += 5
    assert agreement(data, (0, 1), 2)["baselines"]["feedback"].lo > 0.5


def test_probes_beat_words_where_words_know_nothing():
    entry = agreement(replies(signal=1.0, wordy=0.0), (0, 1), 2)
    assert "Probes beat words at layers 1:" in probes_vs_words(entry)


def test_probes_do_not_beat_words_that_carry_the_state():
    entry = agreement(replies(signal=0.0, wordy=3.0), (0, 1), 2)
    assert entry["baselines"]["words"].mean > 0.5
    text = probes_vs_words(entry)
    assert "do not beat words at any layer" in text
    assert "they do worse" in text


def test_words_are_predicted_for_scenarios_that_were_held_out():
    """Words that name their scenario must not help: a leak over scenarios would reach a high correlation."""
    data = replies(signal=0.0, n=40)
    offset = {
        c: v
        for c, v in zip(sorted(set(data.clusters)), np.random.default_rng(5).normal(0, 9, 20), strict=True)
    }
    data.score[:] += [offset[c] for c in data.clusters]
    data.words[:] = [f"puzzle {c}" for c in data.clusters]
    assert agreement(data, (0, 1), 2)["baselines"]["words"].mean < 0.3


def test_unscored_replies_are_left_out_everywhere():
    data = replies(signal=1.0)
    data.score[::7] = np.nan
    data.previous[::5] = np.nan
    entry = agreement(data, (0, 1), 2)
    assert rho(entry)[1].lo > 0.7
    assert np.isfinite(entry["baselines"]["previous_score"].mean)


def test_nothing_scored_is_said_and_not_a_number():
    data = replies(signal=1.0)
    data.score[:] = np.nan
    entry = agreement(data, (0, 1), 2)
    assert entry["layers"] == []
    assert "cannot be compared" in sentence(entry)
    assert "cannot be compared" in probes_vs_words(entry)


def test_the_sentence_names_the_layer_fixed_before_and_the_one_picked_after():
    text = sentence(agreement(replies(signal=1.0), (0, 1), 2))
    assert "fixed in advance" in text
    assert "picked after the fact, is 1" in text
    assert "turn number" in text
    assert "(pooled over turns)" in text


def test_the_chosen_layer_is_two_thirds_of_the_depth():
    assert chosen_layer(12, range(12)) == 7
    assert chosen_layer(62, range(62)) == 41
    assert chosen_layer(12, (0, 11)) == 11


def test_gain_is_the_difference_of_two_correlations_and_zero_against_itself():
    data = replies(signal=1.0)
    both = (data.score, data.turn, data.clusters)
    y, strata, clusters = both
    gain = stats.spearman_gain(data.readout, data.previous, y, strata, clusters)
    one = stats.spearman_within(data.readout, y, strata, clusters)
    other = stats.spearman_within(data.previous[:, None], y, strata, clusters)
    assert gain[1].mean == pytest.approx(one[1].mean - other[0].mean)
    (same,) = stats.spearman_gain(data.readout[:, 1:], data.readout[:, 1], y, strata, clusters)
    assert same.lo == same.mean == same.hi == 0


def test_ratio_of_means_is_recovered_with_its_interval():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        b = rng.normal(4, 1, 40)
        a = 0.25 * b + rng.normal(0, 0.3, 40)
        est = stats.ratio_of_means(a, b, range(40), seed=seed)
        held += est.lo <= 0.25 <= est.hi
    assert held >= 88
    assert stats.ratio_of_means(np.ones(40), rng.normal(0, 1, 40), range(40)) is None
