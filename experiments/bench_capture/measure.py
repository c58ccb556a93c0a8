"""Interleaved timing, ratios with intervals, and peak bytes with every transient in them."""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from emoprobe import runs, stats

Job = Callable[[], object]
Prepare = Callable[[], Job]
"""Sets up what is not to be timed and gives what is."""

READOUT = "bench:readout"
"""Name of the `record_function` ranges in which a contestant reads."""

N_BOOT = 10_000


@dataclass(frozen=True)
class Ratio:
    """Median over rounds of one contestant's time over another's in the same round, 95 % interval."""

    median: float
    lo: float
    hi: float
    rounds: int


@dataclass(frozen=True)
class Times:
    """Seconds per round: `wall`, and `cpu`, the time that this process had a core."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]


@dataclass(frozen=True)
class Peak:
    """Most bytes that a call held at once, beyond what was there before.

    `readout` counts only what was allocated while reading (in ranges named `READOUT`), kept or passing;
    None where it is not known (CUDA).
    """

    total: int
    readout: int | None


def ready(job: Job) -> Prepare:
    """A job that needs no setting up."""
    return lambda: job


def race(
    contestants: Mapping[str, Prepare], rounds: int, seed: int, device: torch.device
) -> dict[str, Times]:
    """Time all contestants in each round, in an order that is drawn anew; a first round does not count."""
    order = list(contestants)
    rng = random.Random(seed)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in order}
    for k in range(rounds + 1):
        rng.shuffle(order)
        for name in order:
            job = contestants[name]()
            _wait(device)
            wall, cpu = time.perf_counter(), time.process_time()
            job()
            _wait(device)
            if k:
                seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: Times(*map(tuple, zip(*pairs, strict=True))) for name, pairs in seconds.items()}


def ratio(times: tuple[float, ...], plain: tuple[float, ...], seed: int = 0) -> Ratio:
    """Paired by round; the interval is from a bootstrap over rounds (expanded percentiles, as in `stats`)."""
    each = np.array(times) / np.array(plain)
    n = len(each)
    draws = np.random.default_rng(seed).integers(n, size=(N_BOOT, n))
    median = np.median(each)
    lo, hi = stats.percentile_interval(median[None], np.median(each[draws], axis=1)[None], np.array([n]))
    return Ratio(float(median), float(lo[0]), float(hi[0]), n)


def ratios(times: Mapping[str, Times], plain: str) -> dict[str, dict[str, Any]]:
    """Per contestant: its median seconds, and wall and CPU ratio to `plain`."""
    base = times[plain]
    return {
        name: {
            "median_s": float(np.median(t.wall)),
            "wall_ratio": asdict(ratio(t.wall, base.wall)),
            "cpu_ratio": asdict(ratio(t.cpu, base.cpu)),
            "wall_s": [round(s, 5) for s in t.wall],
        }
        for name, t in times.items()
    }


def peak(prepare: Prepare, device: torch.device) -> Peak:
    """Peak bytes of a call, measured on its second run.

    On a CPU each request to torch's allocator and each release is taken from the profiler, so temporaries
    inside operators count too; on CUDA it is the allocator's own high-water mark.
    """
    prepare()()
    job = prepare()
    if device.type == "cuda":
        _wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        job()
        _wait(device)
        return Peak(torch.cuda.max_memory_allocated(device) - before, None)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        job()
    return _peak_of(profiled.profiler.kineto_results.events())


def _peak_of(events: Any) -> Peak:
    """Running sums of allocations and releases, of all and of those within the reading ranges."""
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    ranges = sorted((e.start_ns(), e.end_ns()) for e in events if e.name() == READOUT)
    starts = np.array([start for start, _ in ranges])
    total = reading = most = most_reading = 0
    for at, size in changes:
        total += size
        most = max(most, total)
        k = int(np.searchsorted(starts, at, side="right")) - 1
        if k >= 0 and at <= ranges[k][1]:
            reading += size
            most_reading = max(most_reading, reading)
    return Peak(most, most_reading if ranges else None)


def machine(device: torch.device) -> dict[str, Any]:
    """What a timing depends on; no host names, no paths."""
    versions = runs.package_versions()
    found: dict[str, Any] = {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": versions.get("transformers"),
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    else:
        found["load_average"] = _load()
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(named)} x {named[0]}" if named else platform.machine()


def _load() -> float | None:
    """Runnable processes over the last minute: more than there are cores means that timings are noisy."""
    file = Path("/proc/loadavg")
    return float(file.read_text("utf-8").split()[0]) if file.is_file() else None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
