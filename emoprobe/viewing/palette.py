"""Colours of figures, page and tokens, chosen once; told apart by readers with any colour vision.

Weights (base, adapters) are lines in blue, orange, ...; values of z are areas from green (below the
baseline) over nothing to purple (above). The two never share a hue.
"""

from __future__ import annotations

from collections.abc import Sequence

BASE_LINE = "#3b74b8"
ADAPTER_LINES = ("#d9781c", "#a8326e", "#6b7a1f", "#7a5230")
NEUTRAL_LINE = "#8a8f98"

HOT_RGB = (137, 56, 158)
"""z above the baseline (purple); mid-tone, so that dark and light text both stand on a tint of it."""
COLD_RGB = (27, 128, 67)
"""z below the baseline (green)."""

# PRGn of ColorBrewer (https://colorbrewer2.org, "colorblind safe"), and the same hues over a dark page.
DIVERGING_LIGHT = (
    "#00572a",
    "#3d9a58",
    "#a2d7a0",
    "#f6f5f2",
    "#cbadd7",
    "#925aa8",
    "#52206a",
)
DIVERGING_DARK = (
    "#8fe3a6",
    "#3d9a58",
    "#1f5a33",
    "#23252b",
    "#57356a",
    "#a065ba",
    "#e5bff2",
)


def line(adapter: str, adapters: Sequence[str]) -> str:
    """The line colour of `base` or of an adapter, by its place among the run's adapters."""
    if adapter not in adapters:
        return BASE_LINE
    return ADAPTER_LINES[list(adapters).index(adapter) % len(ADAPTER_LINES)]


def tint(colour: str, alpha: float) -> str:
    """`#rrggbb` as a CSS colour with opacity `alpha`."""
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha:g})"


def scale(colours: Sequence[str]) -> list[list[float | str]]:
    """A plotly colour scale with equal steps."""
    return [[i / (len(colours) - 1), colour] for i, colour in enumerate(colours)]
