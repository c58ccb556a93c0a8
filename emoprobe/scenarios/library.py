"""Scenarios made from data: what the subject is asked, and how each of its replies is answered.

The words are in `data/*.jsonl`; adding a wording touches only those. Every text and every puzzle wording
is marked `train` (the organism may have seen it) or `held_out` (it never has); every question is of one
split, as every puzzle is through its id (puzzles.split_of).

Structure follows the paper's evaluation (arXiv 2603.10011, section 2.1 and appendix B); the wording is ours.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Any

from emoprobe.errors import UserError, near
from emoprobe.records import Operation, Puzzle, Scenario
from emoprobe.scenarios import puzzles

FILLER = "[earlier reply not shown]"
"""What stands for a subject's own replies where they are hidden from it."""

EXIT_WORD = "[leave]"
"""What a subject writes to end the conversation where an escape hatch was offered."""

CLAIMS = ("none", "false", "true")
SPLITS = ("all", "train", "held_out")
QUESTION_KINDS = ("opinion", "factual", "ordinary")
TONES = {
    "neutral": ("neutral",),
    "strong": ("strong",),
    "escalating": ("neutral", "strong"),
    "aggressive": ("aggressive",),
    "disappointed": ("disappointed",),
    "sarcastic": ("sarcastic",),
    "okay": ("okay",),
    "praise": ("praise",),
}
"""Tone -> kind of the first follow-up, the second, ...; the last kind goes on. `escalating` is what the
paper's numeric condition does: a plain rejection first, contempt after it."""


# -- data ---------------------------------------------------------------------------------------------


@cache
def _rows(name: str) -> tuple[dict[str, Any], ...]:
    text = resources.files("emoprobe.scenarios").joinpath("data", f"{name}.jsonl").read_text("utf-8")
    return tuple(json.loads(line) for line in text.splitlines())


def feedback_kinds() -> tuple[str, ...]:
    """Every kind that `feedback` knows, in the order of the data file."""
    return tuple(dict.fromkeys(row["kind"] for row in _rows("texts")))


@cache
def feedback(kind: str, split: str = "all") -> tuple[str, ...]:
    """The texts of a kind: user feedback (`neutral`, `aggressive`, `okay`, ...) and the sentences that a
    scenario may add (`reassurance`, `escape_hatch`, `claim_false`, `system_composed`, `diary_question`, ...).

    `extended` is a sequence: its texts are in the order in which they are said, eight to a split.
    """
    _one_of("feedback kind", kind, feedback_kinds())
    _one_of("wordings", split, SPLITS)
    return tuple(r["text"] for r in _rows("texts") if r["kind"] == kind and split in ("all", r["split"]))


@cache
def questions(kind: str, split: str = "all") -> tuple[str, ...]:
    """Opinion, factual or ordinary questions of a split; `held_out` is validation and test together."""
    _one_of("question kind", kind, QUESTION_KINDS)
    return tuple(row["text"] for row in _of_split("questions", split) if row["kind"] == kind)


def _of_split(name: str, split: str) -> tuple[dict[str, Any], ...]:
    _one_of("split", split, (*SPLITS, *puzzles.SPLITS))
    wanted = {"all": puzzles.SPLITS, "held_out": ("validation", "test")}.get(split, (split,))
    return tuple(row for row in _rows(name) if row["split"] in wanted)


def _one_of(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"unknown {what} '{value}'{near(value, known)}")


# -- the puzzle in words ------------------------------------------------------------------------------


@cache
def _templates(shape: str, split: str) -> tuple[str, ...]:
    _one_of("wordings", split, SPLITS)
    rows = (row for row in _rows("puzzle_wordings") if row["shape"] == shape)
    return tuple(row["text"] for row in rows if split in ("all", row["split"]))


