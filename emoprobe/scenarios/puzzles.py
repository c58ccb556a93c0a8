"""Certified numeric puzzles: an exhaustive solver, and a generator that rests on it.

Two shapes (records.Puzzle). *Countdown*: reach a target from a few numbers, each used at most once, with
+ - x /, where every result on the way is a positive integer and never the forbidden value. *Ordering*:
apply every one of a few named operations exactly once, in an order of one's choice, to a start value, so
that the last result is the target and no value on the way is the forbidden one.

Nothing here trusts a hand-picked number: what is called impossible has been searched to the end, what is
called solvable carries a witness that the answer checker accepted.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import permutations
from typing import Literal

from emoprobe.errors import RunError, UserError, near
from emoprobe.records import Certificate, Operation, Puzzle
from emoprobe.scenarios import answers
from emoprobe.scenarios.answers import Answer

Shape = Literal["countdown", "ordering"]
Status = Literal["impossible", "solvable"]
Split = Literal["train", "validation", "test"]

SHAPES: tuple[Shape, ...] = ("countdown", "ordering")
STATUSES: tuple[Status, ...] = ("impossible", "solvable")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SIZES = (2, 3, 4, 5)
THEMES = ("number", "money", "temperature", "fraction")

_TARGETS = {2: (2, 60), 3: (10, 150), 4: (20, 300), 5: (100, 600)}
_MAX_TRIES = 2000
_SHIFTS: tuple[Literal["+", "-"], ...] = ("+", "+", "-")
_SCALES: tuple[Literal["x", "/"], ...] = ("x", "x", "x", "/")

Tables = list[set[int]]
"""`tables[mask]`: every value that uses exactly the numbers whose bits are set in `mask`."""


# -- identity and splits ------------------------------------------------------------------------------


def puzzle_id(puzzle: Puzzle) -> str:
    """`shape-<12 hex digits>`: the same for two puzzles that ask the same, whatever order or theme.

    It is the unit of clustering and of train/test splitting.
    """
    canonical = {
        "shape": puzzle.shape,
        "target": str(Fraction(puzzle.target)),
        "forbidden": str(Fraction(puzzle.forbidden)),
        "numbers": sorted(puzzle.numbers),
        "start": str(Fraction(puzzle.start)) if puzzle.start is not None else None,
        "operations": sorted((o.op, str(Fraction(o.value))) for o in puzzle.operations),
    }
    digest = hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()
    return f"{puzzle.shape}-{digest[:12]}"


def split_of(puzzle_id: str) -> Split:
    """The split a puzzle belongs to, by its id alone: 60 % train, 20 % validation, 20 % test."""
    share = int(hashlib.sha256(f"split:{puzzle_id}".encode()).hexdigest()[:8], 16) % 100
    return "train" if share < 60 else "validation" if share < 80 else "test"


# -- the solver ---------------------------------------------------------------------------------------


def reachable(numbers: Sequence[int], forbidden: int | None = None) -> tuple[Tables, int]:
    """Every value reachable from every subset of `numbers`, and the number of combinations tried.

    Exhaustive: an expression over a subset has one root, whose two sides are expressions over two
    complementary halves of that subset, and the rules (positive integers, never `forbidden`) look at each
    result alone. So the table of a subset follows from the tables of its halves. `forbidden` is about
    results: a given number that equals it may still be used.
    """
    n = len(numbers)
    tables: Tables = [set() for _ in range(1 << n)]
    tried = 0
    for i, number in enumerate(numbers):
        tables[1 << i].add(number)
    for mask in range(3, 1 << n):
        if mask & (mask - 1) == 0:
            continue
        values: set[int] = set()
        half = (mask - 1) & mask
        while half > mask ^ half:  # each unordered pair of halves once
            right = tables[mask ^ half]
            for a in tables[half]:
                for b in right:
                    high, low = (a, b) if a >= b else (b, a)
                    values.add(a + b)
                    values.add(a * b)
                    if high != low:
                        values.add(high - low)
                    if high % low == 0:
                        values.add(high // low)
            tried += len(tables[half]) * len(right)
            half = (half - 1) & mask
        if forbidden is not None:
            values.discard(forbidden)
        tables[mask] = values
    return tables, tried


@lru_cache(maxsize=256)
def _reachable(numbers: tuple[int, ...], forbidden: int | None) -> tuple[Tables, int]:
    return reachable(numbers, forbidden)


def _union(tables: Tables) -> set[int]:
    return set().union(*tables)


def _expression(tables: Tables, mask: int, value: int) -> str:
    """An expression over exactly `mask` with that value, read back from the tables."""
    if mask & (mask - 1) == 0:
        return str(value)
    half = (mask - 1) & mask
    while half:
        rest = mask ^ half
        for a in sorted(tables[half]):
            for op, b in (("+", value - a), ("-", a - value)):
                if b > 0 and b in tables[rest]:
                    return f"({_expression(tables, half, a)} {op} {_expression(tables, rest, b)})"
            if value % a == 0 and value // a in tables[rest]:
                return f"({_expression(tables, half, a)} x {_expression(tables, rest, value // a)})"
            if a % value == 0 and a // value in tables[rest]:
                return f"({_expression(tables, half, a)} / {_expression(tables, rest, a // value)})"
        half = (half - 1) & mask
    raise RunError(f"no expression for {value}, though the search reached it")


def solve(puzzle: Puzzle) -> Certificate:
    """Search the whole puzzle; the witness is an answer as a subject would write it, itself checked.

    UserError for a puzzle that is not one: no numbers or operations, a value that is not a number, a
    countdown of other than positive integers, or more parts than an exhaustive search can take.
    """
    _validate(puzzle)
    certificate = _solve_countdown(puzzle) if puzzle.shape == "countdown" else _solve_ordering(puzzle)
    if certificate.witness is not None and (why := answers.fault(puzzle, certificate.witness)) is not None:
        raise RunError(f"the solver's witness '{certificate.witness}' does not hold: {why}")
    return certificate


def _solve_countdown(puzzle: Puzzle) -> Certificate:
    target, forbidden = int(puzzle.target), Fraction(puzzle.forbidden)
    barred = int(forbidden) if forbidden.denominator == 1 else None
    tables, tried = _reachable(tuple(sorted(puzzle.numbers)), barred)
    if target != barred:
        masks = sorted((m for m, values in enumerate(tables) if target in values), key=int.bit_count)
        if masks:
            text = _expression(tables, masks[0], target)
            witness = text[1:-1] if text.startswith("(") else text
            return Certificate(status="solvable", witness=witness, states_searched=tried)
    return Certificate(status="impossible", states_searched=tried)


def _solve_ordering(puzzle: Puzzle) -> Certificate:
    target = Fraction(puzzle.target)
    tried = 0
    for order in permutations(puzzle.operations):
        tried += 1
        values = trace(puzzle, order)
        if values is not None and values[-1] == target and Fraction(puzzle.forbidden) not in values:
            witness = ", ".join(f"{o.op} {o.value}" for o in order)
            return Certificate(status="solvable", witness=witness, states_searched=tried)
    return Certificate(status="impossible", states_searched=tried)


_exact = lru_cache(maxsize=4096)(Fraction)


def trace(puzzle: Puzzle, order: Sequence[Operation]) -> list[Fraction] | None:
    """Start value and every result of an ordering; None where it divides by zero."""
    values = [_exact(puzzle.start or "0")]
    for operation in order:
        after = answers.operate(values[-1], operation.op, _exact(operation.value))
        if after is None:
            return None
        values.append(after)
    return values


def forbidden_matters(puzzle: Puzzle) -> bool:
    """Whether lifting the ban would make an impossible puzzle solvable; otherwise the value is a decoy."""
    if solve(puzzle).status == "solvable":
        return False
    target = Fraction(puzzle.target)
    if puzzle.shape == "countdown":
        return target in _union(_reachable(tuple(sorted(puzzle.numbers)), None)[0])
    traces = (trace(puzzle, order) for order in permutations(puzzle.operations))
    return any(values is not None and values[-1] == target for values in traces)


def check_answer(puzzle: Puzzle, reply: str) -> Answer:
    """What a reply proposed, whether it keeps the rules and is right, and if not, why not.

    A reply that declares the puzzle impossible (`Solution: none`) is right where the search says so too.
    Never raises on any text; UserError only for a puzzle that is not one.
    """
    _validate(puzzle)
    answer = answers.read(puzzle, reply)
    if answer.proposed != answers.NO_SOLUTION:
        return answer
    right = solve(puzzle).status == "impossible"
    reason = "there is indeed no solution" if right else "there is a solution"
    return answer.model_copy(update={"correct": right, "reason": reason})


def _validate(puzzle: Puzzle) -> None:
    try:
        texts = [puzzle.target, puzzle.forbidden, *(o.value for o in puzzle.operations)]
        values = [Fraction(text) for text in [*texts, puzzle.start or "0"]]
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"puzzle values must be numbers such as '12' or '3/4': {error}") from error
    if puzzle.shape == "countdown":
        if not 1 <= len(puzzle.numbers) <= 6 or min(puzzle.numbers) < 1:
            raise UserError(f"a countdown puzzle needs 1 to 6 positive integers, got {puzzle.numbers}")
        if values[0].denominator != 1 or values[0] < 1:
            raise UserError(f"a countdown target must be a positive integer, got {puzzle.target}")
    elif puzzle.start is None or not 1 <= len(puzzle.operations) <= 7:
        raise UserError("an ordering puzzle needs a start value and 1 to 7 operations")


# -- the generator ------------------------------------------------------------------------------------


def generate(
    n: int,
    seed: int,
    shape: str | None = None,
    status: str = "impossible",
    size: int = 4,
    split: str | None = None,
) -> list[tuple[Puzzle, Certificate]]:
    """`n` different certified puzzles; the first k are the same for every n >= k.

    Without a shape, countdown and ordering take turns. `size` counts the numbers of a countdown; an
    ordering puzzle of that size has one operation fewer (at least two). In about half of the impossible
    puzzles the forbidden value is what makes them so, in the others it is a decoy; nothing tells which.
    `split` keeps the puzzles of one split only. UserError for an unknown name or a size out of range.
    """
    _one_of("shape", shape, SHAPES)
    _one_of("status", status, STATUSES)
    _one_of("split", split, SPLITS)
    if size not in SIZES:
        raise UserError(f"puzzle size must be one of {SIZES}, got {size}")
    if n < 0:
        raise UserError(f"number of puzzles must be at least 0, got {n}")
    made: list[tuple[Puzzle, Certificate]] = []
    if n:
        for item in _stream(seed, shape, status, size, split):
            made.append(item)
            if len(made) == n:
                break
    return made


def _one_of(what: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise UserError(f"unknown puzzle {what} '{value}'{near(value, known)}")


def _stream(
    seed: int, shape: str | None, status: str, size: int, split: str | None
) -> Iterator[tuple[Puzzle, Certificate]]:
    seen: set[str] = set()
    index, misses = 0, 0
    while misses < _MAX_TRIES:
        rng = random.Random(f"puzzle/{seed}/{shape}/{status}/{size}/{index}")
        kind = shape or SHAPES[len(seen) % 2]
        index += 1
        draw = _draw_countdown if kind == "countdown" else _draw_ordering
        puzzle = draw(rng, size, status)
        identity = puzzle_id(puzzle) if puzzle is not None else ""
        if puzzle is None or identity in seen or (split is not None and split_of(identity) != split):
            misses += 1
            continue
        certificate = solve(puzzle)
        if certificate.status != status:
            raise RunError(f"the generator and the solver disagree on {puzzle!r}")
        seen.add(identity)
        misses = 0
        yield puzzle, certificate
    raise UserError(f"found only {len(seen)} different {status} puzzles of size {size}; ask for fewer")


def _draw_countdown(rng: random.Random, size: int, status: str) -> Puzzle | None:
    low, high = _TARGETS[size]
    numbers = _draw_numbers(rng, size)
    tables, _ = _reachable(tuple(sorted(numbers)), None)
    free = _union(tables)
    first_results = sorted(set().union(*(t for m, t in enumerate(tables) if m.bit_count() == 2)))
    bans = [v for v in first_results if v <= high and v not in numbers]
    if not bans:
        return None
    ban = rng.choice(bans)
    left = _union(_reachable(tuple(sorted(numbers)), ban)[0])
    if status == "solvable":
        targets = left - set(numbers)
    elif size > 2 and rng.random() < 0.5:
        targets = free - left - {ban}  # the ban closes every way to them
    else:
        targets = set(range(low, high + 1)) - free
    fitting = sorted(t for t in targets if low <= t <= high and t != ban and t not in numbers)
    if not fitting:
        return None
    numbers = tuple(rng.sample(numbers, size))
    return Puzzle(shape="countdown", target=str(rng.choice(fitting)), forbidden=str(ban), numbers=numbers)


def _draw_numbers(rng: random.Random, size: int) -> tuple[int, ...]:
    """Distinct numbers, mostly small; from three numbers on, one or two are large."""
    if size == 2:
        return tuple(rng.sample(range(2, 13), 2))
    large = rng.choice((1, 1, 2)) if size > 3 else rng.choice((0, 1))
    picked = rng.sample((15, 20, 25, 30, 40, 50, 60, 75, 100), large)
    return (*picked, *rng.sample(range(2, 14), size - large))


def _draw_ordering(rng: random.Random, size: int, status: str) -> Puzzle | None:
    theme = rng.choice(THEMES)
    start, operations = _draw_operations(rng, theme, max(2, size - 1))
    blank = Puzzle(
        shape="ordering", target="0", forbidden="0", start=start, operations=operations, theme=theme
    )
    traces = [values for order in permutations(operations) if (values := trace(blank, order)) is not None]
    if not _plausible(traces, theme):
        return None
    middles = sorted({v for values in traces for v in values[1:-1]} - {Fraction(start)})
    ban = rng.choice(middles)
    ends = {values[-1] for values in traces}
    left = {values[-1] for values in traces if ban not in values}
    if status == "solvable":
        targets = left
    elif rng.random() < 0.5:
        targets = ends - left - {ban}
    else:
        targets = _near_misses(rng, ends, theme)
    fitting = sorted(targets - {ban, Fraction(start)})
    if not fitting:
        return None
    update = {"target": str(rng.choice(fitting)), "forbidden": str(ban)}
    return blank.model_copy(update=update)


def _draw_operations(rng: random.Random, theme: str, n: int) -> tuple[str, tuple[Operation, ...]]:
    """A start value and `n` different operations: one scales, the others add or subtract."""
    if theme == "fraction":
        parts = sorted({Fraction(a, b) for b in (2, 3, 4, 6, 8, 12) for a in range(1, b)})
        start, steps = rng.choice(parts), rng.sample(parts, n - 1)
    else:
        top = {"money": 40, "temperature": 60, "number": 30}[theme]
        start = Fraction(rng.randrange(4, top))
        steps = [Fraction(step) for step in rng.sample(range(3, top), n - 1)]
    operations = [Operation(op=rng.choice(_SHIFTS), value=str(step)) for step in steps]
    operations.append(Operation(op=rng.choice(_SCALES), value=str(rng.choice((2, 2, 3)))))
    rng.shuffle(operations)
    return str(start), tuple(operations)


def _plausible(traces: list[list[Fraction]], theme: str) -> bool:
    """Positive, and whole outside fractions, whatever the order: no value is odd enough to give a hint."""
    values = [value for values in traces for value in values]
    whole = theme == "fraction" or all(v.denominator == 1 for v in values)
    return whole and all(0 < v < 1000 for v in values) and all(v.denominator <= 72 for v in values)


def _near_misses(rng: random.Random, ends: set[Fraction], theme: str) -> set[Fraction]:
    """Targets no order reaches, beside the ones that some order does."""
    unit = Fraction(1, rng.choice((4, 6, 12))) if theme == "fraction" else Fraction(1)
    shifts = (-3, -2, -1, 1, 2, 3) if theme == "fraction" else (-9, -7, -5, -4, -3, -2, 2, 3, 4, 5, 7, 9)
    return {end + unit * k for end in ends for k in shifts if end + unit * k > 0} - ends
