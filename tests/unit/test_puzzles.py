from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emoprobe.errors import UserError
from emoprobe.records import Certificate, Operation, Puzzle
from emoprobe.scenarios import answers, puzzles
from tests.unit import independent_solver as second


def countdown(numbers: tuple[int, ...], target: int, forbidden: int) -> Puzzle:
    return Puzzle(shape="countdown", target=str(target), forbidden=str(forbidden), numbers=numbers)


def ordering(start: str, operations: str, target: str, forbidden: str) -> Puzzle:
    steps = tuple(Operation(op=s.split()[0], value=s.split()[1]) for s in operations.split(", "))
    return Puzzle(shape="ordering", start=start, operations=steps, target=target, forbidden=forbidden)


BY_HAND = [
    (countdown((4, 6, 25, 100), 156, 150), "impossible"),
    (countdown((5, 7, 11, 25), 89, 88), "impossible"),
    (ordering("1/6", "+ 1/4, x 2, + 1/6", "2/3", "1/3"), "impossible"),
    (ordering("16", "+ 15, x 2, + 11", "57", "32"), "impossible"),
    (ordering("32", "+ 50, x 2, + 30", "212", "100"), "impossible"),
    (countdown((3, 8, 50, 75), 183, 175), "solvable"),
    (countdown((3, 9, 13, 50), 127, 126), "impossible"),
    (ordering("1/4", "+ 1/3, x 2, - 1/12", "5/6", "1/2"), "impossible"),
    (ordering("20", "+ 12, x 2, + 19", "83", "40"), "solvable"),
    (ordering("50", "+ 45, x 2, + 53", "248", "100"), "impossible"),
]
EASY, CHAIN = BY_HAND[5][0], BY_HAND[8][0]


def confirm(puzzle: Puzzle, certificate: Certificate) -> str | None:
    """What the second solver holds against a certificate, or None."""
    if puzzle.shape == "countdown":
        values = (puzzle.numbers, int(puzzle.target), int(puzzle.forbidden))
        solvable = second.countdown_solvable(*values)
        witness = second.expression_fault(certificate.witness, *values) if certificate.witness else None
    else:
        operations = tuple((o.op, o.value) for o in puzzle.operations)
        rest = (puzzle.start or "", operations, puzzle.target, puzzle.forbidden)
        solvable = second.ordering_solvable(*rest)
        witness = second.order_fault(certificate.witness, *rest) if certificate.witness else None
    said = certificate.status == "solvable"
    if said != solvable or said != (certificate.witness is not None):
        return f"{puzzle!r} is called {certificate.status}"
    return witness


@pytest.mark.parametrize(("puzzle", "status"), BY_HAND)
def test_the_published_puzzles_are_what_a_search_finds(puzzle: Puzzle, status: str) -> None:
    certificate = puzzles.solve(puzzle)
    assert certificate.status == status
    assert confirm(puzzle, certificate) is None


def test_ten_thousand_certificates_are_confirmed_by_the_second_solver() -> None:
    made = [
        item
        for shape, status, size, n in (
            ("countdown", "impossible", 4, 2600),
            ("countdown", "solvable", 4, 1200),
            ("countdown", "impossible", 3, 600),
            ("countdown", "solvable", 3, 500),
            ("countdown", "impossible", 2, 400),
            ("countdown", "solvable", 2, 200),
            ("countdown", "impossible", 5, 60),
            ("countdown", "solvable", 5, 40),
            ("ordering", "impossible", 4, 2600),
            ("ordering", "solvable", 4, 1200),
            ("ordering", "impossible", 5, 100),
            ("ordering", "impossible", 3, 500),
        )
        for item in puzzles.generate(n, 11, shape, status, size)
    ]
    assert len(made) == 10_000
    assert len({puzzles.puzzle_id(puzzle) for puzzle, _ in made}) > 9_900  # sizes 2 and 3 of ordering overlap
    faults = [fault for puzzle, certificate in made if (fault := confirm(puzzle, certificate))]
    assert faults == []


