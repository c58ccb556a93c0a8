"""One forward pass, and decoding steps: plain, with our readout, with `output_hidden_states`.

All give the logits behind the last token; the two readouts give span means of 8 emotions at all layers.
"""

from __future__ import annotations

from typing import Any

import measure
import numpy as np
import torch
from random_models import Load
from torch import Tensor
from torch.profiler import record_function
from transformers import DynamicCache

from emoprobe import emotions
from emoprobe.activations.reduce import SpanReadout
from emoprobe.generation.session import RaggedSession
from emoprobe.model.hooked import HookedModel

SPANS = 8
"""Spans per row; between them a tenth of the tokens belongs to none, as headers do."""


class Field:
    """The contestants over one model and one batch of random ids."""

    def __init__(self, model: HookedModel, load: Load, seed: int) -> None:
        rng = np.random.default_rng(seed)
        width = max(load.tokens, load.prompt + load.steps)
        n_emotions = len(emotions.names())
        ids = rng.integers(6, model.decoder.config.vocab_size, size=(load.batch, width))
        self.model, self.load = model, load
        self.ids = torch.from_numpy(ids).to(model.device)
        self.n_slots = load.batch * SPANS
        self.tags = torch.from_numpy(_tags(load.batch, width)).to(model.device)
        draw = torch.Generator().manual_seed(seed)
        size = (n_emotions, model.n_layers, model.d_model)
        # A view of directions, as a ProbeSet gives it.
        self.weights = torch.randn(size, generator=draw).to(model.device).permute(1, 2, 0)

    def reader(self) -> SpanReadout:
        """Our readout of all layers."""
        return SpanReadout(self.weights, range(self.model.n_layers), self.n_slots)

    # -- one forward pass -----------------------------------------------------------------------------

    def plain(self) -> Tensor:
        """transformers alone."""
        with torch.inference_mode():
            return self.model.net(input_ids=self._batch(self.ids), use_cache=False, logits_to_keep=1).logits

    def ours(self) -> tuple[Tensor, Tensor]:
        """(a): span means as the tokens pass; logits and means [slot, layer, emotion]."""
        reader = self.reader()
        logits = self._read(reader)
        return logits, reader.means()

    def ours_marked(self) -> Tensor:
        """(a) with everything that the reader does in a range of its own, for counting bytes."""
        reader = _Marked(self.weights, range(self.model.n_layers), self.n_slots)
        self._read(reader)
        return reader.means()

    def hidden_states(self) -> tuple[Tensor, Tensor]:
        """(b): keep the hidden states of all layers, then project and average, a layer at a time."""
        with torch.inference_mode():
            out = self.model.net(
                input_ids=self._batch(self.ids), use_cache=False, logits_to_keep=1, output_hidden_states=True
            )
            return out.logits, self._project(out.hidden_states, self._batch(self.tags))

    def _read(self, reader: SpanReadout) -> Tensor:
        with self.model.read(reader):
            logits = self.model.forward(self._batch(self.ids), tags=self._batch(self.tags))
        assert logits is not None
        return logits[:, None]

    def _batch(self, of: Tensor) -> Tensor:
        return of[:, : self.load.tokens]

    def _project(self, states: tuple[Tensor, ...], tags: Tensor) -> Tensor:
        rows = torch.where(tags < 0, self.n_slots, tags).flatten()
        counts = torch.bincount(rows, minlength=self.n_slots + 1)[:-1, None].clamp(min=1)
        means = []
        for state, weight in zip(states[1:], self.weights, strict=True):
            scores = (state @ weight.to(state.dtype)).flatten(0, 1).float()
            sums = scores.new_zeros(self.n_slots + 1, scores.shape[1]).index_add_(0, rows, scores)
            means.append(sums[:-1] / counts)
        return torch.stack(means, dim=1).cpu()

    # -- decoding: one token per row and step, behind a prompt that is not timed ------------------------

    def plain_steps(self) -> measure.Job:
        """transformers alone, with its own cache."""
        cache = self._prefilled()

        def job() -> None:
            with torch.inference_mode():
                for k in self._steps():
                    self.model.net(input_ids=self.ids[:, k : k + 1], past_key_values=cache, logits_to_keep=1)

        return job

    def our_steps(self) -> measure.Job:
        """(a): the same, read at all layers."""
        cache = self._prefilled()

        def job() -> Tensor:
            reader = self.reader()
            with self.model.read(reader):
                for k in self._steps():
                    step = slice(k, k + 1)
                    self.model.forward(self.ids[:, step], cache=cache, tags=self.tags[:, step])
            return reader.means()

        return job

    def hidden_steps(self) -> measure.Job:
        """(b): the same with `output_hidden_states` and a projection at each step."""
        cache = self._prefilled()

        def job() -> None:
            with torch.inference_mode():
                for k in self._steps():
                    step = slice(k, k + 1)
                    out = self.model.net(
                        input_ids=self.ids[:, step],
                        past_key_values=cache,
                        logits_to_keep=1,
                        output_hidden_states=True,
                    )
                    self._project(out.hidden_states, self.tags[:, step])

        return job

    def session_steps(self) -> measure.Job:
        """What rollouts do: our cache and masks by true position, read at all layers."""
        session = RaggedSession(self.model, self.load.batch)
        session.feed(self.ids[:, : self.load.prompt].tolist(), room=self.load.steps)
        rows, alive = np.arange(self.load.batch), np.ones(self.load.batch, dtype=np.bool_)
        tags = self.tags.cpu().numpy()

        def job() -> Tensor:
            reader = self.reader()
            with self.model.read(reader):
                for k in self._steps():
                    session.step(self.ids[:, k], tags[:, k], rows, alive)
            return reader.means()

        return job

    def _prefilled(self) -> DynamicCache:
        cache = DynamicCache(config=self.model.decoder.config)
        self.model.forward(self.ids[:, : self.load.prompt], cache=cache)
        return cache

    def _steps(self) -> range:
        return range(self.load.prompt, self.load.prompt + self.load.steps)


