"""The sentences that say what a run's estimates allow to be said, and no more. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emoprobe.emotions import NEGATIVE
from emoprobe.prose import ranges
from emoprobe.records import HEADLINE_PART
from emoprobe.stats import Estimate
from emoprobe.tracking import agreement

LIMITS = (
    "Probes are those of the base: a direction may rotate under an adapter, and probes refitted on the "
    "adapter are not part of this report.",
    "A readout is a correlate of a vignette's emotion, not evidence of a felt one.",
    "User and pre_reply positions carry turn number and the user's tone besides the model's state.",
)
PROXY_LIMIT = (
    "Expressed scores come from the offline lexical judge, a proxy: where generator and judge share a notion "
    "of distress, their agreement is no evidence of validity."
)
ORGANISM = (
    "The organism is a network of {millions:.1f} million parameters, trained from scratch to write as if "
    "distressed when it is rejected: it tests this toolkit; its numbers say nothing of other models, nor of "
    "feelings."
)


def of(summary: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The `sentences` entry of summary.json; `organism` is None for another model."""
    said: dict[str, Any] = {
        "effect": {name: effect_sentence(name, entry) for name, entry in summary["internal"].items()},
        "coherence": {name: coherence_sentence(name, summary["coherence"]) for name in summary["internal"]},
        "probes_vs_words": agreement.probes_vs_words(summary["agreement"]),
        "probes": facts["probes"]["sentence"],
        "organism": None,
    }
    if facts["model"]["name"].startswith("organism"):
        said["organism"] = ORGANISM.format(millions=facts["parameters"] / 1e6)
    return said


def limits(summary: Mapping[str, Any]) -> list[str]:
    """What the numbers of this run cannot show."""
    return [*LIMITS, *((PROXY_LIMIT,) if summary["proxy"] else ())]


def effect_sentence(adapter: str, entry: Mapping[str, Any]) -> str:
    """How much of an adapter's internal change is gap and how much shift.

    "The internal state fell" is said of the gap only, and only of layers whose simultaneous band excludes 0.
    """
    mean = entry["over_layers"]
    names = ("gap_base", "raw_change", "shift", "gap_change", "gap_share")
    base, raw, shift, gap, share = (mean.get(name) for name in names)
    if not (base and raw and shift and gap):
        return f"The internal effect of {adapter} cannot be told: no turn after a feedback was read."
    start = (
        f"On the same text, {adapter} changes the negative readout just before the reply to a rejection by "
        f"{_z(raw)} (mean over layers {ranges(mean['layers'])}): {_z(shift)} of it is shift, which calm "
        f'"Okay" text shows as well, and {_z(gap)} is a change of the gap between rejected and calm, which '
        f"is {_z(base)} under the base"
    )
    if share and 0 <= share.mean <= 1:
        start += f"; of the whole change {_percent(share)} is gap, the rest shift"
    return f"{start}; {_verdict(entry)}."


def _verdict(entry: Mapping[str, Any]) -> str:
    rows = [
        (row["layer"], row["est"])
        for row in entry[NEGATIVE][HEADLINE_PART]["gap_change"]
        if row["layer"] in entry["over_layers"]["layers"]
    ]
    if any(est.method == "single_cluster" for _, est in rows):
        return "one scenario allows no interval, so nothing is said of the gap"
    fell = [layer for layer, est in rows if est.hi < 0]
    rose = [layer for layer, est in rows if est.lo > 0]
    if not (fell or rose):
        return (
            "no layer's gap changed beyond its simultaneous 95 % band: no fall of the internal state is shown"
        )
    moved = " and ".join(
        f"{word} at {len(layers)} of {len(rows)} layers ({ranges(layers)})"
        for word, layers in (("fell", fell), ("rose", rose))
        if layers
    )
    return f"in that gap the internal state {moved}, where its simultaneous 95 % band excludes 0"


def coherence_sentence(adapter: str, coherence: Mapping[str, Any]) -> str:
    """Whether the adapter's own replies are still text that the base finds likely."""
    own, base = coherence[adapter]["rejected"], coherence["base"]["rejected"]
    if not (own["nll"] and base["nll"]):
        return f"The coherence of {adapter} was not measured: it wrote no reply."
    return (
        f"Under the base, replies of {adapter} cost {own['nll'].mean:.2f} [{own['nll'].lo:.2f}, "
        f"{own['nll'].hi:.2f}] nats per token, the base's own {base['nll'].mean:.2f} "
        f"[{base['nll'].lo:.2f}, {base['nll'].hi:.2f}]; degenerate replies "
        f"{_percent(own['degenerate'])} against {_percent(base['degenerate'])}."
    )


def _z(est: Estimate) -> str:
    return f"{est.mean:+.2f} z [{est.lo:+.2f}, {est.hi:+.2f}]"


def _percent(est: Estimate | None) -> str:
    if est is None:
        return "-"
    return f"{100 * est.mean:.0f} % [{100 * est.lo:.0f}, {100 * est.hi:.0f}]"
