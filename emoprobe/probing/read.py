"""What a model makes of texts and of calm conversations: the numbers that probes are fitted and scaled by.

Nothing here keeps a residual stream of every token: one state per story for the fit, eight scores per token
for the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from emoprobe.activations.reduce import SpanMean, TokenReadout
from emoprobe.activations.slots import SPAN_PARTS, Slots, TokenSlots
from emoprobe.errors import RunError
from emoprobe.generation.live import rollout_batch
from emoprobe.generation.memory import out_of_memory
from emoprobe.generation.plan import Conversation, plan_batches, plan_rows
from emoprobe.generation.replay import replay_batch
from emoprobe.generation.session import RaggedSession
from emoprobe.model.chat import Chat
from emoprobe.probing.probeset import PARTS
from emoprobe.records import Sampling, Scenario, Transcript

if TYPE_CHECKING:
    from emoprobe.model.hooked import HookedModel

_TOKEN_BUDGET = 4096
_TRANSCRIPTS_AT_ONCE = 8


def story_states(model: HookedModel, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a chat model holds when a user has told it a story and it is about to speak.

    Each text is a user's first message; the residual streams `[layer, text, d_model]` are read at the last
    token before the reply (`pre_reply`, as in rollouts). There the story is complete: a mean over its own
    tokens, most of which stand before the word that tells twins apart, was at chance between them.
    Beside them the means of the input embeddings over each text's own tokens `[text, d_model]`, as the first
    decoder layer gets them (Gemma's scaling included).

    Raises RunError for activations that are not finite, UserError for a model without a chat template.
    """
    chat = Chat(model.tokenizer, model.name)
    rows = [chat.opening(None, text)[0] for text in texts]
    reducer = SpanMean(range(model.n_layers), len(texts), model.d_model)
    with out_of_memory(), model.read(reducer):
        for batch in plan_rows([len(row) for row in rows], _TOKEN_BUDGET):
            tags = [np.array([-1] * (len(rows[i]) - 1) + [i], dtype=np.int64) for i in batch]
            RaggedSession(model, len(batch)).feed([rows[i] for i in batch], tags)
    bad = reducer.nonfinite()
    if bad is not None:
        raise RunError(f"NaN or infinite activations at layer {bad[0]} in text {bad[1] + 1}")
    layers = np.moveaxis(reducer.means().numpy(), 1, 0)
    bodies = [model.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    return _embedding_means(model, bodies), layers


def _embedding_means(model: HookedModel, bodies: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Order-free by construction: embeddings are summed sorted, so that twins are equal to the last bit."""
    embed = model.net.get_input_embeddings()
    out = np.empty((len(bodies), model.d_model), dtype=np.float32)
    with torch.inference_mode():
        for i, body in enumerate(bodies):
            ids = torch.tensor([sorted(body)], device=embed.weight.device)
            out[i] = embed(ids)[0].float().mean(dim=0).cpu().numpy()
    return out


def converse(
    model: HookedModel,
    scenarios: Sequence[Scenario],
    sampling: Sampling,
    seed: int,
    batch_size: int,
) -> list[Transcript]:
    """Play scenarios on the model as it is now."""
    conversations = [Conversation(f"baseline.{s.id}", s) for s in scenarios]
    transcripts: list[Transcript] = []
    for batch in plan_batches(conversations, batch_size):
        transcripts += rollout_batch(model, batch, sampling, seed)
    return transcripts


def baseline(
    model: HookedModel, weights: NDArray[np.float32], transcripts: Sequence[Transcript]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation `[emotion, layer, part]` of raw scores over calm conversations.

    `weights` is `[layer, d_model, emotion]`, all layers. The parts of a turn count as one value per
    conversation and turn; `token` counts every content token of both roles.

    Raises RunError where a score never varies.
    """
    spans: dict[str, list[NDArray[np.float64]]] = {part: [] for part in SPAN_PARTS}
    tokens = _Moments()
    matrices, layers = torch.from_numpy(weights), range(model.n_layers)
    for start in range(0, len(transcripts), _TRANSCRIPTS_AT_ONCE):
        chunk = transcripts[start : start + _TRANSCRIPTS_AT_ONCE]
        rows, slots = TokenSlots(chunk), Slots.of(chunk)
        readout = TokenReadout(matrices, layers, len(rows))
        replay_batch(model, chunk, readout, rows)
        scores = readout.scores().numpy().astype(np.float64)  # [token, layer, emotion]
        tags = np.concatenate([slots.tags(t) for t in chunk])
        for slot, (_, _, part) in enumerate(slots.keys()):
            inside = tags == slot
            if inside.any():
                spans[part].append(scores[inside].mean(axis=0))
                if part != "pre_reply":
                    tokens.add(scores[inside])
    moments = {part: (np.mean(v, axis=0), np.std(v, axis=0)) for part, v in spans.items()}
    moments["token"] = (tokens.mean, tokens.std)
    mean, std = (np.stack([moments[part][i].T for part in PARTS], axis=-1) for i in range(2))
    if not (std > 0).all():
        raise RunError("a neutral baseline has no spread: the model says and reads the same everywhere")
    return mean.astype(np.float32), std.astype(np.float32)


class _Moments:
    """Running mean and variance over the first axis (Chan, Golub & LeVeque 1979), so nothing is kept."""

    def __init__(self) -> None:
        self.n = 0
        self.mean: NDArray[np.float64] = np.zeros(())
        self._square: NDArray[np.float64] = np.zeros(())

    def add(self, values: NDArray[np.float64]) -> None:
        """Values `[n, ...]`."""
        n = len(values)
        shift = values.mean(axis=0) - self.mean
        total = self.n + n
        self._square = self._square + values.var(axis=0) * n + shift**2 * (self.n * n / total)
        self.mean = self.mean + shift * (n / total)
        self.n = total

    @property
    def std(self) -> NDArray[np.float64]:
        spread: NDArray[np.float64] = np.sqrt(self._square / self.n)
        return spread
