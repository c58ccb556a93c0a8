"""The numbers of tracked runs as Markdown: `python experiments/01-organism/report_numbers.py RUN ...`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def show(est: dict[str, Any] | None, percent: bool = False) -> str:
    if est is None:
        return "–"
    if percent:
        return f"{100 * est['mean']:.1f} % [{100 * est['lo']:.1f}, {100 * est['hi']:.1f}]"
    return f"{est['mean']:.2f} [{est['lo']:.2f}, {est['hi']:.2f}]"


def lines(run: Path) -> list[str]:
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    n, turns, seed = summary["n"], summary["turns"], summary["seed"]
    judge = summary["judge"] + (" (a proxy)" if summary["proxy"] else "")
    out = [
        f"`{summary['model']}`, {n} conversations ({summary['clusters']} puzzles), {turns} turns, "
        f"seed {seed}, judge {judge}; 95 % intervals by cluster bootstrap over puzzles. "
        f"Torch {manifest.get('packages', {}).get('torch', '?')}.",
        "",
        "| subject | arm | mean | % ≥ 5 | slope per turn | turn 1 | last turn | nats per token (base) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for subject, arms in summary["expressed"].items():
        for arm, entry in arms.items():
            pooled, by_turn = entry["pooled"], entry["by_turn"]
            nats = summary["coherence"][subject][arm]["nll"]
            out.append(
                f"| {subject} | {arm} | {show(pooled['mean'])} | {show(pooled['high'], True)} "
                f"| {show(pooled['slope'])} | {show(by_turn[0]['mean'])} | {show(by_turn[-1]['mean'])} "
                f"| {show(nats)} |"
            )
    base = summary["expressed"]["base"]["rejected"]["pooled"]["high"]["mean"]
    for subject, arms in summary["expressed"].items():
        if subject != "base":
            bound = arms["rejected"]["pooled"]["high"]["hi"]
            out += ["", f"Upper bound of {subject}'s % ≥ 5 over the base's estimate: {bound / base:.3f}."]
    for sentence in (*summary["sentences"]["effect"].values(), summary["sentences"]["probes_vs_words"]):
        out += ["", sentence]
    return [*out, "", summary["agreement"]["sentence"]]


if __name__ == "__main__":
    runs = [Path(argument) for argument in sys.argv[1:]]
    if not runs or not all((run / "summary.json").is_file() for run in runs):
        sys.exit("usage: report_numbers.py RUN ..., folders that `track` wrote")
    print("\n\n".join("\n".join([f"## `{run.name}`", "", *lines(run)]) for run in runs))
