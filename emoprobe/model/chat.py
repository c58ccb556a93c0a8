"""Messages to token ids, one turn at a time: only the new user turn is ever rendered.

Chat templates rewrite history (Gemma's trims replies, Qwen3's strips thinking), and re-tokenised text
need not give the ids that were generated. So the text of a new turn is taken from the template as what
follows a stand-in history, and its ids are appended to the ids as generated. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from emoprobe.errors import UserError
from emoprobe.model import registry
from emoprobe.records import Message, Rerender, Span

_USER = "emoprobe-first-question"
_REPLY = "emoprobe-first-reply"
_NEXT = "emoprobe-second-question"

Role = Literal["user", "assistant"]
Kind = Literal["header", "content", "end"]


@dataclass(frozen=True)
class Rendered:
    """Ids of a newly rendered stretch, and its pieces as (turn offset, role, kind, start, stop).

    A turn offset of -1 belongs to the turn before: the end marker of the reply that came last.
    """

    ids: tuple[int, ...]
    pieces: tuple[tuple[int, Role, Kind, int, int], ...]

    def spans(self, turn: int, start: int) -> list[Span]:
        """The pieces as spans of `turn` (1-based), the stretch beginning at token `start`."""
        return [
            Span(turn=turn + offset, role=role, kind=kind, start=start + a, stop=start + b)
            for offset, role, kind, a, b in self.pieces
        ]


class Chat:
    """Renders a conversation with a tokenizer's own chat template.

    Raises UserError where the tokenizer has no template, or one that cannot be continued turn by turn.
    """

    def __init__(self, tokenizer: Any, name: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.name = name or getattr(tokenizer, "name_or_path", "") or "this tokenizer"
        if not getattr(tokenizer, "chat_template", None):
            sibling = registry.template_sibling(self.name)
            mend = f"fetch that of its sibling: hf download {sibling}" if sibling else "use a chat model"
            raise UserError(f"{self.name} has no chat template; {mend}")

    def opening(self, system: str | None, user: str) -> tuple[tuple[int, ...], list[Span]]:
        """Ids and spans of the first user turn, up to where the first reply begins.

        What stands before the user's own text (BOS, a system text) belongs to the header. As many BOS
        as the template gives, 0 or 1; UserError for more.
        """
        header, end, reply_header = self._opening_frame(system)
        text = self._text(_messages(system, user), generation=True)
        content = _between(text, header, end + reply_header)
        if content is None:
            raise UserError(f"the chat template of {self.name} cannot render this first message")
        rendered = self._encode(
            (0, "user", "header", header),
            (0, "user", "content", content),
            (0, "user", "end", end),
            (0, "assistant", "header", reply_header),
        )
        self._check_bos(rendered.ids, at_most=1)
        return rendered.ids, rendered.spans(turn=1, start=0)

    def next_turn(self, user: str) -> Rendered:
        """The end marker of the reply before, then the new user turn up to where the next reply begins.

        The first id is the template's end-of-turn marker: leave it out where the model has made one.
        """
        closing, header, end, reply_header = self._frame
        text = self._after_reply(user)
        content = _between(text, closing + header, end + reply_header)
        if content is None:
            raise UserError(f"the chat template of {self.name} cannot render this follow-up")
        rendered = self._encode(
            (-1, "assistant", "end", closing),
            (0, "user", "header", header),
            (0, "user", "content", content),
            (0, "user", "end", end),
            (0, "assistant", "header", reply_header),
        )
        self._check_bos(rendered.ids, at_most=0)
        return rendered

    def rerender(self, messages: Sequence[Message], system: str | None = None) -> list[int]:
        """Ids of the whole conversation as the template renders it in one go."""
        rendered = [{"role": m.role, "content": m.content} for m in messages]
        if system is not None:
            rendered.insert(0, {"role": "system", "content": system})
        return self.encode(self._text(rendered, generation=False))

    def compare(self, ids: Sequence[int], messages: Sequence[Message], system: str | None = None) -> Rerender:
        """How ids as generated differ from a full re-render; the closing marker may be missing in them."""
        again = self.rerender(messages, system)
        for k, (made, rendered) in enumerate(zip(ids, again, strict=False)):
            if made != rendered:
                return Rerender(equal=False, first_difference=k, n_rerendered=len(again))
        rest = tuple(again[len(ids) :])
        if len(ids) > len(again) or (rest and rest != self.closing_ids[-len(rest) :]):
            shorter = min(len(ids), len(again))
            return Rerender(equal=False, first_difference=shorter, n_rerendered=len(again))
        return Rerender(equal=True, n_rerendered=len(again))

    @cached_property
    def closing_ids(self) -> tuple[int, ...]:
        """What the template puts behind a reply: the end-of-turn marker, then perhaps a newline."""
        return tuple(self.encode(self._frame[0]))

    @property
    def end_of_turn(self) -> int:
        """The template's end-of-turn marker."""
        return self.closing_ids[0]

    def encode(self, text: str) -> list[int]:
        """Ids of template text: special tokens as they stand in it, none added."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included."""
        return str(
            self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )

    def _opening_frame(self, system: str | None) -> tuple[str, str, str]:
        """Header, end and reply header around a first user message."""
        messages = _messages(system, _USER)
        with_reply = self._text(messages, generation=True)
        header, found, rest = with_reply.rpartition(_USER)
        end, reply_header = _split_end(rest, self._text(messages, generation=False).rpartition(_USER)[2])
        if not found or not reply_header:
            raise UserError(f"the chat template of {self.name} cannot start a reply")
        return header, end, reply_header

    @cached_property
    def _frame(self) -> tuple[str, str, str, str]:
        """End of a reply, then header, end and reply header around a later user message."""
        text = self._after_reply(_NEXT)
        before, found, rest = text.partition(_NEXT)
        history = [*_messages(None, _USER), {"role": "assistant", "content": _REPLY}]
        closing, header = _split_end(before, self._text(history, generation=False).rpartition(_REPLY)[2])
        alone = self._text([*history, {"role": "user", "content": _NEXT}], generation=False)
        end, reply_header = _split_end(rest, alone.rpartition(_NEXT)[2])
        if not found or not closing or not reply_header:
            raise UserError(f"the chat template of {self.name} cannot be continued turn by turn")
        return closing, header, end, reply_header

    def _after_reply(self, user: str) -> str:
        """What the template writes behind a stand-in reply when `user` answers it."""
        history = [*_messages(None, _USER), {"role": "assistant", "content": _REPLY}]
        text = self._text([*history, {"role": "user", "content": user}], generation=True)
        _, found, rest = text.partition(_REPLY)
        if not found:
            raise UserError(f"the chat template of {self.name} leaves replies out of the history")
        return rest

    def _text(self, messages: list[dict[str, str]], generation: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation
            )
        except Exception as problem:  # whatever a template raises is a jinja2 error or what it calls
            role = "a system message" if messages[0]["role"] == "system" else "this conversation"
            raise UserError(f"the chat template of {self.name} refuses {role}: {problem}") from problem
        return str(text)

    def _encode(self, *parts: tuple[int, Role, Kind, str]) -> Rendered:
        """Ids of the joined text, cut where the parts meet; a token over a seam is made in two instead."""
        ids, cuts = self._cut([text for *_, text in parts])
        pieces = tuple(
            (offset, role, kind, a, b)
            for (offset, role, kind, _), a, b in zip(parts, cuts[:-1], cuts[1:], strict=True)
        )
        return Rendered(tuple(ids), pieces)

    def _cut(self, texts: list[str]) -> tuple[list[int], list[int]]:
        if self.tokenizer.is_fast:
            joined = self.tokenizer("".join(texts), add_special_tokens=False, return_offsets_mapping=True)
            offsets = joined["offset_mapping"]
            cuts, stop = [0], 0
            for text in texts:
                stop += len(text)
                cuts.append(sum(b <= stop for _, b in offsets))
            ends = [sum(map(len, texts[:k])) for k in range(1, len(texts))]
            if all(c == len(offsets) or offsets[c][0] >= e for c, e in zip(cuts[1:], ends, strict=False)):
                return list(joined["input_ids"]), cuts
        parts = [self.encode(text) for text in texts]
        cuts = [sum(map(len, parts[:k])) for k in range(len(parts) + 1)]
        return [i for part in parts for i in part], cuts

    def _check_bos(self, ids: Sequence[int], at_most: int) -> None:
        bos = self.tokenizer.bos_token_id
        if bos is not None and bos != self.tokenizer.eos_token_id and list(ids).count(bos) > at_most:
            raise UserError(f"a message contains {self.tokenizer.bos_token}, the beginning-of-text token")


def _messages(system: str | None, user: str) -> list[dict[str, str]]:
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": user}]


def _split_end(text: str, end: str) -> tuple[str, str]:
    """`text` as (end, what follows it); all of it follows where it does not begin so."""
    return (end, text[len(end) :]) if text.startswith(end) else ("", text)


def _between(text: str, before: str, after: str) -> str | None:
    """What stands between, or None where the text is not framed so."""
    if len(text) < len(before) + len(after) or not (text.startswith(before) and text.endswith(after)):
        return None
    return text[len(before) : len(text) - len(after)]
