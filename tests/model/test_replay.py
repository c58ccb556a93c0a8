"""Replay: the same numbers as live generation, and as one plain forward of each transcript."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emoprobe.activations.reduce import SpanMean, SpanReadout, TokenReadout
from emoprobe.activations.slots import SPAN_PARTS, Slots, TokenSlots
from emoprobe.errors import RunError
from emoprobe.generation.likelihood import ReplyLikelihood
from emoprobe.generation.live import rollout_batch
from emoprobe.generation.plan import Conversation
from emoprobe.generation.replay import replay_batch
from emoprobe.generation.session import ForwardCounts
from emoprobe.model.hooked import HookedModel
from emoprobe.records import Sampling, Scenario
from tests.model import tiny

SAMPLING = Sampling(temperature=1.0, max_new_tokens=14)


def readout(model, n):
    generator = torch.Generator().manual_seed(2)
    layers = tuple(range(model.n_layers))
    return SpanReadout(torch.randn(len(layers), model.d_model, 8, generator=generator), layers, n)


@pytest.fixture
def played(model, monkeypatch):
    """Model, transcripts with ragged ends, their slots and the live readout."""
    extra = range(9, len(model.tokenizer), 13)
    monkeypatch.setattr(model, "eos_ids", tuple(sorted({*model.eos_ids, *extra})))
    tasks = ("Make 24. " * 8, "Hi", "Make 7, using each number once.")
    batch = [
        Conversation(
            f"c{i}", Scenario(id=f"s{i}", cluster="k", family="f", task=task, follow_ups=("No.",) * i)
        )
        for i, task in enumerate(tasks)
    ]
    slots = Slots((c.id, c.n_turns) for c in batch)
    live = readout(model, len(slots))
    return model, rollout_batch(model, batch, SAMPLING, 0, live, slots), slots, live


def test_live_readouts_are_replay_readouts_for_all_parts(played):
    model, transcripts, slots, live = played
    again = readout(model, len(slots))
    replay_batch(model, transcripts, again, slots)
    assert torch.equal(live.counts, again.counts)
    assert {part for key, n in zip(slots.keys(), live.counts, strict=True) if n for part in key[2:]} == set(
        SPAN_PARTS
    )
    torch.testing.assert_close(live.means(), again.means(), rtol=1e-4, atol=2e-4, equal_nan=True)


def test_replay_is_one_plain_forward_of_each_transcript(played):
    model, transcripts, slots, _ = played
    weights = torch.randn(model.n_layers, model.d_model, 3, generator=torch.Generator().manual_seed(3))
    tokens = TokenSlots(transcripts)
    counts = ForwardCounts()
    read = TokenReadout(weights, range(model.n_layers), len(tokens))
    replay_batch(model, transcripts, read, tokens, token_budget=200, chunk=11, counts=counts)
    assert counts.forwarded == len(tokens) == sum(len(t.token_ids) for t in transcripts)
    mean = SpanMean((0, model.n_layers - 2), len(slots), model.d_model)
    replay_batch(model, transcripts, mean, slots)
    for t in transcripts:
        with torch.inference_mode():
            states = model.net(torch.tensor([t.token_ids]), output_hidden_states=True).hidden_states
        rows = tokens.tags(t)
        for layer in range(model.n_layers - 1):  # the last entry of hidden_states is behind the final norm
            expected = states[layer + 1][0] @ weights[layer]
            torch.testing.assert_close(read.scores()[rows, layer], expected, rtol=1e-4, atol=5e-4)
        span = t.span(1, "assistant", "content")
        for k, layer in enumerate(mean.layers):
            expected = states[layer + 1][0, span.start : span.stop].mean(dim=0)
            got = mean.means()[slots.index(t.id, 1, "reply"), k]
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-4, equal_nan=True)


def test_replay_under_an_adapter_reads_the_adapter(folders, tmp_path):
    base = folders["gemma-text"]
    regex = r"model\.layers\.(3|4)\.self_attn\.(q|v)_proj"
    folder = tiny.write_adapter(base, tmp_path / "calm", regex)
    model = HookedModel.load(str(base), adapters=(str(folder),), device="cpu")
    scenario = Scenario(id="s", cluster="k", family="f", task="Make 24.", follow_ups=("No.",))
    transcripts = rollout_batch(model, [Conversation("c", scenario)], SAMPLING, 0)
    slots = Slots.of(transcripts)
    reads = {}
    for name in ("base", *model.adapters):
        reads[name] = readout(model, len(slots))
        with model.adapter(name):
            replay_batch(model, transcripts, reads[name], slots)
    plain, tuned = (r.means().nan_to_num() for r in reads.values())
    assert torch.equal(plain[:, :3], tuned[:, :3])  # below the adapter: equal by construction
    assert ((plain - tuned)[:, 3:].abs().amax(dim=(0, 2)) > 1e-4).all()


def test_nan_activations_name_layer_and_transcript(played):
    model, transcripts, slots, _ = played

    def poison(module, args, output):
        return output.masked_fill(torch.ones_like(output, dtype=torch.bool), float("nan"))

    handle = model.layers[2].register_forward_hook(poison)
    try:
        with pytest.raises(RunError, match=r"layer 2 in transcript c0, turn 1"):
            replay_batch(model, transcripts, readout(model, len(slots)), slots)
    finally:
        handle.remove()


def test_likelihood_taken_in_a_replay_is_that_of_a_plain_forward(played):
    model, transcripts, slots, _ = played
    taken = ReplyLikelihood(transcripts, len(model.tokenizer))
    replay_batch(model, transcripts, readout(model, len(slots)), slots, chunk=7, likelihood=taken)
    for i, t in enumerate(transcripts):
        with torch.inference_mode():
            logits = model.net(torch.tensor([t.token_ids])).logits[0].double().log_softmax(-1)
        for turn in range(1, t.n_turns + 1):
            span = t.span(turn, "assistant", "content")
            where = np.arange(span.start, span.stop)
            expected = -sum(float(logits[p - 1, t.token_ids[p]]) for p in where)
            assert taken.nll[i, turn - 1] == pytest.approx(expected, rel=1e-4, abs=1e-4)
            assert taken.tokens[i, turn - 1] == len(where)
