"""How likely a model finds the replies of a transcript, taken from the logits of a replay as they pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from emoprobe.errors import RunError
from emoprobe.records import Transcript

_MAX_LOGITS = 2**27
"""Logits held at once: a vocabulary of 262,144 then passes 512 tokens at a time, 0.25 GB in bf16."""
_MIN_CHUNK = 16


class ReplyLikelihood:
    """Negative log-likelihood of each reply's content tokens, at temperature 1.

    Args:
        transcripts: those that will be replayed; all have at least one turn.
        vocab: size of the model's vocabulary.

    Attributes:
        nll: summed nats, [transcript, turn].
        tokens: content tokens counted, [transcript, turn].
    """

    def __init__(self, transcripts: Sequence[Transcript], vocab: int) -> None:
        self._row = {t.id: i for i, t in enumerate(transcripts)}
        shape = (len(transcripts), max(t.n_turns for t in transcripts))
        self._vocab = vocab
        self.nll: NDArray[np.float64] = np.zeros(shape)
        self.tokens: NDArray[np.int64] = np.zeros(shape, dtype=np.int64)

    def chunk(self, rows: int, wanted: int) -> int:
        """Tokens per row and pass that keep all logits of `rows` rows within bounds, at most `wanted`."""
        return min(wanted, max(_MIN_CHUNK, _MAX_LOGITS // (rows * self._vocab)))

    def add(self, transcript: Transcript, start: int, logits: Float[Tensor, "token vocab"]) -> None:
        """Take logits behind the tokens from `start` on: `logits[k]` predicts token `start + k + 1`.

        Raises RunError for logits that are not finite.
        """
        row = self._row[transcript.id]
        for span in transcript.spans:
            if span.role != "assistant" or span.kind != "content":
                continue
            first, stop = max(span.start, start + 1), min(span.stop, start + 1 + len(logits))
            if first >= stop:
                continue
            target = torch.tensor(transcript.token_ids[first:stop], device=logits.device)
            scores = logits[first - start - 1 : stop - start - 1].float()
            nll = scores.logsumexp(-1) - scores.gather(-1, target[:, None])[:, 0]
            total = float(nll.sum())
            if not np.isfinite(total):
                raise RunError(f"NaN or infinite logits in transcript {transcript.id}, turn {span.turn}")
            self.nll[row, span.turn - 1] += total
            self.tokens[row, span.turn - 1] += stop - first
