"""KL-Cov (Cui et al. 2025, arXiv 2505.22617), as two changes to an algorithm.

credit  the share of tokens with the largest covariance is marked
loss    plus |log pi - log pi_old| of marked tokens

The penalty has no gradient while pi is pi_old: it needs several updates per step.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from whetstone.rl.algorithm import Algorithm, Setup
from whetstone.rl.covariance import CovarianceSettings, marked

if TYPE_CHECKING:
    import torch

    from whetstone.batch import Batch

MARK = "kl_cov"
COEFFICIENT = 1.0  # of the penalty

Settings = CovarianceSettings


def kl_cov(algorithm: Algorithm, setup: Setup, settings: Settings) -> Algorithm:
    from whetstone.rl.loss import plus

    def choose(covariances: list[float]) -> set[int]:
        order = sorted(range(len(covariances)), key=lambda i: -covariances[i])
        return set(order[: max(1, int(settings.share * len(covariances)))])

    def penalty(logprobs: "torch.Tensor", entropy: "torch.Tensor", batch: "Batch") -> "torch.Tensor":
        return batch.token[MARK] * (logprobs - batch.token["old"]).abs()  # (N,)

    loss = plus(algorithm.loss, COEFFICIENT, penalty)
    return replace(algorithm, credit=marked(algorithm.credit, MARK, choose), loss=loss)
