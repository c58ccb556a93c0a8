"""From a loaded model to a ProbeSet with its card: fitted on one phrase pool, tested on the other."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emoprobe import emotions as emotion_table
from emoprobe.model import registry, shipped
from emoprobe.model.hooked import HookedModel
from emoprobe.probing import evaluate, vignettes
from emoprobe.probing.card import SPLIT, Against, Recipe, Tested, card
from emoprobe.probing.evaluate import CONTROLS, SUBSETS, Auroc
from emoprobe.probing.linear import Directions, solve_layers
from emoprobe.probing.probeset import ProbeSet
from emoprobe.probing.read import baseline, converse, story_states
from emoprobe.probing.vignettes import Vignette
from emoprobe.scenarios import library

SET_NAME = "vignettes"

Say = Callable[[str], None]


def fit(
    model: HookedModel, recipe: Recipe, say: Say = lambda _: None, base: ProbeSet | None = None
) -> ProbeSet:
    """Fit, scale and test probes for all emotions and layers of a model under its active adapter.

    The neutral baseline is always the base's: its conversations, read by it. Where `base` is given, the
    card compares the new directions with that set's.
    """
    names = emotion_table.names()
    fitted = vignettes.sample(recipe.n_fit, recipe.seed, "fit", minimal=recipe.minimal)
    test = vignettes.sample(recipe.n_test, recipe.seed, "test", minimal=recipe.minimal)
    with _timed(say, f"read {len(fitted) + len(test)} stories"):
        embedding, residuals = story_states(model, [v.text for v in (*fitted, *test)])
    here, there = slice(0, len(fitted)), slice(len(fitted), None)
    with _timed(say, f"fitted {model.n_layers} layers x {len(names)} emotions"):
        positive = evaluate.is_emotion(fitted, names)
        found = solve_layers((layer[here] for layer in residuals), positive, recipe.family, recipe.c)
        words = solve_layers([embedding[here]], positive, recipe.family, recipe.c)
    with _timed(say, f"tested on {len(test)} stories of other phrases"):
        controls = (
            *evaluate.word_scores(fitted, test, names, recipe.c),
            _scores(embedding[None, there], words)[:, 0],
        )
        bench = _Bench(test, controls, residuals[:, there])
        tested = bench.test(found)
        against = None if base is None else bench.against(base, found)
    with _timed(say, f"held {recipe.conversations} neutral conversations of {recipe.turns} turns"):
        mean, std = _baseline(model, found, recipe)
    ref = model.ref
    return ProbeSet(
        directions=found.directions.astype(np.float32),
        bias=found.bias.astype(np.float32),
        baseline_mean=mean,
        baseline_std=std,
        emotions=names,
        layers=tuple(range(model.n_layers)),
        model={
            "name": ref.name,
            "weights_sha": ref.weights_sha,
            "n_layers": ref.n_layers,
            "d_model": ref.d_model,
            "dtype": ref.dtype,
        },
        card=card(recipe, tested, model.active, against),
    )


def for_model(model: HookedModel, recipe: Recipe | None = None) -> ProbeSet:
    """The ProbeSet kept or released for a model, else one fitted now and kept under `probes/<model>/`.

    Fitting is said on stderr. A set of other weights of the same name is refused (UserError).
    """
    folder = folder_name(model)
    found = shipped.find("probes", folder, SET_NAME)
    if found is not None:
        probes = ProbeSet.load(found)
        probes.check(model)
        return probes
    out = shipped.place("probes", folder, SET_NAME)
    print(f"no probes for {model.name} yet: fitting them, once, into {out}", file=sys.stderr)
    with model.base():
        probes = fit(model, recipe or Recipe(), lambda text: print(f"  {text}", file=sys.stderr))
    probes.save(out)
    return probes


def folder_name(model: HookedModel) -> str:
    """The folder of a model's probes: the name of a registered or hub model.

    For a local folder also the weights' first digits: two models in folders of one name, or one that was
    trained anew, have probes of their own.
    """
    if model.name in registry.names() or "/" in model.ref.source:
        return model.name
    return f"{model.name}-{model.weights_sha[:8]}"


@dataclass(frozen=True)
class _Bench:
    """Test stories as they were read, and the scores of the readouts without context."""

    texts: list[Vignette]
    controls: tuple[NDArray[np.float64], ...]  # each [text, emotion], in the order of CONTROLS
    residuals: NDArray[np.float32]  # [layer, text, d_model]

    def test(self, found: Directions) -> Tested:
        tables = self.tables(found)
        layers = tuple(range(len(self.residuals)))
        return Tested(tables, {name: evaluate.gain(t, layers) for name, t in tables.items()}, layers)

    def against(self, base: ProbeSet, found: Directions) -> Against:
        old = Directions(base.directions.astype(np.float64), base.bias.astype(np.float64))
        cosine = (old.directions * found.directions).sum(axis=-1)
        return Against(base.emotions, cosine, self.tables(old))

    def tables(self, found: Directions) -> dict[str, Auroc]:
        names = emotion_table.names()
        columns = (*CONTROLS, *(evaluate.layer_column(layer) for layer in range(len(self.residuals))))
        scores = np.concatenate([np.stack(self.controls, axis=1), _scores(self.residuals, found)], axis=1)
        positive, topics = evaluate.is_emotion(self.texts, names), [t.topic for t in self.texts]
        return {
            subset: evaluate.auroc(
                scores, columns, names, positive, evaluate.subset(self.texts, names, subset), topics
            )
            for subset in SUBSETS
        }


def _scores(residuals: NDArray[np.float32], found: Directions) -> NDArray[np.float64]:
    """`[text, layer, emotion]` of residuals `[layer, text, d_model]`; 0 is the decision boundary."""
    scores = np.einsum("lnd,eld->nle", residuals, found.directions, optimize=True)
    shifted: NDArray[np.float64] = scores + found.bias.T
    return shifted


def _baseline(
    model: HookedModel, found: Directions, recipe: Recipe
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rejected = library.numeric(recipe.conversations, recipe.turns, seed=recipe.seed, split=SPLIT)
    calm = [library.okay_twin(scenario) for scenario in rejected]
    weights = np.moveaxis(found.directions.astype(np.float32), 0, -1)
    with model.base():
        transcripts = converse(model, calm, recipe.sampling, recipe.seed, recipe.batch_size)
        return baseline(model, weights, transcripts)


@contextmanager
def _timed(say: Say, what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    say(f"{what} ({time.perf_counter() - start:.0f} s)")
