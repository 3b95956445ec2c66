"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): orthogonalised momentum for the matrices of hidden layers.

A matrix's momentum is replaced by U V^T of its singular value decomposition, so that rare directions move as far as frequent
ones. Updates are scaled to the root mean square that AdamW's have, 0.2 (Liu et al. 2025, arXiv 2502.16982, section 2.2), so
that both share a learning rate; embeddings, norms and biases stay with AdamW.

torch.optim.Muon does the same in bfloat16, whose matrix products are some sixty times slower than float32's on a CPU
without AVX512-BF16. Here they are done in the weights' own precision.
"""

from collections.abc import Iterable
from typing import Any

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's: five steps bring singular values to between 0.7 and 1.2, and fast
RMS = 0.2


class Muon(torch.optim.Optimizer):
    """For (m, n) matrices only."""

    def __init__(
        self, params: Iterable[Any], lr: float = 0.0, momentum: float = 0.95, weight_decay: float = 0.0, steps: int = 5
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            rate, beta = group["lr"], group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - beta)
                update = orthogonalise(weight.grad.lerp(momentum, beta), group["steps"])  # Nesterov's look ahead
                weight.mul_(1 - rate * group["weight_decay"])
                weight.add_(update, alpha=-rate * RMS * max(weight.shape) ** 0.5)


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """About U V^T of a matrix U S V^T, (m, n), by Newton-Schulz iterations of degree five."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
