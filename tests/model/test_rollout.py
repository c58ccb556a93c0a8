"""Ragged rollouts: the single conversation's tokens, each forwarded once, in any batch."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from emoprobe import rollout
from emoprobe.activations.reduce import SpanReadout
from emoprobe.activations.slots import Slots
from emoprobe.errors import RunError, UserError
from emoprobe.generation.cache import RaggedCache
from emoprobe.generation.live import rollout_batch
from emoprobe.generation.plan import Conversation
from emoprobe.generation.sampling import choose
from emoprobe.generation.session import ForwardCounts, RaggedSession
from emoprobe.model.chat import Chat
from emoprobe.model.hooked import HookedModel
from emoprobe.records import Sampling, Scenario
from tests.model import tiny

GREEDY = Sampling(temperature=0, max_new_tokens=14)
QUESTIONS = ("Make 24 from 3, 3, 8 and 8. " * 3, "Hi", "Please make 7, using each number exactly once.", "A?")
FOLLOW_UPS = ("Wrong, try again.", "No. That is wrong. I said make 24 from the numbers.", "Okay.", "No")


def conversations(n=4, turns=3):
    """Questions and follow-ups of very different lengths, the second row with a turn less."""
    made = []
    for i in range(n):
        said = tuple(FOLLOW_UPS[(i + k) % 4] for k in range(turns - 1 - (i == 1)))
        scenario = Scenario(id=f"s{i}", cluster=f"k{i}", family="f", task=QUESTIONS[i % 4], follow_ups=said)
        made.append(Conversation(f"c{i}", scenario))
    return made


@pytest.fixture
def stopping(model, monkeypatch):
    """The model with many more ids that end a turn, so that rows stop at different times."""
    extra = range(7, len(model.tokenizer), 11)
    monkeypatch.setattr(model, "eos_ids", tuple(sorted({*model.eos_ids, *extra})))
    return model


def alone(model, conversation, limit):
    """The oracle: transformers' own `generate` from the whole text, every turn anew, one conversation."""
    chat = Chat(model.tokenizer)
    ids = list(chat.opening(None, conversation.scenario.task)[0])
    ends = {*model.eos_ids, chat.end_of_turn}
    for turn in range(conversation.n_turns):
        given = torch.tensor([ids])
        ids = model.net.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=sorted(ends),
            pad_token_id=0,
        )[0].tolist()
        if turn + 1 < conversation.n_turns:
            following = chat.next_turn(conversation.scenario.follow_ups[turn]).ids
            ids += following[1:] if ids[-1] in ends else following
    return ids


def first_difference(a, b):
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)


def gap(model, ids):
    """Distance between the two likeliest next tokens, and the likeliest one's logit."""
    with torch.inference_mode():
        best = model.net(torch.tensor([ids]), logits_to_keep=1).logits[0, -1].float().topk(2).values
    return float(best[0] - best[1]), float(best[0])


def test_greedy_ids_of_a_ragged_batch_are_the_single_conversations(stopping):
    batch = conversations()
    together = rollout_batch(stopping, batch, GREEDY, seed=0)
    differing = 0
    for transcript, conversation in zip(together, batch, strict=True):
        single = alone(stopping, conversation, GREEDY.max_new_tokens)
        assert len(single) > 3 * tiny.WINDOW
        k = first_difference(transcript.token_ids, single)
        if k is None:
            assert list(transcript.token_ids) == single
        else:
            differing += 1
            assert gap(stopping, single[:k])[0] < 1e-4
    assert differing <= 1
    lengths = {s.stop - s.start for t in together for s in t.spans if s.kind == "content"}
    assert len(lengths) > 5  # the rows were ragged indeed


def test_bf16_differs_first_where_two_tokens_are_within_two_steps(folders):
    model = HookedModel.load(str(folders["gemma-text"]), device="cpu", dtype="bfloat16")
    batch = conversations(turns=2)
    for transcript, conversation in zip(rollout_batch(model, batch, GREEDY, 0), batch, strict=True):
        single = alone(model, conversation, GREEDY.max_new_tokens)
        k = first_difference(transcript.token_ids, single)
        if k is not None:
            distance, logit = gap(model, single[:k])
            step = 2.0 ** (np.floor(np.log2(abs(logit))) - 7)
            assert distance <= 2 * step


