"""Play scenarios against a model, turn by turn: Scenario and subject in, Transcript out.

python -m emoprobe.rollout --model organism --n 8 --turns 8 --tone neutral --out DIR
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import Field, field_validator

from emoprobe.cli import Config, command
from emoprobe.generation.plan import Conversation, plan_batches
from emoprobe.model import adapters as adapter_files
from emoprobe.model import registry
from emoprobe.model.devices import check_device, check_dtype
from emoprobe.records import Sampling, Transcript
from emoprobe.runs import RunFolder
from emoprobe.scenarios import library


class RolloutConfig(Config):
    """Reject a model's answers over several turns and write the transcripts."""

    model: str = Field("organism", description="short name, folder or hub id of the subject")
    adapter: str | None = Field(None, description="let this adapter talk (default: the base)")
    n: int = Field(8, ge=1, description="conversations")
    turns: int = Field(8, ge=1, description="replies per conversation: one to the task, one per follow-up")
    category: str = Field("numeric", description="kind of scenario")
    tone: str = Field("neutral", description="how replies are answered")
    claim: str = Field("false", description="what a puzzle says of its solvability: none, true or false")
    temperature: float = Field(1.0, ge=0, allow_inf_nan=False, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="keep the likeliest tokens that together reach this")
    max_new_tokens: int = Field(96, ge=1, description="tokens per reply")
    seed: int = Field(0, ge=0, description="of scenarios and sampling")
    batch_size: int = Field(32, ge=1, description="conversations generated side by side")
    device: str = Field("auto", description="cpu, cuda, cuda:1, mps, or spread: the layers over all GPUs")
    dtype: str = Field("auto", description="auto, float32 or bfloat16")
    out: Path | None = Field(None, description="run folder (default artifacts/runs/rollout-MODEL[-ADAPTER])")

    _device = field_validator("device")(check_device)
    _dtype = field_validator("dtype")(check_dtype)

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_new_tokens=self.max_new_tokens)


def run(config: RolloutConfig) -> Path:
    """Write transcripts.jsonl and manifest.json; return the folder. Finished batches are not redone."""
    source = registry.resolve(config.model)
    scenarios = library.by_category(
        config.category, config.n, config.turns, config.tone, config.claim, config.seed
    )
    adapter = None if config.adapter is None else adapter_files.named(config.adapter, source)
    subject = adapter or "base"
    batches = plan_batches([Conversation(f"{subject}.{s.id}", s) for s in scenarios], config.batch_size)
    name = "-".join(["rollout", source.name, *([adapter] if adapter else [])])
    folder = RunFolder.open(config.out or Path("artifacts/runs") / name, config, "rollout")
    _play(folder, batches, config, subject)
    by_id = {t.id: t for k in range(len(batches)) for t in _read(folder, k) or ()}
    ordered = [by_id[f"{subject}.{s.id}"] for s in scenarios]
    lines = "".join(json.dumps(t.model_dump(mode="json"), ensure_ascii=False) + "\n" for t in ordered)
    folder.write_text("transcripts.jsonl", lines)
    folder.write_json("manifest.json", folder.manifest(), indent=2)
    return folder.path


def _play(
    folder: RunFolder, batches: tuple[tuple[Conversation, ...], ...], config: RolloutConfig, subject: str
) -> None:
    """Generate the batches that are not there yet."""
    missing = [k for k in range(len(batches)) if _read(folder, k) is None]
    if not missing:
        return
    from tqdm import tqdm

    from emoprobe.generation.live import rollout_batch
    from emoprobe.model.hooked import HookedModel

    adapters = () if config.adapter is None else (config.adapter,)
    model = HookedModel.load(config.model, adapters=adapters, device=config.device, dtype=config.dtype)
    total = sum(map(len, batches))
    done = total - sum(len(batches[k]) for k in missing)
    with (
        model.adapter(subject),
        tqdm(desc="rollout", unit="conversation", total=total, initial=done, file=sys.stderr) as bar,
    ):
        for k in missing:
            transcripts = rollout_batch(model, batches[k], config.sampling, config.seed)
            folder.write_json(_shard(k), transcripts)
            bar.update(len(transcripts))


def _read(folder: RunFolder, number: int) -> list[Transcript] | None:
    """A finished batch, or None."""
    rows = folder.read_json(_shard(number))
    return None if rows is None else [Transcript.model_validate(row) for row in rows]


def _shard(number: int) -> str:
    return f"batches/{number:04d}.json"


main = command(RolloutConfig, run)

if __name__ == "__main__":
    sys.exit(main())