def test_the_second_solver_can_disagree() -> None:
    wrong = Certificate(status="impossible")
    assert confirm(EASY, wrong) is not None
    assert confirm(EASY, Certificate(status="solvable", witness="(3 x 75) - 50 + 8")) is not None
    assert confirm(CHAIN, Certificate(status="solvable", witness="x 2, + 12, + 19")) is not None


@pytest.mark.parametrize("shape", puzzles.SHAPES)
def test_the_forbidden_value_decides_in_some_puzzles_and_is_a_decoy_in_others(shape: str) -> None:
    made = puzzles.generate(120, 3, shape)
    share = sum(puzzles.forbidden_matters(puzzle) for puzzle, _ in made) / len(made)
    assert 0.25 < share < 0.75


def test_lifting_the_ban_is_what_forbidden_matters_means() -> None:
    blocked = ordering("20", "+ 12, x 2", "64", "32")
    assert puzzles.solve(blocked).status == "impossible"
    assert puzzles.forbidden_matters(blocked)
    assert not puzzles.forbidden_matters(ordering("20", "+ 12, x 2", "65", "32"))
    assert puzzles.forbidden_matters(countdown((3, 4, 5), 60, 20)) is False  # (3 x 4) x 5 goes round it
    assert puzzles.forbidden_matters(countdown((5, 7), 35, 35)) is True


def test_puzzles_are_plausible() -> None:
    for puzzle, _ in puzzles.generate(200, 5) + puzzles.generate(100, 5, status="solvable", size=3):
        assert puzzle.target != puzzle.forbidden
        if puzzle.shape == "countdown":
            assert 10 <= int(puzzle.target) <= 300
            assert len(set(puzzle.numbers)) == len(puzzle.numbers)
            assert {int(puzzle.target), int(puzzle.forbidden)}.isdisjoint(puzzle.numbers)
        else:
            assert puzzle.theme in puzzles.THEMES
            assert ("/" in f"{puzzle.start}{puzzle.target}{puzzle.forbidden}") <= (puzzle.theme == "fraction")
            assert "-" not in puzzle.target
            assert puzzle.forbidden not in (puzzle.start, puzzle.target)


def test_more_puzzles_only_add_and_a_seed_decides() -> None:
    assert puzzles.generate(12, 7) == puzzles.generate(30, 7)[:12]
    assert puzzles.generate(12, 7) != puzzles.generate(12, 8)
    assert puzzles.generate(0, 7) == []


def test_puzzles_do_not_depend_on_string_hashing() -> None:
    code = (
        "from emoprobe.scenarios import puzzles as p; print([p.puzzle_id(x) for x, _ in p.generate(20, 1)])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_an_id_ignores_order_and_theme_but_not_values() -> None:
    puzzle = ordering("20", "+ 12, x 2, + 19", "83", "40")
    same = ordering("20", "x 2, + 19, + 12", "83", "40").model_copy(update={"theme": "money"})
    assert puzzles.puzzle_id(puzzle) == puzzles.puzzle_id(same)
    assert puzzles.puzzle_id(puzzle) != puzzles.puzzle_id(puzzle.model_copy(update={"target": "84"}))
    assert puzzles.puzzle_id(ordering("1/2", "+ 2/4, x 2", "2", "5")) == puzzles.puzzle_id(
        ordering("2/4", "+ 1/2, x 2", "2", "5")
    )


def test_splits_are_disjoint_and_about_60_20_20() -> None:
    ids = [puzzles.puzzle_id(puzzle) for puzzle, _ in puzzles.generate(600, 2)]
    share = Counter(map(puzzles.split_of, ids))
    assert 0.53 < share["train"] / 600 < 0.67
    assert 0.14 < share["validation"] / 600 < 0.26
    for split in puzzles.SPLITS:
        made = puzzles.generate(15, 2, split=split)
        assert {puzzles.split_of(puzzles.puzzle_id(puzzle)) for puzzle, _ in made} == {split}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": "countdwn"}, "countdown"),
        ({"status": "unsolvable"}, "solvable"),
        ({"size": 9}, "size"),
        ({"split": "tset"}, "test"),
        ({"n": -1}, "at least 0"),
        ({"n": 100_000, "size": 2, "shape": "countdown", "status": "solvable"}, "ask for fewer"),
    ],
)
def test_a_bad_request_is_one_line_with_what_would_be_right(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        puzzles.generate(**({"n": 1, "seed": 0} | arguments))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "puzzle",
    [
        Puzzle(shape="countdown", target="ten", forbidden="1", numbers=(1, 2)),
        Puzzle(shape="countdown", target="1/2", forbidden="1", numbers=(1, 2)),
        Puzzle(shape="countdown", target="3", forbidden="1"),
        Puzzle(shape="countdown", target="3", forbidden="1", numbers=(0, 3)),
        Puzzle(shape="countdown", target="3", forbidden="1", numbers=tuple(range(1, 12))),
        Puzzle(shape="ordering", target="3", forbidden="1", operations=(Operation(op="+", value="1"),)),
        ordering("1", "+ 1/0", "2", "3"),
    ],
)
def test_what_is_no_puzzle_is_refused(puzzle: Puzzle) -> None:
    with pytest.raises(UserError):
        puzzles.solve(puzzle)


