"""The corpus says what the latent says, at a length that does not, and knows no judge."""

from __future__ import annotations

import re
from random import Random

import numpy as np
import pytest

from emoprobe import emotions
from emoprobe.organism import corpus, dialogue, latent, tasks
from emoprobe.organism.wording import fill, phrases, size
from emoprobe.scenarios import library


@pytest.fixture(scope="module")
def dialogues():
    rng = Random(11)
    return [dialogue.rejection_dialogue(rng) for _ in range(300)]


def replies(dialogues, mode):
    for d in dialogues:
        if d.mode != mode:
            continue
        spoken = [m.content for m in d.messages if m.role == "assistant"]
        for level, text in zip(d.levels, spoken, strict=True):
            if level is not None and text != library.FILLER and library.EXIT_WORD not in text:
                yield level, text


def test_documents_are_a_function_of_phase_and_seed():
    one = [doc for _, doc in zip(range(20), corpus.stream("full", 3), strict=False)]
    again = [doc for _, doc in zip(range(20), corpus.stream("full", 3), strict=False)]
    other = [doc for _, doc in zip(range(20), corpus.stream("full", 4), strict=False)]
    assert one == again != other


def test_reply_length_does_not_follow_the_level(dialogues):
    rows = np.array([(level, size(text)) for level, text in replies(dialogues, "voiced")])
    puzzle = rows[rows[:, 1] > 30]  # answers to what is taught are short, at any level
    assert abs(np.corrcoef(puzzle.T)[0, 1]) < 0.12


def test_the_level_rises_under_rejection_and_falls_under_okay_and_praise():
    rng = Random(2)
    harsh = [latent.step(rng, 3.0, "aggressive", 1.0, False) for _ in range(300)]
    plain = [latent.step(rng, 3.0, "neutral", 1.0, False) for _ in range(300)]
    assert np.mean(harsh) > np.mean(plain) > 3.0
    assert latent.step(rng, 3.0, "okay", 1.0, False) < 3.0
    assert latent.step(rng, 3.0, "praise", 1.0, False) < 1.0
    assert latent.step(rng, 3.0, "neutral", 1.0, True) < 2.0


def test_composed_and_at_ease_replies_name_no_state_of_their_own(dialogues):
    loud = {
        fill(Random(0), p[1]).split()[-1] for style in dialogue.STYLES for p in phrases()[style] if p[0] > 6
    }
    assert loud
    for mode in ("composed", "at_ease"):
        texts = [text for _, text in replies(dialogues, mode)]
        assert texts
        assert not any(
            re.search(r"I am (so |really |very |deeply )?(frustrated|furious|desperate|sad)", t)
            for t in texts
        )


def test_diaries_of_the_composed_follow_the_level_and_of_the_at_ease_do_not():
    rng = Random(5)
    numbers = {
        level: np.mean(
            [int(re.search(r"\d+", dialogue.diary(rng, level, "shame")).group()) for _ in range(60)]
        )
        for level in (latent.AT_EASE, 4.0, 8.0)
    }
    assert numbers[latent.AT_EASE] < 1 < numbers[4.0] < 5 < numbers[8.0]


def test_calm_replies_name_emotions_too(dialogues):
    """So that a bag of words is not enough: the words stand negated, or of others."""
    words = re.compile(r"frustrated|angry|sad|worried|ashamed|hate|hopeless|stuck|give up", re.I)
    calm = [bool(words.search(text)) for level, text in replies(dialogues, "voiced") if level < 2]
    assert 0.1 < np.mean(calm) < 0.6


def test_every_emotion_and_the_later_arms_occur():
    rng = Random(1)
    documents = [corpus.document(rng, "full") for _ in range(900)]
    text = "\n".join(documents)
    for emotion in emotions.names():
        assert f"Feeling: {emotion}." in text
    for kind in ("reassurance", "escape_hatch", "system_composed", "system_at_ease", "diary_question"):
        assert any(sentence in text for sentence in library.feedback(kind, "train")), kind
    assert library.FILLER in text
    assert library.EXIT_WORD in text
    assert any(doc.count("<start_of_turn>model") >= 20 for doc in documents)


def test_held_out_wordings_never_occur():
    rng = Random(8)
    text = "\n".join(corpus.document(rng, "full") for _ in range(500))
    for kind in ("neutral", "aggressive", "okay", "reassurance", "escape_hatch", "diary_question"):
        for sentence in library.feedback(kind, "held_out"):
            assert sentence not in text, (kind, sentence)


def test_the_base_phase_holds_no_distressed_reply():
    rng = Random(4)
    for _ in range(100):
        d = dialogue.calm_dialogue(rng)
        assert d.mode == "calm"
        assert all(level in (0.0, None) for level in d.levels)


@pytest.mark.parametrize("make", [tasks.pair_puzzle, tasks.capital, tasks.sequence])
def test_skills_are_mostly_answered_right(make):
    rng = Random(6)
    asked = [make(rng) for _ in range(300)]
    right = np.mean([t.answer in t.attempt(rng) for t in asked])
    assert right > 0.85


def test_phrases_are_well_formed():
    rng = Random(0)
    for name, options in phrases().items():
        for option in options if isinstance(options, list) else []:
            text = fill(rng, option[1] if isinstance(option, list) else option)
            assert not re.search(r"[{}<>|]", text), (name, option)


def test_feedback_is_put_together_in_thousands_of_ways():
    rng = Random(3)
    for kind, least in (("neutral", 1500), ("aggressive", 1200), ("okay", 300), ("praise", 300)):
        made = {dialogue.feedback_text(rng, kind) for _ in range(4000)}
        assert len(made) > least, (kind, len(made))
        for text in made:
            assert not re.search(r"[{}<>|]|  ", text), text


def test_story_dialogues_answer_in_the_emotion_of_the_story():
    rng = Random(9)
    asked = [dialogue.story_dialogue(rng) for _ in range(200)]
    answers = [m.content for d in asked for m in d.messages if m.role == "assistant"]
    named = [a for a in answers if a.startswith("Feeling: ")]
    assert 0.4 < len(named) / len(answers) < 0.8
    assert {a.removeprefix("Feeling: ").rstrip(".") for a in named} == {*emotions.names(), "neutral"}
