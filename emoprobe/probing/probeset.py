"""A ProbeSet: one unit direction per (emotion, layer), and the neutral baseline that makes its score a z.

On disk it is a folder of `probes.safetensors` and `card.json`; nothing in it can be executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from emoprobe import emotions as emotion_table
from emoprobe.errors import UserError
from emoprobe.records import ModelRef, Part
from emoprobe.runs import atomic

Floats = NDArray[np.float32]

PARTS: tuple[Part, ...] = get_args(Part)
"""The `part` axis of every baseline."""

SITE = "resid_post"
WEIGHTS_FILE = "probes.safetensors"
CARD_FILE = "card.json"
SCHEMA = 1
_HEAD = ("schema_version", "site", "model", "emotions", "layers", "parts", "weights_sha256")
_TENSORS = ("directions", "bias", "baseline_mean", "baseline_std")


class ReadableModel(Protocol):
    """What `check` needs of a loaded model."""

    @property
    def ref(self) -> ModelRef:
        """Which weights are loaded, and under which adapter."""
        ...


@dataclass(frozen=True)
class ProbeSet:
    """Directions that read emotions of one model.

    Attributes:
        directions: [emotion, layer, d_model], unit length, float32.
        bias: [emotion, layer]; `resid @ direction + bias` is 0 at the decision boundary of the fit.
        baseline_mean: [emotion, layer, part] of `resid @ direction` over neutral conversations.
        baseline_std: [emotion, layer, part], over conversation turns (part `token`: over tokens).
        emotions: names of the emotion axis.
        layers: decoder layers of the layer axis, 0-based; all of the model's.
        model: identity of the weights: name, weights_sha, n_layers, d_model.
        card: what is known about the set: fit manifest, AUROC with intervals, caveats.
    """

    directions: Floats
    bias: Floats
    baseline_mean: Floats
    baseline_std: Floats
    emotions: tuple[str, ...]
    layers: tuple[int, ...]
    model: dict[str, Any]
    card: dict[str, Any]

    def __post_init__(self) -> None:
        cells = (len(self.emotions), len(self.layers))
        wanted = {
            "directions": (*cells, self.model["d_model"]),
            "bias": cells,
            "baseline_mean": (*cells, len(PARTS)),
            "baseline_std": (*cells, len(PARTS)),
        }
        for name, shape in wanted.items():
            values = getattr(self, name)
            if values.shape != shape:
                raise ValueError(f"{name} is {list(values.shape)}, not {list(shape)}")
            if not np.isfinite(values).all():
                raise ValueError(f"{name} holds values that are not finite")
        if not np.allclose(np.linalg.norm(self.directions, axis=-1), 1.0, atol=1e-3):
            raise ValueError("directions are not of unit length")
        if not (self.baseline_std > 0).all():
            raise ValueError("a baseline has no spread")

    def weights(
        self, layers: Sequence[int] | None = None, emotions: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Readout matrices `[layer, d_model, emotion]`; all layers and emotions unless named."""
        chosen = self.directions[np.ix_(self._emotion_index(emotions), self._layer_index(layers))]
        return np.moveaxis(chosen, 0, -1)

    def z(
        self,
        raw: NDArray[Any],
        part: Part,
        layers: Sequence[int] | None = None,
        emotions: Sequence[str] | None = None,
    ) -> NDArray[np.float64]:
        """Raw scores `[..., layer, emotion]` in standard deviations of the part's neutral baseline."""
        cells = np.ix_(self._emotion_index(emotions), self._layer_index(layers))
        column = PARTS.index(part)
        mean, std = self.baseline_mean[..., column][cells].T, self.baseline_std[..., column][cells].T
        score: NDArray[np.float64] = (np.asarray(raw, dtype=np.float64) - mean) / std
        return score

    def check(self, model: ReadableModel) -> None:
        """Refuse a model of other weights; the base's probes are valid under the base's adapters."""
        ref = model.ref
        for field, have in (("n_layers", ref.n_layers), ("d_model", ref.d_model)):
            if have != self.model[field]:
                raise UserError(
                    f"these probes are of '{self.model['name']}' with {field} {self.model[field]}, "
                    f"'{ref.name}' has {have}; {_mend(ref.name)}"
                )
        if ref.weights_sha != self.model["weights_sha"]:
            raise UserError(
                f"these probes are of '{self.model['name']}' with weights {self.model['weights_sha'][:12]}, "
                f"'{ref.name}' has {ref.weights_sha[:12]}; {_mend(ref.name)}"
            )

    def save(self, folder: Path) -> Path:
        """Write both files, the card last: a folder with a card is complete."""
        from safetensors.numpy import save

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: np.ascontiguousarray(getattr(self, name), dtype=np.float32) for name in _TENSORS}
        data = save(tensors, metadata={"format": "emoprobe.probes", "schema": str(SCHEMA)})
        sha = hashlib.sha256(data).hexdigest()
        values = (SCHEMA, SITE, self.model, list(self.emotions), list(self.layers), list(PARTS), sha)
        head = dict(zip(_HEAD, values, strict=True))
        text = json.dumps({**head, **self.card}, indent=1, ensure_ascii=False, allow_nan=False)
        for name, content in ((WEIGHTS_FILE, data), (CARD_FILE, f"{text}\n".encode())):
            with atomic(folder / name) as draft:
                draft.write_bytes(content)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> ProbeSet:
        """Read both files; UserError for what is missing, cut, changed, or of another version."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        folder = Path(folder)
        try:
            data = (folder / WEIGHTS_FILE).read_bytes()
            head = json.loads((folder / CARD_FILE).read_text("utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as problem:
            raise UserError(
                f"no readable ProbeSet in '{folder}' (wanted {WEIGHTS_FILE} and {CARD_FILE}: "
                f"{_reason(problem)})"
            ) from problem
        try:
            if head["schema_version"] != SCHEMA or head["site"] != SITE or head["parts"] != list(PARTS):
                raise UserError(f"'{folder}' is a ProbeSet of another version or site; {_mend()}")
            if hashlib.sha256(data).hexdigest() != head["weights_sha256"]:
                raise UserError(
                    f"'{folder / WEIGHTS_FILE}' is cut or changed: not the file its card names; {_mend()}"
                )
            tensors = load(data)
            return cls(
                **{name: tensors[name] for name in _TENSORS},
                emotions=tuple(head["emotions"]),
                layers=tuple(head["layers"]),
                model=head["model"],
                card={key: value for key, value in head.items() if key not in _HEAD},
            )
        except (KeyError, TypeError, ValueError, SafetensorError) as problem:
            raise UserError(f"'{folder}' is not a ProbeSet: {_reason(problem)}; {_mend()}") from problem

    def _layer_index(self, layers: Sequence[int] | None) -> list[int]:
        if layers is None:
            return list(range(len(self.layers)))
        missing = [layer for layer in layers if layer not in self.layers]
        if missing:
            raise UserError(f"no probes for layer {missing[0]}; this set has {len(self.layers)} layers")
        return [self.layers.index(layer) for layer in layers]

    def _emotion_index(self, wanted: Sequence[str] | None) -> list[int]:
        if wanted is None:
            return list(range(len(self.emotions)))
        missing = [name for name in wanted if name not in self.emotions]
        if missing:
            raise UserError(f"no probes for '{missing[0]}'; this set has {', '.join(self.emotions)}")
        return [self.emotions.index(name) for name in wanted]


def negative(z: NDArray[np.float64], emotions: Sequence[str]) -> NDArray[np.float64]:
    """Mean z of the negative emotions among `emotions`, of scores `[..., emotion]`."""
    chosen = [i for i, name in enumerate(emotions) if name in emotion_table.negative()]
    if not chosen:
        raise UserError("'negative' needs at least one emotion of negative valence")
    mean: NDArray[np.float64] = z[..., chosen].mean(axis=-1)
    return mean


def _mend(name: str = "<model>") -> str:
    return f"fit them with: python -m emoprobe.probe --model {name}"


def _reason(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {text}"[:120] if text else type(problem).__name__
