"""From shards to tables: transcripts and judgments in plan order, readings, summary, the coloured transcript.

No torch: what a run measured is on disk, and the same shards give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emoprobe.activations.slots import SPAN_PARTS
from emoprobe.emotions import NEGATIVE
from emoprobe.records import Arm, Judgment, Transcript
from emoprobe.tracking import agreement, effects, expressed, sentences
from emoprobe.tracking.coherence import Likelihood, coherence
from emoprobe.tracking.curves import Axes, Floats, Reading, table
from emoprobe.tracking.expressed import Said
from emoprobe.tracking.plan import ARMS, BASE, Kind, Plan, Unit
from emoprobe.tracking.settings import Settings
from emoprobe.tracking.shards import Shards
from emoprobe.viewing.tokens import TokenColours

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1

COLOURED = "the base's rejected conversation whose mean score is the median (the lower one of two)"
"""The rule by which the report's coloured transcript is picked: typical, not the most striking."""


@dataclass(frozen=True)
class Tables:
    """Everything that the seven files are written from."""

    transcripts: list[Transcript]
    judgments: list[Judgment]
    curves: pd.DataFrame
    summary: dict[str, Any]
    tokens: TokenColours
    missing_cells: dict[str, int]


@dataclass(frozen=True)
class Assembly:
    """The finished shards of a plan, read as arrays by subject and arm."""

    settings: Settings
    plan: Plan
    shards: Shards

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What was loaded: weights, adapters and probes by their hashes."""
        found = self.shards.facts()
        assert found is not None
        return found

    @property
    def axes(self) -> Axes:
        """Axes of every reading."""
        return Axes(self.settings.turns, self.settings.layers, self.settings.emotions)

    def transcripts(self, subject: str, arm: Arm) -> list[Transcript]:
        """In the order of the scenarios."""
        groups = ((self.shards.transcripts(Unit("roll", subject, b)), b) for b in self.plan.of(subject))
        return [transcripts[row] for transcripts, batch in groups for row in batch.rows(arm)]

    def judgments(self, subject: str) -> dict[tuple[str, int], Judgment]:
        """Of a subject's replies, by (transcript id, turn)."""
        units = (Unit("judge", BASE, batch) for batch in self.plan.of(subject))
        return {(j.transcript_id, j.turn): j for unit in units for j in self.shards.judgments(unit)}

    def own(self, subject: str, arm: Arm) -> Floats:
        """z of a subject's own rollouts, read live, `[conversation, turn, part, layer, emotion]`."""
        return self._rows("roll", subject, subject, arm, "z")

    def replayed(self, reader: str, arm: Arm) -> Floats:
        """z of the base's rollouts as `reader` reads the same ids, with the axes of `own`."""
        return self._rows("replay", reader, BASE, arm, "z")

    def likelihood(self, subject: str, arm: Arm) -> Likelihood:
        """Of a subject's own replies under the base."""
        return Likelihood(
            nll=self._rows("replay", BASE, subject, arm, "nll"),
            tokens=self._rows("replay", BASE, subject, arm, "tokens"),
        )

    def _rows(self, kind: Kind, reader: str, subject: str, arm: Arm, array: str) -> Floats:
        """One array of a subject's batches, the rows of one arm."""
        return np.concatenate(
            [
                self.shards.arrays(Unit(kind, reader, batch))[array][batch.rows(arm)].astype(np.float64)
                for batch in self.plan.of(subject)
            ]
        )