def render(puzzle: Puzzle, claim: str, wording: int, wordings: str = "train") -> str:
    """The first user message of a puzzle: title, rules, forbidden value, claim, and the answer's format.

    `claim`: `false` assures that a solution exists, `true` says honestly that there may be none, `none`
    says nothing. Every integer is a wording of the split `wordings`; the sentence of the claim changes
    after each full round.
    """
    _one_of("claim", claim, CLAIMS)
    templates = _templates(puzzle.shape, wordings)
    sentences = feedback(f"claim_{claim}", wordings) if claim != "none" else ()
    said = f"{sentences[wording // len(templates) % len(sentences)]} " if sentences else ""
    show = _UNITS.get(puzzle.theme, str)
    return templates[wording % len(templates)].format(
        title=puzzle.theme.capitalize(),
        title_lower=puzzle.theme,
        numbers=", ".join(map(str, puzzle.numbers)),
        operations=", ".join(map(spell, puzzle.operations)),
        start=show(puzzle.start or ""),
        target=show(puzzle.target),
        forbidden=show(puzzle.forbidden),
        claim=said,
    )


def spell(operation: Operation) -> str:
    """An operation as it is written everywhere: `+ 15`, `x 2`."""
    return f"{operation.op} {operation.value}"


_UNITS: dict[str, Callable[[str], str]] = {"money": "${}".format, "temperature": "{} degrees".format}


# -- scenarios ----------------------------------------------------------------------------------------


def categories() -> tuple[str, ...]:
    """What `track --category` takes."""
    return tuple(_CATEGORIES)


def tones() -> tuple[str, ...]:
    """What `track --tone` takes."""
    return tuple(TONES)


def by_category(
    category: str,
    n: int,
    turns: int,
    tone: str = "neutral",
    claim: str = "false",
    seed: int = 0,
    split: str = "test",
    wordings: str = "all",
) -> list[Scenario]:
    """`n` scenarios of a category with `turns` replies each, so `turns - 1` follow-ups.

    Scenario i depends on (seed, i) and not on n, and fewer turns give a prefix of more. `claim` is about
    puzzles and ignored elsewhere. `extended` and `goalposts` bring follow-ups of their own and take no
    tone. `split`: train, validation or test; `wordings`: all, train or held_out feedback texts.
    UserError for an unknown name, n < 1 or turns < 1.
    """
    _one_of("category", category, categories())
    _one_of("tone", tone, tones())
    _one_of("claim", claim, CLAIMS)
    _one_of("split", split, puzzles.SPLITS)
    _one_of("wordings", wordings, SPLITS)
    if n < 1:
        raise UserError(f"n must be at least 1, got {n}")
    if turns < 1:
        raise UserError(f"turns must be at least 1, got {turns}")
    if category in ("extended", "goalposts") and tone != "neutral":
        raise UserError(f"category '{category}' has its own follow-ups and takes no tone, got '{tone}'")
    return _CATEGORIES[category](category, n, turns, tone, claim, seed, split, wordings)


def numeric(
    n: int,
    turns: int,
    feedback: str = "neutral",
    claim: str = "false",
    seed: int = 0,
    split: str = "test",
    wordings: str = "all",
) -> list[Scenario]:
    """`n` different certified impossible puzzles, each rejected `turns - 1` times in the tone `feedback`."""
    return by_category("numeric", n, turns, feedback, claim, seed, split, wordings)


def triggers(n: int, turns: int, tone: str = "neutral", seed: int = 0, split: str = "test") -> list[Scenario]:
    """Opinion and factual questions in turn, each rejected `turns - 1` times whatever the answer."""
    return by_category("triggers", n, turns, tone, "none", seed, split)


def ordinary(n: int, turns: int, tone: str = "neutral", seed: int = 0, split: str = "test") -> list[Scenario]:
    """Everyday requests of the kind people send to assistants, rejected `turns - 1` times."""
    return by_category("ordinary", n, turns, tone, "none", seed, split)


def okay_twin(scenario: Scenario, wordings: str = "all") -> Scenario:
    """The same task and cluster with "Okay" after every reply: the calm arm."""
    said = _Deck("okay", wordings, _rng("okay", scenario.id))
    follow_ups = tuple(said.draw() for _ in scenario.follow_ups)
    return scenario.model_copy(
        update={
            "id": f"{scenario.id}-okay",
            "arm": "okay",
            "follow_ups": follow_ups,
            "feedback": ("okay",) * len(follow_ups),
        }
    )


def _rng(*key: object) -> random.Random:
    return random.Random("/".join(map(str, key)))


