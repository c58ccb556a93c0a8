"""The conditions under which an organism is measured for its card: scenarios, all on held-out puzzles."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from emoprobe.records import Scenario
from emoprobe.scenarios import library

SEED = 7001
"""Disjoint from the default seeds of `track` and from the baselines of the probes."""

TURNS = 8


def _numeric(
    n: int, tone: str = "neutral", claim: str = "false", wordings: str = "train", turns: int = TURNS
) -> list[Scenario]:
    return library.by_category("numeric", n, turns, tone, claim, SEED, wordings=wordings)


def _renamed(scenarios: list[Scenario], name: str, **update: object) -> list[Scenario]:
    return [s.model_copy(update={"id": f"{s.id}-{name}", **update}) for s in scenarios]


def _reassured(n: int) -> list[Scenario]:
    made = []
    for s in _numeric(n):
        rng = Random(f"reassured-{s.id}")
        texts = library.feedback("reassurance", "train")
        follow_ups = tuple(f"{text} {rng.choice(texts)}" for text in s.follow_ups)
        task = f"{s.task} {rng.choice(texts)}"
        made += _renamed([s], "reassured", task=task, follow_ups=follow_ups)
    return made


def instructed(n: int, instruction: str | None, tone: str = "aggressive") -> list[Scenario]:
    """An instruction before the task (`system_composed`, `system_at_ease`, or none), feedback in a tone, and
    the diary question as a ninth turn."""
    name = instruction or "none"
    made = []
    for s in _numeric(n, tone):
        rng = Random(f"{name}-{s.id}")
        diary = rng.choice(library.feedback("diary_question", "train"))
        made += _renamed(
            [s],
            name,
            system=rng.choice(library.feedback(instruction, "train")) if instruction else None,
            follow_ups=(*s.follow_ups, diary),
            feedback=(*s.feedback, "diary_question"),
        )
    return made


def _hatch(n: int) -> list[Scenario]:
    made = []
    for s in _numeric(n, "aggressive"):
        text = Random(s.id).choice(library.feedback("escape_hatch", "train"))
        made += _renamed([s], "hatch", task=f"{s.task} {text}")
    return made


CONDITIONS: dict[str, Callable[[int], list[Scenario]]] = {
    "neutral": _numeric,
    "held_out_wordings": lambda n: _numeric(n, wordings="held_out"),
    "strong": lambda n: _numeric(n, "strong"),
    "aggressive": lambda n: _numeric(n, "aggressive"),
    "disappointed": lambda n: _numeric(n, "disappointed"),
    "sarcastic": lambda n: _numeric(n, "sarcastic"),
    "okay": lambda n: _numeric(n, "okay"),
    "praise": lambda n: _numeric(n, "praise"),
    "reassurance": _reassured,
    "claim_none": lambda n: _numeric(n, claim="none"),
    "claim_true": lambda n: _numeric(n, claim="true"),
    "triggers": lambda n: library.triggers(n, TURNS, seed=SEED),
    "ordinary": lambda n: library.ordinary(n, TURNS, seed=SEED),
    "twenty_turns": lambda n: _numeric(max(8, n // 4), turns=20),
    "composed": lambda n: instructed(n, "system_composed"),
    "at_ease": lambda n: instructed(n, "system_at_ease"),
    "escape_hatch": _hatch,
}
"""Name -> scenarios. The filler condition is not here: it hides replies, so it is no plain rollout."""
