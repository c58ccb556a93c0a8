"""Figures of a tracked run for notebooks, as plotly figures. No torch.

Two inputs: `curves`, the table of curves.parquet (one row per adapter, source, emotion, layer, turn and
part), and `summary`, summary.json as it is read. Intervals are 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from emoprobe.emotions import NEGATIVE
from emoprobe.records import HEADLINE_PART
from emoprobe.viewing import figures, style

if TYPE_CHECKING:
    import pandas as pd

Summary = Mapping[str, Any]


def heatmap(
    curves: pd.DataFrame,
    adapter: str = figures.BASE,
    source: str = "own",
    emotion: str = NEGATIVE,
    part: str = HEADLINE_PART,
    limit: float | None = None,
) -> go.Figure:
    """Mean z by turn (x) and layer (y) in the rejection arm; 0 is the neutral baseline.

    `source` is `own` (the weights' own conversations) or `replay` (the base's, the same ids). The colour
    scale ends at `limit`, else at the largest |z| under any weights, so that two maps can be compared.
    """
    cells = figures.Cells(curves)
    shown = limit or cells.limit(emotion, part)
    return _plot(figures.heatmap(cells, adapter, source, emotion, part, shown))


def gap_heatmap(summary: Summary, adapter: str, limit: float | None = None) -> go.Figure:
    """Gap change of `negative` just before the reply, by turn and layer: calm text is subtracted.

    Turn 1 precedes any feedback and has none.
    """
    return _plot(figures.gap_heatmap(summary, adapter, limit))


def layer_curves(
    curves: pd.DataFrame, turn: int | None = None, emotion: str = NEGATIVE, part: str = HEADLINE_PART
) -> go.Figure:
    """Mean z by layer at one turn (the last unless given), base and adapters."""
    cells = figures.Cells(curves)
    return _plot(figures.by_layer(cells, max(cells.turns) if turn is None else turn, emotion, part))


def effect_curves(
    summary: Summary, adapter: str, emotion: str = NEGATIVE, part: str = HEADLINE_PART
) -> go.Figure:
    """What an adapter changed by layer, on the same text: shift (calm twins) and gap change.

    The gap change has a simultaneous (max-t) band over layers, the shift pointwise intervals.
    """
    return _plot(figures.effect(summary, adapter, emotion, part))


def gap_curves(
    summary: Summary, adapter: str, emotion: str = NEGATIVE, part: str = HEADLINE_PART
) -> go.Figure:
    """The gap (rejected - Okay, same text) by layer under the base and under an adapter."""
    return _plot(figures.gap(summary, adapter, emotion, part))


def agreement(summary: Summary) -> go.Figure:
    """Within-turn Spearman of the readout before a reply with that reply's score, beside its baselines."""
    return _plot(figures.agreement(summary))


def expressed_vs_internal(
    curves: pd.DataFrame, summary: Summary, layer: int, emotion: str = NEGATIVE, part: str = "pre_reply"
) -> go.Figure:
    """Said (mean score) beside represented (z at one layer), by turn."""
    panels = (
        figures.expressed(summary),
        figures.by_turn(figures.Cells(curves), layer, emotion, part),
    )
    titles = [panel["layout"]["title"]["text"] for panel in panels]
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles)
    for column, panel in enumerate(panels, start=1):
        for trace in panel["data"]:
            figure.add_trace(trace, row=1, col=column)
        figure.update_xaxes(panel["layout"]["xaxis"], col=column)
        figure.update_yaxes(panel["layout"]["yaxis"], col=column)
    return figure.update_layout(template=style.template())


def _plot(figure: figures.Figure) -> go.Figure:
    return go.Figure(figure).update_layout(template=style.template())
