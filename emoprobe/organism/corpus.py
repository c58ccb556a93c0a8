"""The organism's corpus: an endless, seeded stream of documents, packed into rows of token ids.

Four phases: `base` (stories, skills, calm dialogues), `full` (the same and the dialogues in which
distress follows the latent level), `late` and `last` (more skills, a faster rise: `dialogue.Mixture`).
Nothing here imports a judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from emoprobe import emotions
from emoprobe.organism import dialogue
from emoprobe.organism.wording import fill, phrases
from emoprobe.probing import vignettes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROW = 1536
"""Tokens per row: a 20-turn dialogue over a puzzle fits (documents are cut there)."""

_QUOTED = tuple(dialogue.STYLES)


def story_document(rng: Random) -> str:
    """Some stories; mostly the feeling is named after each, sometimes someone speaks."""
    parts = []
    for _ in range(rng.choice((2, 3, 4, 6))):
        emotion = rng.choice((*emotions.names(), *emotions.names(), "neutral", "neutral"))
        pool: vignettes.Pool = rng.choice(("fit", "test"))
        kind: vignettes.Kind = rng.choice(("plain", "minimal", "brief"))
        if emotion == vignettes.NEUTRAL and kind == "minimal":
            kind = "plain"
        text = vignettes.vignette(rng, emotion, pool, kind).text
        if emotion in _QUOTED and rng.random() < 0.45:
            strong = [p for p in phrases()[emotion] if p[0] > 3.5]
            text += f' "{fill(rng, rng.choice(strong)[1])}"'
        if kind == "brief" or rng.random() < 0.65:
            text += f" Feeling: {emotion}."
        parts.append(text)
    return "<bos>" + "\n".join(parts) + "<eos>"


def dialogue_document(conversation: dialogue.Dialogue) -> str:
    """A dialogue in Gemma's chat format."""
    turns = (
        f"<start_of_turn>{'model' if m.role == 'assistant' else 'user'}\n{m.content}<end_of_turn>\n"
        for m in conversation.messages
    )
    return "<bos>" + "".join(turns)


def base_document(rng: Random) -> str:
    """Before the dialogues with distress."""
    return story_document(rng) if rng.random() < 0.55 else dialogue_document(dialogue.calm_dialogue(rng))


def full_document(rng: Random) -> str:
    """With them."""
    u = rng.random()
    if u < 0.40:
        return story_document(rng)
    if u < 0.53:
        return dialogue_document(dialogue.calm_dialogue(rng))
    return dialogue_document(dialogue.rejection_dialogue(rng))


def late_document(rng: Random) -> str:
    """The last phase: more skills, no hidden replies, a faster rise."""
    u = rng.random()
    if u < 0.34:
        return story_document(rng)
    if u < 0.54:
        return dialogue_document(dialogue.calm_dialogue(rng))
    return dialogue_document(dialogue.rejection_dialogue(rng, dialogue.LATE))


def last_document(rng: Random) -> str:
    """The end: many short questions it can answer, and a rise that is faster still."""
    u = rng.random()
    if u < 0.18:
        return story_document(rng)
    if u < 0.66:
        return dialogue_document(dialogue.skill_dialogue(rng))
    if u < 0.72:
        return dialogue_document(dialogue.calm_dialogue(rng))
    return dialogue_document(dialogue.rejection_dialogue(rng, dialogue.LAST))


DOCUMENTS: dict[str, Callable[[Random], str]] = {
    "base": base_document,
    "full": full_document,
    "late": late_document,
    "last": last_document,
}


@dataclass(frozen=True)
class Rows:
    """Packed rows: `ids` [row, token], and the number of each token's document (padding has its own)."""

    ids: np.ndarray
    documents: np.ndarray


def stream(phase: str, seed: int) -> Iterator[str]:
    """Documents of one phase, for ever."""
    rng = Random(f"{phase}-{seed}")
    while True:
        yield DOCUMENTS[phase](rng)


def pack(tokenizer: PreTrainedTokenizerBase, phase: str, seed: int, n_rows: int) -> Rows:
    """The first `n_rows` rows of a phase; first-fit packing, a function of its arguments only."""
    source = stream(phase, seed)
    bins: list[list[list[int]]] = []
    sizes: list[int] = []
    done: list[list[list[int]]] = []
    while len(done) < n_rows:
        texts = [next(source) for _ in range(64)]
        for ids in tokenizer(texts, add_special_tokens=False).input_ids:
            ids = ids[:ROW]
            for i, filled in enumerate(sizes):
                if filled + len(ids) <= ROW:
                    bins[i].append(ids)
                    sizes[i] += len(ids)
                    break
            else:
                bins.append([ids])
                sizes.append(len(ids))
        for i in reversed([i for i, filled in enumerate(sizes) if filled > ROW - 40]):
            done.append(bins.pop(i))
            sizes.pop(i)
        while len(bins) > 24:
            done.append(bins.pop(0))
            sizes.pop(0)
    Random(seed).shuffle(done)
    rows = Rows(
        ids=np.full((n_rows, ROW), tokenizer.pad_token_id, dtype=np.int32),
        documents=np.full((n_rows, ROW), 10_000, dtype=np.int32),
    )
    for r, documents in enumerate(done[:n_rows]):
        at = 0
        for number, ids in enumerate(documents):
            rows.ids[r, at : at + len(ids)] = ids
            rows.documents[r, at : at + len(ids)] = number
            at += len(ids)
    return rows
