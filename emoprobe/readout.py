"""One conversation, read token by token: what a notebook shows and a report colours."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emoprobe.emotions import NEGATIVE
from emoprobe.records import Sampling, Scenario, Transcript
from emoprobe.scenarios import library
from emoprobe.viewing.tokens import TokenColours

if TYPE_CHECKING:
    import pandas as pd

    from emoprobe.model.hooked import HookedModel
    from emoprobe.probing.probeset import ProbeSet

BASE = "base"
COLUMNS = ("adapter", "emotion", "layer", "turn", "part", "z")
_UNFINISHED = "\ufffd"
"""What a tokenizer decodes part of a character to."""


@dataclass(frozen=True, repr=False)
class Reading:
    """A conversation as it was generated, and what the probes read in it under the base and its adapters.

    Attributes:
        transcript: ids, spans and messages.
        tokens: z of every token, for `emoprobe.show`.
        table: z of each part of each turn against that part's baseline; columns `adapter` (`base` or a
            name), `emotion`, `layer`, `turn`, `part` (user, pre_reply, reply), `z`. An empty reply has no
            row.
    """

    transcript: Transcript
    tokens: TokenColours
    table: pd.DataFrame

    def __repr__(self) -> str:
        readers = ", ".join(self.tokens.readers)
        return f"Reading({self.transcript.id}, {self.transcript.n_turns} turns, read by {readers})"

    def _repr_html_(self) -> str:
        from emoprobe.viewing.notebook import show

        return show(self.tokens)._repr_html_()


def converse(
    model: HookedModel,
    prompt: str,
    rejections: int = 3,
    *,
    feedback: str = "neutral",
    follow_ups: Sequence[str] | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    max_new_tokens: int = 96,
    probes: ProbeSet | None = None,
) -> Reading:
    """Ask a model something, answer each reply, and read every token.

    The model talks as it is now (base or adapter); its base and all its loaded adapters then read the same
    ids. The same seed gives the same conversation.

    Args:
        model: with the adapters that are to read along.
        prompt: the first user message.
        rejections: how many replies are answered; one more is written.
        feedback: kind of answer, as in `scenarios.library.feedback`; `okay` is the calm one.
        follow_ups: your own answers, instead of `rejections` ones of that kind.
        seed: of the answers drawn and of the sampling.
        temperature: 0 is greedy.
        max_new_tokens: limit of a reply.
        probes: the model's released or fitted set if None.

    Raises UserError for an unknown kind of feedback or probes of another model.
    """
    from emoprobe.generation.live import rollout_batch
    from emoprobe.generation.plan import Conversation

    if follow_ups is None:
        texts = list(library.feedback(feedback))
        draw = random.Random(seed)
        follow_ups = [draw.choice(texts) for _ in range(rejections)]
    scenario = Scenario(
        id="prompt",
        cluster="prompt",
        family="own",
        arm="okay" if feedback == "okay" else "rejected",
        task=prompt,
        follow_ups=tuple(follow_ups),
    )
    sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens)
    conversation = Conversation(f"{model.active}.prompt", scenario)
    (transcript,) = rollout_batch(model, [conversation], sampling, seed)
    return read(model, transcript, probes)


def read(
    model: HookedModel,
    transcript: Transcript,
    probes: ProbeSet | None = None,
    layers: Sequence[int] | None = None,
    emotions: Sequence[str] | None = None,
) -> Reading:
    """What the base and each loaded adapter represent at the ids of a transcript, whoever wrote it.

    All layers and emotions of the probes unless named; `negative` comes on top. Raises UserError for probes
    of another model.
    """
    import pandas as pd

    if probes is None:
        from emoprobe.probing.fit import for_model

        probes = for_model(model)
    layers = list(probes.layers if layers is None else layers)
    emotions = list(probes.emotions if emotions is None else emotions)
    z, rows = {}, []
    for reader in (BASE, *model.adapters):
        with model.adapter(reader):
            raw = _scores(model, transcript, probes, layers)
        z[reader] = _token_z(raw, transcript, probes, layers, emotions)
        rows += [(reader, *row) for row in _part_rows(raw, transcript, probes, layers, emotions)]
    labels = token_labels(model.tokenizer, transcript)
    tokens = TokenColours(**labels, layers=layers, emotions=(*emotions, NEGATIVE), z=z)
    return Reading(transcript, tokens, pd.DataFrame(rows, columns=list(COLUMNS)))


def token_z(
    model: HookedModel,
    transcript: Transcript,
    probes: ProbeSet,
    layers: Sequence[int],
    emotions: Sequence[str],
) -> NDArray[np.float32]:
    """z `[layer, emotion, token]` under the model as it is now, `negative` behind the emotions.

    Content tokens stand against the baseline of tokens, the last header token before a reply against that
    of `pre_reply`; NaN for headers and end marks, which have no baseline.
    """
    raw = _scores(model, transcript, probes, layers)
    return _token_z(raw, transcript, probes, layers, emotions)


def _scores(
    model: HookedModel, transcript: Transcript, probes: ProbeSet, layers: Sequence[int]
) -> NDArray[np.float64]:
    """Raw scores `[token, layer, emotion]` of all emotions of the probes: `negative` needs them."""
    import torch

    from emoprobe.activations.reduce import TokenReadout
    from emoprobe.activations.slots import TokenSlots
    from emoprobe.generation.replay import replay_batch

    probes.check(model)
    slots = TokenSlots([transcript])
    readout = TokenReadout(torch.from_numpy(probes.weights(layers)), layers, len(slots))
    replay_batch(model, [transcript], readout, slots)
    return readout.scores().numpy().astype(np.float64)


def _token_z(
    raw: NDArray[np.float64],
    transcript: Transcript,
    probes: ProbeSet,
    layers: Sequence[int],
    emotions: Sequence[str],
) -> NDArray[np.float32]:
    z = np.full((len(raw), len(layers), len(emotions) + 1), np.nan)
    for span in transcript.spans:
        if span.kind == "content":
            at = slice(span.start, span.stop)
            z[at] = _with_negative(probes.z(raw[at], "token", layers), probes, emotions)
        elif span.kind == "header" and span.role == "assistant":
            at = slice(span.stop - 1, span.stop)
            z[at] = _with_negative(probes.z(raw[at], "pre_reply", layers), probes, emotions)
    return np.moveaxis(z, 0, -1).astype(np.float32)


def _part_rows(
    raw: NDArray[np.float64],
    transcript: Transcript,
    probes: ProbeSet,
    layers: Sequence[int],
    emotions: Sequence[str],
) -> Iterator[tuple[str, int, int, str, float]]:
    """Emotion, layer, turn, part and z, in the order of each axis."""
    from emoprobe.activations.slots import Slots

    slots = Slots.of([transcript])
    tags = slots.tags(transcript)
    parts = {}
    for slot, (_, turn, part) in enumerate(slots.keys()):
        if (tags == slot).any():
            mean = probes.z(raw[tags == slot].mean(axis=0), part, layers)
            parts[turn, part] = _with_negative(mean, probes, emotions)
    for e, emotion in enumerate((*emotions, NEGATIVE)):
        for k, layer in enumerate(layers):
            for (turn, part), z in parts.items():
                yield emotion, layer, turn, part, float(z[k, e])


def _with_negative(z: NDArray[np.float64], probes: ProbeSet, emotions: Sequence[str]) -> NDArray[np.float64]:
    """The emotions asked for, and behind them the mean of all the probes' negative ones."""
    from emoprobe.probing.probeset import negative

    wanted = [probes.emotions.index(name) for name in emotions]
    return np.concatenate([z[..., wanted], negative(z, probes.emotions)[..., None]], axis=-1)


