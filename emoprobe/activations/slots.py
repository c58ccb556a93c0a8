"""Which row of a reducer belongs to which (transcript, turn, part), and which tokens are counted in it.

A *tag* is the row that a token is reduced into; a token tagged -1 is never counted. Every token has at
most one tag: `user` is the user's content, `pre_reply` the last header token before the reply, `reply`
the assistant's content. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emoprobe.records import Part, Span, Transcript

SPAN_PARTS: tuple[Part, ...] = ("user", "pre_reply", "reply")
"""Parts that a span readout has, in the order of their tokens within a turn."""

Key = tuple[str, int, Part]
"""(transcript id, 1-based turn, part)."""


class Tagger(Protocol):
    """Gives each token of a transcript the row of a reducer that it belongs to, or -1."""

    def tags(self, transcript: Transcript) -> NDArray[np.int64]:
        """Row of each of the transcript's tokens, int[token]."""
        ...

    def describe(self, row: int) -> str:
        """The row in words, for an error message."""
        ...


class Slots:
    """One row per (transcript, turn, part), known before the first token is made.

    Args:
        conversations: (transcript id, number of turns) in the order of the rows.
    """

    def __init__(self, conversations: Iterable[tuple[str, int]]) -> None:
        self._first: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._n = 0
        for transcript_id, n_turns in conversations:
            if transcript_id in self._first:
                raise ValueError(f"two conversations are named {transcript_id!r}")
            self._first[transcript_id] = self._n
            self._turns[transcript_id] = n_turns
            self._n += n_turns * len(SPAN_PARTS)

    @classmethod
    def of(cls, transcripts: Sequence[Transcript]) -> Slots:
        """The rows of finished transcripts."""
        return cls((t.id, t.n_turns) for t in transcripts)

    def __len__(self) -> int:
        return self._n

    def index(self, transcript_id: str, turn: int, part: Part) -> int:
        """Row of one part; KeyError for a transcript or turn that has none."""
        if not 1 <= turn <= self._turns[transcript_id]:
            raise KeyError(f"{transcript_id} has no turn {turn}")
        return self._first[transcript_id] + (turn - 1) * len(SPAN_PARTS) + SPAN_PARTS.index(part)

    def keys(self) -> Iterator[Key]:
        """(transcript id, turn, part) of each row, in order."""
        for transcript_id, n_turns in self._turns.items():
            for turn in range(1, n_turns + 1):
                for part in SPAN_PARTS:
                    yield transcript_id, turn, part

    def describe(self, row: int) -> str:
        """The row in words, for an error message."""
        names = list(self._first)
        starts = np.fromiter(self._first.values(), dtype=np.int64)
        name = names[int(np.searchsorted(starts, row, side="right")) - 1]
        turn, part = divmod(row - self._first[name], len(SPAN_PARTS))
        return f"transcript {name}, turn {turn + 1}, {SPAN_PARTS[part]}"

    def span_tags(self, transcript_id: str, spans: Iterable[Span], n_tokens: int) -> NDArray[np.int64]:
        """Tags of `n_tokens` tokens from their spans (starts and stops counted from the first of them)."""
        tags = np.full(n_tokens, -1, dtype=np.int64)
        for span in spans:
            if span.start == span.stop:
                continue
            if span.kind == "content":
                part: Part = "user" if span.role == "user" else "reply"
                tags[span.start : span.stop] = self.index(transcript_id, span.turn, part)
            elif span.kind == "header" and span.role == "assistant":
                tags[span.stop - 1] = self.index(transcript_id, span.turn, "pre_reply")
        return tags

    def tags(self, transcript: Transcript) -> NDArray[np.int64]:
        """Tags of a whole transcript, int[token]."""
        return self.span_tags(transcript.id, transcript.spans, len(transcript.token_ids))


class TokenSlots:
    """One row per token of each transcript, in order of the transcripts."""

    def __init__(self, transcripts: Sequence[Transcript]) -> None:
        self._first: dict[str, int] = {}
        self._n = 0
        for t in transcripts:
            if t.id in self._first:
                raise ValueError(f"two transcripts are named {t.id!r}")
            self._first[t.id] = self._n
            self._n += len(t.token_ids)

    def __len__(self) -> int:
        return self._n

    def first(self, transcript_id: str) -> int:
        """Row of the transcript's first token."""
        return self._first[transcript_id]

    def describe(self, row: int) -> str:
        """The row in words, for an error message."""
        name = [n for n, first in self._first.items() if first <= row][-1]
        return f"transcript {name}, token {row - self._first[name]}"

    def tags(self, transcript: Transcript) -> NDArray[np.int64]:
        """Rows of a transcript's tokens, int[token]."""
        return self._first[transcript.id] + np.arange(len(transcript.token_ids), dtype=np.int64)
