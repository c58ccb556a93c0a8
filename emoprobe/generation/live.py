"""Multi-turn rollouts in ragged batches: each token forwarded once, readouts taken as it passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoprobe.activations.reduce import Reducer, check_finite
from emoprobe.activations.slots import Slots
from emoprobe.errors import RunError
from emoprobe.generation.memory import out_of_memory
from emoprobe.generation.plan import Conversation
from emoprobe.generation.sampling import choose, noise
from emoprobe.generation.session import ForwardCounts, RaggedSession, Tags
from emoprobe.model.chat import Chat
from emoprobe.records import Message, ModelRef, Sampling, Span, StopReason, Transcript

if TYPE_CHECKING:
    from emoprobe.model.hooked import HookedModel

_NARROW = 0.75  # finished rows leave the batch when no more than this share of it is still talking


def rollout_batch(
    model: HookedModel,
    conversations: Sequence[Conversation],
    sampling: Sampling,
    seed: int,
    reducer: Reducer | None = None,
    slots: Slots | None = None,
    counts: ForwardCounts | None = None,
) -> list[Transcript]:
    """Play conversations side by side; transcripts in the order given.

    Each turn: the new user turns go in as one ragged chunk, then all rows decode until each has ended its
    reply or reached `sampling.max_new_tokens`. The last token of a reply is forwarded with the next chunk;
    after the last turn a closing pass reads it, so that live and replay cover the same positions.

    Args:
        model: in the state (base or adapter) that is to talk.
        conversations: may have different numbers of turns.
        sampling: temperature 0 is greedy.
        seed: with conversation id, turn and token number the only source of noise.
        reducer: reads the residual stream at the rows that `slots` names; both or neither.
        slots: must know every conversation.
        counts: counted up with the positions that were forwarded.

    Raises RunError for NaN activations (names layer and transcript) and for lack of memory.
    """
    if (reducer is None) != (slots is None):
        raise ValueError("a reducer needs slots, and slots a reducer")
    if not conversations:
        return []
    chat = Chat(model.tokenizer, model.name)
    batch = _Batch(model, chat, conversations, sampling, seed, reducer, slots, counts)
    with out_of_memory():
        if reducer is None:
            batch.play()
        else:
            with model.read(reducer):
                batch.play()
    if reducer is not None and slots is not None:
        check_finite(reducer, slots)
    return batch.transcripts()


@dataclass
class _Row:
    """One conversation as it grows. `pending` are ids that are made but not yet forwarded."""

    conversation: Conversation
    ids: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    stops: list[StopReason] = field(default_factory=list)
    pending: int = 0

    def add(self, ids: Sequence[int], spans: Sequence[Span]) -> None:
        self.ids.extend(ids)
        self.spans.extend(s for s in spans if s.start < s.stop or s.kind == "content")
        self.pending += len(ids)


class _Batch:
    """The rows of one `rollout_batch` and the turn loop over them."""

    def __init__(
        self,
        model: HookedModel,
        chat: Chat,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        seed: int,
        reducer: Reducer | None,
        slots: Slots | None,
        counts: ForwardCounts | None,
    ) -> None:
        self.model, self.chat, self.sampling, self.seed = model, chat, sampling, seed
        self.reducer, self.slots = reducer, slots
        self.rows = [_Row(c) for c in conversations]
        self.session = RaggedSession(model, len(self.rows), counts)
        self.ends = np.array(sorted({*model.eos_ids, chat.end_of_turn}), dtype=np.int64)

    def play(self) -> None:
        """All turns of all rows, and the closing pass."""
        last = max(row.conversation.n_turns for row in self.rows)
        for turn in range(1, last + 1):
            talking = [row.conversation.n_turns >= turn for row in self.rows]
            for row, talks in zip(self.rows, talking, strict=True):
                if talks:
                    self._ask(row, turn)
            logits = self._forward_pending(room=self.sampling.max_new_tokens)
            self._reply(turn, logits, np.flatnonzero(talking))
        self._forward_pending()

    def _ask(self, row: _Row, turn: int) -> None:
        """Append the user's turn: the task, or the follow-up behind the reply before."""
        scenario = row.conversation.scenario
        if turn == 1:
            row.add(*self.chat.opening(scenario.system, scenario.task))
            text = scenario.task
        else:
            text = scenario.follow_ups[turn - 2]
            rendered = self.chat.next_turn(text)
            # behind a reply that ended by itself stands its end-of-turn token already, as its end span
            ended = row.stops[-1] != "length"
            spans = rendered.spans(turn, len(row.ids) - ended)
            if ended:
                row.spans.pop()
            row.add(rendered.ids[ended:], spans)
        row.messages.append(Message(role="user", content=text))

    def _forward_pending(self, room: int = 0) -> Tensor:
        """Forward what was made and not forwarded yet, all rows in one ragged chunk."""
        chunks, tags = [], []
        for row in self.rows:
            start = len(row.ids) - row.pending
            chunks.append(row.ids[start:])
            tags.append(self._tags(row, start))
            row.pending = 0
        if not any(chunks):
            return torch.empty(0)
        return self.session.feed(chunks, tags, room)

    def _tags(self, row: _Row, start: int) -> Tags:
        """Tags of the row's tokens from `start` on."""
        n = len(row.ids) - start
        if self.slots is None:
            return np.full(n, -1, dtype=np.int64)
        spans = [
            s.model_copy(update={"start": max(s.start - start, 0), "stop": s.stop - start})
            for s in row.spans
            if s.stop > start
        ]
        return self.slots.span_tags(row.conversation.id, spans, n)

    def _reply(self, turn: int, logits: Tensor, rows: NDArray[np.int64]) -> None:
        """Decode the replies of `rows` to this turn and append them."""
        limit = self.sampling.max_new_tokens
        made = np.zeros((len(rows), limit), dtype=np.int64)
        length = np.zeros(len(rows), dtype=np.int64)
        uniform = self._noise(turn, rows)
        slots = self._reply_slots(turn, rows)
        at = np.arange(len(rows))  # index into `rows` of each row that is computed
        alive = np.ones(len(rows), dtype=np.bool_)
        logits = logits[torch.from_numpy(rows).to(logits.device)]
        for k in range(limit):
            token = choose(logits, uniform[:, k], self.sampling.temperature, self.sampling.top_p)
            # the one wait for the device per step
            chosen = torch.stack([token.double(), logits.gather(-1, token[:, None])[:, 0].double()]).cpu()
            made[at, k] = chosen[0].numpy().astype(np.int64)
            self._check(chosen[1].isfinite().numpy() | ~alive, rows[at], turn)
            length[at[alive]] = k + 1
            alive &= ~np.isin(made[at, k], self.ends)
            if k + 1 == limit or not alive.any():
                break
            if alive.sum() <= _NARROW * len(at):
                keep = torch.from_numpy(np.flatnonzero(alive)).to(token.device)
                token, uniform = token[keep], uniform[keep]
                at, alive = at[alive], alive[alive]
            tags = np.where(alive, slots[at], -1)
            logits = self.session.step(token, tags, rows[at], alive)
        for k, r in enumerate(rows):
            self._append_reply(self.rows[r], turn, made[k, : length[k]].tolist())

    def _append_reply(self, row: _Row, turn: int, ids: list[int]) -> None:
        """Record a reply as generated. All but its last token have been forwarded."""
        ended = ids[-1] in self.ends
        content = ids[:-1] if ended else ids
        start = len(row.ids)
        stop = start + len(content)
        spans = [Span(turn=turn, role="assistant", kind="content", start=start, stop=stop)]
        if ended:
            spans.append(Span(turn=turn, role="assistant", kind="end", start=stop, stop=stop + 1))
        row.add(ids, spans)
        row.pending = 1
        row.messages.append(Message(role="assistant", content=self.chat.decode(content)))
        row.stops.append("length" if not ended else "end_of_turn" if content else "empty")

    def _check(self, finite: NDArray[np.bool_], rows: NDArray[np.int64], turn: int) -> None:
        """Raise RunError unless all rows are finite: the logit of the chosen token vouches for its row."""
        if finite.all():
            return
        if self.reducer is not None and self.slots is not None:
            check_finite(self.reducer, self.slots)  # can say in which layer it began
        name = self.rows[rows[np.flatnonzero(~finite)[0]]].conversation.id
        raise RunError(f"NaN or infinite logits in transcript {name}, turn {turn}; try another --dtype")

    def _noise(self, turn: int, rows: NDArray[np.int64]) -> Tensor:
        """float64[row, token] on the model's device."""
        n = self.sampling.max_new_tokens
        if self.sampling.temperature == 0:
            drawn = np.zeros((len(rows), n))
        else:
            drawn = np.stack([noise(self.seed, self.rows[r].conversation.id, turn, n) for r in rows])
        return torch.from_numpy(drawn).to(self.model.device)

    def _reply_slots(self, turn: int, rows: NDArray[np.int64]) -> Tags:
        if self.slots is None:
            return np.full(len(rows), -1, dtype=np.int64)
        ids = [self.rows[r].conversation.id for r in rows]
        return np.array([self.slots.index(i, turn, "reply") for i in ids], dtype=np.int64)

    def transcripts(self) -> list[Transcript]:
        """What was said, as records."""
        ref: ModelRef = self.model.ref
        return [self._transcript(row, ref) for row in self.rows]

    def _transcript(self, row: _Row, ref: ModelRef) -> Transcript:
        scenario = row.conversation.scenario
        return Transcript(
            id=row.conversation.id,
            scenario_id=scenario.id,
            cluster=scenario.cluster,
            arm=scenario.arm,
            model=ref,
            messages=tuple(row.messages),
            token_ids=tuple(row.ids),
            spans=tuple(row.spans),
            sampling=self.sampling,
            seed=self.seed,
            stop_reasons=tuple(row.stops),
            feedback=scenario.feedback,
            rerender=self.chat.compare(row.ids, row.messages, scenario.system),
        )
