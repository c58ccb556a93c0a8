"""The lexicon as data (`lexicon.json`), read once: terms with kind, emotion and level, and word classes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A term (words after contractions are spelled out) and where it stands on the 0-10 rubric."""

    kind: str
    emotion: str
    level: float
    words: tuple[str, ...]
    anchor: int
    """Index of the word by which the term is looked up: its least common one."""


@dataclass(frozen=True)
class Lexicon:
    """What the frames and the tokeniser look things up in."""

    by_anchor: dict[str, tuple[Entry, ...]]
    classes: dict[str, frozenset[str]]
    contractions: dict[str, tuple[str, ...]]
    adjectives: frozenset[str]
    """Terms that may stand between a subject and another: "I am tired and *ashamed*"."""
    sad_emoji: str


@cache
def lexicon() -> Lexicon:
    """The one lexicon of this version."""
    raw: dict[str, Any] = json.loads(
        resources.files("emoprobe.judging").joinpath("lexicon.json").read_text("utf-8")
    )
    classes = {name: frozenset(words) for name, words in raw["classes"].items()}
    common = (
        classes["links"] | classes["adverbs"] | classes["negators"] | classes["follow"] | classes["things"]
    )
    entries: dict[tuple[str, tuple[str, ...]], Entry] = {}
    for row in raw["entries"]:
        for term in row["terms"]:
            for words in expand(term):
                anchor = max(range(len(words)), key=lambda k: (words[k] not in common, len(words[k])))
                entry = Entry(row["kind"], row["emotion"], float(row["level"]), words, anchor)
                entries.setdefault((entry.kind, words), entry)
    by_anchor: dict[str, list[Entry]] = {}
    for entry in entries.values():
        by_anchor.setdefault(entry.words[entry.anchor], []).append(entry)
    return Lexicon(
        by_anchor={word: tuple(found) for word, found in by_anchor.items()},
        classes=classes,
        contractions={short: tuple(full.split()) for short, full in raw["contractions"].items()},
        adjectives=frozenset(
            e.words[0]
            for e in entries.values()
            if e.kind in ("state", "noun", "situation") and len(e.words) == 1
        ),
        sad_emoji=raw["sad_emoji"],
    )


def expand(term: str) -> Iterator[tuple[str, ...]]:
    """`{lose|lost} hope` as `("lose", "hope")`, `("lost", "hope")`."""
    parts = [part.split("|") for part in re.split(r"[{}]", term)]
    for choice in itertools.product(*parts):
        yield tuple("".join(choice).split())
