"""Multi-turn rollouts: a carried ragged cache against a new prefill of the whole history every turn.

Both play the same conversations with the same tokens. Ours samples them; `generate` is made to choose
them again by a logits processor, greedily, from ready token ids: it neither samples nor renders, which
is in its favour. Its batch holds the same rows, left-padded as transformers wants it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import measure
import numpy as np
import torch
from random_models import Load
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from emoprobe import emotions
from emoprobe.activations.reduce import SpanReadout
from emoprobe.activations.slots import Slots
from emoprobe.errors import RunError
from emoprobe.generation.live import rollout_batch
from emoprobe.generation.plan import Conversation
from emoprobe.generation.session import ForwardCounts
from emoprobe.model.chat import Chat
from emoprobe.model.hooked import HookedModel
from emoprobe.records import Sampling, Transcript
from emoprobe.scenarios import library


@dataclass
class Columns:
    """Positions that the model computed, pads and waiting rows included."""

    computed: int = 0


class Stage:
    """One batch of conversations and the three ways to play it."""

    def __init__(self, model: HookedModel, load: Load, seed: int) -> None:
        self.model, self.seed = model, seed
        scenarios = library.by_category("numeric", load.conversations, load.turns, seed=seed)
        self.conversations = [Conversation(s.id, s) for s in scenarios]
        self.sampling = Sampling(max_new_tokens=load.max_new_tokens)
        self.slots = Slots((c.id, c.n_turns) for c in self.conversations)
        draw = torch.Generator().manual_seed(seed)
        size = (model.n_layers, model.d_model, len(emotions.names()))
        self.weights = torch.randn(size, generator=draw).to(model.device)
        self.counts = ForwardCounts()
        self.transcripts = self.carried(self.counts)
        self.ends = sorted({*model.eos_ids, Chat(model.tokenizer, model.name).end_of_turn})
        self.turns = [_Turn(self.transcripts, turn, model) for turn in range(1, load.turns + 1)]

    def carried(self, counts: ForwardCounts | None = None) -> list[Transcript]:
        """Ours, without a reader."""
        return rollout_batch(self.model, self.conversations, self.sampling, self.seed, counts=counts)

    def carried_read(self) -> SpanReadout:
        """Ours, with live span means of 8 emotions at all layers."""
        reader = SpanReadout(self.weights, range(self.model.n_layers), len(self.slots))
        rollout_batch(self.model, self.conversations, self.sampling, self.seed, reader, self.slots)
        return reader

    def refilled(self) -> list[Tensor]:
        """Plain `generate` over the whole history at each turn; ids [row, token] by turn."""
        with torch.inference_mode():
            return [
                self.model.net.generate(
                    input_ids=turn.prompt,
                    attention_mask=turn.mask,
                    max_new_tokens=turn.replies.shape[1],
                    do_sample=False,
                    eos_token_id=self.ends,
                    pad_token_id=self.model.tokenizer.pad_token_id,
                    logits_processor=LogitsProcessorList([_Forced(turn.replies, turn.prompt.shape[1])]),
                )
                for turn in self.turns
            ]

    # -- counts -----------------------------------------------------------------------------------------

    def counted(self) -> dict[str, Any]:
        """Positions by both ways. RunError if a position of ours was not forwarded and read just once."""
        real = sum(len(t.token_ids) for t in self.transcripts)
        with self._columns() as ours:
            reader = self.carried_read()
        expected = np.concatenate([self.slots.tags(t) for t in self.transcripts])
        by_span = np.bincount(expected[expected >= 0], minlength=len(self.slots))
        if self.counts.forwarded != real or not np.array_equal(reader.counts.numpy(), by_span):
            raise RunError(f"{real} positions, but {self.counts.forwarded} were forwarded")
        with self._columns() as refilled:
            made = self.refilled()
        self._check_same(made)
        again = sum(turn.n_forwarded for turn in self.turns)
        return {
            "real_positions": real,
            "reply_tokens": sum(turn.n_replied for turn in self.turns),
            "carried": {"forwarded": self.counts.forwarded, "computed": ours.computed},
            "refilled": {"forwarded": again, "computed": refilled.computed},
            "each_position_once": True,
        }

    def _check_same(self, made: Sequence[Tensor]) -> None:
        """`generate` must have come to the ids that it was to come to."""
        for turn, ids in zip(self.turns, made, strict=True):
            for row, reply in enumerate(turn.made):
                start = turn.prompt.shape[1]
                if ids[row, start : start + len(reply)].tolist() != reply:
                    raise RunError(f"generate came to other ids in row {row}")

    @contextmanager
    def _columns(self) -> Iterator[Columns]:
        columns = Columns()

        def count(_module: Any, args: tuple[Tensor, ...]) -> None:
            columns.computed += args[0].numel()

        handle = self.model.net.get_input_embeddings().register_forward_pre_hook(count)
        try:
            yield columns
        finally:
            handle.remove()


class _Turn:
    """What `generate` is given for one turn, made beforehand: histories, left-padded, and the replies."""

    def __init__(self, transcripts: Sequence[Transcript], turn: int, model: HookedModel) -> None:
        starts = [t.span(turn, "assistant", "content").start for t in transcripts]
        self.made = [_reply(t, turn) for t in transcripts]
        widest, longest = max(starts), max(map(len, self.made))
        pad = model.tokenizer.pad_token_id
        prompt = [
            [pad] * (widest - n) + list(t.token_ids[:n]) for t, n in zip(transcripts, starts, strict=True)
        ]
        self.prompt = torch.tensor(prompt, device=model.device)
        columns = torch.arange(widest, device=model.device)
        self.mask = (columns >= widest - torch.tensor(starts, device=model.device)[:, None]).long()
        replies = [reply + [pad] * (longest - len(reply)) for reply in self.made]
        self.replies = torch.tensor(replies, device=model.device)
        self.n_replied = sum(map(len, self.made))
        self.n_forwarded = sum(starts) + self.n_replied - len(starts)  # the last of a reply is not forwarded


def _reply(transcript: Transcript, turn: int) -> list[int]:
    """Ids of a reply as generated, with the token that ended it."""
    span = transcript.span(turn, "assistant", "content")
    ended = transcript.stop_reasons[turn - 1] != "length"
    return list(transcript.token_ids[span.start : span.stop + ended])


class _Forced(LogitsProcessor):
    """Makes greedy decoding choose ready tokens, at the price of one write per row."""

    def __init__(self, replies: Tensor, start: int) -> None:
        self.replies, self.start = replies, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = self.replies[:, input_ids.shape[1] - self.start, None]
        return scores.scatter_(1, token, torch.finfo(scores.dtype).max)


def bench_rollouts(model: HookedModel, load: Load, rounds: int, seed: int) -> dict[str, Any]:
    """Positions counted, then times of whole rollouts."""
    stage = Stage(model, load, seed)
    counts = stage.counted()
    jobs = {
        "refilled": measure.ready(stage.refilled),
        "carried": measure.ready(stage.carried),
        "carried_read": measure.ready(stage.carried_read),
    }
    contestants = measure.ratios(measure.race(jobs, rounds, seed, model.device), "refilled")
    for entry in contestants.values():
        entry["reply_tokens_per_s"] = counts["reply_tokens"] / entry["median_s"]
    return {
        "model": model.state_key,
        "conversations": load.conversations,
        "turns": load.turns,
        "max_new_tokens": load.max_new_tokens,
        "counts": counts,
        "contestants": contestants,
    }
