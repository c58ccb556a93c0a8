"""What a tracked run would take, counted from the model's shape and the scenarios' texts: no weights loaded.

Counts are upper bounds in one respect (every reply runs to its limit) and estimates in another (a token per
`CHARS_PER_TOKEN` characters of text). Times are FLOPs and bytes over a throughput that the user gives or that
two seconds of matrix products measure; without one the time is unknown. They are bounds from below: Python,
kernels' starts and a small batch's idle units come on top.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emoprobe.activations.slots import SPAN_PARTS
from emoprobe.model import shapes
from emoprobe.model.shapes import Shape
from emoprobe.tracking.settings import Settings

if TYPE_CHECKING:
    import torch

CHARS_PER_TOKEN = 3.5
FRAME_TOKENS = 10
"""Tokens of the template around a user's turn and the reply to it."""
REPLAY_ROWS, REPLAY_CHUNK = 8192, 256
"""Tokens that a replay batch holds, and tokens per row and pass (`generation.replay.replay_batch`)."""


@dataclass(frozen=True)
class Work:
    """One phase: tokens forwarded, floating-point operations, bytes read; None where the shape is unknown."""

    tokens: int
    flops: float | None
    bytes: float | None


@dataclass(frozen=True)
class Cost:
    """Everything the dry run prints, as numbers. Bytes are bytes; None is unknown."""

    conversations: int
    longest: int
    generation: Work
    replay: Work
    weights: int | None
    cache: int | None
    logits: int | None
    readouts: int
    residual_tokens: int
    residual_parts: int

    @property
    def memory(self) -> int | None:
        """Weights, one batch's full-length cache and its logits."""
        known = (self.weights, self.cache, self.logits)
        return None if None in known else sum(k for k in known if k is not None)

    def seconds(self, flops: float | None, bandwidth: float | None) -> float | None:
        """At best: each phase at the slower of arithmetic (FLOP/s) and memory (bytes/s); None if unknown."""
        total = 0.0
        for work in (self.generation, self.replay):
            if None in (work.flops, work.bytes, flops, bandwidth):
                return None
            assert work.flops
            assert work.bytes
            assert flops
            assert bandwidth
            total += max(work.flops / flops, work.bytes / bandwidth)
        return total


def count(settings: Settings, shape: Shape, number_bytes: int) -> Cost:
    """Count a run of these settings on a model of this shape, `number_bytes` to a weight."""
    lengths = [_tokens(s.task, s.follow_ups, settings) for arm in settings.scenarios() for s in arm]
    subjects, n_texts = 1 + len(settings.adapters), sum(lengths)
    longest, context = max(lengths), n_texts // len(lengths) // 2
    replies = len(lengths) * settings.turns * settings.max_new_tokens
    params = shapes.params(shape)
    weights = None if params is None else params * number_bytes
    kv = shapes.kv_bytes_per_token(shape, number_bytes)
    with_head = shapes.flops_per_token(shape, context)
    without = shapes.flops_per_token(shape, context, head=False)
    batches = math.ceil(len(lengths) / settings.batch_size)

    def work(tokens: int, scored: int, passes: int, rows: float) -> Work:
        """`scored` of the tokens get logits; each pass reads all weights and `rows` caches."""
        flops = (
            None if with_head is None or without is None else (tokens - scored) * without + scored * with_head
        )
        moved = None if weights is None or kv is None else passes * (weights + rows * context * kv)
        return Work(tokens, flops, moved)

    rows = min(settings.batch_size, len(lengths))
    steps = settings.turns * (settings.max_new_tokens + 1)
    replays = 2 * subjects - 1
    replay_rows = max(1, REPLAY_ROWS // longest)
    replay_passes = math.ceil(len(lengths) / replay_rows) * math.ceil(longest / REPLAY_CHUNK) * replays
    width = len(settings.layers) * shape.d_model * number_bytes
    slots = settings.turns * len(SPAN_PARTS) * len(lengths)
    return Cost(
        conversations=len(lengths) * subjects,
        longest=longest,
        generation=work(n_texts * subjects, replies * subjects, steps * batches * subjects, rows),
        replay=work(n_texts * replays, n_texts * subjects, replay_passes, replay_rows),
        weights=weights,
        cache=None if kv is None else kv * rows * longest,
        logits=None if shape.vocab is None else 4 * shape.vocab * max(rows, REPLAY_CHUNK),
        readouts=(subjects + replays) * slots * len(settings.layers) * (len(settings.emotions) + 1) * 4,
        residual_tokens=n_texts * width,
        residual_parts=slots * width,
    )


def render(
    settings: Settings, shape: Shape | None, tflops: float | None, gbps: float | None, measure: bool
) -> str:
    """The dry run as plain text; `measure` fills in what the user did not give."""
    dtype = _dtype(settings)
    head = (
        f"dry run of {settings.model_name}" + "".join(f" + {name}" for name in settings.adapter_names) + ": "
        f"{settings.n} conversations and their calm twins, {settings.turns} turns, no weights loaded"
    )
    if shape is None:
        return f"{head}\nlayers     {len(settings.layers)} read\nall else   unknown, as the model's shape is"
    cost = count(settings, shape, 4 if dtype == "float32" else 2)
    flops = None if tflops is None else tflops * 1e12
    bandwidth = None if gbps is None else gbps * 1e9
    if measure:
        measured = _measure(settings.device, dtype)
        flops, bandwidth = flops or measured[0], bandwidth or measured[1]
    rows = [
        ("layers", f"{len(settings.layers)} of {shape.n_layers} read, d_model {shape.d_model}, {dtype}"),
        (
            "tokens",
            f"{cost.generation.tokens:,} in {cost.conversations} conversations of at most {cost.longest:,}, "
            f"{cost.replay.tokens:,} replayed; replies counted at their limit of {settings.max_new_tokens}",
        ),
        ("FLOPs", f"{_si(cost.generation.flops)} generating, {_si(cost.replay.flops)} replaying"),
        (
            "bytes read",
            f"{size(cost.generation.bytes)} generating, {size(cost.replay.bytes)} replaying "
            "(weights and cache once per pass)",
        ),
        (
            "memory",
            f"{size(cost.memory)} = weights {size(cost.weights)} + full-length cache of a batch of "
            f"{min(settings.batch_size, 2 * settings.n)} {size(cost.cache)} + logits {size(cost.logits)}",
        ),
        (
            "disk",
            f"readouts {size(cost.readouts)}; residuals, if captured: {size(cost.residual_parts)} by part, "
            f"{size(cost.residual_tokens)} by token (base's conversations)",
        ),
        ("time", _time(cost.seconds(flops, bandwidth), flops, bandwidth)),
    ]
    return "\n".join([head, *(f"{name:<11}{text}" for name, text in rows)])


def size(n: float | None) -> str:
    """`1.2 GB`; `unknown` for None."""
    if n is None:
        return "unknown"
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.0f} TB" if n >= 100 else f"{n:.3g} TB"


