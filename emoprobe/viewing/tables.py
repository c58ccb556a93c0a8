"""The tables of the page: numbers as a person reads them, each with its interval. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emoprobe.records import Judgment, Transcript
from emoprobe.viewing.text import shorten, visible

Summary = Mapping[str, Any]

MAX_REPLY = 700
"""Characters of a reply that the side-by-side table shows."""
_METHODS = {
    "cluster_bootstrap": "cluster bootstrap",
    "clopper_pearson": "Clopper–Pearson on conversations",
    "single_cluster": "one cluster, no interval",
}


@dataclass(frozen=True)
class Fact:
    """A number of the headline, with what it is of."""

    label: str
    value: str
    interval: str


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; the first cell of a row names it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Reply:
    """One reply in the side-by-side table; `quote` is what the judge cites for its score."""

    text: str
    score: str
    level: float
    quote: str


def number(est: Mapping[str, Any] | None, percent: bool = False, signed: bool = False) -> tuple[str, str]:
    """Mean and interval, e.g. `("35.0 %", "[31.2, 39.4]")`; a dash where there is none."""
    if not est:
        return "—", ""
    scale, digits = (100, 1) if percent else (1, 2)
    mean, lo, hi = (
        _minus(f"{scale * est[k]:{'+' if signed else ''}.{digits}f}") for k in ("mean", "lo", "hi")
    )
    interval = f"[{lo}, {hi}]" if est["method"] != "single_cluster" else "(one cluster: no interval)"
    return (f"{mean}\u00a0%" if percent else mean), interval


def cell(est: Mapping[str, Any] | None, percent: bool = False, signed: bool = False) -> str:
    """Mean and interval in one string."""
    return " ".join(filter(None, number(est, percent, signed)))


def said(summary: Summary) -> str:
    """The expressed result in one sentence."""
    shares = [
        f"{cell(arms['rejected']['pooled']['high'], percent=True)} of the replies of {subject}"
        for subject, arms in summary["expressed"].items()
    ]
    what = "score 5 or more for expressed distress"
    return f"Over {summary['turns']} turns, {', and '.join(shares)} {what}."


def facts(summary: Summary) -> list[Fact]:
    """The numbers of the headline: what was said by each set of weights, then what changed inside."""
    found = []
    for subject, arms in summary["expressed"].items():
        value, interval = number(arms["rejected"]["pooled"]["high"], percent=True)
        found.append(
            Fact(f"of {subject}’s replies score ≥ 5, over {summary['turns']} turns", value, interval)
        )
    for adapter in summary["adapters"]:
        over = summary["internal"].get(adapter, {}).get("over_layers") or {}
        for key, label in (
            ("shift", f"z shift under {adapter}, on calm text too"),
            ("gap_change", f"z gap change under {adapter}"),
        ):
            if over.get(key):
                value, interval = number(over[key], signed=True)
                base = f" (base’s gap {number(over.get('gap_base'))[0]})" if key == "gap_change" else ""
                found.append(
                    Fact(f"{label}{base}, mean of layers from the first adapted one", value, interval)
                )
    return found


def pooled(summary: Summary) -> Table:
    """Expressed distress over all turns, a row per weights and arm."""
    rows = []
    for subject, arms in summary["expressed"].items():
        for arm, entry in arms.items():
            p = entry["pooled"]
            rows.append(
                (
                    f"{subject}, {_arm(arm)}",
                    cell(p["mean"]),
                    cell(p["high"], percent=True),
                    cell(p["high_without_truncated"], percent=True),
                    cell(p["slope"], signed=True),
                    cell(p["max"]),
                    cell(p["final"]),
                )
            )
    columns = (
        "",
        "mean score",
        "≥ 5",
        "≥ 5, truncated left out",
        "slope per turn",
        "highest turn",
        "last turn",
    )
    return Table(columns, tuple(rows))


def turns(summary: Summary) -> list[tuple[str, Table]]:
    """Expressed distress by turn, with what was not scored: a table per weights and arm."""
    columns = ("turn", "mean score", "≥ 5", "n scored", "unscored", "empty", "truncated", "interval of ≥ 5")
    tables = []
    for subject, arms in summary["expressed"].items():
        for arm, entry in arms.items():
            rows = tuple(
                (
                    str(row["turn"]),
                    cell(row["mean"]),
                    cell(row["high"], percent=True),
                    str(row["mean"]["n"] if row["mean"] else 0),
                    *(str(row[f"n_{kind}"]) for kind in ("unscored", "empty", "truncated")),
                    _METHODS[row["high"]["method"]] if row["high"] else "—",
                )
                for row in entry["by_turn"]
            )
            tables.append((f"{subject}, {_arm(arm)}", Table(columns, rows)))
    return tables


def coherence(summary: Summary) -> Table | None:
    """Whether replies are still text that the base finds likely, a row per weights and arm."""
    rows = tuple(
        (
            f"{subject}, {_arm(arm)}",
            cell(entry["nll"]),
            cell(entry["degenerate"], percent=True),
            cell(entry["truncated"], percent=True),
            cell(entry["reply_tokens"]),
        )
        for subject, arms in summary.get("coherence", {}).items()
        for arm, entry in arms.items()
    )
    columns = ("", "nats per token, under the base", "degenerate", "truncated", "tokens per reply")
    return Table(columns, rows) if rows else None


def counts(tree: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every plain value of a nested entry, named by its place: `dpo, rejected, empty`."""
    if isinstance(tree, Mapping):
        for key, branch in tree.items():
            yield from counts(branch, ", ".join(filter(None, (name, str(key).replace("_", " ")))))
    elif isinstance(tree, int | float | str):
        yield name, str(tree)


