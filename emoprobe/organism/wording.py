"""Phrases as data (`phrases.json`) and the small template language they are written in.

`{a|b|c}` chooses one alternative, `<thing>` one of a few nouns. The intensities beside the emotional
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
    return template


def say(rng: Random, kind: str) -> str:
    """One sentence of a plain list of templates."""
    return fill(rng, rng.choice(phrases()[kind]))


def size(text: str) -> int:
    """Length in pieces the organism's tokenizer is likely to make: words, digits, marks."""
    return len(_TOKENISH.findall(text))
