"""Staying near the reference: KL(pi || pi_ref) in the reward or in the loss, by one of Schulman's estimators.

With x = log pi_ref - log pi of a sampled token (joschu.net/blog/kl-approx.html):

k1   -x               unbiased, can be negative
k2   x²/2             biased, small where the two are near
k3   exp(x) - 1 - x   unbiased, never negative

In the reward their values count. In the loss their gradients count; in expectation over the policy's own samples

k1            has gradient 0: its value is kept here, with the gradient of k2
k2            has the gradient of KL(pi || pi_ref)
k3            has that of the *other* direction, KL(pi_ref || pi), as in GRPO's eq. 3 and 4
k3_corrected  is r · k3 with the ratio r = pi / pi_old differentiated too: the gradient of KL(pi || pi_ref), off policy as
              well (DeepSeek-V3.2, arXiv 2512.02556)
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from whetstone.rl.algorithm import Algorithm, Group
from whetstone.run.settings import Settings

if TYPE_CHECKING:
    import torch

    from whetstone.batch import Row

Estimator = Literal["k1", "k2", "k3", "k3_corrected"]
FURTHEST = 20.0  # nats


class KLSettings(Settings):
    """The KL to the model the stage began with."""

    coefficient: float = Field(0.0, ge=0, description="of the KL; 0: none")
    estimator: Estimator = Field("k3", description="see rl/kl.py for their gradients")
    part_of: Literal["loss", "reward"] = Field("loss", description="where the KL counts")


def value(estimator: Estimator, logprob: float, reference: float) -> float:
    """The estimate at one token."""
    from math import exp

    x = reference - logprob
    if estimator == "k1":
        return -x
    return x * x / 2 if estimator == "k2" else exp(min(x, FURTHEST)) - 1 - x


def k1(logprobs: "torch.Tensor", reference: "torch.Tensor", log_ratio: "torch.Tensor") -> "torch.Tensor":
    square = k2(logprobs, reference, log_ratio)
    return square - square.detach() + (logprobs - reference).detach()


def k2(logprobs: "torch.Tensor", reference: "torch.Tensor", log_ratio: "torch.Tensor") -> "torch.Tensor":
    return (reference - logprobs).square() / 2


def k3(logprobs: "torch.Tensor", reference: "torch.Tensor", log_ratio: "torch.Tensor") -> "torch.Tensor":
    x = (reference - logprobs).clamp(-FURTHEST, FURTHEST)
    return x.exp() - 1 - x


def k3_corrected(logprobs: "torch.Tensor", reference: "torch.Tensor", log_ratio: "torch.Tensor") -> "torch.Tensor":
    return log_ratio.clamp(-FURTHEST, FURTHEST).exp() * k3(logprobs, reference, log_ratio)


# each (N,), (N,), (N,) -> (N,)
PENALTIES = {"k1": k1, "k2": k2, "k3": k3, "k3_corrected": k3_corrected}


def kl_in_loss(algorithm: Algorithm, coefficient: float, estimator: Estimator) -> Algorithm:
    from whetstone.rl.loss import with_kl

    return replace(algorithm, loss=with_kl(algorithm.loss, coefficient, PENALTIES[estimator]), reference=True)


def kl_in_reward(algorithm: Algorithm, coefficient: float, estimator: Estimator) -> Algorithm:
    """Each token's reward is -coefficient · KL, with the log-probabilities of the sampler.

    Which groups are kept is decided before, by the rollouts' own rewards.
    """

    def penalised(group: Group) -> Group:
        penalties = [
            [-coefficient * value(estimator, p, q) for p, q in zip(rollout.logprobs, reference, strict=True)]
            for rollout, reference in zip(group.rollouts, group.reference, strict=True)
        ]
        return replace(group, penalties=penalties)

    def credit(kept: Sequence[Group], drawn: Sequence[Group]) -> "list[list[Row]]":
        return algorithm.credit([penalised(group) for group in kept], drawn)

    return replace(algorithm, credit=credit, reference=True)
