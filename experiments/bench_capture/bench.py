"""What reading costs, and what carrying the cache saves: ratios measured side by side in one process.

python experiments/bench_capture/bench.py --size 100m --rounds 15 --threads 1
"""

from __future__ import annotations

import datetime
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from emoprobe.cli import Config, command
from emoprobe.errors import UserError
from emoprobe.model import registry
from emoprobe.model.devices import check_device, check_dtype

HERE = Path(__file__).resolve().parent

Part = Literal["forward", "decode", "rollouts"]


class BenchConfig(Config):
    """Time readouts against a plain forward pass, and rollouts against a prefill at every turn."""

    size: Literal["tiny", "100m", "27b"] = Field("100m", description="random Gemma 3 to be read")
    parts: tuple[Part, ...] = Field(("forward", "decode", "rollouts"), description="what is measured")
    rollout_model: str | None = Field(
        None,
        description="model that rolls out: `same` (the random one) or a name (default: the shipped organism "
        "for 100m, or its shape with random weights where it is not there, and `same` for other sizes)",
    )
    rounds: int = Field(15, ge=2, description="of all contestants in an order drawn anew")
    threads: int | None = Field(None, ge=1, description="of torch (default: as torch chooses)")
    seed: int = Field(0, ge=0, description="of weights, ids, sampling and order")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    dtype: str = Field("auto", description="auto, float32 or bfloat16")
    out: Path | None = Field(
        None, description="JSON file (default results/SIZE-DEVICE-DTYPE.json beside this)"
    )

    _device = field_validator("device")(check_device)
    _dtype = field_validator("dtype")(check_dtype)


def run(config: BenchConfig) -> Path:
    """Measure, write the JSON file, print the rows for the README."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler tells of each start and stop otherwise
    import measure
    import random_models
    import torch
    from forward import bench_decode, bench_forward
    from rollouts import bench_rollouts

    from emoprobe.model.devices import pick_device, pick_dtype

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    load = random_models.LOADS[config.size]
    result: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["python", "experiments/bench_capture/bench.py", *_flags(config)]),
        "machine": measure.machine(device),
        "dtype": str(dtype).removeprefix("torch."),
    }
    model = random_models.build(config.size, device, dtype, config.seed)
    result["model"] = {
        "size": config.size,
        "parameters": random_models.n_parameters(model),
        "layers": model.n_layers,
        "d_model": model.d_model,
    }
    if device.type == "cuda":
        result["model"]["allocated_bytes"] = torch.cuda.memory_allocated(device)
    arguments = (load, config.rounds, config.seed)
    if "forward" in config.parts:
        result["forward"] = bench_forward(model, *arguments)
    if "decode" in config.parts:
        result["decode"] = bench_decode(model, *arguments)
    if "rollouts" in config.parts:
        result["rollouts"] = bench_rollouts(_rollout_model(config, model), *arguments)
    if device.type == "cuda":
        result["model"]["peak_bytes"] = torch.cuda.max_memory_allocated(device)
    out = config.out or HERE / "results" / f"{config.size}-{device.type}-{result['dtype']}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print("\n".join(table(result)))
    return out


def table(result: dict[str, Any]) -> list[str]:
    """Rows of a Markdown table, one per contestant."""
    rows = ["| part | contestant | wall ratio | CPU-time ratio | tokens/s |", "|---|---|---|---|---|"]
    for part in ("forward", "decode", "rollouts"):
        for name, entry in result.get(part, {}).get("contestants", {}).items():
            speed = entry.get("tokens_per_s", entry.get("reply_tokens_per_s"))
            cells = [part, name, _shown(entry["wall_ratio"]), _shown(entry["cpu_ratio"]), f"{speed:.0f}"]
            rows.append(f"| {' | '.join(cells)} |")
    if "forward" in result:
        part = result["forward"]
        rows += ["", f"peak extra bytes: {part['peak_extra_bytes']}, readout alone: {part['readout_bytes']}"]
        rows.append(f"ours / hidden_states: 1/{1 / part['extra_ratio']:.0f}")
    if "rollouts" in result:
        rows.append(f"positions: {result['rollouts']['counts']}")
    return rows


def _rollout_model(config: BenchConfig, model: Any) -> Any:
    """The model that talks: what was asked for, else the organism for 100m, else the random one."""
    import random_models

    from emoprobe.model.hooked import HookedModel

    wanted = config.rollout_model or ("organism" if config.size == "100m" else "same")
    if wanted == "same":
        return model
    try:
        registry.resolve(wanted)
    except UserError:
        if config.rollout_model is not None:
            raise
        return random_models.build("organism", model.device, model.dtype, config.seed)
    return HookedModel.load(wanted, device=str(model.device), dtype=str(model.dtype).removeprefix("torch."))


def _flags(config: BenchConfig) -> list[str]:
    """The flags that were given, where files went excepted."""
    given = config.model_dump(exclude_unset=True, exclude={"out"})
    flags: list[str] = []
    for name, value in given.items():
        values = value if isinstance(value, tuple) else (value,)
        flags += [f"--{name.replace('_', '-')}", *map(str, values)]
    return flags


def _shown(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.3f} [{ratio['lo']:.3f}, {ratio['hi']:.3f}]"


main = command(BenchConfig, run)

if __name__ == "__main__":
    sys.exit(main())
