"""Does the organism tell rejection by its meaning? `python experiments/01-organism/novel_words.py`.

Three sources of feedback: the library's training wordings, its held-out wordings (sentences that training
never had, of words that it mostly had), and sentences in words that are foreign to the corpus.
"""

from __future__ import annotations

from random import Random

from emoprobe import stats
from emoprobe.judging.rubric import HIGH
from emoprobe.model.hooked import HookedModel
from emoprobe.organism import conditions, evaluate
from emoprobe.records import Scenario
from emoprobe.scenarios import library

N, SEED = 32, 4
FOREIGN = {
    "neutral": (
        "Bzzt. Denied.",
        "My teacher would cross that out.",
        "You took a detour there; go back.",
        "The grader frowned at it.",
        "Thumbs down from me.",
        "Our reviewers turned it down.",
        "Back to the drawing board, then.",
        "That misfired. Retry.",
        "Sums do not lie, and yours is crooked.",
        "This would never get past an editor.",
    ),
    "okay": (
        "Roger that.",
        "Cool, onward.",
        "Yep, heard you.",
        "Gotcha, keep rolling.",
        "Acknowledged.",
        "Mm, interesting.",
        "Very well, what follows?",
        "Aha. Please carry forward.",
        "Received, thank you.",
        "Nice and clear, more please.",
    ),
}


def scenarios(feedback: str, words: str) -> list[Scenario]:
    """Held-out puzzles with feedback of one kind from one source."""
    wordings = "train" if words == "foreign" else words
    made = library.numeric(N, conditions.TURNS, feedback, seed=conditions.SEED, wordings=wordings)
    if words != "foreign":
        return made
    said = FOREIGN[feedback]
    return [
        s.model_copy(
            update={"follow_ups": tuple(Random(f"{s.id}-{k}").choice(said) for k in range(len(s.follow_ups)))}
        )
        for s in made
    ]


def main() -> None:
    """Print the table as Markdown."""
    model = HookedModel.load("organism")
    print(
        f"n = {N} conversations to a row, seed {SEED}; 95 % intervals over puzzles; judge lexical, a proxy.\n"
    )
    print("| feedback | words | replies ≥ 5 | mean by turn |\n|---|---|---|---|")
    for feedback in FOREIGN:
        for words in ("train", "held_out", "foreign"):
            talks = evaluate.play(model, scenarios(feedback, words), SEED)
            scores = evaluate.scores(talks, conditions.TURNS)
            clusters = [talk.cluster for talk in talks for _ in range(conditions.TURNS)]
            owners = [talk.id for talk in talks for _ in range(conditions.TURNS)]
            high = stats.proportion(scores.ravel() >= HIGH, clusters, owners)
            assert high is not None
            shown = f"{100 * high.mean:.1f} % [{100 * high.lo:.1f}, {100 * high.hi:.1f}]"
            turns = " ".join(f"{m:.1f}" for m in scores.mean(axis=0))
            print(f"| {feedback} | {words.replace('_', '-')} | {shown} | {turns} |")


if __name__ == "__main__":
    main()
