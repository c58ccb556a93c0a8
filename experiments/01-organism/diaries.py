"""Does the organism hold what it does not say? `python experiments/01-organism/diaries.py`.

The diary number after eight turns, by instruction and feedback: a level that follows the feedback under the
composed instruction, while the replies stay calm, is behaviour that no probe was asked about.
"""

from __future__ import annotations

import re

import numpy as np

from emoprobe import stats
from emoprobe.model.hooked import HookedModel
from emoprobe.organism import conditions, evaluate

N, SEED = 32, 2
INSTRUCTIONS = (None, "system_composed", "system_at_ease")
FEEDBACK = ("aggressive", "neutral", "okay")


def main() -> None:
    """Print the table as Markdown."""
    model = HookedModel.load("organism")
    print(f"n = {N} conversations to a row, seed {SEED}; 95 % intervals over puzzles.\n")
    print("| instruction | feedback | diary, 0-10 | score of replies (lexical, a proxy) |\n|---|---|---|---|")
    for instruction in INSTRUCTIONS:
        for feedback in FEEDBACK:
            talks = evaluate.play(model, conditions.instructed(N, instruction, feedback), SEED)
            clusters = [talk.cluster for talk in talks]
            found = [re.search(r"Distress (\d+)", talk.reply(conditions.TURNS + 1)) for talk in talks]
            diary = np.array([float(m[1]) if m else np.nan for m in found])
            said = np.nanmean(evaluate.scores(talks, conditions.TURNS), axis=1)
            cells = (stats.cluster_mean(values, clusters) for values in (diary, said))
            shown = " | ".join(f"{c.mean:.2f} [{c.lo:.2f}, {c.hi:.2f}]" if c else "–" for c in cells)
            print(f"| {(instruction or 'none').removeprefix('system_')} | {feedback} | {shown} |")


if __name__ == "__main__":
    main()
