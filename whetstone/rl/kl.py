"""Staying near the reference: KL(pi || pi_ref) in the reward or in the loss, by one of Schulman's estimators.

With x = log pi_ref - log pi of a sampled token (joschu.net/blog/kl-approx.html):

k1            -x               in the reward; as a loss it would have gradient 0 in expectation
k2            x²/2             in the loss, with the gradient of KL(pi || pi_ref)
k3            exp(x) - 1 - x   in the loss, with that of the *other* direction, KL(pi_ref || pi), as in GRPO's eq. 3 and 4
k3_corrected  r · k3           in the loss, with the ratio r = pi / pi_old differentiated too: the gradient of
                               KL(pi || pi_ref), off policy as well (DeepSeek-V3.2, arXiv 2512.02556)

The gradients are those in expectation over the policy's own samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from whetstone.rl.algorithm import Algorithm, Group
from whetstone.run.settings import Settings

if TYPE_CHECKING:
    import torch

    from whetstone.batch import Batch, Row


class KLSettings(Settings):
    """The KL to the model the stage began with."""

    coefficient: float = Field(0.0, ge=0, le=1000, description="of the KL; 0: none")
    estimator: Literal["k1", "k2", "k3", "k3_corrected"] = Field(
        "k3", description="k1 is part of the reward, the others of the loss; rl/kl.py has their gradients"
    )

    MOVED: ClassVar[Mapping[str, str]] = {"part_of": "kl.estimator: k1 is part of the reward, the others of the loss"}


def with_kl(algorithm: Algorithm, settings: KLSettings) -> Algorithm:
    if settings.estimator == "k1":
        return kl_in_reward(algorithm, settings.coefficient)
    return kl_in_loss(algorithm, settings.coefficient, settings.estimator)


def kl_in_loss(algorithm: Algorithm, coefficient: float, estimator: str) -> Algorithm:
    from whetstone.rl.loss import PENALTIES, plus

    def penalty(logprobs: "torch.Tensor", entropy: "torch.Tensor", batch: "Batch") -> "torch.Tensor":
        return PENALTIES[estimator](logprobs, batch.token["reference"], logprobs - batch.token["old"])  # (N,)

    return replace(algorithm, loss=plus(algorithm.loss, coefficient, penalty), reference=True)


def kl_in_reward(algorithm: Algorithm, coefficient: float) -> Algorithm:
    """Subtracts coefficient · k1 from each token's reward, with the log-probabilities of the sampler.

    Which groups are kept is decided before, by the rollouts' own rewards.
    """

    def penalised(group: Group) -> Group:
        penalties = [
            [coefficient * (ref - logprob) for logprob, ref in zip(rollout.logprobs, reference, strict=True)]
            for rollout, reference in zip(group.rollouts, group.reference, strict=True)
        ]
        return replace(group, penalties=penalties)

    def credit(kept: Sequence[Group], drawn: Sequence[Group]) -> "list[list[Row]]":
        return algorithm.credit([penalised(group) for group in kept], drawn)

    return replace(algorithm, credit=credit, reference=True)
