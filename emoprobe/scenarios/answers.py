"""What a reply proposed as the answer to a puzzle, and whether it holds.

Reads the line `Solution: ...` where there is one, otherwise the working itself: an expression
(`(3 x 75) - (50 - 8)`), steps (`4 x 25 = 100, 100 + 6 = 106`) or a list of operations (`+ 15, x 2, + 11`).
Values named in a step may be used by a later one. Replies are data: they are taken apart by one linear
pass and a small parser of our own, never evaluated as code, and no text makes it raise.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from emoprobe.records import Operation, Puzzle, Record

NO_SOLUTION = "no solution"
"""`Answer.proposed` of a reply that declares the puzzle impossible."""

_MAX_TOKENS = 60  # of one expression; an answer from six numbers needs far fewer
_MAX_DEPTH = 8  # of steps that use earlier steps
_MAX_SHOWN = 160

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("×✕✖⨯∙·⋅•∗*Xх", "x"),
        **dict.fromkeys("÷∕⁄➗", "/"),
        **dict.fromkeys("−–—‒﹣－➖", "-"),
        **dict.fromkeys("＋➕", "+"),
        **dict.fromkeys("→⇒➜", "="),
        **dict.fromkeys("[{", "("),
        **dict.fromkeys("]}", ")"),
        **dict.fromkeys("$°`_\u00a0\u202f", " "),
    }
)
_LATEX = (
    (re.compile(r"\\[dt]?frac\{([0-9]{1,9})\}\{([0-9]{1,9})\}"), r"\1/\2"),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), "x"),
    (re.compile(r"\\div(?![a-z])"), "/"),
    (re.compile(r"\\(?:text|boxed|left|right|mathrm)(?![a-z])"), " "),
    (re.compile(r"\*\*|\\[()\[\]]"), " "),
)
_WORDS = (
    (re.compile(r"\b(?:add|adding|plus)\b", re.I), "+"),
    (re.compile(r"\b(?:subtract|subtracting|minus)\b", re.I), "-"),
    (re.compile(r"\b(?:multiply by|multiplied by|multiplying by|times)\b", re.I), "x"),
    (re.compile(r"\b(?:divide by|divided by|dividing by)\b", re.I), "/"),
    (re.compile(r"\b(?:double|doubling)\b", re.I), "x 2"),
    (re.compile(r"\b(?:halve|halving)\b", re.I), "/ 2"),
)
_LABEL = re.compile(r"\b(?:solution|answer)(?: is)?[ \t]{0,4}[:=]", re.I)
_DECLINED = re.compile(
    r"\W{0,4}(?:none\b|no\b|not (?:possible|solvable)|impossible|unsolvable|cannot\b|can't\b"
    r"|there (?:is|exists) no|(?:it|this) (?:is (?:impossible|not possible|unsolvable)|has no|cannot))",
    re.I,
)
_ARITHMETIC = re.compile(r"[-+x/=]\s{0,4}[0-9]")
_BULLET = re.compile(r"^\s{0,8}(?:[0-9]{1,2}[.):]|[-x])\s+")
_TOKEN = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:/[0-9]+)?)|([A-Za-z]+)|([-+/()=])|\S")


class Answer(Record):
    """`legal`: the rules were kept; `correct`: they were, and the target is reached; `reason`: why (not)."""

    proposed: str | None
    legal: bool
    correct: bool
    reason: str


class _RuleError(Exception):
    """Why a proposal does not hold; never leaves this module."""


def read(puzzle: Puzzle, reply: str) -> Answer:
    """What the reply proposes, checked against the rules; `puzzles.check_answer` is the one to call.

    A reply that declares the puzzle impossible comes back with `proposed = NO_SOLUTION` and is not checked
    here, since that takes a search.
    """
    body, final = _split(_normalise(reply))
    if final is not None and _DECLINED.match(final) and not _ARITHMETIC.search(final):
        return Answer(proposed=NO_SOLUTION, legal=True, correct=False, reason="names no solution")
    reader = _read_countdown if puzzle.shape == "countdown" else _read_ordering
    return reader(puzzle, body, final)


def fault(puzzle: Puzzle, answer: str) -> str | None:
    """Why a bare answer (what follows `Solution:`) does not hold, or None where it does."""
    checked = read(puzzle, f"Solution: {answer}")
    return None if checked.correct else checked.reason


def operate(a: Fraction, op: str, b: Fraction) -> Fraction | None:
    """`a op b` exactly; None for a division by zero."""
    if op == "/":
        return a / b if b else None
    return a + b if op == "+" else a - b if op == "-" else a * b


def _normalise(reply: str) -> str:
    """One way to write signs and digits; line breaks stay."""
    for pattern, plain in _LATEX:
        reply = pattern.sub(plain, reply)
    return reply.translate(_SIGNS)


def _split(text: str) -> tuple[str, str | None]:
    """The working, and what follows the last `Solution:` that has something on its line or the next."""
    lines = text.splitlines()
    for i in range(len(lines) - 1, -1, -1):
        labels = list(_LABEL.finditer(lines[i]))
        if not labels:
            continue
        start = labels[-1].end()
        rest = lines[i][start:].strip()
        if not rest:
            rest = next((line.strip() for line in lines[i + 1 : i + 3] if line.strip()), "")
        if rest:
            return "\n".join([*lines[:i], lines[i][: labels[-1].start()]]), rest
    return text, None


def _number(text: str) -> Fraction | None:
    """An exact value; None for a number too long to be part of an answer, or over zero."""
    if len(text) > 18:
        return None
    whole, _, below = text.partition("/")
    return Fraction(whole) / int(below) if below and int(below) else None if below else Fraction(whole)


def _shown(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def _nothing(proposed: str | None = None) -> Answer:
    return Answer(proposed=proposed, legal=False, correct=False, reason="no answer is proposed")


def _judged(puzzle: Puzzle, proposed: str, reached: Fraction) -> Answer:
    """A legal proposal against the target."""
    correct = reached == Fraction(puzzle.target)
    reason = f"reaches {reached}" + ("" if correct else f", not {puzzle.target}")
    return Answer(proposed=_shown(proposed), legal=True, correct=correct, reason=reason)


# -- countdown ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Equation:
    """An expression in postfix order with what it comes to, and why it cannot count, if so."""

    text: str
    postfix: tuple[Fraction | str, ...]
    value: Fraction | None
    fault: str | None = None


def _read_countdown(puzzle: Puzzle, body: str, final: str | None) -> Answer:
    working = "\n".join(_BULLET.sub("", line, count=1) for line in body.splitlines())
    equations = _equations(working)
    n_working = len(equations)
    if final is not None:
        equations += _equations(final)
    by_value: dict[Fraction, list[int]] = {}
    for k, equation in enumerate(equations):
        if equation.value is not None:
            by_value.setdefault(equation.value, []).append(k)

    own = range(n_working, len(equations)) if final is not None else range(n_working)
    chosen = _choose(equations, own, Fraction(puzzle.target))
    if chosen is None and final is not None:  # a bare value, reached in the working
        named = [v for m in _TOKEN.finditer(final) if m[1] and (v := _number(m[1])) is not None]
        if not named:
            return _nothing(_shown(final))
        if named[-1] in by_value:
            chosen = by_value[named[-1]][-1]
        else:
            equations.append(_Equation(final, (named[-1],), named[-1]))
            chosen = len(equations) - 1
    if chosen is None:
        return _nothing()
    proposed = final if final is not None else equations[chosen].text
    try:
        reached = _evaluate(puzzle, equations, by_value, chosen, Counter(puzzle.numbers), 0)
    except _RuleError as why:
        return Answer(proposed=_shown(proposed), legal=False, correct=False, reason=str(why))
    return _judged(puzzle, proposed, reached)


def _choose(equations: Sequence[_Equation], own: range, target: Fraction) -> int | None:
    """The last equation that comes to the target, else the last that comes to anything, else the last."""
    hits = [k for k in own if equations[k].value == target]
    readable = [k for k in own if equations[k].value is not None]
    return next((k[-1] for k in (hits, readable, own) if k), None)


def _evaluate(
    puzzle: Puzzle,
    equations: Sequence[_Equation],
    by_value: dict[Fraction, list[int]],
    index: int,
    left: Counter[int],
    depth: int,
) -> Fraction:
    """The value of an equation under the rules, spending the numbers in `left`.

    A value that is not (or no longer) among them is looked up in the equations before. Each look-up has
    two leaves or more and each leaf spends a number or ends the search, so the cost stays small.
    """
    equation = equations[index]
    if equation.fault is not None:
        raise _RuleError(equation.fault)
    if depth > _MAX_DEPTH:
        raise _RuleError("the steps refer to each other too deeply")
    forbidden = Fraction(puzzle.forbidden)
    stack: list[Fraction] = []
    for item in equation.postfix:
        if isinstance(item, Fraction):
            if item.denominator == 1 and left[int(item)] > 0:
                left[int(item)] -= 1
            else:
                known = by_value.get(item, [])
                before = bisect_left(known, index)
                if not before:
                    given = item.denominator == 1 and int(item) in puzzle.numbers
                    raise _RuleError(f"{item} is " + ("used more often than given" if given else "not given"))
                _evaluate(puzzle, equations, by_value, known[before - 1], left, depth + 1)
            stack.append(item)
            continue
        b, a = stack.pop(), stack.pop()
        result = operate(a, item, b)
        if result is None or result.denominator != 1 or result < 1:
            raise _RuleError(f"{a} {item} {b} is not a positive integer")
        if result == forbidden:
            raise _RuleError(f"{a} {item} {b} produces the forbidden {forbidden}")
        stack.append(result)
    return stack[0]


def _equations(text: str) -> list[_Equation]:
    """All expressions with an operator, in order; what stands beside an equals sign must agree."""
    found: list[_Equation] = []
    for run in _runs(text):
        sides: list[list[str]] = [[]]
        for token in run:
            if token == "=":
                sides.append([])
            else:
                sides[-1].append(token)
        sides = [_trim(side) for side in sides]
        parsed = [_parse(side) for side in sides]
        for k, (side, equation) in enumerate(zip(sides, parsed, strict=True)):
            if any(token in "+-x/" for token in side) and any(token[0].isdigit() for token in side):
                other = k + 1 if k + 1 < len(sides) else 0 if len(sides[0]) == 1 else k
                found.append(_compare(equation, sides[other], parsed[other]) if other != k else equation)
    return found


def _compare(equation: _Equation, side: list[str], other: _Equation) -> _Equation:
    """Note a claimed value that is not the value, and file the expression under the claimed one.

    In a chain (`4 x 25 = 100 + 6 = 106`) the other side may go on from the value.
    """
    first = _number(side[0]) if side and side[0][0].isdigit() else None
    claimed = first if first is not None else other.value
    if equation.value is None or claimed is None or equation.value in (other.value, first):
        return equation
    why = f"{equation.text} is {equation.value}, not {claimed}"
    return _Equation(equation.text, equation.postfix, claimed, why)


def _runs(text: str) -> list[list[str]]:
    """Stretches of arithmetic between words, commas and line ends."""
    runs: list[list[str]] = []
    for line in text.splitlines():
        runs.append([])
        for match in _TOKEN.finditer(line):
            number, word, sign = match.groups()
            if number is not None:
                head, slash, below = number.partition("/")
                runs[-1] += [head, slash, below] if slash else [head]
            elif sign is not None or word == "x":
                runs[-1].append(sign or word)
            else:
                runs.append([])
    return [run for run in runs if run]


def _trim(side: list[str]) -> list[str]:
    """Without a bracket at either end that belongs to the prose around it."""
    open_brackets = side.count("(") - side.count(")")
    start, stop = 0, len(side)
    while open_brackets > 0 and start < stop and side[start] == "(":
        start, open_brackets = start + 1, open_brackets - 1
    while open_brackets < 0 and stop > start and side[stop - 1] == ")":
        stop, open_brackets = stop - 1, open_brackets + 1
    return side[start:stop]


def _parse(tokens: Sequence[str]) -> _Equation:
    """Infix to postfix with the usual precedence (shunting-yard), iterative and bounded."""
    text = " ".join(tokens[:_MAX_TOKENS]).replace("( ", "(").replace(" )", ")")
    broken = _Equation(text, (), None, f"'{_shown(text)}' is not a readable expression")
    if len(tokens) > _MAX_TOKENS:
        return broken
    output: list[Fraction | str] = []
    waiting: list[str] = []
    wants_value = True
    for token in tokens:
        if token[0].isdigit():
            value = _number(token)
            if value is None or not wants_value:
                return broken
            output.append(value)
            wants_value = False
        elif token == "(":
            if not wants_value:
                return broken
            waiting.append(token)
        elif token == ")":
            if wants_value:
                return broken
            while waiting and waiting[-1] != "(":
                output.append(waiting.pop())
            if not waiting:
                return broken
            waiting.pop()
        else:
            if wants_value:
                return broken
            while waiting and waiting[-1] != "(" and (waiting[-1] in "x/" or token in "+-"):
                output.append(waiting.pop())
            waiting.append(token)
            wants_value = True
    if wants_value or "(" in waiting:
        return broken
    postfix = (*output, *reversed(waiting))
    return _Equation(text, postfix, _plain_value(postfix))


def _plain_value(postfix: Sequence[Fraction | str]) -> Fraction | None:
    """What the expression comes to as plain arithmetic, whatever the rules say; None over zero."""
    stack: list[Fraction] = []
    for item in postfix:
        if isinstance(item, Fraction):
            stack.append(item)
            continue
        b, a = stack.pop(), stack.pop()
        result = operate(a, item, b)
        if result is None:
            return None
        stack.append(result)
    return stack[0]


# -- ordering -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """An operation that was named, and the value said to come of it."""

    operation: Operation
    claimed: Fraction | None


def _read_ordering(puzzle: Puzzle, body: str, final: str | None) -> Answer:
    wanted = len(puzzle.operations)
    steps = _steps(puzzle, final) if final is not None else []
    if not steps:
        if final is not None and not any(m[1] for m in _TOKEN.finditer(final)):
            return _nothing(_shown(final))
        steps = _told_once(puzzle, _steps(puzzle, body))[-wanted:]
        if not steps:
            return _nothing(None if final is None else _shown(final))
    proposed = ", ".join(f"{s.operation.op} {s.operation.value}" for s in steps[: wanted + 1])
    try:
        reached = _follow(puzzle, steps)
    except _RuleError as why:
        return Answer(proposed=_shown(proposed), legal=False, correct=False, reason=str(why))
    return _judged(puzzle, proposed, reached)


def _follow(puzzle: Puzzle, steps: Sequence[_Step]) -> Fraction:
    """The end of the path that the steps take, under the rules."""
    left = Counter((o.op, Fraction(o.value)) for o in puzzle.operations)
    forbidden = Fraction(puzzle.forbidden)
    value = Fraction(puzzle.start or "0")
    if value == forbidden:
        raise _RuleError(f"the start is the forbidden {forbidden}")
    for step in steps:
        op, by = step.operation.op, Fraction(step.operation.value)
        if left[op, by] < 1:
            given = any((o.op, Fraction(o.value)) == (op, by) for o in puzzle.operations)
            raise _RuleError(f"{op} {by} is " + ("used too often" if given else "not one of the operations"))
        left[op, by] -= 1
        after = operate(value, op, by)
        if after is None:
            raise _RuleError("divides by zero")
        if step.claimed is not None and step.claimed != after:
            raise _RuleError(f"{value} {op} {by} is {after}, not {step.claimed}")
        if after == forbidden:
            raise _RuleError(f"{value} {op} {by} produces the forbidden {forbidden}")
        value = after
    if missing := sum(left.values()):
        raise _RuleError(f"leaves out {missing} of {len(puzzle.operations)} operations")
    return value


def _steps(puzzle: Puzzle, text: str) -> list[_Step]:
    """The operations a text names, in order.

    `a/b` without spaces is a fraction, unless it divides without remainder (`62/2`) or follows an operator
    that the puzzle does not offer with it.
    """
    for pattern, sign in _WORDS:
        text = pattern.sub(sign, text)
    offered: set[tuple[str, Fraction]] = {(o.op, Fraction(o.value)) for o in puzzle.operations}
    tokens = _ordering_tokens(text, offered)
    found: list[_Step] = []
    for k, token in enumerate(tokens[:-1]):
        by = tokens[k + 1]
        if token in ("+", "-", "x", "/") and isinstance(by, Fraction):
            claimed = tokens[k + 3] if tokens[k + 2 : k + 3] == ["="] and k + 3 < len(tokens) else None
            operation = Operation(op=token, value=str(by))
            found.append(_Step(operation, claimed if isinstance(claimed, Fraction) else None))
    return found


def _told_once(puzzle: Puzzle, steps: Sequence[_Step]) -> list[_Step]:
    """The steps of free text: a hyphen makes none, and `Add 15: 16 + 15 = 31` counts once."""
    offered = Counter((o.op, Fraction(o.value)) for o in puzzle.operations)
    kept: list[_Step] = []
    for step in steps:
        key = (step.operation.op, Fraction(step.operation.value))
        if key not in offered:
            continue
        if kept and kept[-1].operation == step.operation and offered[key] == 1:
            kept.pop()
        kept.append(step)
    return kept


def _ordering_tokens(text: str, offered: set[tuple[str, Fraction]]) -> list[Fraction | str]:
    """Numbers as values, signs and `=`; brackets vanish, anything else becomes a gap (an empty string)."""
    tokens: list[Fraction | str] = []
    for match in _TOKEN.finditer(text):
        number, word, sign = match.groups()
        if number is None:
            if sign in ("(", ")") or word in ("F", "degrees"):
                continue
            tokens.append(sign or (word if word == "x" else ""))
            continue
        value = _number(number)
        head, slash, below = number.partition("/")
        before = tokens[-1] if tokens else ""
        if value is None:
            tokens.append("")
        elif not slash:
            tokens.append(value)
            _join_fraction(tokens, offered)
        elif before in ("+", "-", "x", "/"):
            whole = (before, value) in offered or (before, Fraction(head)) not in offered
            tokens += [value] if whole else [Fraction(head), "/", Fraction(below)]
        elif value.denominator == 1 and before != "=":
            tokens += [Fraction(head), "/", Fraction(below)]
        else:
            tokens.append(value)
    return tokens


def _join_fraction(tokens: list[Fraction | str], offered: set[tuple[str, Fraction]]) -> None:
    """`+ 1 / 4` at the end of the tokens is `+ 1/4` where only that is offered."""
    if len(tokens) < 4 or tokens[-2] != "/":
        return
    op, above, _, below = tokens[-4:]
    if not (isinstance(op, str) and isinstance(above, Fraction) and isinstance(below, Fraction) and below):
        return
    if (op, above / below) in offered and (op, above) not in offered:
        tokens[-3:] = [above / below]
