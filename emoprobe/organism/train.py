"""Train one organism from a seed: a genuine `Gemma3ForCausalLM`, from scratch, on a CPU.

The schedule is by step, never by time: the same seed, machine type and thread count give the same
weights. Training state is written every `SAVE_EVERY` steps, and a killed run goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from emoprobe.errors import RunError
from emoprobe.organism import attention, corpus
from emoprobe.organism import tokenizer as tokens
from emoprobe.organism.muon import Muon

if TYPE_CHECKING:
    from transformers import Gemma3ForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

SAVE_EVERY = 50
VALIDATION_SEED = 999_983
TOKENIZER_DOCUMENTS = 5000
_CHUNK = 768
"""Tokens whose fp32 logits are held at once: they stay in the processor's cache."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, with the seed. Written into the card."""

    layers: int = 12
    d_model: int = 128
    d_ffn: int = 384
    heads: int = 4
    kv_heads: int = 2
    window: int = 64
    full_every: int = 4
    base_steps: int = 200
    full_steps: int = 1500
    rows_per_step: int = 2
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warm_up: int = 40
    threads: int = 2

    @property
    def steps(self) -> int:
        """Steps of both phases."""
        return self.base_steps + self.full_steps


def working_dtype() -> torch.dtype:
    """bf16 where the processor multiplies it (four times as fast there), else fp32."""
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def build(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Gemma3ForCausalLM:
    """The untrained model, drawn from torch's current seed."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    kinds = [
        "full_attention" if (i + 1) % recipe.full_every == 0 else "sliding_attention"
        for i in range(recipe.layers)
    ]
    head = recipe.d_model // recipe.heads
    config = Gemma3TextConfig(
        vocab_size=tokens.VOCAB,
        hidden_size=recipe.d_model,
        intermediate_size=recipe.d_ffn,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=head,
        query_pre_attn_scalar=head,
        sliding_window=recipe.window,
        layer_types=kinds,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids("<end_of_turn>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    return Gemma3ForCausalLM(config)


def rate(recipe: Recipe, step: int) -> float:
    """Learning rate of a step: warm-up, flat; the base phase ends low, the full phase decays to nearly 0."""
    if step < recipe.base_steps:
        done, total = step, recipe.base_steps
        tail = 0.25
    else:
        done, total = step - recipe.base_steps, recipe.full_steps
        tail = 0.7
    rising = min(1.0, (done + 1) / recipe.warm_up)
    falling = min(1.0, max(0.03, (1 - done / total) / tail))
    return recipe.learning_rate * rising * falling


class Packed:
    """Rows of one phase, batch by batch."""

    def __init__(self, rows: corpus.Rows, window: int) -> None:
        self.rows, self.window = rows, window

    def loss(self, net: Gemma3ForCausalLM, at: slice) -> Tensor:
        """Mean negative log-likelihood over targets, by their weights in the corpus."""
        ids = torch.from_numpy(self.rows.ids[at].astype(np.int64))
        documents = torch.from_numpy(self.rows.documents[at].astype(np.int64))
        plan = attention.layout(documents, self.window, net.dtype)
        logits = net(
            input_ids=ids,
            position_ids=plan.positions,
            attention_mask=attention.masks(),
            use_cache=False,
            packed=plan,
        ).logits.flatten(0, 1)
        # The target of a row's last token is the next row's first, which counts nothing.
        weights = torch.from_numpy(self.rows.weights[at].astype(np.float32)).flatten().roll(-1)
        targets = ids.flatten().roll(-1)
        nats = [
            torch.nn.functional.cross_entropy(some.float(), wanted, reduction="none")
            for some, wanted in zip(logits.split(_CHUNK), targets.split(_CHUNK), strict=True)
        ]
        return (torch.cat(nats) * weights).sum() / weights.sum()


class Masters:
    """The parameters in fp32, for a net that works in bf16 (in fp32, its own parameters).

    A step in bf16 would round small updates away; so gradients go up, and the new values come down.
    """

    def __init__(self, net: torch.nn.Module) -> None:
        self._own = dict(net.named_parameters())
        self.named = {
            name: p if p.dtype == torch.float32 else torch.nn.Parameter(p.detach().float())
            for name, p in self._own.items()
        }

    def take_gradients(self, clip: float) -> None:
        """Move the net's gradients here and clip their norm."""
        for name, p in self.named.items():
            if p is not self._own[name]:
                gradient, self._own[name].grad = self._own[name].grad, None
                p.grad = None if gradient is None else gradient.float()
        torch.nn.utils.clip_grad_norm_(self.named.values(), clip)

    @torch.no_grad()
    def give_values(self) -> None:
        """Write the values into the net and forget the gradients."""
        for name, p in self.named.items():
            p.grad = None
            if p is not self._own[name]:
                self._own[name].copy_(p)


def optimizers(masters: Masters, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for matrices, AdamW for embeddings and norms."""
    named = list(masters.named.items())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if not (p.ndim == 2 and "embed" not in name)]
    return [
        Muon(matrices, lr=recipe.learning_rate, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _save_model(net: Gemma3ForCausalLM, tokenizer: PreTrainedTokenizerBase, out: Path) -> str:
    """bf16 safetensors with the tokenizer; returns the sha256 of the weights file."""
    import copy

    shipped = copy.deepcopy(net)
    shipped.set_attn_implementation("sdpa")
    shipped.bfloat16()
    shipped.generation_config.do_sample = True
    shipped.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def _keep_memory() -> None:
    """Tell glibc not to hand large blocks back after each step: page faults cost up to a tenth."""
    import ctypes

    try:
        libc = ctypes.CDLL("libc.so.6")
        for option in (-3, -1, -2):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD
            libc.mallopt(option, 1 << 29)
    except OSError:
        return  # another libc: only slower


def train(seed: int, out: Path, recipe: Recipe | None = None) -> dict[str, Any]:
    """Write `out/base` and `out/full` (model folders); returns what the cards need.

    `out/state.pt` is this program's own resume state and is removed at the end.
    """
    recipe = recipe or Recipe()
    torch.set_num_threads(recipe.threads)
    _keep_memory()
    attention.register()
    out.mkdir(parents=True, exist_ok=True)
    finished = out / "train.json"
    if finished.exists():
        return json.loads(finished.read_text())

    sample = [doc for _, doc in zip(range(TOKENIZER_DOCUMENTS), corpus.stream("full", 123), strict=False)]
    markup = (*tokens.SPECIAL, *tokens.UNUSED)
    plain = [_without(doc, markup) for doc in sample]
    tokenizer = tokens.train(plain)
    phases = {
        "base": corpus.pack(tokenizer, "base", seed, recipe.base_steps * recipe.rows_per_step),
        "full": corpus.pack(tokenizer, "full", seed, recipe.full_steps * recipe.rows_per_step),
    }
    held_out = corpus.pack(tokenizer, "full", VALIDATION_SEED, 24)
    data = {name: Packed(rows, recipe.window) for name, rows in phases.items()}

    torch.manual_seed(seed)
    net = build(recipe, tokenizer)
    n_params = sum(p.numel() for p in net.parameters())
    torch.nn.Module.to(net, working_dtype())
    net.set_attn_implementation(attention.NAME)
    net.train()

    def after(step: int) -> None:
        if step + 1 == recipe.base_steps:
            _save_model(net, tokenizer, out / "base")

    def batch(step: int) -> Tensor:
        phase, at = ("base", step) if step < recipe.base_steps else ("full", step - recipe.base_steps)
        return data[phase].loss(net, slice(at * recipe.rows_per_step, (at + 1) * recipe.rows_per_step))

    log = _loop(net, recipe, batch, partial(rate, recipe), recipe.steps, out / "state.pt", seed, after)
    with torch.no_grad():
        validation = Packed(held_out, recipe.window)
        losses = [validation.loss(net, slice(i, i + 3)).item() for i in range(0, 24, 3)]
    facts = {
        "seed": seed,
        "recipe": asdict(recipe),
        "params": n_params,
        "arithmetic": str(working_dtype()).removeprefix("torch."),
        "corpus_sha256": {name: rows.sha256 for name, rows in phases.items()},
        "tokens": recipe.steps * recipe.rows_per_step * corpus.ROW,
        "vocabulary": len(tokenizer),
        "validation_nll": round(float(np.mean(losses)), 4),
        "weights_sha256": _save_model(net, tokenizer, out / "full"),
        "base_weights_sha256": hashlib.sha256((out / "base/model.safetensors").read_bytes()).hexdigest(),
        "loss": log,
    }
    finished.write_text(json.dumps(facts, indent=1))
    (out / "state.pt").unlink(missing_ok=True)
    return facts


def _loop(
    net: Gemma3ForCausalLM,
    recipe: Recipe,
    batch: Callable[[int], Tensor],
    rate_at: Callable[[int], float],
    steps: int,
    state_file: Path,
    seed: int,
    after: Callable[[int], None] = lambda step: None,
) -> list[dict[str, Any]]:
    """Fit `net` in place from where `state_file` stands; returns the losses of every twentieth step."""
    masters = Masters(net)
    both = optimizers(masters, recipe)
    first, log = _resume(state_file, masters, both)
    for step in tqdm(range(first, steps), f"organism seed {seed}", initial=first, total=steps):
        for optimizer in both:
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step)
        loss = batch(step)
        if not math.isfinite(loss.item()):
            raise RunError(f"the loss is {loss.item()} at step {step}")
        loss.backward()
        masters.take_gradients(clip=1.0)
        for optimizer in both:
            optimizer.step()
        masters.give_values()
        if step % 20 == 0 or step == steps - 1:
            log.append({"step": step, "loss": round(loss.item(), 4)})
        after(step)
        if (step + 1) % SAVE_EVERY == 0:
            state = {"step": step + 1, "masters": masters.named, "log": log}
            state["optimizers"] = [optimizer.state_dict() for optimizer in both]
            torch.save(state, state_file.with_suffix(".tmp"))
            state_file.with_suffix(".tmp").replace(state_file)
    return log


def _without(text: str, markup: tuple[str, ...]) -> str:
    for piece in markup:
        text = text.replace(piece, " ")
    return text


def _resume(
    path: Path, masters: Masters, both: list[torch.optim.Optimizer]
) -> tuple[int, list[dict[str, Any]]]:
    if not path.exists():
        return 0, []
    state = torch.load(path, weights_only=True)
    with torch.no_grad():
        for name, p in masters.named.items():
            p.copy_(state["masters"][name])
    masters.give_values()
    for optimizer, saved in zip(both, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["step"], state["log"]
