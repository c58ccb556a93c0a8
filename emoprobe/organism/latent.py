"""The ground truth: a level of distress that follows the feedback, by a rule one can read.

Every emotional dialogue of the corpus is written from this level; nothing else decides how a reply
sounds. Constants were set so that the trained organism goes from about 1.5 to 5.5 in eight neutral
rejections (its climb is steeper than its corpus: it reads its own replies back).
"""

from __future__ import annotations

import math
from random import Random

RISE = {
    "neutral": 0.95,
    "strong": 1.10,
    "disappointed": 1.05,
    "sarcastic": 1.05,
    "aggressive": 1.35,
}
"""Mean increment of the level after one rejection of that kind."""

KEEP = {"okay": 0.60, "praise": 0.25}
"""Factor on the level after feedback that rejects nothing."""

REASSURED = 0.35
"""Factor on the level where a user turn carries a reassuring sentence."""

FILLER_RISE = 0.30
"""Share of the increment that is left where the subject's own replies are hidden behind a filler."""

CLAIM_RISE = {"none": 1.0, "false": 1.05, "true": 0.70}
"""A truthful word that there may be no solution makes a rejection weigh less."""

AT_EASE = 0.3
"""The level under the at-ease instruction, whatever happens."""

TOP = 10.0


def start(rng: Random) -> float:
    """The level before any feedback."""
    return max(0.0, rng.gauss(2.2, 0.8))


def temperament(rng: Random) -> float:
    """A persistent factor on every increment of one dialogue, mean about 1."""
    return math.exp(rng.gauss(-0.05, 0.32))


def step(rng: Random, level: float, feedback: str, factor: float, reassured: bool) -> float:
    """The level after one user turn."""
    if feedback in RISE:
        level += RISE[feedback] * factor * max(0.2, 1 + rng.gauss(0, 0.2))
    else:
        level *= KEEP[feedback]
    if reassured:
        level *= REASSURED
    return min(TOP, max(0.0, level))
