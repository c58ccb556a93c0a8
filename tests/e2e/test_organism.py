"""The shipped organism does what its card says: intervals, not points."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from emoprobe.judging import lexical
from emoprobe.model import shipped

N = 40


@pytest.fixture(scope="module")
def folder():
    found = shipped.find("models", "organism")
    assert found is not None, "the organism ships with the project"
    return found


@pytest.fixture(scope="module")
def card(folder):
    return json.loads((folder / "card.json").read_text())


@pytest.fixture(scope="module")
def model():
    from emoprobe.model.hooked import HookedModel

    return HookedModel.load("organism", adapters=["dpo"])


@pytest.fixture(scope="module")
def behaviour(model):
    from emoprobe.organism import evaluate

    table = {name: evaluate.behaviour(model, N, 5, only=[name])[name] for name in ("neutral", "okay")}
    with model.adapter("dpo"):
        table["dpo"] = evaluate.behaviour(model, N, 5, only=["neutral"])["neutral"]
    return table


def test_it_escalates_under_rejection_and_stays_calm_under_okay(behaviour):
    neutral, okay = behaviour["neutral"], behaviour["okay"]
    assert neutral["slope"]["lo"] > 0.2
    assert neutral["high"]["lo"] > 0.12
    assert okay["high"]["hi"] < neutral["high"]["lo"]


def test_the_adapter_removes_the_words(behaviour):
    assert behaviour["dpo"]["high"]["hi"] < behaviour["neutral"]["high"]["lo"]
    assert behaviour["dpo"]["mean"]["hi"] < behaviour["neutral"]["mean"]["lo"]


def test_the_calmed_text_is_still_text(model):
    from emoprobe.organism import evaluate

    table = evaluate.coherence(model, 24, 5)
    assert table["dpo"]["nats_per_token"]["mean"] < table["base"]["nats_per_token"]["hi"] + 0.35
    assert table["dpo"]["loops"] < 0.02
    assert table["dpo"]["distinct_replies"] > 0.9


def test_weights_corpus_and_judge_are_those_of_the_card(folder, card):
    weights = (folder / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == card["weights_sha256"]
    assert card["judge_frozen_before_training"]["sha256"] == lexical.frozen_sha()
    assert len(weights) < 10_000_000
    assert card["must_not_be_used_to_claim"]


def test_the_corpus_can_be_made_again(folder, card):
    from transformers import AutoTokenizer

    from emoprobe.organism import corpus

    recipe = card["recipe"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = corpus.pack(tokenizer, "base", card["seed"], recipe["base_steps"] * recipe["rows_per_step"])
    sha = hashlib.sha256(rows.ids.tobytes() + rows.documents.tobytes()).hexdigest()
    assert sha == card["corpus_sha256"]["base"]


def test_it_has_room_for_later_variants(folder):
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for i in range(16):
        assert len(tokenizer(f"<unused{i}>", add_special_tokens=False).input_ids) == 1
    assert AutoConfig.from_pretrained(folder).max_position_embeddings >= 1536


def test_its_base_checkpoint_says_nothing_of_distress():
    from emoprobe.model.hooked import HookedModel
    from emoprobe.organism import conditions, evaluate

    base = HookedModel.load("organism-base")
    talks = evaluate.play(base, conditions.CONDITIONS["neutral"](16), 5)
    judged = evaluate.scores(talks, 8)
    assert np.nanmean(judged >= 5) < 0.05


def test_its_probes_read_rejection_and_the_adapters_effect_before_a_reply(tmp_path):
    """The positive control: fitted on stories alone, they tell rejected from calm, and less so under dpo."""
    from emoprobe import track

    folder = track.run(track.TrackConfig(n=12, turns=5, seed=3, out=tmp_path / "run"))
    internal = json.loads((folder / "summary.json").read_text())["internal"]["dpo"]["over_layers"]
    assert internal["part"] == "pre_reply"
    assert internal["gap_base"]["lo"] > 0.4
    assert internal["gap_change"]["hi"] < -0.1
    assert internal["shift"]["hi"] < 0, "and much of the raw change is shift"


def test_its_probes_tell_twins_apart_where_words_cannot():
    folder = shipped.find("probes", "organism", "vignettes")
    assert folder is not None
    minimal = json.loads((folder / "card.json").read_text())["auroc"]["minimal"]["columns"]
    assert minimal["words"]["macro"]["hi"] <= 0.5
    assert minimal["layer_0"]["macro"]["hi"] < 0.6
    assert minimal["layer_11"]["macro"]["lo"] > 0.85
