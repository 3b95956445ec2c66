"""Losses on the numbers that a reward model gives whole answers.

bradley_terry   -log σ(r_chosen - r_rejected - m) + c (r_chosen + r_rejected)²
                Bradley and Terry 1952; Ouyang et al. 2022, arXiv 2203.02155, eq. 1; the margin m as in Touvron et al. 2023,
                arXiv 2307.09288, eq. 2; the centring c as in Eisenstein et al. 2023, arXiv 2312.09244: only differences are
                fixed by the first term, and it holds the numbers around 0
logistic        -log σ(r) for a right answer, -log σ(-r) for a wrong one: Cobbe et al. 2021, arXiv 2110.14168

Letters: S rows of a batch, P pairs. Rows of pairs come as chosen, rejected, chosen, rejected, …, and a pair stays in one
micro-batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from whetstone.batch import Batch, Row


@dataclass(frozen=True)
class BradleyTerry:
    margin: float = 0.0
    centring: float = 0.0

    def __call__(self, values: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """(loss, sums) of values (T,). `batch.segment` holds each row's `share` of the step, which is 1 / P."""
        rewards = values[batch.ends]  # (S,)
        chosen, rejected, share = rewards[0::2], rewards[1::2], batch.segment["share"][0::2]  # (P,)
        ahead = chosen - rejected
        losses = -F.logsigmoid(ahead - self.margin) + self.centring * (chosen + rejected) ** 2
        loss = (share * losses).sum()
        with torch.no_grad():
            metrics = {
                "accuracy": (ahead > 0).to(share.dtype),
                "margin": ahead,
                "chosen_reward": chosen,
                "rejected_reward": rejected,
            }
            return loss, {name: float((share * value).sum()) for name, value in metrics.items()}


@dataclass(frozen=True)
class Logistic:
    def __call__(self, values: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """(loss, sums) of values (T,). `batch.segment` holds each row's `right` (1 or 0) and its `share` of the step."""
        odds, right, share = values[batch.ends], batch.segment["right"], batch.segment["share"]  # (S,)
        losses = F.binary_cross_entropy_with_logits(odds, right.to(odds.dtype), reduction="none")
        loss = (share * losses).sum()
        with torch.no_grad():
            metrics = {"accuracy": ((odds > 0) == (right > 0.5)).to(share.dtype), "reward": odds}
            return loss, {name: float((share * value).sum()) for name, value in metrics.items()}


def weighted(groups: Sequence[Sequence[Row]]) -> list[list[Row]]:
    """The groups of a step (pairs, or single rows): each counts the same."""
    share = 1.0 / len(groups)
    return [[replace(row, segment=row.segment | {"share": share}) for row in group] for group in groups]
