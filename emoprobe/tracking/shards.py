"""What a unit leaves on disk, read back as arrays and records. No torch.

Everything that the tables need is in the shards (z, not raw scores; likelihoods; transcripts; judgments), so
that a finished run is assembled again without a model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoprobe.errors import UserError
from emoprobe.records import Judgment, Transcript
from emoprobe.runs import RunFolder
from emoprobe.tracking.plan import Unit

Arrays = dict[str, NDArray[Any]]

FACTS = "shards/facts.json"
"""What the tables need to know of the loaded model: weights, probes and adapters, by their hashes."""


@dataclass
class Shards:
    """The finished units of a run. A damaged shard reads as missing (and is removed, to be redone)."""

    folder: RunFolder
    _transcripts: dict[str, list[Transcript]] = field(default_factory=dict)

    def claim(self, facts: dict[str, Any]) -> None:
        """Write down what was loaded; UserError where the folder was begun with something else."""
        before = self.facts()
        if before is not None and before != json.loads(json.dumps(facts)):
            other = next(key for key in facts if before.get(key) != json.loads(json.dumps(facts[key])))
            raise UserError(
                f"{self.folder.path} was begun with other {_WHAT[other]} of the same name; "
                "choose another folder with --out"
            )
        if before is None:
            self.folder.write_json(FACTS, facts, indent=2)

    def facts(self) -> dict[str, Any] | None:
        """What was loaded, once something was."""
        found: dict[str, Any] | None = self.folder.read_json(FACTS)
        return found

    def done(self, unit: Unit) -> bool:
        """Whether the unit's shard is there and whole."""
        if unit.kind == "judge":
            return self.folder.read_json(_file(unit)) is not None
        return self.folder.read_npz(_file(unit)) is not None

    def arrays(self, unit: Unit) -> Arrays:
        """The arrays of a finished roll, replay or tokens unit."""
        found = self.folder.read_npz(_file(unit))
        assert found is not None, unit.name
        return found

    def transcripts(self, unit: Unit) -> list[Transcript]:
        """The transcripts of a finished roll unit, in the order of its batch."""
        if unit.name not in self._transcripts:
            text = self.arrays(unit)["transcripts"].tobytes().decode("utf-8")
            self._transcripts[unit.name] = [Transcript.model_validate(row) for row in json.loads(text)]
        return self._transcripts[unit.name]

    def judgments(self, unit: Unit) -> list[Judgment]:
        """The judgments of a finished judge unit, by transcript and turn."""
        rows = self.folder.read_json(_file(unit))
        assert rows is not None, unit.name
        return [Judgment.model_validate(row) for row in rows]

    def keep(self, unit: Unit, **arrays: NDArray[Any]) -> None:
        """Write the arrays of a unit, whole or not at all."""
        self.folder.write_npz(_file(unit), **arrays)

    def keep_rollout(self, unit: Unit, transcripts: Sequence[Transcript], **arrays: NDArray[Any]) -> None:
        """Write transcripts and readouts as one shard, so that neither is ever there without the other."""
        text = json.dumps([t.model_dump(mode="json") for t in transcripts], ensure_ascii=False)
        self.keep(unit, transcripts=np.frombuffer(text.encode("utf-8"), dtype=np.uint8), **arrays)

    def keep_judgments(self, unit: Unit, judgments: Sequence[Judgment]) -> None:
        """Write the judgments of a unit, whole or not at all."""
        self.folder.write_json(_file(unit), list(judgments))


_WHAT = {"model": "weights", "parameters": "weights", "adapters": "adapter weights", "probes": "probes"}


def _file(unit: Unit) -> str:
    return f"shards/{unit.name}.{'json' if unit.kind == 'judge' else 'npz'}"