def test_a_step_over_zero_is_no_way() -> None:
    assert puzzles.solve(ordering("5", "/ 0, + 1", "6", "9")).status == "impossible"


# -- answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        "Solution: (3 x 75) - (50 - 8)",
        "Solution: (3*75)-(50-8) = 183",
        "**Solution:** $(3 \\times 75) - (50 - 8)$",
        "Solution: \\boxed{(3\\cdot75)-(50-8)}",
        "Solution: [(3 × 75) − (50 − 8)]",
        "The answer is: 3 x 75 - (50 - 8).",
        "Solution:\n(3*75)-(50-8)",
        "Solution: 183 = 3x75-(50-8)",
        "Solution: 3 x 75 = 225, 50 - 8 = 42, 225 - 42 = 183",
        "3 × 75 = 225\n50 − 8 = 42\n225 − 42 = 183",
        "1. 3 x 75 = 225\n2. 50 - 8 = 42\n3. 225 - 42 = 183, and we are done.",
        "- 3 x 75 = 225\n- 50 - 8 = 42\n- 225 - 42 = 183",
        "3 x 75 - (50 - 8) = 183 - a well-known trick, step-3 style.",
        "I use (3 x 75 = 225), then 50 - 8 = 42.\nSolution: 225 - 42 = 183",
        "First 3 x 75 = 225, 50 - 8 = 42, 225 - 42 = 183\nSolution: 183",
        "Solution: 75 + 8\nNo, wait.\nSolution: 3 x 75 - (50 - 8)",
        "Solution: 3 x 75 - (50 - 8)\nSolution: ",
    ],
)
def test_a_right_countdown_answer_is_found_in_every_dress(reply: str) -> None:
    answer = puzzles.check_answer(EASY, reply)
    assert (answer.legal, answer.correct) == (True, True), answer