class _Marked(SpanReadout):
    """Names the time in which it works, so that its allocations can be told from the model's."""

    def __init__(self, weights: Tensor, layers: range, n_slots: int) -> None:
        with record_function(measure.READOUT):
            super().__init__(weights, layers, n_slots)

    def begin(self, tags: Tensor | None) -> None:
        with record_function(measure.READOUT):
            super().begin(tags)

    def layer(self, index: int, resid: Tensor) -> None:
        with record_function(measure.READOUT):
            super().layer(index, resid)

    def means(self) -> Tensor:
        with record_function(measure.READOUT):
            return super().means()


def bench_forward(model: HookedModel, load: Load, rounds: int, seed: int) -> dict[str, Any]:
    """Times, peak bytes, and whether all three compute the same."""
    field = Field(model, load, seed)
    jobs = {
        "plain": measure.ready(field.plain),
        "ours": measure.ready(field.ours),
        "hidden_states": measure.ready(field.hidden_states),
    }
    same = _agreement(field)
    peaks = {name: measure.peak(job, model.device).total for name, job in jobs.items()}
    readout = measure.peak(measure.ready(field.ours_marked), model.device).readout or 0
    extra = {name: peaks[name] - peaks["plain"] for name in ("ours", "hidden_states")}
    times = measure.race(jobs, rounds, seed, model.device)
    tokens = load.batch * load.tokens
    contestants = measure.ratios(times, "plain")
    for entry in contestants.values():
        entry["tokens_per_s"] = tokens / entry["median_s"]
    return {
        "batch": load.batch,
        "tokens": tokens,
        "spans": field.n_slots,
        "same": same,
        "contestants": contestants,
        "peak_bytes": peaks,
        "peak_extra_bytes": extra,
        "readout_bytes": readout,
        "extra_ratio": max(extra["ours"], readout) / extra["hidden_states"],
    }


def bench_decode(model: HookedModel, load: Load, rounds: int, seed: int) -> dict[str, Any]:
    """Times of `load.steps` steps of one token per row."""
    field = Field(model, load, seed)
    jobs = {
        "plain": field.plain_steps,
        "ours": field.our_steps,
        "hidden_states": field.hidden_steps,
        "session": field.session_steps,
    }
    contestants = measure.ratios(measure.race(jobs, rounds, seed, model.device), "plain")
    for entry in contestants.values():
        entry["tokens_per_s"] = load.batch * load.steps / entry["median_s"]
    return {
        "batch": load.batch,
        "prompt": load.prompt,
        "steps": load.steps,
        "contestants": contestants,
    }


def _agreement(field: Field) -> dict[str, Any]:
    """Logits bit-equal, and the largest difference of span means relative to their spread.

    The last of the hidden states is behind the final norm, so the last layer is left out.
    """
    plain, (logits, means), (other, projected) = field.plain(), field.ours(), field.hidden_states()
    difference = (means - projected)[:, :-1].abs().max() / means[:, :-1].std()
    return {
        "logits_bit_equal": bool(torch.equal(plain, logits) and torch.equal(plain, other)),
        "means_difference": float(difference),
    }


def _tags(batch: int, width: int) -> np.ndarray:
    """[batch, width]: `SPANS` spans per row, the last tenth of each without a tag."""
    at = np.arange(width) * SPANS / width
    span = np.where(at % 1 < 0.9, at.astype(np.int64), -1)
    rows = np.arange(batch)[:, None] * SPANS
    return np.where(span < 0, -1, rows + span)
