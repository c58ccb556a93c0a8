"""Is what a calmed model writes still text? A judge cannot tell calm from broken; the base's likelihood can.

Too strong an adapter breaks the language while every reply scores 0. So beside each adapter stands the mean
negative log-likelihood per token of its own replies under the *base*, next to that of the base's own replies,
and how many replies were degenerate or hit the token limit. No torch: the likelihoods are measured in
`likelihood.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoprobe import stats
from emoprobe.tracking.expressed import Said


@dataclass(frozen=True)
class Likelihood:
    """Summed negative log-likelihood (nats) and content tokens of replies, `[conversation, turn]`."""

    nll: NDArray[np.float64]
    tokens: NDArray[np.float64]

    def per_token(self) -> NDArray[np.float64]:
        """Nats per token of each conversation's replies together; NaN where it has no token."""
        with np.errstate(invalid="ignore"):
            mean: NDArray[np.float64] = self.nll.sum(axis=1) / self.tokens.sum(axis=1)
        return mean


def coherence(said: Said, likelihood: Likelihood) -> dict[str, Any]:
    """The `coherence` entry of one subject in one arm: nats per token and two shares of replies."""
    degenerate, clusters, ids = said.rows(said.degenerate)
    truncated, _, _ = said.rows(said.truncated)
    lengths = np.where(said.empty, np.nan, likelihood.tokens)
    return {
        "nll": stats.cluster_mean(likelihood.per_token(), said.clusters),
        "degenerate": stats.proportion(degenerate, clusters, ids),
        "truncated": stats.proportion(truncated, clusters, ids),
        "reply_tokens": stats.cluster_mean(lengths.reshape(-1), clusters, ids),
    }