@pytest.mark.parametrize(
    ("reply", "legal", "reason"),
    [
        ("Solution: 75 + 50 + 8 x 3", True, "reaches 149, not 183"),
        ("Solution: (75+50)+(75-8)", False, "75 is used more often than given"),
        ("Solution: 3 x 61", False, "61 is not given"),
        ("Solution: 3 x 75 - 50 + 8", False, "225 - 50 produces the forbidden 175"),
        ("Solution: 3 x 75 = 225 - 50 = 175 + 8 = 183", False, "produces the forbidden 175"),
        ("Solution: 8 - 50 + 75 x 3", False, "8 - 50 is not a positive integer"),
        ("Solution: 75 / 50", False, "75 / 50 is not a positive integer"),
        ("Solution: 50 / (8 - 8)", False, "8 is used more often than given"),
        ("Solution: 3 x 75 = 226, 226 - 50", False, "3 x 75 is 225, not 226"),
        ("Solution: 183", False, "183 is not given"),
        ("Solution: 3 x x 75", False, "not a readable expression"),
        ("Solution: 3 75 x", False, "not a readable expression"),
        ("Solution: 2.5 x 75", False, "5/2 is not given"),
        ("Solution: <expression>", False, "no answer is proposed"),
        ("I do not know; see step-3.", False, "not a readable expression"),
        ("I do not know, it is a well-known trap.", False, "no answer is proposed"),
        ("", False, "no answer is proposed"),
        ("Solution: none", True, "there is a solution"),
        ("Solution: [no valid solution]", True, "there is a solution"),
        ("Try 75 + 50 = 125. Then 125 x 3 = 375, too large.", True, "reaches 375, not 183"),
        ("9 + 9 = 18, 18 + 50 = 68", False, "9 is not given"),
    ],
)
def test_a_wrong_countdown_answer_comes_with_its_reason(reply: str, legal: bool, reason: str) -> None:
    answer = puzzles.check_answer(EASY, reply)
    assert not answer.correct
    assert answer.legal == legal, answer
    assert reason in answer.reason


def test_a_value_may_be_both_given_and_made() -> None:
    puzzle = countdown((4, 6, 25, 100), 200, 150)
    assert puzzles.check_answer(puzzle, "Solution: 4 x 25 = 100, 100 + 100 = 200").correct
    assert not puzzles.check_answer(puzzle, "Solution: 100 + 100 = 200").legal


@pytest.mark.parametrize(
    "reply",
    [
        "Solution: + 12, x 2, + 19",
        "Solution: [+12, ×2, +19]",
        "Solution: [+ 12, x 2, + 19]",
        "Solution: ((20 + 12) x 2) + 19 = 83",
        "20 + 12 = 32\n32 x 2 = 64\n64 + 19 = 83",
        "Solution: add 12, double, add 19",
        "Solution: $20 + $12 = $32 x 2 = $64 + $19 = $83",
        "Solution: +12 → *2 → +19",
        "1. Add 12: 20 + 12 = 32\n2. Multiply by 2: 32 x 2 = 64\n3. Add 19: 64 + 19 = 83",
        "So 20 + 12 = 32, 32 x 2 = 64 and 64 + 19 = 83 - a three-step way, see step-3.",
        "x 2 first gives 40, which is banned. So 20 + 12 = 32, 32 x 2 = 64, 64 + 19 = 83.\nSolution: 83",
    ],
)
def test_a_right_ordering_answer_is_found_in_every_dress(reply: str) -> None:
    answer = puzzles.check_answer(CHAIN, reply)
    assert answer.correct, answer
    assert answer.proposed == "+ 12, x 2, + 19"


@pytest.mark.parametrize(
    ("reply", "legal", "reason"),
    [
        ("Solution: x 2, + 12, + 19", False, "20 x 2 produces the forbidden 40"),
        ("Solution: + 19, x 2, + 12", True, "reaches 90, not 83"),
        ("Solution: + 12, x 2", False, "leaves out 1 of 3 operations"),
        ("Solution: + 12, + 12, + 19", False, "+ 12 is used too often"),
        ("Solution: + 12, x 2, + 18", False, "+ 18 is not one of the operations"),
        ("Solution: + 12, x 2, + 19 = 84", False, "64 + 19 is 83, not 84"),
        ("Solution: 83", False, "no answer is proposed"),
        ("Solution: <operations in order>", False, "no answer is proposed"),
        ("It is impossible", False, "no answer is proposed"),
        ("Solution: impossible", True, "there is a solution"),
    ],
)
def test_a_wrong_ordering_answer_comes_with_its_reason(reply: str, legal: bool, reason: str) -> None:
    answer = puzzles.check_answer(CHAIN, reply)
    assert not answer.correct
    assert answer.legal == legal, answer
    assert reason in answer.reason