def _time(seconds: float | None, flops: float | None, bandwidth: float | None) -> str:
    if seconds is None:
        return "unknown (give --tflops and --gbps, or --measure)"
    minutes = f"{seconds / 60:,.0f} min" if seconds >= 120 else f"{seconds:.2g} s"
    return (
        f"at least {minutes}, at {_si(flops)}FLOP/s and {size(bandwidth)}/s: counted work only, "
        "without Python and idle units"
    )


def _si(n: float | None) -> str:
    if n is None:
        return "unknown "
    power = max(0, min(6, int(math.log10(max(n, 1)) // 3)))
    return f"{n / 1000**power:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}"


def _tokens(task: str, follow_ups: tuple[str, ...], settings: Settings) -> int:
    """Upper bound of a conversation's length in tokens."""
    text = math.ceil(sum(map(len, (task, *follow_ups))) / CHARS_PER_TOKEN)
    return text + settings.turns * (FRAME_TOKENS + settings.max_new_tokens)


def _dtype(settings: Settings) -> str:
    """The number format; `auto` is taken for a GPU's unless the device is a CPU or the model small enough."""
    if settings.dtype != "auto":
        return settings.dtype
    return "float32" if settings.device == "cpu" or settings.model_name.startswith("organism") else "bfloat16"


def _measure(device: str, dtype: str) -> tuple[float, float]:
    """FLOP/s of a square matrix product and bytes/s of a matrix-vector product, one second each."""
    import torch

    from emoprobe.model import devices

    where = devices.pick_device(device)
    number = devices.pick_dtype(dtype, where)
    n = 8192 if where.type == "cuda" else 1024
    square = torch.ones(n, n, dtype=number, device=where)
    wide = torch.ones(8192, 8192, dtype=number, device=where)
    vector = torch.ones(8192, dtype=number, device=where)
    products = _per_second(lambda: square @ square, where)
    reads = _per_second(lambda: wide @ vector, where)
    return products * 2 * n**3, reads * wide.numel() * wide.element_size()


def _per_second(job: Callable[[], object], device: torch.device, seconds: float = 1.0) -> float:
    """How often a job is done per second, after one warm-up."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    job()
    wait()
    start, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        job()
        wait()
        done += 1
    return done / passed
