"""What `track` prints: one screen of plain text with every number's interval. No torch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emoprobe.emotions import NEGATIVE
from emoprobe.prose import say
from emoprobe.records import HEADLINE_PART
from emoprobe.stats import Estimate

SHOWN_LAYERS = 6
WIDTH = 120


def render(summary: Mapping[str, Any]) -> str:
    """The summary (estimates as `Estimate`) as text for a terminal of 120 columns or more."""
    blocks = [_head(summary), _expressed(summary)]
    blocks += [_internal(adapter, entry, summary) for adapter, entry in summary["internal"].items()]
    blocks += [_agreement(summary), _notes(summary)]
    return "\n\n".join(blocks)


def _head(summary: Mapping[str, Any]) -> str:
    counts = summary["counts"]
    judge = f"judge {summary['judge']}" + (" (a proxy)" if summary["proxy"] else "")
    return (
        f"{summary['model']}: {summary['n']} conversations of {summary['turns']} turns, "
        f"{summary['clusters']} scenarios, {judge}, seed {summary['seed']}\n"
        f"replies {counts['replies']}: unscored {counts['unscored']}, empty {counts['empty']}, "
        f"truncated {counts['truncated']} (scored and flagged); curve cells without data "
        f"{counts['missing_cells']}. All intervals 95 %."
    )


def _expressed(summary: Mapping[str, Any]) -> str:
    columns = {
        f"{subject}, {arm}": entry
        for subject, arms in summary["expressed"].items()
        for arm, entry in arms.items()
    }
    header = ["expressed", *(f"{name}" for name in columns)]
    under = ["turn", *("score 0-10      % >= 5" for _ in columns)]
    rows = [
        [str(turn + 1), *(_said(entry["by_turn"][turn]) for entry in columns.values())]
        for turn in range(summary["turns"])
    ]
    rows.append(["pooled", *(_said(entry["pooled"]) for entry in columns.values())])
    slopes = [
        "% per turn",
        *(_percent(entry["pooled"]["high_slope"], sign=True) for entry in columns.values()),
    ]
    return _aligned([header, under, *rows, slopes])


def _said(cell: Mapping[str, Any]) -> str:
    mean = f"{cell['mean'].mean:5.2f}" if cell["mean"] else "    -"
    return f"{mean}  {_percent(cell['high'])}"


def _internal(adapter: str, entry: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    names = ("gap_base", "gap_adapter", "raw_change", "shift", "gap_change")
    cells = {
        name: {row["layer"]: row["est"] for row in entry[NEGATIVE][HEADLINE_PART][name]} for name in names
    }
    layers = [k for k in summary["layers"] if k in cells["gap_change"]]
    header = [
        "layer",
        "gap base",
        f"gap {adapter}",
        "raw change",
        "= shift",
        "+ gap change (simultaneous)",
    ]
    rows = [
        [f"{k}{' =' if k in entry['equal_by_construction'] else ''}", *(_z(cells[name][k]) for name in names)]
        for k in _some(layers)
    ]
    mean = entry["over_layers"]
    if mean.get("gap_change"):
        rows.append(["mean", *(_z(mean[name]) for name in names)])
    title = (
        f"internal, {NEGATIVE} at {HEADLINE_PART}, in z, same text: base against {adapter} "
        f"(turns 2-{summary['turns']}; gap = rejected - okay)"
    )
    note = "= below the adapter: equal by construction on the same text\n" * bool(
        entry["equal_by_construction"]
    )
    return f"{title}\n{_aligned([header, *rows])}\n{note}".rstrip()


def _agreement(summary: Mapping[str, Any]) -> str:
    entry = summary["agreement"]
    rho = {row["layer"]: row["rho"] for row in entry["layers"]}
    title = "agreement: rank correlation with the coming reply's score, within turn, before the reply"
    if not rho:
        return f"{title}\n{entry['sentence']}"
    fixed, best = entry["chosen_layer"], entry["best_layer"]
    rows = [[f"layer {fixed} (fixed in advance)", say(rho[fixed])]] if fixed in rho else []
    rows.append([f"layer {best} (best of {len(rho)}, picked after the fact)", say(rho[best])])
    for name, est in entry["baselines"].items():
        scope = " (pooled over turns)" if name == "turn_number" else ""
        rows.append([f"{name.replace('_', ' ')}{scope}", say(est) if est else "not defined"])
    return f"{title}\n{_aligned(rows)}"


def _notes(summary: Mapping[str, Any]) -> str:
    said = summary["sentences"]
    lines = [*said["effect"].values(), *said["coherence"].values(), said["probes_vs_words"], said["probes"]]
    return "\n".join(textwrap.fill(line, WIDTH) for line in lines)


def _some(layers: Sequence[int]) -> list[int]:
    """A few layers evenly over the depth, the first and the last among them."""
    if len(layers) <= SHOWN_LAYERS:
        return list(layers)
    step = (len(layers) - 1) / (SHOWN_LAYERS - 1)
    return [layers[round(i * step)] for i in range(SHOWN_LAYERS)]


def _z(est: Estimate) -> str:
    return f"{est.mean:+.2f} [{est.lo:+.2f}, {est.hi:+.2f}]"


def _percent(est: Estimate | None, sign: bool = False) -> str:
    if est is None:
        return "-"
    plus = "+" if sign else ""
    return f"{100 * est.mean:{plus}.0f} [{100 * est.lo:{plus}.0f}, {100 * est.hi:{plus}.0f}]"


def _aligned(rows: Iterable[Sequence[str]]) -> str:
    table = list(rows)
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table
    )
