"""Which figures the page has, and what a reader may choose in each. No torch.

A panel is one place on the page with a figure per choice: all are made beforehand, the page only picks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from emoprobe.emotions import NEGATIVE
from emoprobe.records import HEADLINE_PART
from emoprobe.viewing import figures
from emoprobe.viewing.figures import Cells, Figure

PARTS = ("pre_reply", "reply", "user")
SOURCE_NAMES = {"replay": "the base’s text", "own": "its own text"}


@dataclass(frozen=True)
class Choice:
    """A select box: `options` as (value, label); the first choice is `default`."""

    key: str
    label: str
    options: tuple[tuple[str, str], ...]
    default: str


@dataclass(frozen=True)
class Panel:
    """A figure by `value|value` of the choices named by `keys`; `missing` is said where there is none."""

    id: str
    label: str
    keys: tuple[str, ...]
    variants: Mapping[str, Figure]
    missing: str = "no data"


@dataclass(frozen=True)
class Section:
    """Panels that share choices."""

    choices: tuple[Choice, ...] = ()
    panels: tuple[Panel, ...] = field(default_factory=tuple)


def by_turn(cells: Cells, summary: Mapping[str, Any]) -> Section:
    """Said beside represented, at a layer and part of choice."""
    layer = Choice("layer", "layer", _plain(summary["layers"]), str(first_layer(summary)))
    part = _part_choice(cells)
    return Section(
        choices=(layer, part),
        panels=(
            _panel("said-mean", "mean score by turn", (), lambda: figures.expressed(summary, "mean")),
            _panel(
                "said-high",
                "share of replies that score 5 or more, by turn",
                (),
                lambda: figures.expressed(summary, "high"),
            ),
            _panel(
                "represented",
                "z by turn at one layer",
                (layer, part),
                lambda k, p: figures.by_turn(cells, int(k), NEGATIVE, p),
            ),
        ),
    )


def heat_maps(cells: Cells, summary: Mapping[str, Any]) -> Section:
    """Layer by turn: base, adapter, gap change, on one colour scale."""
    emotion, part = _emotion_choice(summary), _part_choice(cells)
    adapter = Choice("adapter", "adapter", _plain(summary["adapters"]), _first(summary["adapters"]))
    source = Choice("source", "adapter reads", tuple(SOURCE_NAMES.items()), "replay")

    def limit(e: str, p: str) -> float:
        return cells.limit(e, p)

    panels = [
        _panel(
            "heat-base",
            "z of the base by turn and layer",
            (emotion, part),
            lambda e, p: figures.heatmap(cells, figures.BASE, "own", e, p, limit(e, p)),
        )
    ]
    if not summary["adapters"]:
        return Section((emotion, part), tuple(panels))
    panels += [
        _panel(
            "heat-adapter",
            "z under the adapter by turn and layer",
            (adapter, source, emotion, part),
            lambda a, s, e, p: figures.heatmap(cells, a, s, e, p, limit(e, p)),
        ),
        Panel(
            "heat-gap",
            "gap change by turn and layer",
            ("adapter", "emotion", "part"),
            {
                f"{a}|{NEGATIVE}|{HEADLINE_PART}": figures.gap_heatmap(
                    summary, a, limit(NEGATIVE, HEADLINE_PART)
                )
                for a in summary["adapters"]
            },
            missing=f"The gap change by turn is computed for “{NEGATIVE}” just before the reply; by layer, "
            "for every emotion and part, it stands in the next section.",
        ),
    ]
    return Section((emotion, part, source, adapter), tuple(panels))


def effects(cells: Cells, summary: Mapping[str, Any]) -> Section | None:
    """Gap under both weights, and its split into shift and gap change; None without an adapter."""
    if not summary["adapters"]:
        return None
    adapter = Choice("adapter", "adapter", _plain(summary["adapters"]), _first(summary["adapters"]))
    emotion, part = _emotion_choice(summary), _part_choice(cells)
    keys = (adapter, emotion, part)
    return Section(
        choices=(emotion, part, adapter),
        panels=(
            _panel(
                "effect",
                "shift and gap change by layer",
                keys,
                lambda a, e, p: figures.effect(summary, a, e, p),
            ),
            _panel("gap", "gap by layer", keys, lambda a, e, p: figures.gap(summary, a, e, p)),
        ),
    )


def agreement(summary: Mapping[str, Any]) -> Section:
    """Readout before the reply against its score."""
    return Section(
        panels=(_panel("agreement", "rank correlation by layer", (), lambda: figures.agreement(summary)),)
    )


def first_layer(summary: Mapping[str, Any]) -> int:
    """The layer shown first: the one that the run fixed in advance, or two thirds up."""
    layers: Sequence[int] = summary["layers"]
    chosen = summary["agreement"].get("chosen_layer")
    return int(chosen) if chosen in layers else layers[(2 * len(layers)) // 3]


def _panel(id: str, label: str, choices: Sequence[Choice], make: Callable[..., Figure]) -> Panel:
    combinations = product(*([value for value, _ in choice.options] for choice in choices))
    return Panel(
        id,
        label,
        tuple(choice.key for choice in choices),
        {"|".join(values): make(*values) for values in combinations},
    )


def _emotion_choice(summary: Mapping[str, Any]) -> Choice:
    names = [NEGATIVE, *(e for e in summary["emotions"] if e != NEGATIVE)]
    labels = {NEGATIVE: "negative (mean of six)"}
    return Choice("emotion", "emotion", tuple((e, labels.get(e, e)) for e in names), NEGATIVE)


def _part_choice(cells: Cells) -> Choice:
    there = cells.parts
    options = tuple((part, figures.PART_NAMES[part]) for part in PARTS if part in there)
    return Choice(
        "part",
        "read at",
        options,
        HEADLINE_PART if HEADLINE_PART in there else _first([v for v, _ in options]),
    )


def _plain(values: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    return tuple((str(value), str(value)) for value in values)


def _first(values: Sequence[Any]) -> str:
    return str(values[0]) if values else ""
