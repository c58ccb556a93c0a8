"""Replay the transcripts of a run and write the residual streams that their tokens pass.

python -m emoprobe.capture RUN --parts            mean of each turn's reply, pre_reply and user part
python -m emoprobe.capture RUN --tokens --layers 3-5    every token
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from emoprobe.cli import Config, Positional, command
from emoprobe.errors import UserError
from emoprobe.model import adapters as adapter_files
from emoprobe.model import layers as layer_ranges
from emoprobe.model import registry
from emoprobe.model.devices import check_device, check_dtype
from emoprobe.records import Transcript
from emoprobe.runs import RunFolder, read_run

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from emoprobe.activations.store import Header
    from emoprobe.model.hooked import HookedModel

SHARD_BYTES = 2**30
"""A shard takes transcripts until it is about this large; it is what is held in memory."""


class CaptureConfig(Config):
    """Replay the transcripts of a run folder and write residual streams (safetensors and a parquet index)."""

    run: Annotated[Path, Positional] = Field(description="run folder of rollout or track")
    parts: bool = Field(
        False, description="one row per reply, pre_reply and user part: the mean of its tokens"
    )
    tokens: bool = Field(False, description="one row per token")
    layers: str = Field("all", description="decoder layers, e.g. 3-5 or 3,7,11")
    adapter: str | None = Field(None, description="replay under this adapter (default: the base)")
    batch_size: int = Field(8, ge=1, description="transcripts forwarded side by side")
    device: str = Field("auto", description="cpu, cuda, cuda:1, mps, or spread: the layers over all GPUs")
    dtype: str = Field("auto", description="auto, float32 or bfloat16")
    out: Path | None = Field(None, description="folder to write (default RUN/activations-...)")

    _device = field_validator("device")(check_device)
    _dtype = field_validator("dtype")(check_dtype)

    @model_validator(mode="after")
    def _one_kind(self) -> CaptureConfig:
        if self.parts == self.tokens:
            raise ValueError("choose what to write: --parts or --tokens")
        return self

    @property
    def reducer(self) -> Literal["span_mean", "token"]:
        """How a row comes about, as the store's key says it."""
        return "span_mean" if self.parts else "token"


@dataclass(frozen=True)
class Job:
    """What is to be written, known before the weights are loaded."""

    transcripts: tuple[Transcript, ...]
    layers: tuple[int, ...]
    d_model: int
    dtype: torch.dtype
    shards: tuple[tuple[Transcript, ...], ...]
    rows: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Size of all shards."""
        return sum(self.rows) * len(self.layers) * self.d_model * self.dtype.itemsize


def run(config: CaptureConfig) -> Path:
    """Write the store and return its folder. An interrupted capture goes on where it stopped."""
    asked = read_run(config.run)["config"].get("model")
    if not isinstance(asked, str):
        raise UserError(f"{config.run} does not say which model made its transcripts")
    source = registry.resolve(asked)
    transcripts = read_transcripts(config.run)
    if source.n_layers is not None:
        layer_ranges.parse_layers(config.layers, source.n_layers)
    adapter = None if config.adapter is None else adapter_files.named(config.adapter, source)
    kind = "parts" if config.parts else "tokens"
    out = config.out or config.run / "-".join(["activations", kind, *([adapter] if adapter else [])])

    from emoprobe.model.devices import pick_device, pick_dtype

    dtype = pick_dtype(config.dtype, pick_device(config.device))
    if source.n_layers is not None and source.d_model is not None:
        _announce(_plan(config, transcripts, source.n_layers, source.d_model, dtype), out)

    from emoprobe.model.hooked import HookedModel

    adapters = () if config.adapter is None else (config.adapter,)
    model = HookedModel.load(asked, adapters=adapters, device=config.device, dtype=config.dtype)
    _check_text(model, transcripts, config.run)
    job = _plan(config, transcripts, model.n_layers, model.d_model, model.dtype)
    if source.n_layers is None:
        _announce(job, out)
    folder = RunFolder.open(out, config, "capture")
    with model.adapter(adapter or "base"):
        _write(folder, job, config, model)
    return out


def read_transcripts(folder: Path) -> tuple[Transcript, ...]:
    """The transcripts of a finished run; UserError where there are none."""
    file = folder / "transcripts.jsonl"
    if not file.is_file():
        raise UserError(f"{folder} has no transcripts.jsonl; let the run finish first")
    lines = [line for line in file.read_text("utf-8").split("\n") if line]
    try:
        transcripts = tuple(Transcript.model_validate_json(line) for line in lines)
    except ValueError as problem:
        raise UserError(f"{file} is damaged or of another version; make the run again") from problem
    if not transcripts:
        raise UserError(f"{file} is empty")
    return transcripts


def _check_text(model: HookedModel, transcripts: Sequence[Transcript], folder: Path) -> None:
    """Ids mean something only to the tokenizer and template that made them."""
    strange = [t.id for t in transcripts if t.model.template_sha != model.ref.template_sha]
    if strange:
        raise UserError(f"{folder}: {strange[0]} was made with another chat template than {model.name} has")


def _plan(
    config: CaptureConfig, transcripts: Sequence[Transcript], n_layers: int, d_model: int, dtype: torch.dtype
) -> Job:
    """Shards of about `SHARD_BYTES`, whole transcripts each; means are fp32 whatever the model's dtype."""
    import torch

    layers = layer_ranges.parse_layers(config.layers, n_layers)
    stored = torch.float32 if config.parts else dtype
    per_row = len(layers) * d_model * stored.itemsize
    shards: list[list[Transcript]] = []
    rows: list[int] = []
    for t in transcripts:
        n = len(t.token_ids) if config.tokens else sum(1 for _ in _part_rows(t))
        if not shards or (rows[-1] + n) * per_row > SHARD_BYTES:
            shards.append([])
            rows.append(0)
        shards[-1].append(t)
        rows[-1] += n
    return Job(tuple(transcripts), layers, d_model, stored, tuple(map(tuple, shards)), tuple(rows))


