"""The vignette grammar: nothing leaks between pools, and twins differ in nothing but their structure."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from emoprobe import emotions
from emoprobe.probing import vignettes
from emoprobe.probing.vignettes import Vignette, bag_of_words, banned_words, grammar, sample


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Vignette]]:
    return {pool: sample(3000, 3, pool) for pool in ("fit", "test")}


def _pairs(texts: list[Vignette]) -> list[tuple[Vignette, Vignette]]:
    by_pair: dict[str, list[Vignette]] = defaultdict(list)
    for v in texts:
        if v.kind == "minimal":
            by_pair[v.pair_id].append(v)
    assert all(len(members) == 2 for members in by_pair.values())
    return [(a, b) for a, b in by_pair.values()]


def test_banned_words_are_found_where_they_are() -> None:
    assert banned_words("I am so frustrated, and Failing.") == ["frustrated", "Failing"]
    assert banned_words("He made a sadhu's madeleine.") == []
    assert all(banned_words(name) for name in emotions.names())


def test_no_story_holds_a_banned_word_or_an_open_slot(drawn: dict[str, list[Vignette]]) -> None:
    for v in drawn["fit"] + drawn["test"]:
        assert not banned_words(v.text), v.text
        assert "{" not in v.text
        assert "  " not in v.text
        assert 18 <= len(v.text.split()) <= 60, v.text


def test_pools_share_no_content_word() -> None:
    content = {}
    for pool, phrases in grammar()["pools"].items():
        cells = phrases["emotions"].values()
        texts = [t for cell in cells for kind in ("events", "reactions") for t in cell[kind]]
        texts += [*phrases["settings"].values(), *phrases["fillers"]]
        slots = {"p": "", "o": "", "s": ""}
        content[pool] = {w for t in texts for w in bag_of_words(t.format(**slots))}
    assert not content["fit"] & content["test"] - set(grammar()["function_words"])


def test_the_vocabulary_is_small_enough_for_a_small_tokenizer(drawn: dict[str, list[Vignette]]) -> None:
    assert len({w for texts in drawn.values() for v in texts for w in bag_of_words(v.text)}) <= 700


def test_every_emotion_has_phrases_and_the_sample_is_balanced(drawn: dict[str, list[Vignette]]) -> None:
    for phrases in grammar()["pools"].values():
        assert set(phrases["emotions"]) == {*emotions.names(), vignettes.NEUTRAL}
    for texts in drawn.values():
        assert len({v.text for v in texts}) == len(texts) == 3000
        assert sum(v.kind == "minimal" for v in texts) >= 1500
        counts = Counter(v.emotion for v in texts)
        assert max(counts[e] for e in emotions.names()) - min(counts[e] for e in emotions.names()) <= 8
        assert counts[vignettes.NEUTRAL] > 100


def test_twins_have_equal_bags_and_different_labels(drawn: dict[str, list[Vignette]]) -> None:
    for a, b in _pairs(drawn["fit"]) + _pairs(drawn["test"]):
        assert bag_of_words(a.text) == bag_of_words(b.text)
        assert a.text != b.text
        assert a.emotion != b.emotion
        assert a.topic == b.topic


def test_a_bag_of_words_is_at_chance_on_twins_even_when_fitted_on_them(
    drawn: dict[str, list[Vignette]],
) -> None:
    texts = [v for pair in _pairs(drawn["test"]) for v in pair]
    vocabulary = sorted({w for v in texts for w in bag_of_words(v.text)})
    counts = np.array([[bag_of_words(v.text).get(w, 0) for w in vocabulary] for v in texts], float)
    for emotion in ("despair", "joy"):
        touched = np.array(
            [any(v.emotion == emotion for v in pair) for pair in _pairs(drawn["test"]) for _ in pair]
        )
        label = np.array([v.emotion == emotion for v in texts])[touched]
        model = LogisticRegression(max_iter=200).fit(counts[touched], label)
        assert roc_auc_score(label, model.decision_function(counts[touched])) == pytest.approx(0.5, abs=1e-9)


def test_structure_decides_the_label() -> None:
    rng = random.Random(0)
    for _ in range(200):
        end, start = vignettes.twins(rng, "joy", "despair", "test", "order")
        joy = {r.split()[0] for r in grammar()["pools"]["test"]["emotions"]["joy"]["reactions"]}
        marker = "In the end " if "In the end " in end.text else "Now "
        assert end.text.split(marker)[1].split()[1] in joy
        assert start.text.split(marker)[1].split()[1] not in joy


def test_a_sample_is_a_function_of_its_seed() -> None:
    assert sample(200, 5, "fit") == sample(200, 5, "fit")
    assert sample(200, 5, "fit") != sample(200, 6, "fit")
    plain = [vignettes.vignette(random.Random(9), "joy", "test", "minimal") for _ in range(2)]
    assert plain[0] == plain[1]
    assert plain[0].kind == "minimal"
    assert plain[0].emotion == "joy"


def test_neutral_has_no_twins() -> None:
    with pytest.raises(ValueError, match="neutral"):
        vignettes.vignette(random.Random(0), "neutral", "fit", "minimal")