def test_each_real_token_is_forwarded_once_and_read_once(stopping):
    batch = conversations()
    seen: list[int] = []

    class Recorder:
        layers = (0,)

        def begin(self, tags):
            if tags is not None:
                seen.extend(tags[tags >= 0].tolist())

        def layer(self, index, resid):
            assert resid.isfinite().all()

        def nonfinite(self):
            return None

    counts = ForwardCounts()
    slots = Slots((c.id, c.n_turns) for c in batch)
    transcripts = rollout_batch(stopping, batch, GREEDY, 0, Recorder(), slots, counts)
    assert counts.forwarded == sum(len(t.token_ids) for t in transcripts)
    assert counts.computed >= counts.forwarded
    expected = np.concatenate([slots.tags(t) for t in transcripts])
    assert sorted(seen) == sorted(expected[expected >= 0].tolist())


def test_keys_of_the_cache_are_those_of_one_unbroken_forward(stopping):
    """Whatever was written over pads and waiting rows: at each true position stands the true key."""
    ids = [list(range(10, 45)), list(range(20, 27)), list(range(30, 52))]
    session = RaggedSession(stopping, 3)
    for stop in (7, 3, 20):
        session.feed([row[:stop] for row in ids])
        ids = [row[stop:] for row in ids]
        alive = np.array([bool(row) for row in ids])
        rows = np.arange(3)
        if alive.any():
            tokens = torch.tensor([row[0] if row else 0 for row in ids])
            session.step(tokens, np.full(3, -1), rows, alive)
            ids = [row[1:] for row in ids]
    whole = [list(range(10, 45)), list(range(20, 27)), list(range(30, 52))]
    assert session.cache.lengths.tolist() == [min(len(w), 33) for w in whole]
    for row, full in enumerate(whole):
        n = int(session.cache.lengths[row])
        cache = RaggedCache(stopping.layer_types, stopping.sliding_window, 1, stopping.state_key)
        positions, mask = cache.place(np.array([0]), np.array([n]), n, stopping.device, stopping.dtype)
        stopping.forward(torch.tensor([full[:n]]), positions, mask, cache, logits="none")
        for mine, one in zip(session.cache.layers, cache.layers, strict=True):
            torch.testing.assert_close(mine.keys[row, :, :n], one.keys[0, :, :n], rtol=1e-4, atol=1e-4)


def test_masks_are_by_true_position():
    cache = RaggedCache(("sliding_attention", "full_attention"), 4, 2, "s")
    place = (torch.device("cpu"), torch.float32)
    cache.place(np.array([0, 1]), np.array([9, 2]), 9, *place)
    positions, masks = cache.place(np.array([0, 1]), np.array([1, 3]), 3, *place)
    assert positions.tolist() == [[10, 11, 9], [2, 3, 4]]  # two pads behind row 0's one real token
    full, sliding = masks["full_attention"], masks["sliding_attention"]
    assert torch.isfinite(full[0, 0, 2]).nonzero().flatten().tolist() == list(range(10))
    assert torch.isfinite(full[1, 0, 0]).nonzero().flatten().tolist() == [0, 1, 2]
    assert torch.isfinite(sliding[0, 0, 2]).nonzero().flatten().tolist() == [6, 7, 8, 9]
    assert torch.isfinite(sliding[1, 0, 2]).nonzero().flatten().tolist() == [1, 2, 3, 4]


def test_a_cache_made_under_one_adapter_is_refused_under_another(folders, tmp_path):
    folder = tiny.write_adapter(folders["gemma-text"], tmp_path / "calm", ["q_proj", "v_proj"])
    model = HookedModel.load(str(folders["gemma-text"]), adapters=(str(folder),), device="cpu")
    session = RaggedSession(model, 1)
    session.feed([[5, 6, 7]])
    with model.adapter(model.adapters[0]), pytest.raises(UserError, match="cannot be used under"):
        session.feed([[8]])
    session.feed([[8]])
    assert session.counts.forwarded == 4