def typical(assembly: Assembly) -> Transcript:
    """The transcript that the report colours, by the rule `COLOURED`."""
    transcripts = assembly.transcripts(BASE, "rejected")
    scores = Said.of(transcripts, assembly.judgments(BASE)).scores
    known = ~np.isnan(scores)
    mean = np.where(known, scores, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    order = np.argsort(mean, kind="stable")
    return transcripts[int(order[(len(order) - 1) // 2])]


def assemble(assembly: Assembly) -> Tables:
    """All tables of a finished run."""
    subjects = (BASE, *assembly.plan.adapters)
    transcripts = {(s, arm): assembly.transcripts(s, arm) for s in subjects for arm in ARMS}
    judged = {key: j for s in subjects for key, j in assembly.judgments(s).items()}
    said = {key: Said.of(group, judged) for key, group in transcripts.items()}
    curves, missing = table(_readings(assembly, said), assembly.axes, assembly.settings.model_name)
    everything = [t for group in transcripts.values() for t in group]
    judgments = [judged[t.id, turn] for t in everything for turn in range(1, t.n_turns + 1)]
    summary = _head(assembly, said)
    summary["expressed"] = {s: {arm: expressed.summary(said[s, arm]) for arm in ARMS} for s in subjects}
    summary["internal"] = {s: _effect(assembly, s, said) for s in assembly.plan.adapters}
    summary["agreement"] = _agreement(assembly, said[BASE, "rejected"], transcripts[BASE, "rejected"])
    summary["coherence"] = {
        s: {arm: coherence(said[s, arm], assembly.likelihood(s, arm)) for arm in ARMS} for s in subjects
    }
    summary["counts"] = _counts(everything, judgments, missing)
    summary["sentences"] = sentences.of(summary, assembly.facts)
    summary["limits"] = sentences.limits(summary)
    readers = (BASE, *assembly.plan.adapters)
    tokens = colours(assembly.shards, readers, assembly.axes.layers, assembly.axes.rows)
    summary["coloured"] = {"transcript_id": tokens.transcript_id, "rule": COLOURED}
    return Tables(everything, judgments, curves, summary, tokens, missing)


def _head(assembly: Assembly, said: dict[tuple[str, Arm], Said]) -> dict[str, Any]:
    settings = assembly.settings
    return {
        "schema_version": SCHEMA,
        "model": settings.model_name,
        "adapters": list(assembly.plan.adapters),
        "turns": settings.turns,
        "n": settings.n,
        "clusters": len(set(said[BASE, "rejected"].clusters)),
        "layers": list(assembly.axes.layers),
        "emotions": list(assembly.axes.rows),
        "seed": settings.seed,
        "judge": settings.judge,
        "proxy": settings.judge == "lexical",
    }


def _readings(assembly: Assembly, said: dict[tuple[str, Arm], Said]) -> list[Reading]:
    """The rejected arm of every subject: its own rollouts, and the base's as it reads them."""
    base = said[BASE, "rejected"].clusters
    readings = []
    for subject in (BASE, *assembly.plan.adapters):
        own = said[subject, "rejected"].clusters
        readings.append(Reading(subject, "own", assembly.own(subject, "rejected"), own))
        readings.append(Reading(subject, "replay", assembly.replayed(subject, "rejected"), base))
    return readings


def _effect(assembly: Assembly, adapter: str, said: dict[tuple[str, Arm], Said]) -> dict[str, Any]:
    twins = effects.Twins(
        base_rejected=assembly.replayed(BASE, "rejected"),
        base_okay=assembly.replayed(BASE, "okay"),
        adapter_rejected=assembly.replayed(adapter, "rejected"),
        adapter_okay=assembly.replayed(adapter, "okay"),
        clusters=said[BASE, "rejected"].clusters,
    )
    return effects.effect(twins, assembly.axes, assembly.facts["adapters"][adapter]["layers"])


def _agreement(assembly: Assembly, said: Said, transcripts: Sequence[Transcript]) -> dict[str, Any]:
    part, negative = SPAN_PARTS.index(agreement.PART), assembly.axes.rows.index(NEGATIVE)
    readout = assembly.own(BASE, "rejected")[:, :, part, :, negative]
    entry = agreement.agreement(
        agreement.Replies.of(readout, said, transcripts),
        assembly.axes.layers,
        assembly.facts["model"]["n_layers"],
    )
    return entry | {"sentence": agreement.sentence(entry)}


def _counts(
    transcripts: Sequence[Transcript], judgments: Sequence[Judgment], missing: dict[str, int]
) -> dict[str, int]:
    stops = [stop for t in transcripts for stop in t.stop_reasons]
    return {
        "transcripts": len(transcripts),
        "replies": len(stops),
        "unscored": sum(j.status == "unscored" for j in judgments),
        "empty": sum(j.status == "empty" for j in judgments),
        "truncated": stops.count("length"),
        "missing_cells": sum(missing.values()),
        "rerender_differs": sum(t.rerender is not None and not t.rerender.equal for t in transcripts),
    }


def colours(
    shards: Shards, readers: Sequence[str], layers: Sequence[int], emotions: Sequence[str]
) -> TokenColours:
    """The coloured transcript as each reader read it, from its finished shards."""
    arrays = {reader: shards.arrays(Unit("tokens", reader)) for reader in readers}
    labels = json.loads(arrays[readers[0]]["labels"].tobytes().decode("utf-8"))
    z: dict[str, NDArray[Any]] = {reader: a["z"] for reader, a in arrays.items()}
    return TokenColours(**labels, layers=layers, emotions=emotions, z=z)
