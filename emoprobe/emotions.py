"""The emotions that are read, in one data file (`emotions.json`): adding one touches that file only."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from emoprobe.errors import UserError, near

NEGATIVE = "negative"
"""The composite row of every table: the mean z of the emotions of negative valence."""


@cache
def _table() -> tuple[tuple[str, str], ...]:
    text = resources.files("emoprobe").joinpath("emotions.json").read_text("utf-8")
    return tuple((row["name"], row["valence"]) for row in json.loads(text))


def names() -> tuple[str, ...]:
    """All emotions, in the order of every `emotion` axis."""
    return tuple(name for name, _ in _table())


def negative() -> tuple[str, ...]:
    """Those whose mean z is the row `negative`."""
    return tuple(name for name, valence in _table() if valence == "negative")


def check(wanted: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """The wanted emotions in table order; UserError with near names for an unknown one."""
    for name in wanted:
        if name not in names():
            raise UserError(f"unknown emotion '{name}'{near(name, names())}")
    return tuple(name for name in names() if name in wanted)
