"""A folder in which `track` runs in seconds: tiny random models, adapters and probes, as they lie on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emoprobe import emotions
from emoprobe.model import registry, weights
from emoprobe.probing.probeset import PARTS, ProbeSet
from tests.model import tiny

ARGS = ("--n", "3", "--turns", "3", "--max-new-tokens", "6", "--batch-size", "4", "--device", "cpu")
"""A run of a few seconds: two batches to a subject, the second of them smaller."""


@dataclass(frozen=True)
class Stage:
    """`root` is the working directory; a model folder holds its adapter `upper` under adapters/<model>."""

    root: Path

    def args(self, kind: str, *more: str, adapter: bool = True) -> list[str]:
        """A command line for the tiny model of that kind."""
        beside = ["--adapter", f"adapters/{kind}/upper"] if adapter else []
        return ["--model", f"models/{kind}", *beside, *ARGS, *more]


def build(root: Path, kinds: tuple[str, ...] = ("gemma-text", "gemma-vision")) -> Stage:
    """Write models, an adapter of layers 3 to 5 for each, and a ProbeSet for each, under `root`."""
    for kind in kinds:
        folder = tiny.write(kind, root / "models" / kind)
        stack = "model.language_model.layers" if kind == "gemma-vision" else "model.layers"
        targets = rf"{stack.replace('.', '[.]')}[.](3|4|5)[.](self_attn|mlp)[.]\w+_proj"
        tiny.write_adapter(folder, root / "adapters" / kind / "upper", targets)
        sha = weights.fingerprint(registry.resolve(str(folder)))
        random_probes(kind, sha).save(root / "probes" / f"{kind}-{sha[:8]}" / "vignettes")
    return Stage(root)


def random_probes(name: str, weights_sha: str, seed: int = 0) -> ProbeSet:
    """Directions that mean nothing, for a tiny model of these weights."""
    rng = np.random.default_rng([seed, int(hashlib.sha256(weights_sha.encode()).hexdigest()[:8], 16)])
    cells = (len(emotions.names()), tiny.N_LAYERS)
    directions = rng.normal(size=(*cells, tiny.D_MODEL))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return ProbeSet(
        directions=directions.astype(np.float32),
        bias=np.zeros(cells, dtype=np.float32),
        baseline_mean=rng.normal(size=(*cells, len(PARTS))).astype(np.float32),
        baseline_std=rng.uniform(1, 2, size=(*cells, len(PARTS))).astype(np.float32),
        emotions=emotions.names(),
        layers=tuple(range(tiny.N_LAYERS)),
        model={
            "name": name,
            "weights_sha": weights_sha,
            "n_layers": tiny.N_LAYERS,
            "d_model": tiny.D_MODEL,
            "dtype": "float32",
        },
        card={"sentence": "Random directions: they read nothing."},
    )