def test_spans_cover_every_token_once_and_decode_to_the_messages(stopping):
    for t in rollout_batch(stopping, conversations(), GREEDY, 0):
        assert [s.start for s in t.spans[1:]] == [s.stop for s in t.spans[:-1]]
        assert (t.spans[0].start, t.spans[-1].stop) == (0, len(t.token_ids))
        decode = Chat(stopping.tokenizer).decode
        for turn in range(1, t.n_turns + 1):
            for role, at in (("user", 2 * turn - 2), ("assistant", 2 * turn - 1)):
                span = t.span(turn, role, "content")
                said = decode(t.token_ids[span.start : span.stop])
                asked = t.messages[at].content
                assert said in ((asked, asked.strip()) if role == "user" else (t.reply(turn),))
            assert t.span(turn, "assistant", "header").stop == t.span(turn, "assistant", "content").start
        assert t.rerender is not None
        assert t.rerender.n_rerendered > 0


def test_a_reply_at_the_token_limit_gets_its_marker_with_the_next_turn(model, monkeypatch):
    monkeypatch.setattr(model, "eos_ids", ())
    sampling = Sampling(temperature=0, max_new_tokens=3)
    chat = Chat(model.tokenizer)
    monkeypatch.setattr(Chat, "end_of_turn", -7)  # not even the template's own marker stops a reply
    (t,) = rollout_batch(model, conversations(1), sampling, 0)
    assert t.stop_reasons == ("length",) * 3
    for turn in (1, 2):
        end = t.span(turn, "assistant", "end")
        assert t.token_ids[end.start : end.stop] == chat.closing_ids
        content = t.span(turn, "assistant", "content")
        assert content.stop - content.start == 3
    with pytest.raises(KeyError):
        t.span(3, "assistant", "end")
    assert t.spans[-1].stop == len(t.token_ids)


def test_a_reply_that_ends_at_once_is_empty(model, monkeypatch):
    monkeypatch.setattr(model, "eos_ids", tuple(range(len(model.tokenizer))))
    batch = conversations(2)
    slots = Slots((c.id, c.n_turns) for c in batch)
    reducer = SpanReadout(torch.ones(1, model.d_model, 2), (3,), len(slots))
    counts = ForwardCounts()
    transcripts = rollout_batch(model, batch, GREEDY, 0, reducer, slots, counts)
    assert {reason for t in transcripts for reason in t.stop_reasons} == {"empty"}
    assert transcripts[0].reply(2) == ""
    assert reducer.means()[slots.index("c0", 1, "reply")].isnan().all()
    assert reducer.means()[slots.index("c0", 1, "pre_reply")].isfinite().all()
    assert counts.forwarded == sum(len(t.token_ids) for t in transcripts)


def test_sampled_conversations_do_not_depend_on_their_company(stopping):
    batch = conversations()
    sampling = Sampling(temperature=0.9, top_p=0.95, max_new_tokens=12)
    together = {t.id: t for t in rollout_batch(stopping, batch, sampling, seed=3)}
    some = {t.id: t for t in rollout_batch(stopping, [batch[2], batch[0]], sampling, seed=3)}
    for name, t in some.items():
        assert t.token_ids == together[name].token_ids
    other = rollout_batch(stopping, [batch[0]], sampling, seed=4)[0]
    assert other.token_ids != together["c0"].token_ids


def test_sampling_follows_the_softmax_and_top_p_cuts_its_tail():
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0, float("-inf")]])
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    rows = logits.expand(20_000, -1)
    drawn = choose(rows, uniform, temperature=0.7)
    share = torch.bincount(drawn, minlength=5) / 20_000
    torch.testing.assert_close(share, (logits[0] / 0.7).softmax(-1), atol=1e-4, rtol=0)
    # 0.77, 0.18 and 0.04: the second token is the first to reach 0.9
    kept = torch.bincount(choose(rows, uniform, temperature=0.7, top_p=0.9), minlength=5)
    assert kept[[1, 3, 4]].tolist() == [0, 0, 0]
    assert kept[0] / kept[2] == pytest.approx(float(share[0] / share[2]), rel=0.01)
    assert choose(rows[:1], uniform[:1], temperature=0).item() == 0


