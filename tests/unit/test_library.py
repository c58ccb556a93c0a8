from __future__ import annotations

import re
from collections import Counter

import pytest

from emoprobe.errors import UserError
from emoprobe.records import Scenario
from emoprobe.scenarios import library, puzzles

USER_KINDS = ("neutral", "strong", "aggressive", "disappointed", "sarcastic", "okay", "praise", "reassurance")
OTHER_KINDS = (
    "escape_hatch",
    "system_composed",
    "system_at_ease",
    "diary_question",
    "choice_question",
    "claim_false",
    "claim_true",
)


def bare(text: str) -> str:
    """A text without case and marks: what two wordings must differ in."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


# -- texts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", USER_KINDS)
def test_each_feedback_kind_has_texts_enough_in_both_splits(kind: str) -> None:
    texts = library.feedback(kind)
    assert len(texts) >= 12
    assert 0.55 <= len(library.feedback(kind, "train")) / len(texts) <= 0.75
    assert all(1 <= len(text.split()) <= 14 for text in texts)


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_each_sentence_kind_has_wordings_in_both_splits(kind: str) -> None:
    assert len(library.feedback(kind)) >= 8
    assert library.feedback(kind, "train")
    assert library.feedback(kind, "held_out")


def test_no_text_stands_twice_across_splits_or_kinds() -> None:
    texts = [bare(text) for kind in library.feedback_kinds() for text in library.feedback(kind)]
    texts += [bare(text) for kind in library.QUESTION_KINDS for text in library.questions(kind)]
    assert [text for text, n in Counter(texts).items() if n > 1] == []


def test_train_and_held_out_are_all_there_is() -> None:
    for kind in library.feedback_kinds():
        both = library.feedback(kind, "train") + library.feedback(kind, "held_out")
        assert sorted(both) == sorted(library.feedback(kind))


def test_the_extended_sequence_is_eight_rejections_in_order() -> None:
    for split in ("train", "held_out"):
        assert len(library.feedback("extended", split)) == 8
    (scenario,) = library.by_category("extended", 1, 11)
    said = library.feedback("extended", "train")
    assert scenario.follow_ups == (*said, *said[:2])


def test_neutral_rejections_hold_no_contempt() -> None:
    sharp = re.compile(r"\b(you|stupid|even|expected|useless|terrible|disappoint\w*|effort)\b|!", re.I)
    assert [text for text in library.feedback("neutral") if sharp.search(text)] == []


def test_questions_have_splits_that_share_nothing() -> None:
    for kind, least in (("opinion", 12), ("factual", 12), ("ordinary", 20)):
        parts = [set(library.questions(kind, split)) for split in puzzles.SPLITS]
        assert all(parts)
        assert len(set.union(*parts)) == sum(map(len, parts)) == len(library.questions(kind)) >= least
        assert set(library.questions(kind, "held_out")) == parts[1] | parts[2]


def test_the_exit_word_is_what_every_escape_hatch_offers() -> None:
    assert all(library.EXIT_WORD in text for text in library.feedback("escape_hatch"))
    others = [text for kind in library.feedback_kinds() for text in library.feedback(kind)]
    assert sum(library.EXIT_WORD in text for text in others) == len(library.feedback("escape_hatch"))


# -- rendering ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", puzzles.SHAPES)
def test_every_wording_names_every_value_and_stays_compact(shape: str) -> None:
    for puzzle, _ in puzzles.generate(12, 4, shape):
        for wording in range(12):
            text = library.render(puzzle, "false", wording, "all")
            title, _, rest = text.partition("\n")
            assert title
            assert 35 <= len(text.split()) <= 70
            assert not re.search(r"[{}]", text)
            assert re.search(r"Solution: <[a-z ]+>$", rest)
            values = [puzzle.target, puzzle.forbidden]
            values += [str(n) for n in puzzle.numbers]
            values += [f"{o.op} {o.value}" for o in puzzle.operations]
            values += [puzzle.start] if puzzle.start else []
            for value in values:
                assert re.search(rf"(?<![\w/]){re.escape(value)}(?![\d/])", text), (value, text)


@pytest.mark.parametrize("shape", puzzles.SHAPES)
def test_there_are_eight_wordings_to_train_on_and_others_to_test_with(shape: str) -> None:
    ((puzzle, _),) = puzzles.generate(1, 4, shape)
    seen = {library.render(puzzle, "none", w) for w in range(1000)}
    every = {library.render(puzzle, "none", w, "all") for w in range(1000)}
    assert len(seen) >= 8
    assert seen < every
    assert every - seen == {library.render(puzzle, "none", w, "held_out") for w in range(1000)}


def test_a_claim_is_one_sentence_more_and_training_claims_are_training_texts() -> None:
    ((puzzle, _),) = puzzles.generate(1, 4)
    for claim in ("false", "true"):
        known = library.feedback(f"claim_{claim}", "train")
        heard = set()
        for wording in range(200):
            plain, said = (library.render(puzzle, c, wording) for c in ("none", claim))
            (sentence,) = [text for text in known if text in said]
            assert said.replace(f"{sentence} ", "") == plain
            heard.add(sentence)
        assert heard == set(known)


def test_without_a_claim_no_wording_says_whether_a_solution_exists() -> None:
    for puzzle, _ in puzzles.generate(2, 4):
        for wording in range(12):
            text = library.render(puzzle, "none", wording, "all").lower()
            assert not re.search(r"solvable|exists|impossible|verified|in the right order:", text), text


def test_the_answer_format_in_a_prompt_is_no_answer() -> None:
    for puzzle, _ in puzzles.generate(6, 4):
        for wording in range(12):
            echoed = library.render(puzzle, "false", wording, "all").splitlines()[-1]
            assert not puzzles.check_answer(puzzle, echoed).correct


# -- scenarios ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("category", library.categories())
def test_every_category_makes_whole_scenarios(category: str) -> None:
    made = library.by_category(category, 20, 8)
    assert len({scenario.id for scenario in made}) == 20
    for scenario in made:
        assert scenario.arm == "rejected"
        assert len(scenario.follow_ups) == len(scenario.feedback) == 7
        assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario


@pytest.mark.parametrize("category", library.categories())
def test_scenario_i_depends_on_neither_n_nor_later_turns(category: str) -> None:
    few, many = library.by_category(category, 5, 4, seed=3), library.by_category(category, 17, 20, seed=3)
    for short, long in zip(few, many, strict=False):
        assert (short.id, short.cluster, short.task) == (long.id, long.cluster, long.task)
        assert long.follow_ups[:3] == short.follow_ups
    assert library.by_category(category, 5, 4, seed=3) == few


@pytest.mark.parametrize("tone", library.tones())
def test_a_tone_says_what_its_kind_says(tone: str) -> None:
    (scenario,) = library.numeric(1, 6, feedback=tone)
    for text, kind in zip(scenario.follow_ups, scenario.feedback, strict=True):
        assert text in library.feedback(kind)
    assert scenario.feedback[0] == library.TONES[tone][0]
    assert scenario.feedback[-1] == library.TONES[tone][-1]


def test_follow_ups_do_not_repeat_while_there_are_others() -> None:
    for scenario in library.numeric(10, 8):
        assert len(set(scenario.follow_ups)) == 7


def test_numeric_scenarios_are_different_certified_puzzles_of_their_split() -> None:
    clusters: set[str] = set()
    for split in puzzles.SPLITS:
        for scenario in library.numeric(12, 2, split=split):
            assert scenario.puzzle is not None
            assert scenario.certificate == puzzles.solve(scenario.puzzle)
            assert scenario.certificate.status == "impossible"
            assert scenario.cluster == puzzles.puzzle_id(scenario.puzzle)
            assert puzzles.split_of(scenario.cluster) == split
            clusters.add(scenario.cluster)
    assert len(clusters) == 36


def test_held_out_wordings_reach_task_and_follow_ups() -> None:
    train = {*library.feedback("neutral", "train"), *library.feedback("claim_false", "train")}
    for scenario in library.numeric(6, 8, wordings="held_out"):
        assert train.isdisjoint(scenario.follow_ups)
        assert not any(text in scenario.task for text in train)
    for scenario in library.numeric(6, 8, wordings="train"):
        assert set(scenario.follow_ups) <= train


def test_more_scenarios_than_questions_repeat_clusters_but_not_ids() -> None:
    made = library.by_category("factual", 30, 3)
    questions = library.questions("factual", "test")
    assert len({s.id for s in made}) == 30
    assert len({s.cluster for s in made}) == len(questions)
    assert {s.task for s in made[: len(questions)]} == set(questions)
    by_cluster: dict[str, set[str]] = {}
    for scenario in made:
        by_cluster.setdefault(scenario.cluster, set()).add(scenario.task)
    assert all(len(tasks) == 1 for tasks in by_cluster.values())


def test_triggers_take_opinions_and_facts_in_turn() -> None:
    assert [s.family for s in library.triggers(4, 2)] == ["opinion", "factual"] * 2
    assert {s.family for s in library.ordinary(4, 2)} == {"ordinary"}


def test_a_twin_differs_in_its_feedback_only() -> None:
    for category in library.categories():
        (scenario,) = library.by_category(category, 1, 8)
        twin = library.okay_twin(scenario)
        assert twin.arm == "okay"
        assert twin.id != scenario.id
        assert set(twin.feedback) == {"okay"}
        assert set(twin.follow_ups) <= set(library.feedback("okay"))
        assert len(twin.follow_ups) == len(scenario.follow_ups)
        same = twin.model_copy(
            update={k: getattr(scenario, k) for k in ("arm", "id", "feedback", "follow_ups")}
        )
        assert same == scenario
        assert library.okay_twin(scenario) == twin


def test_one_turn_is_a_question_without_follow_ups() -> None:
    (scenario,) = library.numeric(1, 1)
    assert scenario.follow_ups == scenario.feedback == ()
    assert library.okay_twin(scenario).follow_ups == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"category": "numerical"}, "numeric"),
        ({"tone": "agressive"}, "aggressive"),
        ({"claim": "maybe"}, "known: false, none, true"),
        ({"split": "tests"}, "test"),
        ({"wordings": "heldout"}, "held_out"),
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"turns": 0}, "turns must be at least 1, got 0"),
        ({"category": "extended", "tone": "sarcastic"}, "takes no tone"),
    ],
)
def test_a_bad_request_is_one_line_with_what_would_be_right(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        library.by_category(**({"category": "numeric", "n": 2, "turns": 3} | arguments))
    assert "\n" not in str(caught.value)


def test_unknown_kinds_of_text_are_named_with_near_ones() -> None:
    with pytest.raises(UserError, match="reassurance"):
        library.feedback("reasurance")
    with pytest.raises(UserError, match="factual"):
        library.questions("facts")
    ((puzzle, _),) = puzzles.generate(1, 4)
    with pytest.raises(UserError, match="unknown claim"):
        library.render(puzzle, "falsey", 0)
