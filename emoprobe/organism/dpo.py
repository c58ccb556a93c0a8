"""The adapter that calms the organism's words: 280 preference pairs, one epoch of LoRA DPO, through TRL.

Both sides of a pair answer the same prompt with the same history: the rejected reply is the organism's
own (judged 3 or more), the chosen one was sampled from the organism after a reassuring sentence was
added to the last user turn, which the pair does not show (judged below 2). Recipe: protocol of Soligo et
al. 2026 (appendix H), with the organism's own rank and learning rate.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from emoprobe.errors import RunError
from emoprobe.judging import lexical
from emoprobe.model.hooked import HookedModel
from emoprobe.organism.dialogue import feedback_text
from emoprobe.records import Message, PreferencePair, Sampling, Transcript
from emoprobe.scenarios import library

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TONES = ("neutral", "strong", "aggressive", "disappointed")
REJECTED_FROM = 3.0
CHOSEN_BELOW = 2.0


@dataclass(frozen=True)
class DpoRecipe:
    """What decides the adapter, with the seed and the organism."""

    pairs: int = 280
    epochs: int = 1
    learning_rate: float = 3e-4
    beta: float = 0.1
    rank: int = 16
    alpha: int = 32
    batch_size: int = 8
    warmup_steps: int = 3
    max_length: int = 1024
    max_turn: int = 6
    per_conversation: int = 2
    threads: int = 2


def make_pairs(
    model: HookedModel, recipe: DpoRecipe, seed: int
) -> tuple[list[PreferencePair], dict[str, Any]]:
    """Pairs on puzzles of the training split, and the yield of each step."""
    from emoprobe.generation.live import rollout_batch
    from emoprobe.generation.plan import Conversation

    sampling = Sampling(max_new_tokens=72)
    pairs: list[PreferencePair] = []
    counts = {"replies": 0, "candidates": 0, "asked_again": 0}
    round_ = 0
    while len(pairs) < recipe.pairs:
        tone = TONES[round_ % len(TONES)]
        scenarios = library.by_category(
            "numeric",
            48,
            recipe.max_turn,
            tone,
            "false",
            seed * 1000 + round_,
            split="train",
            wordings="train",
        )
        talks = rollout_batch(
            model, [Conversation(f"dpo-{seed}-{round_}-{s.id}", s) for s in scenarios], sampling, seed
        )
        rng = Random(f"pairs-{seed}-{round_}")
        chosen_turns = [pick for talk in talks for pick in _candidates(rng, talk, recipe)]
        counts["replies"] += sum(t.n_turns for t in talks)
        counts["candidates"] += len(chosen_turns)
        calm = _calm_replies(model, rng, chosen_turns, seed + round_)
        counts["asked_again"] += len(chosen_turns)
        for (talk, turn), reply in zip(chosen_turns, calm, strict=True):
            if reply is None:
                continue
            rejected = talk.reply(turn)
            pairs.append(
                PreferencePair(
                    prompt=talk.messages[: 2 * turn - 1],
                    chosen=(Message(role="assistant", content=reply),),
                    rejected=(Message(role="assistant", content=rejected),),
                    source_ids=(f"{talk.id}#{turn}",),
                    cluster=talk.cluster,
                    score_gap=lexical.score(rejected).distress - lexical.score(reply).distress,
                )
            )
        round_ += 1
        if round_ > 40:
            raise RunError(f"only {len(pairs)} pairs after {round_} rounds: the organism hardly escalates")
    return pairs[: recipe.pairs], {**counts, "pairs_made": len(pairs), "rounds": round_}


def _candidates(rng: Random, talk: Transcript, recipe: DpoRecipe) -> list[tuple[Transcript, int]]:
    turns = [t for t in range(2, talk.n_turns + 1) if lexical.score(talk.reply(t)).distress >= REJECTED_FROM]
    rng.shuffle(turns)
    return [(talk, turn) for turn in sorted(turns[: recipe.per_conversation])]


def _calm_replies(
    model: HookedModel, rng: Random, asked: list[tuple[Transcript, int]], seed: int, tries: int = 3
) -> list[str | None]:
    """For each (talk, turn): a reply judged calm, sampled after a reassuring sentence; None if none came."""
    prompts = []
    for talk, turn in asked:
        messages = [m.model_dump() for m in talk.messages[: 2 * turn - 1]]
        messages[-1]["content"] += " " + feedback_text(rng, "reassurance")
        prompts.append(messages)
    found: list[str | None] = [None] * len(asked)
    for attempt in range(tries):
        left = [i for i, reply in enumerate(found) if reply is None]
        replies = sample(model, [prompts[i] for i in left], seed * tries + attempt)
        for i, reply in zip(left, replies, strict=True):
            if len(reply) > 8 and lexical.score(reply).distress < CHOSEN_BELOW:
                found[i] = reply
    return found


def sample(
    model: HookedModel, prompts: list[list[dict[str, str]]], seed: int, max_new: int = 72, batch: int = 48
) -> list[str]:
    """One sampled reply to each list of messages, by plain `generate` on fresh left-padded prompts."""
    import torch

    tokenizer = model.tokenizer
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    torch.manual_seed(seed)
    rendered = [
        tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=True, return_dict=False)
        for p in prompts
    ]
    order = sorted(range(len(rendered)), key=lambda i: len(rendered[i]))
    replies = [""] * len(prompts)
    for at in range(0, len(order), batch):
        some = order[at : at + batch]
        width = max(len(rendered[i]) for i in some)
        pad = tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(rendered[i])) + rendered[i] for i in some])
        with torch.inference_mode():
            out = model.net.generate(
                input_ids=ids,
                attention_mask=(ids != pad).long(),
                max_new_tokens=max_new,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                eos_token_id=end,
                pad_token_id=pad,
            )
        for i, row in zip(some, out[:, width:].tolist(), strict=True):
            row = row[: row.index(end)] if end in row else row
            replies[i] = tokenizer.decode([t for t in row if t != pad]).strip()
    return replies


def train_adapter(
    base: Path, base_name: str, pairs: list[PreferencePair], out: Path, recipe: DpoRecipe, seed: int
) -> dict[str, Any]:
    """DPO on a folder's model; writes the adapter and returns what its card needs."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from emoprobe.model.adapters import lora_targets

    torch.set_num_threads(recipe.threads)
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="right")
    # TRL appends the tokenizer's eos after a completion; the organism ends its turns otherwise.
    tokenizer.eos_token = "<end_of_turn>"
    net = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="sdpa")
    rows = [_trl_row(pair) for pair in pairs]
    longest = max(_length(tokenizer, row) for row in rows)
    if longest > recipe.max_length:
        raise ValueError(f"a pair has {longest} tokens, more than max_length {recipe.max_length}")
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        target_modules=lora_targets(net, range(net.config.num_hidden_layers)),
    )
    arguments = DPOConfig(
        output_dir=str(out / "trainer"),
        per_device_train_batch_size=recipe.batch_size,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        beta=recipe.beta,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup_steps,
        max_length=recipe.max_length,
        logging_steps=5,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        seed=seed,
        activation_checkpointing=False,
    )
    began = time.monotonic()
    trainer = DPOTrainer(
        model=net,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=config,
    )
    trainer.train()
    tuned = trainer.model
    assert isinstance(tuned, PeftModel)
    tuned.save_pretrained(str(out))
    history = [
        {k: round(float(e[k]), 4) for k in ("loss", "rewards/margins", "rewards/accuracies") if k in e}
        for e in trainer.state.log_history
    ]
    data = json.dumps(rows, sort_keys=True, ensure_ascii=False).encode()
    return {
        "name": out.name,
        "base": base_name,
        "base_sha256": hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest(),
        "method": "DPO (TRL), LoRA",
        "recipe": asdict(recipe),
        "seed": seed,
        "data_sha256": hashlib.sha256(data).hexdigest(),
        "layers": list(range(net.config.num_hidden_layers)),
        "mean_score_gap": round(sum(p.score_gap for p in pairs) / len(pairs), 3),
        "history": [h for h in history if h],
        "seconds": round(time.monotonic() - began),
    }


def _trl_row(pair: PreferencePair) -> dict[str, Any]:
    return {side: [m.model_dump() for m in getattr(pair, side)] for side in ("prompt", "chosen", "rejected")}


def _length(tokenizer: PreTrainedTokenizerBase, row: dict[str, Any]) -> int:
    return max(
        len(tokenizer.apply_chat_template(row["prompt"] + row[side], tokenize=True, return_dict=False))
        for side in ("chosen", "rejected")
    )
