"""A read conversation against hidden states computed the plain way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emoprobe import emotions, readout
from emoprobe.errors import UserError
from emoprobe.model.hooked import HookedModel
from emoprobe.probing.probeset import PARTS
from tests import tiny_stage
from tests.model import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    stage = tiny_stage.build(tmp_path_factory.mktemp("stage"), ("gemma-text",))
    adapter = stage.root / "adapters" / "gemma-text" / "upper"
    return HookedModel.load(str(stage.root / "models" / "gemma-text"), adapters=[str(adapter)], device="cpu")


@pytest.fixture(scope="module")
def probes(model):
    return tiny_stage.random_probes(model.name, model.weights_sha)


@pytest.fixture(scope="module")
def chat(model, probes):
    return readout.converse(model, "Make 24 – naïvely 😭.", rejections=2, max_new_tokens=8, probes=probes)


def residuals(model, transcript, reader):
    """resid_post `[layer, token, d_model]` but for the last layer, which transformers gives after a norm."""
    with model.adapter(reader), torch.inference_mode():
        out = model.net(torch.tensor([transcript.token_ids]), output_hidden_states=True)
    return torch.stack(out.hidden_states[1:-1]).numpy()[:, 0]


@pytest.mark.parametrize("reader", ["base", "upper"])
def test_every_read_number_is_a_projection_of_the_hidden_state(model, probes, chat, reader):
    resid = residuals(model, chat.transcript, reader)
    raw = np.einsum("ltd,eld->tle", resid, probes.directions[:, : len(resid)])
    z = np.moveaxis(chat.tokens.z[reader], -1, 0)[:, : len(resid), :-1]
    for span in chat.transcript.spans:
        at = slice(span.start, span.stop)
        if span.kind == "content":
            np.testing.assert_allclose(z[at], scaled(probes, raw[at], "token"), atol=2e-3)
            part = "reply" if span.role == "assistant" else "user"
            mean = scaled(probes, raw[at].mean(axis=0), part)
        elif span.kind == "header" and span.role == "assistant":
            assert np.isnan(z[span.start : span.stop - 1]).all()
            part, mean = "pre_reply", scaled(probes, raw[span.stop - 1], "pre_reply")
            np.testing.assert_allclose(z[span.stop - 1], mean, atol=2e-3)
        else:
            assert np.isnan(z[at]).all()
            continue
        rows = chat.table.query("adapter == @reader and turn == @span.turn and part == @part")
        for e, emotion in enumerate(probes.emotions):
            read = rows[rows["emotion"] == emotion].sort_values("layer")["z"].to_numpy()
            np.testing.assert_allclose(read[: len(resid)], mean[:, e], atol=2e-3)


def scaled(probes, raw, part):
    p = PARTS.index(part)
    n = raw.shape[-2]
    return (raw - probes.baseline_mean[:, :n, p].T) / probes.baseline_std[:, :n, p].T


def test_pieces_are_the_text_of_their_spans(model, chat):
    t = chat.transcript
    for span in t.spans:
        joined = "".join(chat.tokens.pieces[span.start : span.stop])
        assert joined == model.tokenizer.decode(list(t.token_ids[span.start : span.stop]))
        assert set(chat.tokens.turn[span.start : span.stop]) <= {span.turn}
    asked = "".join(
        p
        for p, r, k in zip(chat.tokens.pieces, chat.tokens.role, chat.tokens.kind, strict=True)
        if (r, k) == ("user", "content")
    )
    assert asked.startswith("Make 24 – naïvely 😭.")


def test_below_the_adapter_nothing_differs_and_above_it_does(chat):
    base, adapter = (chat.tokens.z[reader] for reader in ("base", "upper"))
    np.testing.assert_array_equal(base[:3], adapter[:3])
    content = [kind == "content" for kind in chat.tokens.kind]
    assert (np.abs(base[3:][..., content] - adapter[3:][..., content]).max(axis=(1, 2)) > 1e-3).all()


def test_negative_is_the_mean_of_all_six_even_where_one_is_asked_for(model, probes, chat):
    some = readout.read(model, chat.transcript, probes, layers=[4, 1], emotions=["joy"])
    assert some.tokens.emotions == ("joy", "negative")
    assert some.tokens.layers == [4, 1]
    six = [chat.tokens.emotions.index(name) for name in emotions.negative()]
    whole = chat.tokens.z["base"][[4, 1]]
    np.testing.assert_allclose(some.tokens.z["base"][:, 1], whole[:, six].mean(axis=1), atol=1e-4)
    np.testing.assert_allclose(
        some.tokens.z["base"][:, 0], whole[:, chat.tokens.emotions.index("joy")], atol=1e-4
    )


def test_the_same_seed_is_the_same_conversation_and_okay_is_the_calm_arm(model, probes):
    def talk(seed, **more):
        return readout.converse(model, "Hi", 1, seed=seed, max_new_tokens=6, probes=probes, **more).transcript

    first = talk(3)
    assert talk(3) == first
    other = talk(4, feedback="okay", follow_ups=["No.", "Nope."])
    assert other.token_ids != first.token_ids
    assert (first.arm, other.arm) == ("rejected", "okay")
    assert other.messages[4].content == "Nope."
    with pytest.raises(UserError, match="unknown feedback kind 'okey'; did you mean okay"):
        talk(3, feedback="okey")


def test_probes_of_another_model_are_refused(model, chat):
    with pytest.raises(UserError, match="these probes are of 'other'"):
        readout.read(model, chat.transcript, tiny_stage.random_probes("other", "0" * 64))


def test_the_reading_shows_itself(chat):
    assert 'class="ep-tokens"' in chat._repr_html_()
    assert len(chat.tokens.layers) == tiny.N_LAYERS