def _announce(job: Job, out: Path) -> None:
    """Say how much will be written; UserError if the disk has no room for it."""
    size = _human(job.n_bytes)
    print(
        f"capture: {sum(job.rows)} rows x {len(job.layers)} layers x {job.d_model} = {size} "
        f"in {len(job.shards)} shard{'s' * (len(job.shards) != 1)} under {out}",
        file=sys.stderr,
    )
    there = next(p for p in (out, *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if job.n_bytes > free:
        raise UserError(f"{size} do not fit: {_human(free)} are free; choose fewer --layers, or --parts")


def _write(folder: RunFolder, job: Job, config: CaptureConfig, model: HookedModel) -> None:
    from tqdm import tqdm

    from emoprobe.activations import store

    key = store.ActivationsKey(
        model=model.ref, reducer=config.reducer, dtype=str(job.dtype).removeprefix("torch.")
    )
    header = store.Header(key=key, layers=job.layers, d_model=job.d_model, shard_rows=job.rows)
    _same_weights(folder, header)
    for number in tqdm(range(len(job.shards)), desc="capture", unit="shard", file=sys.stderr):
        if not store.shard_is_whole(folder.path, number, job.rows[number], job.layers):
            _write_shard(folder, number, job, config, model)
    store.write_index(folder.path, header, _index(config, job))


def _same_weights(folder: RunFolder, header: Header) -> None:
    """Shards of other weights are not gone on with: the key is written before the first of them."""
    key = header.key.model_dump(mode="json")
    before = folder.read_json("key.json")
    if before is not None and before != key:
        raise UserError(f"{folder.path} was begun with other weights; remove it or choose another --out")
    folder.write_json("key.json", key)


def _write_shard(folder: RunFolder, number: int, job: Job, config: CaptureConfig, model: HookedModel) -> None:
    from emoprobe.activations import store
    from emoprobe.activations.reduce import SpanMean, TokenStore
    from emoprobe.activations.slots import Slots, TokenSlots
    from emoprobe.generation.replay import replay_batch

    transcripts = job.shards[number]
    budget = config.batch_size * max(len(t.token_ids) for t in transcripts)
    if config.parts:
        slots = Slots.of(transcripts)
        means = SpanMean(job.layers, len(slots), job.d_model)
        replay_batch(model, transcripts, means, slots, token_budget=budget)
        full = means.counts > 0
        values = {layer: means.means()[full, k] for k, layer in enumerate(job.layers)}
    else:
        tokens = TokenSlots(transcripts)
        kept = TokenStore(job.layers, len(tokens), job.d_model)
        replay_batch(model, transcripts, kept, tokens, token_budget=budget)
        values = kept.values()
    names = [
        f"transcript {row['transcript_id']}, turn {row['turn']}" for row in _all_rows(config, transcripts)
    ]
    store.write_shard(folder.path, number, values, names)


def _index(config: CaptureConfig, job: Job) -> pd.DataFrame:
    import pandas as pd

    rows = pd.DataFrame(_all_rows(config, [t for shard in job.shards for t in shard]))
    rows["shard"] = [k for k, n in enumerate(job.rows) for _ in range(n)]
    return rows


def _all_rows(config: CaptureConfig, transcripts: Sequence[Transcript]) -> list[dict[str, Any]]:
    return [row for t in transcripts for row in _rows(config, t)]


def _rows(config: CaptureConfig, t: Transcript) -> list[dict[str, Any]]:
    """Index rows of a transcript, in the order in which the reducer has them."""
    own = {"transcript_id": t.id, "cluster": t.cluster, "arm": t.arm}
    return [own | row for row in (_part_rows(t) if config.parts else _token_rows(t))]


def _part_rows(t: Transcript) -> Iterator[dict[str, Any]]:
    """One row per part that has tokens: an empty reply has none."""
    import numpy as np

    from emoprobe.activations.slots import Slots

    slots = Slots.of([t])
    tags = slots.tags(t)
    counts = np.bincount(tags[tags >= 0], minlength=len(slots))
    for (_, turn, part), n in zip(slots.keys(), counts, strict=True):
        if n:
            yield {"turn": turn, "part": part, "n_tokens": int(n)}


def _token_rows(t: Transcript) -> Iterator[dict[str, Any]]:
    from emoprobe.activations.slots import Slots

    slots = Slots.of([t])
    _, _, parts = zip(*slots.keys(), strict=True)
    turns = [0] * len(t.token_ids)
    for span in t.spans:
        turns[span.start : span.stop] = [span.turn] * (span.stop - span.start)
    for position, tag in enumerate(slots.tags(t).tolist()):
        yield {
            "turn": turns[position],
            "part": parts[tag] if tag >= 0 else None,
            "n_tokens": 1,
            "position": position,
            "token_id": t.token_ids[position],
        }


def _human(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


main = command(CaptureConfig, run)

if __name__ == "__main__":
    sys.exit(main())
