"""Probes on tiny random models: what is read is the residual stream, and the whole way to a ProbeSet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from emoprobe import emotions, probe
from emoprobe.activations.reduce import SpanReadout
from emoprobe.activations.slots import Slots
from emoprobe.errors import UserError
from emoprobe.generation.replay import replay_batch
from emoprobe.model.hooked import HookedModel
from emoprobe.probing import evaluate, fit, vignettes
from emoprobe.probing.card import SPLIT, Recipe, table
from emoprobe.probing.probeset import PARTS, ProbeSet
from emoprobe.probing.read import baseline, converse, story_states
from emoprobe.records import Sampling, Transcript
from emoprobe.scenarios import library

QUICK = Recipe(n_fit=100, n_test=224, turns=2, sampling=Sampling(max_new_tokens=6), batch_size=64)


def test_stories_are_read_before_the_reply_to_them(model: HookedModel) -> None:
    texts = ["Mara wept.", "At first Tom beamed. In the end Tom trembled with dread, and paced the room."]
    embedding, layers = story_states(model, texts)
    assert layers.shape == (model.n_layers, 2, model.d_model)
    for i, text in enumerate(texts):
        told = [{"role": "user", "content": text}]
        ids = model.tokenizer.apply_chat_template(
            told, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        body = model.tokenizer(text, add_special_tokens=False).input_ids
        with torch.inference_mode():
            states = model.net(torch.tensor([ids]), output_hidden_states=True).hidden_states
            embedded = model.net(torch.tensor([body]), output_hidden_states=True).hidden_states[0]
        np.testing.assert_allclose(embedding[i], embedded[0].mean(dim=0).numpy(), atol=1e-4)
        for layer in range(model.n_layers - 1):  # the last entry is behind the final norm
            np.testing.assert_allclose(
                layers[layer, i], states[layer + 1][0, -1].numpy(), rtol=1e-3, atol=1e-3
            )


def test_twins_have_the_same_embedding_to_the_last_bit(loaded: dict[str, HookedModel]) -> None:
    texts = vignettes.sample(30, 0, "test", minimal=1.0)
    embedding, layers = story_states(loaded["gemma-text"], [t.text for t in texts])
    np.testing.assert_array_equal(embedding[0::2], embedding[1::2])
    assert (layers[-1, 0::2] != layers[-1, 1::2]).any()


@pytest.fixture(scope="module")
def conversations(loaded: dict[str, HookedModel]) -> list[Transcript]:
    scenarios = [library.okay_twin(s) for s in library.numeric(10, 3, split=SPLIT)]
    return converse(loaded["gemma-text"], scenarios, Sampling(max_new_tokens=8), seed=0, batch_size=4)


def test_the_baseline_is_the_mean_and_spread_of_what_a_readout_gives(
    loaded: dict[str, HookedModel], conversations: list[Transcript]
) -> None:
    model = loaded["gemma-text"]
    weights = np.random.default_rng(0).normal(size=(model.n_layers, model.d_model, 3)).astype(np.float32)
    mean, std = baseline(model, weights, conversations)
    assert mean.shape == std.shape == (3, model.n_layers, len(PARTS))
    slots = Slots.of(conversations)
    readout = SpanReadout(torch.from_numpy(weights), range(model.n_layers), len(slots))
    replay_batch(model, conversations, readout, slots)
    raw = readout.means().numpy()
    for part in ("reply", "pre_reply", "user"):
        rows = [i for i, (_, _, p) in enumerate(slots.keys()) if p == part]
        values = raw[[i for i in rows if np.isfinite(raw[i]).all()]]
        assert len(values) > 20
        np.testing.assert_allclose(mean[..., PARTS.index(part)], values.mean(axis=0).T, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(std[..., PARTS.index(part)], values.std(axis=0).T, rtol=1e-3, atol=1e-3)
    tokens = (std[..., 0], std[..., PARTS.index("reply")])
    assert tokens[0].mean() > tokens[1].mean(), "single tokens spread more than means over them"


def test_baseline_puzzles_are_in_no_reported_arm() -> None:
    used = {s.cluster for s in library.numeric(64, 8, seed=0, split=SPLIT)}
    for seed in range(3):
        assert not used & {s.cluster for s in library.numeric(192, 8, seed=seed)}


@pytest.fixture(scope="module")
def probes(loaded: dict[str, HookedModel]) -> ProbeSet:
    return fit.fit(loaded["gemma-text"], QUICK)


def test_a_model_becomes_a_probe_set_with_a_card(
    loaded: dict[str, HookedModel], probes: ProbeSet, tmp_path: Path
) -> None:
    model = loaded["gemma-text"]
    assert probes.emotions == emotions.names()
    assert probes.layers == tuple(range(model.n_layers))
    again = ProbeSet.load(probes.save(tmp_path))
    again.check(model)
    with pytest.raises(UserError, match="these probes are of"):
        again.check(loaded["qwen"])
    card = again.card
    assert card["sentence"].startswith("Mean held-out AUROC over emotions: on minimal pairs, ")
    assert card["baseline"]["conversations"] == 64
    assert card["fit"]["grammar_sha"] == vignettes.grammar_sha()
    for subset in evaluate.SUBSETS:
        found = card["auroc"][subset]
        assert set(found["n"]) == {*emotions.names(), "macro"}
        for column in ("words", "words_transfer", "embedding", *(f"layer_{i}" for i in probes.layers)):
            for cell in found["columns"][column].values():
                assert 0 <= cell["lo"] <= cell["mean"] <= cell["hi"] <= 1
    for column in ("words", "words_transfer", "embedding"):
        assert card["auroc"]["minimal"]["columns"][column]["macro"]["mean"] == 0.5
    shown = table(card).splitlines()
    assert len(shown) == 1 + 3 + model.n_layers
    assert "0.500 [0.50, 0.50]" in shown[1]


def test_the_same_recipe_gives_the_same_probes(loaded: dict[str, HookedModel], probes: ProbeSet) -> None:
    again = fit.fit(loaded["gemma-text"], QUICK)
    np.testing.assert_array_equal(again.directions, probes.directions)
    np.testing.assert_array_equal(again.baseline_mean, probes.baseline_mean)


def test_a_model_without_a_released_set_is_fitted_once_and_kept(
    loaded: dict[str, HookedModel],
    probes: ProbeSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, calls = loaded["gemma-text"], []

    def counted(*_args: object) -> ProbeSet:
        calls.append(model.active)
        return probes

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit, "fit", counted)
    first = fit.for_model(model)
    assert "fitting them, once, into probes/gemma-text-" in capsys.readouterr().err
    second = fit.for_model(model)
    assert capsys.readouterr().err == ""
    assert calls == ["base"]
    np.testing.assert_array_equal(first.directions, second.directions)
    assert (tmp_path / "probes" / f"gemma-text-{model.weights_sha[:8]}" / "vignettes").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "organsm"], "unknown model 'organsm'; did you mean organism"),
        (["--n-fit", "10"], "--n-fit must be at least 100, got 10"),
        (["--conversations", "32"], "--conversations must be at least 64, got 32"),
        (["--family", "svm"], "--family must be one of logistic, mean_difference, got 'svm'"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--dtype", "int8"], "unknown dtype 'int8'"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe.main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
