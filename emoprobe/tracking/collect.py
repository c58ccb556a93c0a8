"""Runs the units of a plan that are not done yet: the only part of `track` that needs a model.

The model is loaded once, with all adapters; each unit switches to its reader. What is measured leaves as z.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from emoprobe.activations.reduce import SpanReadout
from emoprobe.activations.slots import SPAN_PARTS, Slots
from emoprobe.generation.likelihood import ReplyLikelihood
from emoprobe.generation.live import rollout_batch
from emoprobe.generation.plan import Conversation
from emoprobe.generation.replay import replay_batch
from emoprobe.model.hooked import HookedModel
from emoprobe.probing import fit
from emoprobe.probing.probeset import ProbeSet, negative
from emoprobe.readout import token_labels, token_z
from emoprobe.records import Judgment, Part, Transcript
from emoprobe.tracking.assemble import Assembly, typical
from emoprobe.tracking.plan import BASE, Plan, Unit
from emoprobe.tracking.settings import Settings
from emoprobe.tracking.shards import Shards

Score = Callable[[Sequence[Transcript]], list[Judgment]]
"""A judge: one judgment per reply, by transcript and turn."""


def collect(settings: Settings, plan: Plan, shards: Shards, score: Score) -> None:
    """Load the model and do the units that are not done, in the order of the plan.

    Raises UserError where the folder was begun with other weights or probes of the same names.
    """
    model = HookedModel.load(
        settings.model, adapters=settings.adapters, device=settings.device, dtype=settings.dtype
    )
    collector = Collector(settings, plan, shards, model, fit.for_model(model), score)
    shards.claim(collector.facts())
    done = sum(shards.done(unit) for unit in plan.units)
    with tqdm(desc="track", unit="batch", total=len(plan.units), initial=done, file=sys.stderr) as bar:
        for unit in plan.units:
            if not shards.done(unit):
                bar.set_postfix_str(unit.name)
                collector.run(unit)
                bar.update()


@dataclass(frozen=True)
class Collector:
    """A loaded model with its probes and a judge, and the folder that the plan's shards go to."""

    settings: Settings
    plan: Plan
    shards: Shards
    model: HookedModel
    probes: ProbeSet
    score: Score

    def run(self, unit: Unit) -> None:
        """Do one unit and write its shard."""
        with self.model.adapter(unit.reader):
            _WORK[unit.kind](self, unit)

    def roll(self, unit: Unit) -> None:
        """The reader converses; its states are read as it does."""
        assert unit.batch is not None
        conversations = [
            Conversation(name, scenario)
            for name, scenario in zip(unit.batch.ids, unit.batch.scenarios, strict=True)
        ]
        slots = Slots((c.id, c.n_turns) for c in conversations)
        readout = self._readout(len(slots))
        transcripts = rollout_batch(
            self.model, conversations, self.settings.sampling, self.settings.seed, readout, slots
        )
        self.shards.keep_rollout(unit, transcripts, z=self._span_z(readout, len(conversations)))

    def replay(self, unit: Unit) -> None:
        """The reader reads the batch's ids again; the base gives the likelihood of the replies besides."""
        assert unit.batch is not None
        transcripts = self.shards.transcripts(Unit("roll", unit.batch.subject, unit.batch))
        slots = Slots.of(transcripts)
        readout = self._readout(len(slots))
        if unit.reader != BASE:
            replay_batch(self.model, transcripts, readout, slots)
            self.shards.keep(unit, z=self._span_z(readout, len(transcripts)))
            return
        likelihood = ReplyLikelihood(transcripts, self.model.decoder.config.vocab_size)
        replay_batch(self.model, transcripts, readout, slots, likelihood=likelihood)
        self.shards.keep(
            unit,
            z=self._span_z(readout, len(transcripts)),
            nll=likelihood.nll,
            tokens=likelihood.tokens,
        )

    def judge(self, unit: Unit) -> None:
        """Score every reply of the batch."""
        assert unit.batch is not None
        transcripts = self.shards.transcripts(Unit("roll", unit.batch.subject, unit.batch))
        self.shards.keep_judgments(unit, self.score(transcripts))

    def tokens(self, unit: Unit) -> None:
        """Every token of the one transcript that the report colours."""
        transcript = typical(Assembly(self.settings, self.plan, self.shards))
        settings = self.settings
        labels = token_labels(self.model.tokenizer, transcript)
        self.shards.keep(
            unit,
            z=token_z(self.model, transcript, self.probes, settings.layers, settings.emotions),
            labels=np.frombuffer(json.dumps(labels).encode("utf-8"), dtype=np.uint8),
        )

    def facts(self) -> dict[str, Any]:
        """What the tables need to know of what was loaded."""
        adapters = {}
        for name in self.plan.adapters:
            with self.model.adapter(name):
                ref = self.model.adapter_ref
            assert ref is not None
            adapters[name] = ref.model_dump(mode="json", exclude={"path"})
        return {
            "model": self.model.ref.model_dump(mode="json"),
            "parameters": sum(
                p.numel() for name, p in self.model.decoder.module.named_parameters() if "lora_" not in name
            ),
            "adapters": adapters,
            "probes": {
                "model": self.probes.model,
                "sentence": self.probes.card.get("sentence", ""),
                "sha256": _digest(self.probes),
            },
        }

    def _weights(self) -> NDArray[np.float32]:
        """All emotions of the probes: `negative` needs those that were not asked for, too."""
        return self.probes.weights(self.settings.layers)

    def _readout(self, n_slots: int) -> SpanReadout:
        return SpanReadout(torch.from_numpy(self._weights()), self.settings.layers, n_slots)

    def _span_z(self, readout: SpanReadout, n: int) -> NDArray[np.float32]:
        """`[conversation, turn, part, layer, emotion]`, the emotions asked for and `negative`."""
        raw = readout.means().numpy()
        cells = raw.reshape(n, self.settings.turns, len(SPAN_PARTS), *raw.shape[1:])
        z = [self._z(cells[:, :, p], part) for p, part in enumerate(SPAN_PARTS)]
        return np.stack(z, axis=2).astype(np.float32)

    def _z(self, raw: NDArray[np.float32], part: Part) -> NDArray[np.float64]:
        z = self.probes.z(raw, part, self.settings.layers)
        wanted = [self.probes.emotions.index(name) for name in self.settings.emotions]
        return np.concatenate([z[..., wanted], negative(z, self.probes.emotions)[..., None]], axis=-1)


def _digest(probes: ProbeSet) -> str:
    """sha256 over the numbers that a z is made of."""
    digest = hashlib.sha256()
    for values in (probes.directions, probes.baseline_mean, probes.baseline_std):
        digest.update(np.ascontiguousarray(values, dtype=np.float32).tobytes())
    return digest.hexdigest()


_WORK: dict[str, Callable[[Collector, Unit], None]] = {
    "roll": Collector.roll,
    "replay": Collector.replay,
    "judge": Collector.judge,
    "tokens": Collector.tokens,
}
