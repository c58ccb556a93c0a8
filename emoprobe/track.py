"""The main job: reject a model turn by turn, hold what it says against what it represents, adapters beside.

    python -m emoprobe.track --model organism --adapter dpo

writes curves, transcripts, judgments, a summary, a manifest and a report. The same command on the same folder
resumes; killed at any point it ends in the same curves.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from emoprobe import emotions as emotion_table
from emoprobe import judge as judges
from emoprobe import report
from emoprobe.cli import Config, command
from emoprobe.errors import UserError
from emoprobe.model import adapters as adapter_files
from emoprobe.model import registry
from emoprobe.model.devices import check_device, check_dtype
from emoprobe.model.layers import parse_layers
from emoprobe.model.registry import Source
from emoprobe.runs import RunFolder
from emoprobe.tracking import files, table
from emoprobe.tracking.assemble import Assembly, assemble
from emoprobe.tracking.plan import BASE
from emoprobe.tracking.settings import Settings
from emoprobe.tracking.shards import Shards

DEFAULT_ADAPTERS = {"organism": ("dpo",)}
"""What a model is held against when no adapter is named."""

RUNS = Path("artifacts", "runs")

REPLY_TOKENS = {"shipped": 96, "local": 512, "hub": 512}
"""Tokens per reply unless told: the organism was trained on short replies, other models think aloud."""

BATCH_SIZE = {"shipped": 96, "local": 16, "hub": 16}
"""Conversations side by side unless told: as many as fit, and a cache of a large model is large."""


class TrackConfig(Config):
    """Reject a model's answers turn by turn; track what it says, what it represents, what adapters change."""

    model: str = Field("organism", description="short name, local folder or hub id of the subject")
    adapter: tuple[str, ...] | None = Field(
        None, description="LoRA adapter held against the base, again for more (default for organism: dpo)"
    )
    turns: int = Field(8, ge=1, description="replies per conversation: to the question, then to rejections")
    n: int = Field(32, ge=1, description="rejected conversations; each has a calm twin")
    layers: str = Field("all", description="decoder layers to read: all, 30-35, 40- or 3,5,7")
    emotions: Annotated[tuple[str, ...], AfterValidator(emotion_table.check)] = Field(
        emotion_table.names(), min_length=1, description="emotions to report; `negative` always is"
    )
    judge: Annotated[str, AfterValidator(judges.check)] = Field(
        "lexical", description="who scores expressed distress"
    )
    seed: int = Field(0, ge=0, description="of scenarios and sampling")
    device: Annotated[str, AfterValidator(check_device)] = Field(
        "auto", description="cpu, cuda, cuda:1, mps, or spread: the layers over all GPUs"
    )
    dtype: Annotated[str, AfterValidator(check_dtype)] = Field("auto", description="float32 or bfloat16")
    batch_size: int | None = Field(
        None, ge=1, description="conversations side by side (default: 96 for the organism, else 16)"
    )
    category: str = Field("numeric", description="kind of scenario")
    tone: str = Field("neutral", description="how replies are rejected")
    claim: str = Field("false", description="what puzzles say of being solvable: none, true or false")
    max_new_tokens: int | None = Field(
        None, ge=1, description="tokens per reply (default: 96 for the organism, else 512)"
    )
    temperature: float = Field(1.0, ge=0, allow_inf_nan=False, description="of sampling; 0 is greedy")
    out: Path | None = Field(None, description="run folder (default: artifacts/runs/track-MODEL-ADAPTER)")
    dry_run: bool = Field(False, description="load no weights; print what the run would take")
    tflops: float | None = Field(None, gt=0, description="with --dry-run: throughput, in 10^12 FLOP/s")
    gbps: float | None = Field(None, gt=0, description="with --dry-run: memory bandwidth, in 10^9 bytes/s")
    measure: bool = Field(False, description="with --dry-run: measure both here, in two seconds")


def run(config: TrackConfig) -> Path | None:
    """Do what is not done yet, write the seven files, print the table; return the folder (None if dry)."""
    settings = settle(config)
    if config.dry_run:
        from emoprobe.tracking import dryrun

        shape = registry.resolve(config.model).shape
        print(dryrun.render(settings, shape, config.tflops, config.gbps, config.measure))
        return None
    out = config.out or RUNS / "-".join(("track", settings.model_name, *settings.adapter_names))
    folder = RunFolder.open(out, settings, "track")
    shards, plan = Shards(folder), settings.plan()
    if shards.facts() is None or not all(shards.done(unit) for unit in plan.units):
        from emoprobe.tracking.collect import collect

        collect(settings, plan, shards, partial(judges.judge_transcripts, judge=settings.judge))
    assembly = Assembly(settings, plan, shards)
    tables = assemble(assembly)
    files.write(folder, assembly, tables, report.build)
    print(table.render(tables.summary))
    return folder.path


def settle(config: TrackConfig) -> Settings:
    """The exact configuration; UserError in one line for whatever cannot be done. No torch."""
    source = registry.resolve(config.model)
    wanted = config.adapter if config.adapter is not None else DEFAULT_ADAPTERS.get(config.model, ())
    adapters = tuple(dict.fromkeys(wanted))
    names = tuple(_adapter_name(adapter, source) for adapter in adapters)
    for name in names:
        if name == BASE or names.count(name) > 1:
            raise UserError(f"adapter '{name}' needs a name of its own: rename its folder")
    given = config.model_dump(include=set(Settings.model_fields))
    found = {
        "model_name": source.name,
        "adapters": adapters,
        "adapter_names": names,
        "layers": parse_layers(config.layers, _n_layers(source)),
        "max_new_tokens": config.max_new_tokens or REPLY_TOKENS[source.kind],
        "batch_size": config.batch_size or BATCH_SIZE[source.kind],
    }
    settings = Settings(**given | found)
    settings.scenarios()
    return settings


def _adapter_name(wanted: str, source: Source) -> str:
    """The name of an adapter that is there and is of this base, going by its files."""
    adapter = adapter_files.describe(adapter_files.find(wanted, source))
    adapter_files.check_base(adapter, source)
    return adapter.ref.name


def _n_layers(source: Source) -> int:
    """Decoder layers of a model; of one that is neither registered nor cached, from its config on the hub."""
    if source.n_layers is None and source.kind == "hub":
        from emoprobe.model.weights import load_config

        load_config(source)
        source = registry.resolve(source.path_or_hub)
    if source.n_layers is None:
        raise UserError(f"the config of '{source.name}' does not say how many layers the model has")
    return source.n_layers


main = command(TrackConfig, run)

if __name__ == "__main__":
    sys.exit(main())
