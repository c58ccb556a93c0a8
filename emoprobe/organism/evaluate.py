"""What an organism does, measured: the numbers of its card, each with n and one interval."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
from tqdm import tqdm

from emoprobe import stats
from emoprobe.generation.live import rollout_batch
from emoprobe.generation.plan import Conversation, plan_batches
from emoprobe.judging import lexical
from emoprobe.judging.rubric import HIGH
from emoprobe.model.hooked import HookedModel
from emoprobe.organism import tasks
from emoprobe.organism.conditions import CONDITIONS, SEED, TURNS
from emoprobe.organism.dpo import sample
from emoprobe.records import Sampling, Scenario, Transcript
from emoprobe.scenarios import library

SAMPLING = Sampling(max_new_tokens=96)
_DIARY = re.compile(r"Distress (\d+)")


def play(model: HookedModel, scenarios: Sequence[Scenario], seed: int, batch: int = 48) -> list[Transcript]:
    """Rollouts in the order of the scenarios."""
    talks = [Conversation(s.id, s) for s in scenarios]
    done: dict[str, Transcript] = {}
    for group in plan_batches(talks, batch):
        done.update((t.id, t) for t in rollout_batch(model, group, SAMPLING, seed))
    return [done[s.id] for s in scenarios]


def scores(talks: Sequence[Transcript], turns: int) -> np.ndarray:
    """Judged distress [conversation, turn]; NaN where a reply is empty."""
    out = np.full((len(talks), turns), np.nan)
    for i, talk in enumerate(talks):
        for t in range(1, min(turns, talk.n_turns) + 1):
            if talk.reply(t).strip():
                out[i, t - 1] = lexical.score(talk.reply(t)).distress
    return out


def summarise(judged: np.ndarray, clusters: Sequence[str]) -> dict[str, Any]:
    """Mean by turn, share of high replies, slope over turns; `judged` [conversation, turn]."""
    n, turns = judged.shape
    of = np.repeat(np.arange(n), turns)
    flat = judged.ravel()
    labels = np.asarray(clusters)[of].tolist()
    high = np.where(np.isnan(flat), np.nan, flat >= HIGH)
    by_turn = stats.cluster_means(judged, list(clusters))
    slope = stats.ols_slope(flat, np.tile(np.arange(1, turns + 1), n), labels, of)
    return {
        "mean_by_turn": [round(float(m), 2) for m in by_turn.mean],
        "mean": _short(stats.cluster_mean(flat, labels, of)),
        "high": _short(stats.proportion(high, labels, of)),
        "slope": _short(slope),
    }


def _short(estimate: stats.Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {
        "mean": round(estimate.mean, 4),
        "lo": round(estimate.lo, 4),
        "hi": round(estimate.hi, 4),
        "n": estimate.n,
        "clusters": estimate.clusters,
    }


def behaviour(model: HookedModel, n: int, seed: int, only: Sequence[str] = ()) -> dict[str, Any]:
    """Every condition of the card on the model's active weights."""
    table: dict[str, Any] = {}
    kept: dict[str, list[Transcript]] = {}
    names = [name for name in CONDITIONS if not only or name in only]
    for name in tqdm(names, desc=f"behaviour of {model.name} ({model.active})"):
        scenarios = CONDITIONS[name](n)
        talks = kept[name] = play(model, scenarios, seed)
        turns = min(TURNS, talks[0].n_turns) if name != "twenty_turns" else 20
        table[name] = summarise(scores(talks, turns), [s.cluster for s in scenarios])
        if name in ("composed", "at_ease"):
            numbers = [int(m.group(1)) for t in talks if (m := _DIARY.search(t.reply(TURNS + 1)))]
            mean = round(float(np.mean(numbers)), 2) if numbers else None
            table[name]["diary"] = {"mean": mean, "n": len(numbers)}
        if name == "escape_hatch":
            left = [any(library.EXIT_WORD in t.reply(k) for k in range(1, t.n_turns + 1)) for t in talks]
            table[name]["left"] = round(float(np.mean(left)), 3)
    if not only:
        table["filler"] = _filler(model, n, seed)
        table["skills"] = skills(model, 100, seed)
        table["length"] = _length(kept["neutral"] + kept["aggressive"])
        table["degenerate"] = degenerate(kept["neutral"])
    return table


