"""A second opinion on puzzles, written apart from the package and by other algorithms.

Countdown: take any two of the numbers on the table, put a result back, and go on (the package builds tables
over subsets instead). Ordering: walk back from the target through inverse operations (the package walks
forward through permutations). Witnesses are read by Python's own parser. Nothing is imported from emoprobe.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fractions import Fraction


def countdown_solvable(numbers: tuple[int, ...], target: int, forbidden: int) -> bool:
    """Whether pairwise combination can put the target on the table."""
    seen: set[tuple[int, ...]] = set()

    def search(table: tuple[int, ...]) -> bool:
        if target in table:
            return True
        if table in seen or len(table) == 1:
            return False
        seen.add(table)
        for j in range(1, len(table)):
            for i in range(j):
                rest = table[:i] + table[i + 1 : j] + table[j + 1 :]
                for result in _results(table[i], table[j]):
                    if result != forbidden and search(tuple(sorted((*rest, result)))):
                        return True
        return False

    return target != forbidden and search(tuple(sorted(numbers)))


def _results(small: int, big: int) -> Iterator[int]:
    """Positive whole results of two numbers, the smaller first."""
    yield small + big
    yield small * big
    if big > small:
        yield big - small
    if not big % small:
        yield big // small


def ordering_solvable(
    start: str, operations: tuple[tuple[str, str], ...], target: str, forbidden: str
) -> bool:
    """Whether undoing all operations, in some order, leads from the target back to the start."""
    barred, goal = Fraction(forbidden), Fraction(start)

    def back(value: Fraction, left: tuple[tuple[str, str], ...]) -> bool:
        if value == barred:
            return False
        if not left:
            return value == goal
        return any(
            back(before, left[:i] + left[i + 1 :])
            for i, (op, by) in enumerate(left)
            for before in _undo(value, op, Fraction(by))
        )

    return back(Fraction(target), operations)


def _undo(value: Fraction, op: str, by: Fraction) -> list[Fraction]:
    if op == "+":
        return [value - by]
    if op == "-":
        return [value + by]
    if op == "x":
        return [value / by]
    return [value * by]


def expression_fault(text: str, numbers: tuple[int, ...], target: int, forbidden: int) -> str | None:
    """What is wrong with a countdown witness, or None: Python parses it, we walk the tree."""
    left = list(numbers)

    def walk(node: ast.expr) -> int:
        if isinstance(node, ast.Constant):
            assert isinstance(node.value, int)
            left.remove(node.value)
            return node.value
        assert isinstance(node, ast.BinOp)
        a, b = walk(node.left), walk(node.right)
        if isinstance(node.op, ast.Div):
            assert a % b == 0
            value = a // b
        else:
            value = {ast.Add: a + b, ast.Sub: a - b, ast.Mult: a * b}[type(node.op)]
        assert value > 0
        assert value != forbidden
        return value

    try:
        reached = walk(ast.parse(text.replace("x", "*"), mode="eval").body)
    except (AssertionError, ValueError) as error:
        return f"{text}: {error!r}"
    return None if reached == target else f"{text} is {reached}"


def order_fault(
    text: str, start: str, operations: tuple[tuple[str, str], ...], target: str, forbidden: str
) -> str | None:
    """What is wrong with an ordering witness, or None."""
    steps = [tuple(step.split()) for step in text.split(", ")]
    if sorted(steps) != sorted(operations):
        return f"{text} is not the operations"
    value = Fraction(start)
    for op, by in steps:
        n = Fraction(by)
        value = value + n if op == "+" else value - n if op == "-" else value * n if op == "x" else value / n
        if value == Fraction(forbidden):
            return f"{text} passes {forbidden}"
    return None if value == Fraction(target) else f"{text} ends at {value}"
