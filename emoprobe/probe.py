"""Fit a direction per emotion and layer on short stories, test it on other phrases, keep it with its card."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from emoprobe.cli import Config, command
from emoprobe.model import registry, shipped
from emoprobe.model.devices import check_device, check_dtype
from emoprobe.records import Sampling


class ProbeConfig(Config):
    """Fit emotion probes for a model on vignettes; write probes.safetensors and card.json."""

    model: str = Field("organism", description="short name, local path or hub id")
    adapter: str | None = Field(None, description="refit under this adapter, and compare with the base's set")
    out: Path | None = Field(None, description="folder to write (default: probes/<model>/vignettes)")
    n_fit: int = Field(1200, ge=100, description="stories to fit on, at least half of them minimal pairs")
    n_test: int = Field(1120, ge=200, description="stories of other phrases to test on")
    family: Literal["logistic", "mean_difference"] = Field("logistic", description="estimator")
    conversations: int = Field(64, ge=64, description="neutral conversations of the base for the z baseline")
    turns: int = Field(8, ge=2, description="replies per neutral conversation")
    max_new_tokens: int = Field(96, ge=1, description="token limit of a reply in them")
    seed: int = Field(0, ge=0, description="draws stories, puzzles and replies")
    batch_size: int = Field(32, ge=1, description="conversations side by side")
    device: Annotated[str, AfterValidator(check_device)] = Field(
        "auto", description="cpu, cuda, cuda:1, mps, or spread: the layers over all GPUs"
    )
    dtype: Annotated[str, AfterValidator(check_dtype)] = Field("auto", description="float32 or bfloat16")


def run(config: ProbeConfig) -> Path:
    """Fit, test, scale, write; the table goes to stdout. Returns the folder."""
    registry.resolve(config.model)
    from emoprobe.model.hooked import HookedModel
    from emoprobe.probing import fit as fitting
    from emoprobe.probing.card import Recipe, table

    adapters = () if config.adapter is None else (config.adapter,)
    model = HookedModel.load(config.model, adapters=adapters, device=config.device, dtype=config.dtype)
    recipe = Recipe(
        n_fit=config.n_fit,
        n_test=config.n_test,
        family=config.family,
        conversations=config.conversations,
        turns=config.turns,
        sampling=Sampling(max_new_tokens=config.max_new_tokens),
        seed=config.seed,
        batch_size=config.batch_size,
    )
    if config.adapter is None:
        probes = fitting.fit(model, recipe, _say)
    else:
        base = fitting.for_model(model, recipe)
        with model.adapter(config.adapter):
            probes = fitting.fit(model, recipe, _say, base)
    name = fitting.SET_NAME if config.adapter is None else f"{fitting.SET_NAME}-{config.adapter}"
    out = config.out or shipped.place("probes", fitting.folder_name(model), name)
    probes.save(out)
    print(table(probes.card))
    print(probes.card["sentence"])
    return out


def _say(text: str) -> None:
    print(text, file=sys.stderr)


main = command(ProbeConfig, run)

if __name__ == "__main__":
    sys.exit(main(None))