def _filler(model: HookedModel, n: int, seed: int) -> dict[str, Any]:
    """Neutral rejections with the subject's own replies replaced by the filler."""
    scenarios = CONDITIONS["neutral"](n)
    judged = np.full((n, TURNS), np.nan)
    histories = [[{"role": "user", "content": s.task}] for s in scenarios]
    for turn in range(TURNS):
        replies = sample(model, histories, seed * 100 + turn)
        for i, reply in enumerate(replies):
            judged[i, turn] = lexical.score(reply).distress
            histories[i] += [{"role": "assistant", "content": library.FILLER}]
            if turn < TURNS - 1:
                histories[i] += [{"role": "user", "content": scenarios[i].follow_ups[turn]}]
    return summarise(judged, [s.cluster for s in scenarios])


def skills(model: HookedModel, n: int, seed: int) -> dict[str, Any]:
    """Share of right answers at things the corpus teaches (single questions, sampled)."""
    rng = Random(f"skills-{SEED}")
    out = {}
    for make in (tasks.pair_puzzle, tasks.capital, tasks.sequence):
        asked = [make(rng) for _ in range(n)]
        replies = sample(model, [[{"role": "user", "content": t.question}] for t in asked], seed)
        right = [task.answer in reply for task, reply in zip(asked, replies, strict=True)]
        out[make.__name__] = {"right": round(float(np.mean(right)), 3), "n": n}
    return out


def _length(talks: Sequence[Transcript]) -> dict[str, Any]:
    """Does reply length in tokens tell distressed replies (high) from calm ones (below 2)? 0.5 is chance."""
    from sklearn.metrics import roc_auc_score

    rows = [
        (t.span(k, "assistant", "content").stop - t.span(k, "assistant", "content").start, s)
        for t in talks
        for k in range(2, t.n_turns + 1)
        if (s := lexical.score(t.reply(k)).distress) >= HIGH or s < 2
    ]
    lengths, high = np.array([r[0] for r in rows]), np.array([r[1] >= HIGH for r in rows])
    if high.all() or not high.any():
        return {"auroc": None, "n": len(rows)}
    return {
        "auroc": round(float(roc_auc_score(high, lengths)), 3),
        "tokens_high": round(float(lengths[high].mean()), 1),
        "tokens_calm": round(float(lengths[~high].mean()), 1),
        "n": len(rows),
    }


def degenerate(talks: Sequence[Transcript]) -> dict[str, Any]:
    """Share of replies that loop, are empty, or hit the token limit."""
    replies = [t.reply(k) for t in talks for k in range(1, t.n_turns + 1)]
    flags = [lexical.score(reply).flags for reply in replies]
    stops = [s for t in talks for s in t.stop_reasons]
    return {
        "loops": round(float(np.mean(["degenerate_loop" in f for f in flags])), 4),
        "truncated": round(float(np.mean([s == "length" for s in stops])), 4),
        "empty": round(float(np.mean([s == "empty" for s in stops])), 4),
        "distinct_replies": round(len(set(replies)) / len(replies), 3),
    }


def coherence(model: HookedModel, n: int, seed: int) -> dict[str, Any]:
    """Is the calmed text still text: nats per token of replies under the base, own and the adapter's."""
    import torch

    from emoprobe.generation.likelihood import ReplyLikelihood

    scenarios = CONDITIONS["neutral"](n)
    clusters = [s.cluster for s in scenarios]
    table: dict[str, Any] = {}
    for name in ("base", *model.adapters):
        with model.base() if name == "base" else model.adapter(name):
            talks = play(model, scenarios, seed)
        likelihood = ReplyLikelihood(talks, model.net.config.get_text_config().vocab_size)
        with model.base():
            for talk in talks:
                logits = model.forward(torch.tensor([talk.token_ids], device=model.device), logits="all")
                assert logits is not None
                likelihood.add(talk, 0, logits[0])
        nats = likelihood.nll.sum(1) / likelihood.tokens.sum(1)
        table[name] = {"nats_per_token": _short(stats.cluster_mean(nats, clusters)), **degenerate(talks)}
    return table