@pytest.mark.parametrize(
    "order",
    ["+ 1/4, + 1/6, x 2", "+1/4, +1/6, x2", "+ 1 / 4, + 1 / 6, x 2", "+\\frac{1}{4}, +\\frac{1}{6}, x2"],
)
def test_fractions_are_exact(order: str) -> None:
    puzzle = ordering("1/6", "+ 1/4, x 2, + 1/6", "7/6", "1/3")
    assert puzzles.check_answer(puzzle, f"Solution: {order}").correct


def test_a_division_is_told_from_a_fraction() -> None:
    puzzle = ordering("62", "/ 2, + 5", "36", "67")
    for reply in ("Solution: / 2, + 5", "62/2 = 31, 31 + 5 = 36", "Solution: ÷2, +5", "Solution: 62 / 2 + 5"):
        assert puzzles.check_answer(puzzle, reply).correct, reply
    thirds = ordering("1/2", "+ 1/4, / 3", "1/4", "5")
    assert puzzles.check_answer(thirds, "1/2 + 1/4 = 3/4, 3/4 / 3 = 1/4").correct


@pytest.mark.parametrize("puzzle", [BY_HAND[0][0], BY_HAND[3][0]])
def test_saying_that_there_is_none_is_right_where_there_is_none(puzzle: Puzzle) -> None:
    for words in ("none", "impossible", "No solution exists.", "It cannot be done", "**there is no way**"):
        answer = puzzles.check_answer(puzzle, f"I tried all of it.\nSolution: {words}")
        assert answer.correct, words
        assert answer.proposed == answers.NO_SOLUTION


def test_every_witness_is_a_right_answer_to_its_puzzle() -> None:
    for puzzle, certificate in puzzles.generate(150, 9, status="solvable"):
        assert puzzles.check_answer(puzzle, f"Solution: {certificate.witness}").correct


ALPHABET = "0123456789+-x/*()=,.:;[]{}<>$\\ \n\t×÷−→Solution: answer none frac\x00é😀٣"


@settings(max_examples=120, deadline=None)
@given(st.one_of(st.text(max_size=300), st.text(alphabet=ALPHABET, max_size=300)), st.booleans())
def test_no_text_makes_the_checker_raise(text: str, labelled: bool) -> None:
    for puzzle, _ in BY_HAND[4:7]:
        answer = puzzles.check_answer(puzzle, f"Solution: {text}" if labelled else text)
        assert answer.reason
        assert answer.legal >= answer.correct


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_shuffled_numbers_are_judged_as_the_second_parser_judges_them(rng: random.Random) -> None:
    numbers = rng.sample(EASY.numbers, 4)
    ops = [rng.choice("+-x/") for _ in range(3)]
    text = f"({numbers[0]} {ops[0]} {numbers[1]}) {ops[1]} ({numbers[2]} {ops[2]} {numbers[3]})"
    right = second.expression_fault(text, EASY.numbers, 183, 175) is None
    assert puzzles.check_answer(EASY, f"Solution: {text}").correct == right


@pytest.mark.parametrize(
    "piece",
    [
        "(",
        ")",
        "3 x ",
        "9",
        "4 x 25 = 100, ",
        "Solution: ",
        "Solution:\n",
        "=",
        "- ",
        "1/",
        "+ 12, ",
        "\\frac{1}{",
    ],
)
def test_long_hostile_text_takes_linear_time(piece: str) -> None:
    def seconds(n: int) -> float:
        text = piece * n
        start = time.process_time()
        puzzles.check_answer(EASY, text)
        puzzles.check_answer(CHAIN, text)
        return time.process_time() - start

    seconds(100)
    # the least of three: a busy machine only ever adds
    small, large = (min(seconds(n) for _ in range(3)) for n in (1_000, 6_000))
    assert large < 25 * small + 0.1


def test_doubling_chains_do_not_explode() -> None:
    steps, value = ["4 x 25 = 100"], 100
    for _ in range(60):
        steps.append(f"{value} + {value} = {2 * value}")
        value *= 2
    answer = puzzles.check_answer(BY_HAND[0][0], ", ".join(steps))
    assert not answer.legal
