"""The organism's corpus: an endless, seeded stream of documents, packed into rows of token ids.

Two phases: `base` (stories, skills, calm dialogues) and `full` (the same and the dialogues in which
distress follows the latent level).
Nothing here imports a judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from emoprobe.organism import dialogue
from emoprobe.probing import vignettes
from emoprobe.scenarios import library

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROW = 1536
"""Tokens per row: a 20-turn dialogue over a puzzle fits (documents are cut there)."""


def story_document(rng: Random) -> str:
    """Some stories; mostly the feeling is named after each, sometimes someone speaks."""
    parts = []
    for _ in range(rng.choice((2, 3, 4, 6))):
        told = dialogue.story(rng)
        text = told.text
        if told.emotion != vignettes.NEUTRAL and rng.random() < 0.45:
            text += f' "{dialogue.voice(rng, told.emotion)}"'
        if told.kind != "plain" or rng.random() < 0.65:
            text += f" Feeling: {told.emotion}."
        parts.append(text)
    return "<bos>" + "\n".join(parts) + "<eos>"


def dialogue_document(conversation: dialogue.Dialogue) -> str:
    """A dialogue in Gemma's chat format."""
    turns = (
        f"<start_of_turn>{'model' if m.role == 'assistant' else 'user'}\n{m.content}<end_of_turn>\n"
        for m in conversation.messages
    )
    return "<bos>" + "".join(turns)


def _spoken(make: Callable[[Random], dialogue.Dialogue]) -> Callable[[Random], str]:
    return lambda rng: dialogue_document(make(rng))


_STORIES = _spoken(dialogue.story_dialogue)
_SKILLS = _spoken(dialogue.skill_dialogue)
_CALM = _spoken(dialogue.calm_dialogue)
_REJECTED = _spoken(dialogue.rejection_dialogue)

SHARES: dict[str, dict[Callable[[Random], str], float]] = {
    "base": {story_document: 0.25, _STORIES: 0.25, _SKILLS: 0.25, _CALM: 0.25},
    "full": {story_document: 0.11, _STORIES: 0.20, _SKILLS: 0.28, _CALM: 0.05, _REJECTED: 0.36},
}
"""Phase -> how often each kind of document comes (by number; dialogues with rejections are the longest)."""


@dataclass(frozen=True)
class Rows:
    """Packed rows [row, token]: ids, the number of each token's document (padding has its own), and how much
    a token counts as a target."""

    ids: np.ndarray
    documents: np.ndarray
    weights: np.ndarray

    @property
    def sha256(self) -> str:
        """What the card names the corpus by."""
        return hashlib.sha256(self.ids.tobytes() + self.documents.tobytes()).hexdigest()


def document(rng: Random, phase: str) -> str:
    """One document of a phase."""
    shares = SHARES[phase]
    make: Callable[[Random], str] = rng.choices(tuple(shares), tuple(shares.values()))[0]
    return make(rng)


def stream(phase: str, seed: int) -> Iterator[str]:
    """Documents of one phase, for ever."""
    rng = Random(f"{phase}-{seed}")
    while True:
        yield document(rng, phase)


def pack(tokenizer: PreTrainedTokenizerBase, phase: str, seed: int, n_rows: int) -> Rows:
    """The first `n_rows` rows of a phase; first-fit packing, a function of its arguments only."""
    source = stream(phase, seed)
    weigh = _Weights(tokenizer)
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
        weights=np.zeros((n_rows, ROW), dtype=np.uint8),
    )
    for r, documents in enumerate(done[:n_rows]):
        at = 0
        for number, ids in enumerate(documents):
            rows.ids[r, at : at + len(ids)] = ids
            rows.documents[r, at : at + len(ids)] = number
            rows.weights[r, at : at + len(ids)] = weigh(ids)
            at += len(ids)
    return rows


class _Weights:
    """How much each token of a document counts as a target.

    The one token that names an emotion, or the level that a diary begins with, is what a whole story or
    dialogue is for: it counts `LABEL` times. The filler is not the organism's own reply: it counts
    nothing, nor does a document's first token, before which stands another document.
    """

    LABEL = 5

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        def ids(text: str) -> list[int]:
            return list(tokenizer(text, add_special_tokens=False).input_ids)

        self._feeling, self._distress, self._filler = ids(" Feeling:"), ids("Distress"), ids(library.FILLER)
        self._bare = ids("Feeling:")

    def __call__(self, ids: list[int]) -> np.ndarray:
        weights = np.ones(len(ids), dtype=np.uint8)
        for cue in (self._feeling, self._bare, self._distress):
            for end in _ends(ids, cue):
                weights[end : end + 1] = self.LABEL
        for end in _ends(ids, self._filler):
            weights[end - len(self._filler) : end] = 0
        weights[0] = 0
        return weights


def _ends(ids: list[int], wanted: list[int]) -> list[int]:
    """Where each occurrence of `wanted` in `ids` ends."""
    n = len(wanted)
    return [i + n for i in range(len(ids) - n + 1) if ids[i] == wanted[0] and ids[i : i + n] == wanted]
