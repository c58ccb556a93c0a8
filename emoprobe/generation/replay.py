"""Finished transcripts forwarded again, exactly their token ids: the same text through any adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emoprobe.activations.reduce import Reducer, check_finite
from emoprobe.activations.slots import Tagger
from emoprobe.generation.likelihood import ReplyLikelihood
from emoprobe.generation.memory import out_of_memory
from emoprobe.generation.plan import plan_rows
from emoprobe.generation.session import ForwardCounts, RaggedSession
from emoprobe.records import Transcript

if TYPE_CHECKING:
    from emoprobe.model.hooked import HookedModel


def replay_batch(
    model: HookedModel,
    transcripts: Sequence[Transcript],
    reducer: Reducer,
    slots: Tagger,
    token_budget: int = 8192,
    chunk: int = 256,
    counts: ForwardCounts | None = None,
    likelihood: ReplyLikelihood | None = None,
) -> None:
    """Forward the ids of transcripts through the model as it is now; results are in the reducer.

    Every token once, so that the reducer covers the same positions as in live generation. Rows are sorted
    by length and go in `chunk` tokens at a time, which lets a sliding layer look at its window only.

    Args:
        model: in the state (base or adapter) to be read.
        transcripts: of any model with the same tokenizer.
        reducer: reads at the rows that `slots` names.
        slots: `Slots`, for spans, or `TokenSlots`, for every token.
        token_budget: most tokens of keys and values held at once, pads included.
        chunk: tokens per row and pass.
        counts: counted up with the positions that were forwarded.
        likelihood: takes the logits in the same pass; chunks are then shortened to bound their memory.

    Raises RunError for NaN activations (names layer and transcript) and for lack of memory.
    """
    with out_of_memory(), model.read(reducer):
        for batch in plan_rows([len(t.token_ids) for t in transcripts], token_budget):
            rows = [transcripts[i] for i in batch]
            tags = [slots.tags(t) for t in rows]
            longest = max(len(t.token_ids) for t in rows)
            session = RaggedSession(model, len(rows), counts)
            session.cache.reserve(longest)
            step = chunk if likelihood is None else likelihood.chunk(len(rows), chunk)
            for start in range(0, longest, step):
                piece = slice(start, start + step)
                ids = [t.token_ids[piece] for t in rows]
                logits = session.feed(ids, [t[piece] for t in tags], every=likelihood is not None)
                if likelihood is not None:
                    for row, t in enumerate(rows):
                        likelihood.add(t, start, logits[row, logits.shape[1] - len(ids[row]) :])
    check_finite(reducer, slots)