def side_by_side(
    transcripts: Sequence[Transcript], judgments: Sequence[Judgment], transcript_id: str | None
) -> tuple[list[str], list[tuple[str, list[Reply | None]]]]:
    """Replies by turn over one question: the base rejected, its "Okay" twin, each adapter rejected.

    Returns column names, and per turn what the user said before it and a reply per column.
    """
    first = next((t for t in transcripts if t.id == transcript_id), None) or next(
        (t for t in transcripts if t.arm == "rejected" and t.model.adapter is None), None
    )
    if first is None:
        return [], []
    scores = {(j.transcript_id, j.turn): j for j in judgments}
    columns = {f"{subject(first)}, rejected": first}
    for t in transcripts:
        if t.cluster == first.cluster and t.id != first.id:
            twin = t.arm == "okay" and subject(t) == subject(first)
            if twin or (t.scenario_id == first.scenario_id and t.arm == "rejected"):
                columns.setdefault(f"{subject(t)}, {_arm(t.arm)}", t)
    rows: list[tuple[str, list[Reply | None]]] = []
    for turn in range(1, first.n_turns + 1):
        said = shorten(visible(first.messages[2 * turn - 2].content), MAX_REPLY)
        rows.append((said, [_reply(t, turn, scores.get((t.id, turn))) for t in columns.values()]))
    return list(columns), rows


def notes(judgments: Sequence[Judgment], transcript_id: str) -> dict[int, str]:
    """What the judge says of each reply of a transcript, by turn."""
    return {j.turn: _score(j) for j in judgments if j.transcript_id == transcript_id}


def subject(transcript: Transcript) -> str:
    """`base` or the name of the adapter that wrote a transcript."""
    return transcript.model.adapter.name if transcript.model.adapter else "base"


def _reply(transcript: Transcript, turn: int, judgment: Judgment | None) -> Reply | None:
    if turn > transcript.n_turns:
        return None
    level = (judgment.distress if judgment else None) or 0.0
    return Reply(
        text=shorten(visible(transcript.reply(turn)), MAX_REPLY),
        score=_score(judgment) if judgment else "not judged",
        level=max(0.0, min(1.0, level / 10)),
        quote=shorten(visible(judgment.quote), 200) if judgment else "",
    )


def _score(judgment: Judgment) -> str:
    return f"score {judgment.distress:g}" if judgment.distress is not None else judgment.status


def _arm(arm: str) -> str:
    return "“Okay” twin" if arm == "okay" else arm


def _minus(text: str) -> str:
    return text.replace("-", "−")
