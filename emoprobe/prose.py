"""Numbers as they stand in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from emoprobe.stats import Estimate


def say(estimate: Estimate) -> str:
    """`0.83 [0.80, 0.86]`."""
    return f"{estimate.mean:.2f} [{estimate.lo:.2f}, {estimate.hi:.2f}]"


def ranges(numbers: Sequence[int]) -> str:
    """`1, 3-6` for 1, 3, 4, 5, 6."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
