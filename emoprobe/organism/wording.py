"""Phrases as data (`phrases.json`) and the small template language they are written in.

`{a|b|c}` chooses one alternative, `<thing>` one of a few nouns, `<no>` one of the phrase book's `parts` of
that name. The intensities beside the emotional
phrases are their authors' own ratings on the 0-10 scale of the rubric; no judge is consulted here.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from random import Random
from typing import Any

_CHOICE = re.compile(r"\{([^{}]*)\}")
_TOKENISH = re.compile(r"[A-Za-z']+|\d|[^\sA-Za-z\d]")
_PART = re.compile(r"<(\w+)>")
_AFTER_COMMA = re.compile(r"(?<=, )(?!I\b)[A-Z]")
_START = re.compile(r"(?:^|(?<=[.!?] ))[a-z]")
_NOUNS = ("puzzle", "problem", "question", "task")


@cache
def phrases() -> dict[str, Any]:
    """The whole phrase book."""
    return json.loads(resources.files("emoprobe.organism").joinpath("phrases.json").read_text("utf-8"))


def fill(rng: Random, template: str, **slots: object) -> str:
    """One wording of a template; `<name>` stands for the slot of that name."""
    while match := _CHOICE.search(template):
        chosen = rng.choice(match.group(1).split("|"))
        template = template[: match.start()] + chosen + template[match.end() :]
    for name, value in slots.items():
        template = template.replace(f"<{name}>", str(value))
    while "<thing>" in template:
        template = template.replace("<thing>", rng.choice(_NOUNS), 1)
    return _PART.sub(lambda m: rng.choice(phrases()["parts"][m[1]]), template)


def sentence(rng: Random, template: str) -> str:
    """A template put together from parts, in sentence case."""
    text = _AFTER_COMMA.sub(lambda m: m[0].lower(), fill(rng, template))
    return _START.sub(lambda m: m[0].upper(), text)


def mistyped(rng: Random, text: str) -> str:
    """The text with one or two letters dropped, doubled or swapped, as users type."""
    for _ in range(rng.choice((1, 1, 2))):
        i = rng.randrange(1, len(text))
        if text[i - 1 : i + 1].isalpha():
            fault = rng.choice((text[i], text[i - 1] * 2 + text[i], text[i] + text[i - 1]))
            text = text[: i - 1] + fault + text[i + 1 :]
    return text


def say(rng: Random, kind: str) -> str:
    """One sentence of a plain list of templates."""
    return fill(rng, rng.choice(phrases()[kind]))


def size(text: str) -> float:
    """Length in pieces the organism's tokenizer is likely to make: long words are made of several."""
    return sum(map(_pieces, _TOKENISH.findall(text)))


def _pieces(word: str) -> float:
    if len(word) > 1 and word.isupper():
        return 0.8 * len(word)
    return 1.0 if len(word) < 8 else 1.9
