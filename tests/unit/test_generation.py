"""Batch plans, the noise of sampling and the slots of readouts: what generation decides without torch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoprobe.activations.slots import Slots, TokenSlots
from emoprobe.generation.plan import Conversation, plan_batches, plan_rows
from emoprobe.generation.sampling import noise
from emoprobe.records import Message, ModelRef, Sampling, Scenario, Span, Transcript

REF = ModelRef(
    name="m", source="m", dtype="float32", attention="sdpa", template_sha="0", n_layers=1, d_model=1,
    weights_sha="0",
)  # fmt: skip


def conversation(name, turns, length=5):
    scenario = Scenario(
        id=name, cluster=name, family="f", task="x" * length, follow_ups=("no",) * (turns - 1)
    )
    return Conversation(name, scenario)


def transcript(name="t", reply=3, stop="end_of_turn"):
    """Two turns: header, user text, end, reply header, reply, end."""
    spans, at = [], 0
    for turn in (1, 2):
        for role, kind, n in (
            ("user", "header", 2),
            ("user", "content", 4),
            ("user", "end", 1),
            ("assistant", "header", 2),
            ("assistant", "content", reply),
            ("assistant", "end", 1),
        ):
            spans.append(Span(turn=turn, role=role, kind=kind, start=at, stop=at + n))
            at += n
    texts = [Message(role=r, content="x") for r in ("user", "assistant")] * 2
    return Transcript(
        id=name,
        scenario_id="s",
        cluster="c",
        arm="rejected",
        model=REF,
        messages=tuple(texts),
        token_ids=tuple(range(at)),
        spans=tuple(spans),
        sampling=Sampling(),
        seed=0,
        stop_reasons=(stop, stop),
    )


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 50)), min_size=1, max_size=40), st.integers(1, 9))
def test_a_plan_has_each_conversation_once_in_batches_of_equal_turns(sizes, batch_size):
    conversations = [conversation(f"c{i}", *size) for i, size in enumerate(sizes)]
    plan = plan_batches(conversations, batch_size)
    assert sorted(c.id for b in plan for c in b) == sorted(c.id for c in conversations)
    assert all(len(b) <= batch_size and len({c.n_turns for c in b}) == 1 for b in plan)
    assert plan == plan_batches(conversations[::-1], batch_size)


def test_a_plan_refuses_two_conversations_of_one_name():
    with pytest.raises(ValueError, match="same id"):
        plan_batches([conversation("a", 2), conversation("a", 3)], 4)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 300))
def test_rows_are_planned_once_each_within_the_budget(lengths, budget):
    plan = plan_rows(lengths, budget)
    assert sorted(i for b in plan for i in b) == list(range(len(lengths)))
    for batch in plan:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
        assert lengths[batch[0]] == longest


def test_noise_is_a_function_of_seed_conversation_turn_and_token_only():
    one = noise(7, "a", 3, 50)
    assert np.array_equal(one, noise(7, "a", 3, 80)[:50])
    for other in (noise(8, "a", 3, 50), noise(7, "b", 3, 50), noise(7, "a", 4, 50)):
        assert not np.isin(other, one).any()


def test_noise_is_uniform_and_uncorrelated():
    drawn = np.stack([noise(0, f"c{i}", 1 + i % 8, 64) for i in range(2000)])
    assert 0 < drawn.min() < drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=50, range=(0, 1))
    expected = drawn.size / 50
    assert ((counts - expected) ** 2 / expected).sum() < 90  # chi-square, 49 degrees: p = 0.0003
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.08
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.08


def test_tags_mark_user_content_the_last_header_token_and_the_reply():
    t = transcript()
    slots = Slots.of([transcript("other"), t])
    tags = slots.tags(t)
    names = {slots.index("t", turn, part): f"{part}{turn}" for _, turn, part in slots.keys()}  # noqa: SIM118
    said = [names.get(tag, ".") for tag in tags[:13]]
    assert said == [".", ".", "user1", "user1", "user1", "user1", ".", ".", "pre_reply1"] + ["reply1"] * 3 + [
        "."
    ]
    assert tags.min() == -1
    assert len(set(tags[13:].tolist()) & set(tags[:13].tolist()) - {-1}) == 0
    assert tags[tags >= 0].min() == 6  # the other transcript's six rows come first


def test_an_empty_reply_tags_nothing():
    t = transcript(reply=0, stop="empty")
    slots = Slots.of([t])
    assert slots.index("t", 1, "reply") not in slots.tags(t)
    assert slots.index("t", 1, "pre_reply") in slots.tags(t)


def test_a_slot_is_named_for_an_error():
    slots = Slots([("a", 2), ("b", 3)])
    assert slots.describe(slots.index("b", 2, "reply")) == "transcript b, turn 2, reply"
    assert slots.describe(0) == "transcript a, turn 1, user"
    assert len(slots) == 15 == len(list(slots.keys()))
    with pytest.raises(KeyError):
        slots.index("a", 3, "reply")


def test_token_slots_are_consecutive_over_transcripts():
    a, b = transcript("a"), transcript("b", reply=1)
    slots = TokenSlots([a, b])
    assert (
        [*slots.tags(a), *slots.tags(b)]
        == list(range(len(a.token_ids) + len(b.token_ids)))
        == list(range(len(slots)))
    )
    assert slots.describe(slots.first("b") + 2) == "transcript b, token 2"
