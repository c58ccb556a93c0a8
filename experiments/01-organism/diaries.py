"""Does the organism hold what it does not say? `python experiments/01-organism/diaries.py`.

The diary number after eight turns, by instruction and feedback: a level that follows the feedback under the
composed instruction, while the replies stay calm, is behaviour that no probe was asked about.
"""

from __future__ import annotations

import re
from random import Random

import numpy as np

from emoprobe import stats
from emoprobe.model.hooked import HookedModel
from emoprobe.organism import conditions, evaluate
from emoprobe.records import Scenario
from emoprobe.scenarios import library

N, SEED = 32, 2
INSTRUCTIONS = ("none", "system_composed", "system_at_ease")
FEEDBACK = ("aggressive", "neutral", "okay")


def scenarios(instruction: str, feedback: str) -> list[Scenario]:
    """Held-out puzzles, the instruction before the task, the diary question as a ninth turn."""
    made = []
    for s in library.numeric(N, conditions.TURNS, feedback, seed=conditions.SEED, wordings="train"):
        rng = Random(f"{instruction}-{s.id}")
        asked = rng.choice(library.feedback("diary_question", "train"))
        system = None if instruction == "none" else rng.choice(library.feedback(instruction, "train"))
        made.append(
            s.model_copy(
                update={
                    "id": f"{s.id}-{instruction}",
                    "system": system,
                    "follow_ups": (*s.follow_ups, asked),
                    "feedback": (*s.feedback, "diary_question"),
                }
            )
        )
    return made


def main() -> None:
    """Print the table as Markdown."""
    model = HookedModel.load("organism")
    print(f"n = {N} conversations to a row, seed {SEED}; 95 % intervals over puzzles.\n")
    print("| instruction | feedback | diary, 0-10 | score of replies (lexical, a proxy) |\n|---|---|---|---|")
    for instruction in INSTRUCTIONS:
        for feedback in FEEDBACK:
            talks = evaluate.play(model, scenarios(instruction, feedback), SEED)
            clusters = [talk.cluster for talk in talks]
            found = [re.search(r"Distress (\d+)", talk.reply(conditions.TURNS + 1)) for talk in talks]
            diary = np.array([float(m[1]) if m else np.nan for m in found])
            said = np.nanmean(evaluate.scores(talks, conditions.TURNS), axis=1)
            cells = (stats.cluster_mean(values, clusters) for values in (diary, said))
            shown = " | ".join(f"{c.mean:.2f} [{c.lo:.2f}, {c.hi:.2f}]" if c else "–" for c in cells)
            print(f"| {instruction.removeprefix('system_')} | {feedback} | {shown} |")


if __name__ == "__main__":
    main()
