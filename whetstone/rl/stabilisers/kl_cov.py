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
    def choose(covariances: list[float]) -> set[int]:
        order = sorted(range(len(covariances)), key=lambda i: -covariances[i])
        return set(order[: max(1, int(settings.share * len(covariances)))])

    def loss(
        logprobs: "torch.Tensor", entropy: "torch.Tensor", batch: "Batch"
    ) -> "tuple[torch.Tensor, dict[str, float]]":
        value, sums = algorithm.loss(logprobs, entropy, batch)
        distance = (logprobs - batch.token["old"]).abs() if "old" in batch.token else logprobs * 0  # (N,)
        return value + COEFFICIENT * (batch.weights * batch.token[MARK] * distance).sum(), sums

    return replace(algorithm, credit=marked(algorithm.credit, MARK, choose), loss=loss)