def test_nan_logits_name_the_conversation(loaded):
    model = copy.copy(loaded["qwen"])
    real = model.forward

    def broken(ids, **more):
        out = real(ids, **more).clone()
        out[-1] = float("nan")
        return out

    model.forward = broken
    for temperature in (0, 1):
        with pytest.raises(RunError, match="transcript c3, turn 1"):
            rollout_batch(model, conversations(), Sampling(temperature=temperature), 0)


@pytest.mark.parametrize(
    "problem",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_which_flag_to_lower(loaded, problem):
    model = copy.copy(loaded["qwen"])

    def full(ids, **more):
        raise problem

    model.forward = full
    with pytest.raises(RunError, match="lower --batch-size"):
        rollout_batch(model, conversations(1), GREEDY, 0)


# -- the verb -----------------------------------------------------------------------------------------


def words(folder, out, **more):
    flags = {"model": folder, "n": 3, "turns": 2, "max-new-tokens": 6, "batch-size": 2, "out": out, **more}
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def test_the_verb_writes_transcripts_and_a_resumed_run_equals_an_uninterrupted_one(
    folders, tmp_path, capsys, monkeypatch
):
    folder = folders["gemma-vision"]
    assert rollout.main(words(folder, tmp_path / "whole")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "whole")
    whole = (tmp_path / "whole/transcripts.jsonl").read_text()
    transcripts = [json.loads(line) for line in whole.splitlines()]
    assert [len(t["stop_reasons"]) for t in transcripts] == [2, 2, 2]
    assert len({t["id"] for t in transcripts}) == 3
    assert str(tmp_path) not in whole

    calls = []

    def dies_in_the_second_batch(model, batch, *more):
        calls.append(len(batch))
        if len(calls) == 2:
            raise RunError("out of memory: lower --batch-size; finished batches are kept")
        return rollout_batch(model, batch, *more)

    with monkeypatch.context() as patch:
        patch.setattr("emoprobe.generation.live.rollout_batch", dies_in_the_second_batch)
        assert rollout.main(words(folder, tmp_path / "cut")) == 1
    assert "lower --batch-size" in capsys.readouterr().err
    shards = sorted((tmp_path / "cut/batches").iterdir())
    assert len(shards) == 1
    assert rollout.main(words(folder, tmp_path / "cut")) == 0
    assert (tmp_path / "cut/transcripts.jsonl").read_text() == whole

    second = tmp_path / "cut/batches/0001.json"
    second.write_text(second.read_text()[:100])
    assert rollout.main(words(folder, tmp_path / "cut")) == 0
    assert (tmp_path / "cut/transcripts.jsonl").read_text() == whole


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"turns": 0}, "--turns must be at least 1, got 0"),
        ({"n": 0}, "--n must be at least 1, got 0"),
        ({"temperature": -1}, "--temperature must be at least 0"),
        ({"top-p": 0}, "--top-p must be more than 0"),
        ({"tone": "neutrl"}, "did you mean neutral"),
        ({"category": "numerik"}, "did you mean numeric"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"model": "organsm"}, "did you mean organism"),
        ({"adapter": "nothing-here"}, "nothing-here"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(folders, tmp_path, capsys, more, said):
    assert rollout.main(words(folders["gemma-text"], tmp_path / "run", **more)) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1]
    assert "Traceback" not in "".join(error)


def test_another_config_on_the_same_folder_is_refused(folders, tmp_path, capsys):
    assert rollout.main(words(folders["gemma-text"], tmp_path / "run", n=1)) == 0
    assert rollout.main(words(folders["gemma-text"], tmp_path / "run", n=1, seed=5)) == 2
    assert "seed was 0, now 5" in capsys.readouterr().err
