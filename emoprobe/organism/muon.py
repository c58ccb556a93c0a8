"""Muon in fp32, with matrices of one shape orthogonalised together.

torch's own orthogonalises in bf16, one matrix at a time: on a CPU without bf16 arithmetic that takes
longer than the forward and backward passes. Method: Jordan et al. 2024, quintic Newton-Schulz; the update
is scaled to the root mean square of AdamW's (Liu et al. 2025, "Muon is scalable", section 2.2).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(batch: Tensor, steps: int = 5) -> Tensor:
    """Nearly orthogonal matrices in place of [matrix, rows, columns]; singular values end near 1."""
    a, b, c = _COEFFICIENTS
    wide = batch.shape[-2] <= batch.shape[-1]
    x = batch if wide else batch.transpose(-1, -2)
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.transpose(-1, -2)


class Muon(torch.optim.Optimizer):
    """For matrices only: Nesterov momentum, orthogonalised; decoupled weight decay."""

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            same: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    same[p.shape].append(p)
            for shape, members in same.items():
                updates = []
                for p in members:
                    gradient = p.grad
                    assert gradient is not None
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buffer.lerp_(gradient, 1 - group["momentum"])
                    updates.append(gradient.lerp(buffer, group["momentum"]))
                scale = 0.2 * math.sqrt(max(shape)) * group["lr"]
                for p, update in zip(members, orthogonalise(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)
