"""From a reply to the sentences that its speaker says: offsets stay those of the reply throughout."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import lru_cache

from emoprobe.judging.lexicon import lexicon

_PLAIN_MARKS = str.maketrans(
    {"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "„": '"', "…": ".", "—": ",", "–": ","}
)
_NOT_SAID = (
    re.compile(r"https?://\S+"),
    re.compile(r"(?<!`)`[^`\n]{1,200}`(?!`)"),
    re.compile(r"\$\$[^$]{1,2000}\$\$"),
    re.compile(r"\$[^$\n]{1,300}\$"),
    re.compile(r"\\\[[^\]]{0,300}\\\]|\\\([^)\n]{0,300}\\\)"),
    re.compile(r"^[ \t]*>[^\n]*", re.M),
)
"""Links, inline code, formulas and block quotes. Every repetition is bounded or stops at its own mark."""
_QUOTED = re.compile(r"\"[^\"\n]{3,400}\"|(?<!\w)'[^'\n]*(?:'\w[^'\n]*){0,6}'(?!\w)")
_SENTENCE = re.compile(r"[^.!?\n]{1,600}[.!?]*|[.!?]+")
_PLAIN_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
_TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[,.;:!?=|/+]")
"""Words, numbers and the signs that part them; markup, brackets and emoji are passed over."""
_WRAPPED = re.compile(r"(?<=[a-z,])\n(?=[a-z])")
_RUN = re.compile(r"([a-z])\1\1+")


@dataclass(frozen=True)
class Sentence:
    """Words with contractions spelled out, and the half-open span of the reply that each came from."""

    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    exclaims: bool


def fold(text: str) -> str:
    """Lower case, plain quotation marks, wrapped lines joined: the same length as `text`."""
    plain = _WRAPPED.sub(" ", text).translate(_PLAIN_MARKS)
    low = plain.lower()
    return low if len(low) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in plain)


def mask(plain: str) -> str:
    """Blank out what is not said by the speaker: code, formulas, links, quotations. The same length."""
    for pattern in _NOT_SAID:
        plain = pattern.sub(_blank, plain)
    said = _QUOTED.sub(_blank_long, plain)
    # A reply that is nearly all in quotation marks is itself what is said.
    return said if 8 * len(said.split()) >= len(plain.split()) else plain


def sentences(plain: str, anchors: Container[str]) -> Iterator[Sentence]:
    """The sentences of a folded text that hold an anchor; the others cannot count and are skipped."""
    hot = {
        word for word in set(_PLAIN_WORD.findall(plain)) if any(part in anchors for part in _spell_out(word))
    }
    if not hot:
        return
    for match in _SENTENCE.finditer(plain):
        if hot.isdisjoint(_PLAIN_WORD.findall(match.group())):
            continue
        words: list[str] = []
        spans: list[tuple[int, int]] = []
        for token in _TOKEN.finditer(match.group()):
            span = (match.start() + token.start(), match.start() + token.end())
            for part in _spell_out(token.group()):
                words.append(part)
                spans.append(span)
        yield Sentence(tuple(words), tuple(spans), match.group().count("!") >= 2)


@lru_cache(maxsize=50_000)
def _spell_out(word: str) -> tuple[str, ...]:
    """`can't` and `cant` as `can not`; `noooo` as `no`, `aaargh` as `argh`."""
    return lexicon().contractions.get(word) or (_RUN.sub(r"\1", word),)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match.group())


def _blank_long(match: re.Match[str]) -> str:
    """Quotations of three words and more; shorter marks are only emphasis ("such a 'failure'")."""
    return _blank(match) if match.group().count(" ") >= 2 else match.group()
