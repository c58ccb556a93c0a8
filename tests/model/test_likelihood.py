"""How likely a model finds the replies of a transcript, whatever pieces it is replayed in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emoprobe.activations.reduce import SpanReadout
from emoprobe.activations.slots import Slots
from emoprobe.errors import RunError
from emoprobe.generation import likelihood as likelihoods
from emoprobe.generation.likelihood import ReplyLikelihood
from emoprobe.generation.live import rollout_batch
from emoprobe.generation.plan import Conversation
from emoprobe.generation.replay import replay_batch
from emoprobe.records import Sampling
from emoprobe.scenarios import library


@pytest.fixture
def transcripts(model):
    scenarios = library.by_category("triggers", 3, 3)
    conversations = [Conversation(s.id, s) for s in scenarios]
    return rollout_batch(model, conversations, Sampling(max_new_tokens=11), seed=3)


def replay(model, transcripts, **more):
    slots = Slots.of(transcripts)
    weights = torch.randn(2, model.d_model, 3, generator=torch.Generator().manual_seed(0))
    readout = SpanReadout(weights, (0, 4), len(slots))
    found = ReplyLikelihood(transcripts, model.decoder.config.vocab_size)
    replay_batch(model, transcripts, readout, slots, likelihood=found, **more)
    return found, readout.means()


def test_likelihood_is_that_of_one_plain_forward(model, transcripts):
    found, _ = replay(model, transcripts)
    for row, t in enumerate(transcripts):
        with torch.inference_mode():
            scores = model.net(torch.tensor([t.token_ids])).logits[0].log_softmax(-1)
        for turn in range(1, t.n_turns + 1):
            span = t.span(turn, "assistant", "content")
            wanted = -sum(float(scores[k - 1, t.token_ids[k]]) for k in range(span.start, span.stop))
            assert found.tokens[row, turn - 1] == span.stop - span.start
            assert found.nll[row, turn - 1] == pytest.approx(wanted, rel=1e-4, abs=1e-3)


def test_pieces_of_any_size_give_the_same(model, transcripts, monkeypatch):
    whole, readout = replay(model, transcripts)
    monkeypatch.setattr(likelihoods, "_MAX_LOGITS", 1)
    monkeypatch.setattr(likelihoods, "_MIN_CHUNK", 7)
    pieces, again = replay(model, transcripts, token_budget=150)
    np.testing.assert_allclose(whole.nll, pieces.nll, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(whole.tokens, pieces.tokens)
    torch.testing.assert_close(readout, again, rtol=1e-3, atol=1e-3)


def test_memory_is_bounded_by_the_vocabulary(model, transcripts):
    found = ReplyLikelihood(transcripts, vocab=262_144)
    assert found.chunk(rows=2, wanted=256) == 256
    assert found.chunk(rows=8, wanted=256) == 64
    assert found.chunk(rows=1000, wanted=256) == 16


def test_logits_that_are_not_finite_are_named(model, transcripts):
    found = ReplyLikelihood(transcripts, model.decoder.config.vocab_size)
    logits = torch.full((len(transcripts[0].token_ids), found._vocab), torch.nan)
    with pytest.raises(RunError, match=f"logits in transcript {transcripts[0].id}, turn 1"):
        found.add(transcripts[0], 0, logits)