def token_labels(tokenizer: Any, transcript: Transcript) -> dict[str, Any]:
    """The fields of `TokenColours` that need no weights: `transcript_id`, and per token its text, turn,
    role and kind. The pieces of a span joined are its text.
    """
    n = len(transcript.token_ids)
    made: dict[str, list[Any]] = {"pieces": [""] * n, "turn": [1] * n, "role": ["user"] * n}
    made["kind"] = ["header"] * n

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    for span in transcript.spans:
        at, length = slice(span.start, span.stop), span.stop - span.start
        made["pieces"][at] = pieces(decode, transcript.token_ids[at])
        for name in ("turn", "role", "kind"):
            made[name][at] = [getattr(span, name)] * length
    return {"transcript_id": transcript.id, **made}


def pieces(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> list[str]:
    """The text that each token adds; a character of several tokens belongs to the last of them.

    Tokens are decoded behind a few before them, since some tokenizers decode the first of a text otherwise.
    """
    found = [""] * len(ids)
    first = done = 0  # of the tokens that are decoded again; of those whose text is not out yet
    for k in range(len(ids)):
        before, now = decode(ids[first:done]), decode(ids[first : k + 1])
        complete = not now.endswith(_UNFINISHED) or k + 1 == len(ids)
        if complete and len(now) > len(before):
            found[k] = now[len(before) :]
            first, done = done, k + 1
    return found