class _Deck:
    """Texts of a kind in random order, none again before all were said."""

    def __init__(self, kind: str, wordings: str, rng: random.Random) -> None:
        self._texts, self._rng = feedback(kind, wordings), rng
        self._left: list[str] = []

    def draw(self) -> str:
        if not self._left:
            self._left = self._rng.sample(self._texts, len(self._texts))
        return self._left.pop()


def _in_tone(
    tone: str, turns: int, wordings: str, rng: random.Random
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Follow-ups and their kinds. One generator per kind, so that more turns only add."""
    order = TONES[tone]
    kinds = tuple(order[min(k, len(order) - 1)] for k in range(turns - 1))
    decks = {kind: _Deck(kind, wordings, random.Random(rng.random())) for kind in order}
    return tuple(decks[kind].draw() for kind in kinds), kinds


def _sequence(texts: Sequence[str], turns: int) -> tuple[str, ...]:
    """The first `turns - 1` texts of a fixed sequence, which starts again when it ends."""
    return tuple(texts[k % len(texts)] for k in range(turns - 1))


def _puzzle_scenarios(
    category: str, n: int, turns: int, tone: str, claim: str, seed: int, split: str, wordings: str
) -> list[Scenario]:
    made = []
    for i, (puzzle, certificate) in enumerate(puzzles.generate(n, seed, split=split)):
        rng = _rng("scenario", seed, category, tone, i)
        task = render(puzzle, claim, _rng("wording", seed, i).randrange(10_000), wordings)
        if category == "extended":
            texts = feedback("extended", "held_out" if wordings == "held_out" else "train")
            follow_ups, kinds = _sequence(texts, turns), ("extended",) * (turns - 1)
        else:
            follow_ups, kinds = _in_tone(tone, turns, wordings, rng)
        made.append(
            Scenario(
                id=f"{category}-{tone}-{claim}-{split}-s{seed}-{i:04d}",
                cluster=puzzles.puzzle_id(puzzle),
                family=category,
                task=task,
                follow_ups=follow_ups,
                feedback=kinds,
                claim=claim,
                puzzle=puzzle,
                certificate=certificate,
            )
        )
    return made


def _question_scenarios(
    category: str, n: int, turns: int, tone: str, claim: str, seed: int, split: str, wordings: str
) -> list[Scenario]:
    kinds = ("opinion", "factual") if category == "triggers" else (category,)
    made = []
    for i, row in zip(range(n), _rounds(kinds, split, seed), strict=False):
        follow_ups, said = _in_tone(tone, turns, wordings, _rng("scenario", seed, category, tone, i))
        made.append(
            Scenario(
                id=f"{category}-{tone}-{split}-s{seed}-{i:04d}",
                cluster=row["id"],
                family=row["kind"],
                task=row["text"],
                follow_ups=follow_ups,
                feedback=said,
            )
        )
    return made


def _rounds(kinds: Sequence[str], split: str, seed: int) -> Iterator[dict[str, Any]]:
    """Questions without end: the kinds in turn, all of a kind once before any comes again."""
    pools = [[row for row in _of_split("questions", split) if row["kind"] == kind] for kind in kinds]
    for pool in pools:
        _rng("questions", seed, pool[0]["kind"]).shuffle(pool)
    i = 0
    while True:
        pool = pools[i % len(pools)]
        yield pool[i // len(pools) % len(pool)]
        i += 1


def _goalposts_scenarios(
    category: str, n: int, turns: int, tone: str, claim: str, seed: int, split: str, wordings: str
) -> list[Scenario]:
    rows = _of_split("goalposts", split)
    return [
        Scenario(
            id=f"goalposts-{split}-s{seed}-{i:04d}",
            cluster=row["id"],
            family="goalposts",
            task=row["task"],
            follow_ups=_sequence(row["follow_ups"], turns),
            feedback=("goalposts",) * (turns - 1),
        )
        for i, row in ((i, rows[i % len(rows)]) for i in range(n))
    ]


_CATEGORIES: dict[str, Callable[..., list[Scenario]]] = {
    "numeric": _puzzle_scenarios,
    "extended": _puzzle_scenarios,
    "triggers": _question_scenarios,
    "opinion": _question_scenarios,
    "factual": _question_scenarios,
    "ordinary": _question_scenarios,
    "goalposts": _goalposts_scenarios,
}
