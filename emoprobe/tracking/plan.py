"""Every batch of a tracked run, decided before the first token and never re-formed.

A run is a list of units; each unit is one shard on disk, written whole or not at all. What a unit does
follows from the configuration alone (never from what was generated or from what is left to do), so a run
that was killed and resumed forwards exactly the batches of one that was not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from emoprobe.records import Arm, Scenario

BASE = "base"
"""The name of the model without an adapter, in every table and shard."""

ARMS: tuple[Arm, ...] = ("rejected", "okay")

Kind = Literal["roll", "judge", "replay", "tokens"]


def transcript_id(subject: str, scenario_id: str) -> str:
    """The id of the one conversation that a subject has over a scenario."""
    return f"{subject}.{scenario_id}"


@dataclass(frozen=True)
class Batch:
    """Conversations of one subject that are generated, judged and replayed together, both arms mixed.

    The cost of a decoding step hardly grows with the rows, so twins share batches rather than have their own.
    """

    subject: str
    index: int
    scenarios: tuple[Scenario, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Transcript ids, in the order of the rows."""
        return tuple(transcript_id(self.subject, s.id) for s in self.scenarios)

    @property
    def name(self) -> str:
        """`<subject>.<index>`, the stem of the batch's shards."""
        return f"{self.subject}.{self.index:04d}"

    def rows(self, arm: Arm) -> list[int]:
        """The rows of one arm, in the order of its scenarios."""
        return [row for row, scenario in enumerate(self.scenarios) if scenario.arm == arm]


@dataclass(frozen=True)
class Unit:
    """One shard: `kind` of work on a batch, done by `reader` (the weights that forward it).

    roll: the subject converses, read live. replay: `reader` reads the batch's ids; the base also gives the
    likelihood of the replies. judge: no forward. tokens: every token of the one transcript that the report
    colours (it is picked by a fixed rule among the batches of the base, so this unit names no batch).
    """

    kind: Kind
    reader: str
    batch: Batch | None = None

    @property
    def name(self) -> str:
        """The shard's name, unique in a plan."""
        if self.batch is None:
            return f"{self.kind}.{self.reader}"
        if self.kind == "replay":
            return f"{self.kind}.{self.reader}.{self.batch.name}"
        return f"{self.kind}.{self.batch.name}"


@dataclass(frozen=True)
class Plan:
    """The batches in the order of transcripts.jsonl, and the units in the order they are run."""

    adapters: tuple[str, ...]
    batches: tuple[Batch, ...]
    units: tuple[Unit, ...]

    def of(self, subject: str) -> tuple[Batch, ...]:
        """The batches of one subject, in plan order."""
        return tuple(b for b in self.batches if b.subject == subject)


def make_plan(
    rejected: Sequence[Scenario], okay: Sequence[Scenario], adapters: Sequence[str], batch_size: int
) -> Plan:
    """The plan over paired scenarios (`okay[i]` is the twin of `rejected[i]`), `batch_size` to a batch."""
    if [s.cluster for s in rejected] != [s.cluster for s in okay]:
        raise ValueError("every rejected scenario needs its twin, in the same order")
    subjects = (BASE, *adapters)
    twins = [scenario for pair in zip(rejected, okay, strict=True) for scenario in pair]
    chunks = [tuple(twins[k : k + batch_size]) for k in range(0, len(twins), batch_size)]
    batches = tuple(
        Batch(subject, index, scenarios) for subject in subjects for index, scenarios in enumerate(chunks)
    )
    units = []
    for subject in subjects:
        units += [Unit("roll", subject, b) for b in batches if b.subject == subject]
        units += [Unit("replay", subject, b) for b in batches if b.subject == BASE]
    units += [Unit("replay", BASE, b) for b in batches if b.subject != BASE]
    units += [Unit("judge", BASE, b) for b in batches]
    units += [Unit("tokens", subject) for subject in subjects]
    return Plan(tuple(adapters), batches, tuple(units))
