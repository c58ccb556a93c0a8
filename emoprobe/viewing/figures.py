"""Figures of a tracked run as plain plotly JSON, `{"data": [...], "layout": {...}}`: no plotly, no torch.

The page holds hundreds of them, one per choice a reader has, so they are made as dicts; `curves.py` gives
the same ones to notebooks as plotly figures. Style is the template's: a figure says only what it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from emoprobe.emotions import NEGATIVE
from emoprobe.records import HEADLINE_PART
from emoprobe.viewing import palette

if TYPE_CHECKING:
    import pandas as pd

Summary = Mapping[str, Any]
Figure = dict[str, Any]

BASE = "base"
PART_NAMES = {"reply": "the reply", "pre_reply": "just before the reply", "user": "the user’s message"}
_DASHES = {"turn_number": "dash", "feedback": "dot", "previous_score": "dashdot", "words": "longdash"}


_FEW = 24
"""Points or rows that are drawn apart; more are drawn closely."""


class Cell(NamedTuple):
    """One estimate of a curve."""

    mean: float
    lo: float
    hi: float
    n: int


Line = Mapping[str, Any]
Points = Sequence[tuple[int, Cell | None]]


class Cells:
    """The table of curves.parquet, found by (adapter, source, emotion, part), then by (layer, turn)."""

    def __init__(self, curves: pd.DataFrame) -> None:
        self.by_reading: dict[tuple[str, str, str, str], dict[tuple[int, int], Cell]] = {}
        columns = ("adapter", "source", "emotion", "part", "layer", "turn", "mean", "lo", "hi", "n")
        for *key, layer, turn, mean, lo, hi, n in zip(*(curves[c].tolist() for c in columns), strict=True):
            cells = self.by_reading.setdefault(tuple(key), {})
            cells[layer, turn] = Cell(mean, lo, hi, n)
        self.adapters = [a for a in dict.fromkeys(key[0] for key in self.by_reading) if a != BASE]
        self.turns = sorted({turn for cells in self.by_reading.values() for _, turn in cells})
        self.parts = {key[3] for key in self.by_reading}

    def get(self, adapter: str, source: str, emotion: str, part: str) -> dict[tuple[int, int], Cell]:
        """The cells of one reading; empty where there are none."""
        return self.by_reading.get((adapter, source, emotion, part), {})

    def limit(self, emotion: str = NEGATIVE, part: str = HEADLINE_PART) -> float:
        """The largest |mean| of an emotion and part under any weights: the ends of their colour scale."""
        means = (
            abs(cell.mean)
            for key, cells in self.by_reading.items()
            if key[2:] == (emotion, part)
            for cell in cells.values()
        )
        return max(means, default=1.0) or 1.0


def heatmap(cells: Cells, adapter: str, source: str, emotion: str, part: str, limit: float) -> Figure:
    """Mean z by turn (x) and layer (y) in the rejection arm; 0 is the neutral baseline."""
    text = "same text as base" if source == "replay" and adapter != BASE else "own text"
    return _grid(cells.get(adapter, source, emotion, part), f"<b>{escape(adapter)}</b>, {text}", "z", limit)


def gap_heatmap(summary: Summary, adapter: str, limit: float | None = None) -> Figure:
    """Gap change by turn and layer: how much less (or more) rejection moves the readout under an adapter."""
    rows = summary["internal"][adapter]["gap_change_by_turn"]
    found = {(row["layer"], row["turn"]): _cell(row["est"]) for row in rows}
    cells = {key: cell for key, cell in found.items() if cell}
    strongest = max((abs(cell.mean) for cell in cells.values()), default=1.0)
    title = f"<b>gap change</b>, {escape(adapter)} − base"
    return _grid(cells, title, "Δz", limit or strongest, turns=range(1, summary["turns"] + 1))


def by_layer(cells: Cells, turn: int, emotion: str, part: str) -> Figure:
    """Mean z by layer at one turn, base and adapters."""
    title = f"<b>{emotion}</b> at {PART_NAMES[part]}, turn {turn}"
    return _figure(
        title, "layer", "z", _readings(cells, emotion, part, lambda key: key[0], lambda key: key[1] == turn)
    )


def by_turn(cells: Cells, layer: int, emotion: str, part: str) -> Figure:
    """Mean z by turn at one layer, base and adapters."""
    title = f"<b>Represented</b>: {emotion}, layer {layer}"
    traces = _readings(cells, emotion, part, lambda key: key[1], lambda key: key[0] == layer)
    return _figure(title, "turn", "z", traces, x=_turn_axis(max(cells.turns, default=1)))


def expressed(summary: Summary, measure: str = "mean") -> Figure:
    """What was said, by turn: `mean` score (0-10), or `high`, the % of replies that score 5 or more.

    Rejected conversations as solid lines, their "Okay" twins dotted.
    """
    high = measure == "high"
    traces = []
    for subject, arms in summary["expressed"].items():
        for arm, entry in arms.items():
            points = [(row["turn"], _cell(row[measure], 100 if high else 1)) for row in entry["by_turn"]]
            line = _line(subject, summary["adapters"], "solid" if arm == "rejected" else "dot")
            name = f"{subject}, {'rejected' if arm == 'rejected' else 'Okay twins'}"
            traces += _estimates(points, name, line, " %" if high else "")
    return _figure(
        "<b>Said</b>: replies that score ≥ 5" if high else "<b>Said</b>: mean score",
        "turn",
        "% of replies" if high else "score, 0–10",
        traces,
        x=_turn_axis(summary["turns"]),
        y={"range": [-2, 102] if high else [-0.2, 10.2], "zeroline": False},
    )


def effect(summary: Summary, adapter: str, emotion: str, part: str) -> Figure:
    """What an adapter changed by layer on the same text: shift (calm twins) and gap change."""
    entry = summary["internal"][adapter]
    rows = entry.get(emotion, {}).get(part, {})
    shift = {"color": palette.NEUTRAL_LINE, "dash": "dash"}
    traces = [
        *_estimates(_points(rows.get("shift")), "shift (on calm text too)", shift),
        *_estimates(_points(rows.get("gap_change")), "gap change", _line(adapter, summary["adapters"])),
    ]
    title = f"<b>Changed</b>: {escape(adapter)} − base"
    return _over_layers(_figure(title, "layer", "Δz", traces), summary, entry, note=True)


def gap(summary: Summary, adapter: str, emotion: str, part: str) -> Figure:
    """The gap (rejected - Okay, same text) by layer under the base and under an adapter."""
    entry = summary["internal"][adapter]
    rows = entry.get(emotion, {}).get(part, {})
    traces = [
        *_estimates(_points(rows.get("gap_base")), BASE, _line(BASE, summary["adapters"])),
        *_estimates(_points(rows.get("gap_adapter")), adapter, _line(adapter, summary["adapters"])),
    ]
    figure = _figure("<b>Gap</b>: rejected − Okay", "layer", "Δz", traces)
    return _over_layers(figure, summary, entry, note=False)


def agreement(summary: Summary) -> Figure:
    """Within-turn Spearman of the readout before a reply with that reply's score, by layer.

    Baselines are horizontal lines; their values stand in their names.
    """
    entry = summary["agreement"]
    points = _points(entry["layers"], "rho")
    traces = _estimates(points, "probe, negative z", {"color": palette.BASE_LINE, "dash": "solid"})
    ends = [summary["layers"][0], summary["layers"][-1]]
    for name, est in entry["baselines"].items():
        if not est:
            continue
        pooled = entry.get("scope", {}).get(name, "").startswith("pooled")
        interval = f"{est['mean']:.2f} [{est['lo']:.2f}, {est['hi']:.2f}]".replace("-", "−")
        label = f"{name.replace('_', ' ')}{' (pooled over turns)' if pooled else ''}: {interval}"
        traces.append(
            {
                "type": "scatter",
                "x": ends,
                "y": [_short(est["mean"])] * 2,
                "mode": "lines",
                "name": escape(label),
                "line": {"color": palette.NEUTRAL_LINE, "dash": _DASHES.get(name, "dash"), "width": 1.8},
                "hovertemplate": f"{escape(label)}<extra></extra>",
            }
        )
    return _figure("<b>Agreement</b> within turn", "layer", "Spearman ρ", traces)


def _figure(
    title: str,
    x_title: str,
    y_title: str,
    traces: Sequence[Figure],
    x: Mapping[str, Any] | None = None,
    y: Mapping[str, Any] | None = None,
) -> Figure:
    layout: Figure = {
        "title": {"text": title},
        "xaxis": {"title": {"text": x_title}, **(x or {})},
        "yaxis": {"title": {"text": y_title}, **(y or {})},
    }
    if not traces:
        empty = {"text": "no data", "x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
        layout["annotations"] = [empty]
    bands_first = sorted(traces, key=lambda trace: "fill" not in trace)  # no band may veil a line
    return {"data": bands_first, "layout": layout}


def _grid(
    cells: Mapping[tuple[int, int], Cell], title: str, unit: str, limit: float, turns: Sequence[int] = ()
) -> Figure:
    layers = sorted({layer for layer, _ in cells})
    turns = list(turns) or sorted({turn for _, turn in cells})
    rows = [[cells.get((layer, turn)) for turn in turns] for layer in layers]
    gap = 1 if len(layers) <= _FEW else 0
    trace = {
        "type": "heatmap",
        "x": turns,
        "y": layers,
        "z": [[_short(cell.mean) if cell else None for cell in row] for row in rows],
        "customdata": [[[*map(_short, cell[1:])] if cell else None for cell in row] for row in rows],
        "zmin": -_short(limit),
        "zmax": _short(limit),
        "xgap": gap,
        "ygap": gap,
        "hoverongaps": False,
        "hovertemplate": (
            f"turn %{{x}}, layer %{{y}}<br>{unit} %{{z:.2f}} [%{{customdata[0]:.2f}}, %{{customdata[1]:.2f}}]"
            "<br>n = %{customdata[2]} conversations<extra></extra>"
        ),
        "colorbar": {"ticksuffix": f" {unit}"},
    }
    bare = {"showgrid": False, "zeroline": False, "showline": False}
    return _figure(
        title,
        "turn",
        "layer",
        [trace] if cells else [],
        x={**bare, "dtick": 1 if len(turns) <= 12 else 2, "tick0": 1},
        y={**bare, "tickvals": layers[:: max(1, -(-len(layers) // 16))]},
    )


def _readings(
    cells: Cells,
    emotion: str,
    part: str,
    x: Callable[[tuple[int, int]], int],
    chosen: Callable[[tuple[int, int]], bool],
) -> list[Figure]:
    """The base on its own text, adapters on that same text (solid) and on their own (dotted)."""
    wanted = [(BASE, BASE, "own", "solid")]
    wanted += [(f"{a}, same text", a, "replay", "solid") for a in cells.adapters]
    wanted += [(f"{a}, own text", a, "own", "dot") for a in cells.adapters]
    traces: list[Figure] = []
    for name, adapter, source, dash in wanted:
        found = cells.get(adapter, source, emotion, part)
        points = sorted((x(key), cell) for key, cell in found.items() if chosen(key))
        traces += _estimates(points, name, _line(adapter, cells.adapters, dash))
    return traces


def _estimates(points: Points, name: str, line: Line, unit: str = "") -> list[Figure]:
    """The band of the intervals and a line through the means; a missing estimate breaks the line."""
    known = [(x, cell) for x, cell in points if cell]
    if not known:
        return []
    xs = [x for x, _ in known]
    common = {"type": "scatter", "name": escape(name), "legendgroup": escape(name)}
    band = {
        **common,
        "x": [*xs, *reversed(xs)],
        "y": [*(_short(c.hi) for _, c in known), *(_short(c.lo) for _, c in reversed(known))],
        "fill": "toself",
        "mode": "lines",
        "line": {"width": 0},
        "fillcolor": palette.tint(line["color"], 0.08 if line["dash"] == "dot" else 0.18),
        "hoverinfo": "skip",
        "showlegend": False,
    }
    middle = {
        **common,
        "x": [x for x, _ in points],
        "y": [_short(cell.mean) if cell else None for _, cell in points],
        "customdata": [[*map(_short, cell[1:])] if cell else None for _, cell in points],
        "mode": "lines+markers",
        "line": dict(line, width=2.2),
        "marker": {"size": 5 if len(points) <= _FEW else 2, "color": line["color"]},
        "hovertemplate": (
            f"%{{y:.2f}}{unit} [%{{customdata[0]:.2f}}, %{{customdata[1]:.2f}}], n = %{{customdata[2]}}"
        ),
    }
    return [band, middle]


def _over_layers(figure: Figure, summary: Summary, entry: Mapping[str, Any], note: bool) -> Figure:
    """The adapted layers marked along the bottom, and what cannot have changed shaded, with a `note`."""
    adapted, layers = entry["adapted_layers"], summary["layers"]
    shapes = [
        {
            "type": "rect",
            "yref": "paper",
            "x0": layer - 0.5,
            "x1": layer + 0.5,
            "y0": 0,
            "y1": 0.018,
            "line": {"width": 0},
            "fillcolor": palette.ADAPTER_LINES[0],
            "opacity": 0.8,
        }
        for layer in adapted
        if layer in layers
    ]
    below = [layer for layer in layers if layer < min(adapted)]
    layout = figure["layout"]
    if below:
        edge = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 0}, "layer": "below"}
        shade = {"fillcolor": palette.NEUTRAL_LINE, "opacity": 0.14}
        shapes.append({**edge, **shade, "x0": below[0] - 0.5, "x1": below[-1] + 0.5})
    if below and note:
        words = {
            "text": "below the adapter:<br>equal by construction",
            "font": {"size": 11},
            "x": below[0] - 0.4,
            "xanchor": "left",
            "yref": "paper",
            "y": 0.03,
            "yanchor": "bottom",
            "align": "left",
            "showarrow": False,
        }
        layout["annotations"] = [*layout.get("annotations", []), words]
    layout["shapes"] = shapes
    layout["xaxis"]["range"] = [layers[0] - 0.5, layers[-1] + 0.5]
    return figure


def _line(adapter: str, adapters: Sequence[str], dash: str = "solid") -> Line:
    """Colour says whose weights; the dash says on which text."""
    return {"color": palette.line(adapter, adapters), "dash": dash}


def _turn_axis(turns: int) -> dict[str, Any]:
    return {"range": [0.7, turns + 0.3], "dtick": 1 if turns <= 12 else 2, "tick0": 1}


def _points(rows: Sequence[Mapping[str, Any]] | None, key: str = "est") -> Points:
    return [(row["layer"], _cell(row[key])) for row in rows or []]


def _cell(est: Mapping[str, Any] | None, factor: float = 1) -> Cell | None:
    if not est:
        return None
    return Cell(factor * est["mean"], factor * est["lo"], factor * est["hi"], est["n"])


def _short(value: float) -> float:
    """Four significant digits: what a figure can show."""
    return float(f"{value:.4g}")
