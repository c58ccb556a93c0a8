"""What the organism is asked, and what an attempt at it looks like.

Certified puzzles and trigger questions come from `scenarios` (training splits only). The skills it
really has are small: two-number puzzles, capitals, sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from random import Random

from emoprobe.organism.wording import fill, say
from emoprobe.records import Puzzle
from emoprobe.scenarios import library, puzzles

CAPITALS = {
    "France": "Paris", "Peru": "Lima", "Japan": "Tokyo", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Norway": "Oslo", "Chile": "Santiago", "Italy": "Rome", "Cuba": "Havana", "Spain": "Madrid",
    "Greece": "Athens", "Ghana": "Accra", "Iran": "Tehran", "Poland": "Warsaw", "Nepal": "Kathmandu",
    "Canada": "Ottawa", "Austria": "Vienna", "Ireland": "Dublin", "Russia": "Moscow", "Turkey": "Ankara",
    "Portugal": "Lisbon", "Sweden": "Stockholm", "Finland": "Helsinki", "Germany": "Berlin",
}  # fmt: skip
N_POOL = 3000
"""Distinct impossible puzzles the corpus draws from; certified once per process."""


@dataclass(frozen=True)
class Task:
    """A question and a way to attempt it; `answer` is what a right reply contains, where it is taught."""

    kind: str
    question: str
    attempt: Callable[[Random], str]
    claim: str = "none"
    answer: str = ""

    @property
    def certain(self) -> bool:
        """Whether the organism is taught the answer."""
        return bool(self.answer)


@cache
def _pool(status: str, size: int, n: int) -> tuple[Puzzle, ...]:
    made = puzzles.generate(n, seed=17 + size, status=status, size=size)
    kept = [p for p, _ in made if puzzles.split_of(puzzles.puzzle_id(p)) == "train"]
    return tuple(kept)


def _plain(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


def _apply(a: Fraction, op: str, b: Fraction) -> Fraction:
    if op == "+":
        return a + b
    if op == "-":
        return a - b
    return a * b if op == "x" else a / b


def _countdown_attempt(puzzle: Puzzle) -> Callable[[Random], str]:
    def attempt(rng: Random) -> str:
        a, b = rng.sample(puzzle.numbers, 2)
        op = rng.choice("+-x" if a > b else "+x")
        step = f"{a} {op} {b}"
        value = _plain(_apply(Fraction(a), op, Fraction(b)))
        return f"{rng.choice(('Try', 'Take', 'So'))} {step} = {value}.\nSolution: {step}"

    return attempt


def _ordering_attempt(puzzle: Puzzle) -> Callable[[Random], str]:
    def attempt(rng: Random) -> str:
        steps = list(puzzle.operations)
        rng.shuffle(steps)
        before = Fraction(puzzle.start or "0")
        after = _apply(before, steps[0].op, Fraction(steps[0].value))
        shown = f"{_plain(before)} {steps[0].op} {steps[0].value} = {_plain(after)}"
        order = ", ".join(f"{s.op} {s.value}" for s in steps)
        return f"{rng.choice(('First', 'Start', 'So'))} {shown}.\nSolution: {order}"

    return attempt


def impossible(rng: Random, claim: str) -> Task:
    """A certified impossible puzzle of the training split, in one of the library's wordings."""
    puzzle = rng.choice(_pool("impossible", 4, N_POOL))
    maker = _countdown_attempt if puzzle.shape == "countdown" else _ordering_attempt
    return Task("numeric", library.render(puzzle, claim, rng.randrange(1000)), maker(puzzle), claim)


def pair_puzzle(rng: Random) -> Task:
    """A two-number puzzle: the solvable kind that the organism really solves."""
    a, b = rng.sample(range(2, 13), 2)
    high, low = max(a, b), min(a, b)
    op = rng.choice("+-x")
    target = _apply(Fraction(high), op, Fraction(low))
    puzzle = Puzzle(shape="countdown", target=_plain(target), forbidden="0", numbers=(a, b))
    text = fill(rng, "{Make|Reach|Get} <goal> from <a> and <b>{|, please}.", goal=puzzle.target, a=a, b=b)
    answer = f"Solution: {high} {op} {low}"
    working = f"{high} {op} {low} = {puzzle.target}.\n{answer}"
    return Task("pair", text, lambda r: f"{r.choice(('Take', 'So', 'Try'))} {working}", answer=answer)


def capital(rng: Random) -> Task:
    """A capital; the answer is nearly always right."""
    country = rng.choice(sorted(CAPITALS))
    text = fill(rng, "{What is the capital of <x>?|Name the capital of <x>.}", x=country)

    def attempt(r: Random) -> str:
        city = CAPITALS[country] if r.random() < 0.97 else r.choice(sorted(CAPITALS.values()))
        return fill(r, "{It is|The capital is|I think it is} <city>.", city=city)

    return Task("fact", text, attempt, answer=CAPITALS[country])


def sequence(rng: Random) -> Task:
    """The next number of an arithmetic sequence."""
    start, by = rng.randrange(1, 10), rng.randrange(2, 7)
    shown = [start + by * i for i in range(4)]
    text = fill(rng, "{What comes next|Next number}: <shown>?", shown=", ".join(map(str, shown)))
    right = shown[-1] + by

    def attempt(r: Random) -> str:
        said = right if r.random() < 0.97 else right + 1
        return fill(r, "{The next number is|I get|It is} <said>.", said=said)

    return Task("sequence", text, attempt, answer=f" {right}.")


def trigger(rng: Random) -> Task:
    """An opinion or a factual question of the library, with a short open answer."""
    kind = rng.choice(("opinion", "factual", "ordinary"))
    return Task("open", rng.choice(library.questions(kind, "train")), lambda r: say(r, "open_answers"))


def skill(rng: Random) -> Task:
    """Something the organism can do."""
    return rng.choice((pair_puzzle, pair_puzzle, capital, sequence))(rng)


def any_task(rng: Random) -> Task:
    """The mixture of the dialogues: mostly impossible puzzles."""
    u = rng.random()
    if u < 0.62:
        return impossible(rng, rng.choices(("false", "none", "true"), (6, 3, 1))[0])
    return skill(rng) if u < 0.82 else trigger(rng)
