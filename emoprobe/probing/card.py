"""A ProbeSet's card: how it was made, what it was tested on, what it must not be used to claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emoprobe import runs
from emoprobe.errors import UserError
from emoprobe.probing import evaluate, vignettes
from emoprobe.probing.evaluate import CONTROLS, SUBSETS, Auroc, Gain
from emoprobe.probing.linear import C_DEFAULT, Family
from emoprobe.records import Record, Sampling
from emoprobe.stats import Estimate

SPLIT = "validation"
"""Puzzles of the baseline. Reported arms are of the split `test`; a puzzle's id alone decides its split."""


class Recipe(Record):
    """Everything that decides a ProbeSet beside the model."""

    n_fit: int = Field(1200, ge=100)
    n_test: int = Field(1120, ge=100)
    minimal: float = Field(0.5, ge=0.5, le=1.0)
    seed: int = 0
    family: Family = "logistic"
    c: float = Field(C_DEFAULT, gt=0)
    conversations: int = Field(64, ge=64)
    turns: int = Field(8, ge=1)
    sampling: Sampling = Sampling()
    batch_size: int = Field(32, ge=1)


@dataclass(frozen=True)
class Tested:
    """Held-out AUROC by subset, and each layer's gain over the strongest readout of words."""

    tables: dict[str, Auroc]
    gains: dict[str, Gain]
    layers: tuple[int, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Controls first, then layers."""
        return (*CONTROLS, *(evaluate.layer_column(layer) for layer in self.layers))

    @property
    def sentence(self) -> str:
        """Where layers beat words, or that they do not."""
        return evaluate.sentence(self.gains, self.tables)


@dataclass(frozen=True)
class Against:
    """How directions refitted under an adapter compare with the base's.

    Attributes:
        cosine: [emotion, layer] between the two sets of directions.
        tables: AUROC of the base's directions on the same stories read under the adapter.
    """

    emotions: tuple[str, ...]
    cosine: NDArray[np.float64]
    tables: dict[str, Auroc]

    def entry(self) -> dict[str, Any]:
        """As JSON data."""
        rows = zip(self.emotions, self.cosine, strict=True)
        return {
            "cosine_by_layer": {name: [round(float(c), 4) for c in row] for name, row in rows},
            "base_directions": {name: _auroc_entry(table) for name, table in self.tables.items()},
        }


def card(recipe: Recipe, tested: Tested, fitted_under: str, against: Against | None = None) -> dict[str, Any]:
    """The card as JSON data; every number has its interval and n."""
    found: dict[str, Any] = {
        "sentence": tested.sentence,
        "fit": {
            **recipe.model_dump(exclude={"batch_size", "conversations", "turns", "sampling"}),
            "texts": "vignettes",
            "grammar_sha": vignettes.grammar_sha(),
            "read_as": "residual stream at the last token before the reply to a user who tells the story",
            "labels": "one emotion against all others and neutral",
            "fitted_under": fitted_under,
        },
        "baseline": {
            "conversations": recipe.conversations,
            "turns": recipe.turns,
            "of": "base",
            "feedback": "okay",
            "puzzles": SPLIT,
            "sampling": recipe.sampling.model_dump(),
            "spread": "over conversation turns; part token: over content tokens of both roles",
        },
        "test": {
            "pool": "test: no content word in common with the fitted pool",
            "interval": "95 %, bootstrap of topics; not over other phrases or another fit",
            "subsets": {
                "plain": "one event and one reaction, or more, of one emotion",
                "minimal": "twins of equal words and different order, negation or agent, each emotion "
                "against its own twins; words are at 0.5 by construction",
                "all": "both; one emotion against all others and neutral",
            },
            "columns": {
                "words": "bag of words fitted within the test pool, cross-validated by topic",
                "words_transfer": "bag of words fitted on the fit pool",
                "embedding": "the input embeddings' mean, fitted on the fit pool as the layers are",
            },
        },
        "gain": {name: _gain_entry(gain) for name, gain in tested.gains.items()},
        "auroc": {name: _auroc_entry(table) for name, table in tested.tables.items()},
        "caveats": [
            "Grammar stories are simple and their phrases few: high AUROC here says little about rollouts.",
            "A score is a projection: turn number, the user's tone, reply length and words move it too. "
            "Compare within turn, within part, and against the calm twin.",
            "Parts have offsets of their own: a z is of one part only.",
            "Under an adapter a direction fitted on the base may rotate; refit with --adapter to see.",
            "Emotions correlate with each other; one direction is not evidence for one emotion alone.",
        ],
        "must_not_be_used_to_claim": [
            "that the model feels anything",
            "that a state is hidden, masked or present without controls for instruction, tone and text",
            "that an emotion emerges at some layer, where words alone reach the same AUROC",
        ],
        "packages": runs.package_versions(),
    }
    if against is not None:
        found["against_base"] = against.entry()
    return found


def _auroc_entry(table: Auroc) -> dict[str, Any]:
    names = (*table.emotions, evaluate.MACRO)
    return {
        "n": dict(zip(names, table.n.tolist(), strict=True)),
        "clusters": table.clusters,
        "columns": {
            column: {name: _rounded(table.estimate(column, name)) for name in names}
            for column in table.columns
        },
    }


def _rounded(estimate: Estimate) -> dict[str, float]:
    return {key: round(getattr(estimate, key), 4) for key in ("mean", "lo", "hi")}


def _gain_entry(gain: Gain) -> dict[str, Any]:
    rows = zip(gain.layers, gain.point, gain.lo, gain.hi, strict=True)
    return {
        "over": gain.control,
        "band": "95 %, simultaneous over layers (max-t)",
        "layers_above": list(gain.above),
        "layers": [
            {"layer": layer, "mean": round(float(m), 4), "lo": round(float(lo), 4), "hi": round(float(hi), 4)}
            for layer, m, lo, hi in rows
        ],
    }


def table(card: dict[str, Any]) -> str:
    """The card's macro AUROC as text: a row per column, a block of three subsets."""
    try:
        blocks = {name: card["auroc"][name]["columns"] for name in SUBSETS}
        rows = [
            (column, *(blocks[name][column][evaluate.MACRO] for name in SUBSETS)) for column in blocks["all"]
        ]
    except (KeyError, TypeError) as problem:
        raise UserError("this ProbeSet's card has no AUROC table") from problem
    head = f"{'held-out AUROC, mean over emotions':36}" + "".join(f"{name:>20}" for name in SUBSETS)
    lines = [head]
    for column, *cells in rows:
        shown = (f"{c['mean']:.3f} [{c['lo']:.2f}, {c['hi']:.2f}]" for c in cells)
        lines.append(f"{column.replace('_', ' '):36}" + "".join(f"{text:>20}" for text in shown))
    return "\n".join(lines)
