"""AUROC and its interval, and the comparison with words."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from emoprobe import emotions, prose
from emoprobe.probing import evaluate
from emoprobe.probing.evaluate import CONTROLS, SUBSETS, auroc, gain, layer_column
from emoprobe.probing.vignettes import sample

NAMES = emotions.names()
TEXTS = sample(672, 1, "test")
TOPICS = [t.topic for t in TEXTS]
POSITIVE = evaluate.is_emotion(TEXTS, NAMES)


def table(
    scores: np.ndarray, columns: tuple[str, ...], subset: str = "all", **options: int
) -> evaluate.Auroc:
    counted = evaluate.subset(TEXTS, NAMES, subset)
    return auroc(scores, columns, NAMES, POSITIVE, counted, TOPICS, **options)


def noisy(strength: float, seed: int) -> np.ndarray:
    return POSITIVE * strength + np.random.default_rng(seed).normal(size=POSITIVE.shape)


@pytest.mark.parametrize("subset", SUBSETS)
def test_points_are_scikit_learns_with_ties(subset: str) -> None:
    scores = np.round(noisy(1.0, 0), 1)  # many ties
    found = table(scores[:, None], ("a",), subset, n_boot=20)
    counted = evaluate.subset(TEXTS, NAMES, subset)
    for e, emotion in enumerate(NAMES):
        rows = counted[:, e]
        assert found.estimate("a", emotion).mean == pytest.approx(
            roc_auc_score(POSITIVE[rows, e], scores[rows, e])
        )
        assert found.estimate("a", emotion).n == rows.sum()
    assert found.estimate("a").mean == pytest.approx(found.point[0, :-1].mean())


def test_a_replicate_is_the_auroc_of_the_drawn_topics() -> None:
    from emoprobe import stats

    scores = np.round(noisy(0.5, 1), 1)
    found = table(scores[:, None], ("a",), n_boot=8, seed=5)
    weights, inverse = stats.bootstrap_weights(TOPICS, 8, 5)
    for b in range(8):
        rows = np.repeat(np.arange(len(TEXTS)), weights[b, inverse].astype(int))
        for e in (0, 7):
            expected = roc_auc_score(POSITIVE[rows, e], scores[rows, e])
            assert found.replicates[0, e, b] == pytest.approx(expected)


def test_the_interval_holds_the_truth_and_the_mean() -> None:
    found = table(noisy(1.0, 2)[:, None], ("a",)).estimate("a")
    truth = 0.7602  # P(N(1, 1) > N(0, 1))
    assert found.lo < truth < found.hi
    assert found.lo < found.mean < found.hi
    assert found.hi - found.lo < 0.06
    assert found.clusters == 10


def test_minimal_pairs_set_each_emotion_against_its_twins_only() -> None:
    counted = evaluate.subset(TEXTS, NAMES, "minimal")
    for e in range(len(NAMES)):
        assert POSITIVE[counted[:, e], e].mean() == 0.5
    assert not counted[[t.kind == "plain" for t in TEXTS]].any()


def test_words_are_at_one_half_on_minimal_pairs_and_strong_on_plain_texts() -> None:
    words, transfer = evaluate.word_scores(sample(600, 0, "fit"), TEXTS, NAMES, c=10.0)
    scores = np.stack([words, transfer], axis=1)
    columns = ("words", "words_transfer")
    minimal = table(scores, columns, "minimal")
    for column in columns:
        found = minimal.estimate(column)
        assert found.mean == found.lo == found.hi == 0.5
    plain = table(scores, columns, "plain")
    assert plain.estimate("words").mean > 0.95
    assert abs(plain.estimate("words_transfer").mean - 0.5) < 0.15, "the pools share no content word"


def test_layers_are_held_against_the_strongest_control() -> None:
    layers = (0, 1, 2)
    columns = (*CONTROLS, *(layer_column(layer) for layer in layers))
    strengths = (0.2, 1.0, 0.5, 1.0, 2.5, 0.5)
    scores = np.stack([noisy(s, i) for i, s in enumerate(strengths)], axis=1)
    tables = {name: table(scores, columns, name, n_boot=500) for name in SUBSETS}
    found = gain(tables["all"], layers)
    assert found.control == "words_transfer"
    assert found.above == (1,)
    assert (found.lo < found.point).all()
    assert (found.point < found.hi).all()
    gains = {name: gain(t, layers) for name, t in tables.items()}
    assert "layers 1 beat every readout of words" in evaluate.sentence(gains, tables)
    same = {
        name: gain(table(scores[:, [0, 1, 2, 0, 1, 2]], columns, name, n_boot=500), layers)
        for name in SUBSETS
    }
    assert "no layer beats words" in evaluate.sentence(same, tables)
    assert "layers" not in evaluate.sentence(same, tables).split("AUROC")[1].replace("no layer", "")


def test_an_emotion_without_texts_is_refused() -> None:
    with pytest.raises(ValueError, match="no texts with or without 'frustration'"):
        auroc(
            np.zeros((len(TEXTS), 1, 1)),
            ("a",),
            ("frustration",),
            np.zeros((len(TEXTS), 1), bool),
            np.ones((len(TEXTS), 1), bool),
            TOPICS,
        )


def test_ranges() -> None:
    assert prose.ranges((3, 4, 5, 1, 9)) == "1, 3-5, 9"
