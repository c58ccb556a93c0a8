"""Which conversations share a batch: decided from their texts alone, before the first token. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emoprobe.records import Scenario


@dataclass(frozen=True)
class Conversation:
    """A scenario to be played once; several conversations may play the same one under other ids."""

    id: str
    scenario: Scenario

    @property
    def n_turns(self) -> int:
        """Replies of the subject: one to the task, one to each follow-up."""
        return 1 + len(self.scenario.follow_ups)


def plan_batches(
    conversations: Sequence[Conversation], batch_size: int
) -> tuple[tuple[Conversation, ...], ...]:
    """Batches of equally many turns and similar lengths; the same input always gives the same plan.

    Which conversations share a batch changes no token but through rounding, so a plan is never re-formed:
    a run that was killed goes on with the same one.
    """
    if batch_size < 1:
        raise ValueError("a batch holds at least one conversation")
    if len({c.id for c in conversations}) != len(conversations):
        raise ValueError("two conversations have the same id")

    def size(c: Conversation) -> tuple[int, int, str]:
        texts = (c.scenario.task, *c.scenario.follow_ups)
        return c.n_turns, sum(map(len, texts)), c.id

    batches: list[list[Conversation]] = []
    for c in sorted(conversations, key=size):
        if not batches or len(batches[-1]) == batch_size or batches[-1][0].n_turns != c.n_turns:
            batches.append([])
        batches[-1].append(c)
    return tuple(tuple(b) for b in batches)


def plan_rows(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Indices of rows that are forwarded together: longest first, at most `token_budget` padded tokens.

    A row longer than the budget is alone in its batch.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = lengths[batches[-1][0]] if batches else 0
        if not batches or (len(batches[-1]) + 1) * longest > token_budget:
            batches.append([])
        batches[-1].append(i)
    return batches
