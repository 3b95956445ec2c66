"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): orthogonalised momentum for the matrices of hidden layers.

The momentum of a matrix is replaced by U V^T of its singular value decomposition, so that rare directions move as far as
frequent ones. Updates are scaled to a root mean square of 0.2, that of AdamW's updates (Liu et al. 2025, arXiv 2502.16982,
section 2.2), so that both share a learning rate. Embeddings, norms and biases stay with AdamW.

torch.optim.Muon does the same in bfloat16, whose matrix products are some sixty times slower than float32's on a CPU
without AVX512-BF16. Here the products are computed in the weights' own precision.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's: five steps bring singular values to between 0.7 and 1.2
RMS = 0.2


class Muon(torch.optim.Optimizer):
    """For (m, n) matrices only. `orthogonalise_all` may be replaced by a function that divides them among processes."""

    def __init__(self, params: Iterable[Any], lr: float = 0.0, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.orthogonalise_all: Callable[[Sequence[torch.Tensor]], list[torch.Tensor]] = lambda matrices: list(
            map(orthogonalise, matrices)
        )

    @property
    def matrices(self) -> list[torch.nn.Parameter]:
        return [weight for group in self.param_groups for weight in group["params"]]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        directions = []
        for group in self.param_groups:
            for weight in group["params"]:
                momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                momentum.lerp_(weight.grad, 1 - group["momentum"])
                directions.append(weight.grad.lerp(momentum, group["momentum"]))  # Nesterov momentum
        updates = iter(self.orthogonalise_all(directions))
        for group in self.param_groups:
            for weight in group["params"]:
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(next(updates), alpha=-group["lr"] * RMS * max(weight.shape) ** 0.5)


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """(m, n) -> (m, n): approximately U V^T of a matrix U S V^T, by five Newton-Schulz iterations of degree five."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
