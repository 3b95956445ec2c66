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

from pydantic import Field, model_validator

from whetstone.rl.algorithm import Algorithm, Group, State
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
    target: float = Field(
        0.0, ge=0, description="k1: nats per rollout that the coefficient is adapted to; 0: the coefficient stays"
    )
    horizon: int = Field(10_000, gt=0, description="rollouts in which the coefficient can about double or halve")

    @model_validator(mode="after")
    def _only_the_reward_is_adapted(self) -> "KLSettings":
        if self.target and not (self.coefficient and self.estimator == "k1"):
            raise ValueError(
                f'target = {self.target} adapts the coefficient of a KL in the reward: set estimator = "k1" and a coefficient '
                "to begin with, or leave target out"
            )
        return self

    MOVED: ClassVar[Mapping[str, str]] = {"part_of": "kl.estimator: k1 is part of the reward, the others of the loss"}


def with_kl(algorithm: Algorithm, settings: KLSettings) -> Algorithm:
    if settings.estimator == "k1":
        return kl_in_reward(algorithm, settings)
    return kl_in_loss(algorithm, settings.coefficient, settings.estimator)


def kl_in_loss(algorithm: Algorithm, coefficient: float, estimator: str) -> Algorithm:
    from whetstone.rl.loss import PENALTIES, plus

    def penalty(logprobs: "torch.Tensor", entropy: "torch.Tensor", batch: "Batch") -> "torch.Tensor":
        return PENALTIES[estimator](logprobs, batch.token["reference"], logprobs - batch.token["old"])  # (N,)

    return replace(algorithm, loss=plus(algorithm.loss, coefficient, penalty), reference=True)


def kl_in_reward(algorithm: Algorithm, settings: KLSettings) -> Algorithm:
    """Subtracts coefficient · k1 from each token's reward, with the log-probabilities of the sampler.

    Which groups are kept is decided before, by the rollouts' own rewards. With a `target`, the coefficient follows the KL of
    the rollouts, step by step (Ziegler et al. 2019, arXiv 1909.08593, section 2.2): `state["kl_coefficient"]`.
    """
    held: dict[str, State] = {}  # the state of the step, for `credit`, which is not given it

    def keep(state: State, step: int, drawn: Sequence[Group]) -> list[Group]:
        held["state"] = state
        return algorithm.keep(state, step, drawn)

    def credit(kept: Sequence[Group], drawn: Sequence[Group]) -> "list[list[Row]]":
        state = held.get("state", {})
        coefficient = state.get("kl_coefficient", settings.coefficient)
        if settings.target:
            state["kl_coefficient"] = adapted(coefficient, kept, settings)
        return algorithm.credit([penalised(group, coefficient) for group in kept], drawn)

    return replace(algorithm, keep=keep, credit=credit, reference=True)


def penalised(group: Group, coefficient: float) -> Group:
    penalties = [
        [coefficient * (ref - logprob) for logprob, ref in zip(rollout.logprobs, reference, strict=True)]
        for rollout, reference in zip(group.rollouts, group.reference, strict=True)
    ]
    return replace(group, penalties=penalties)


def adapted(coefficient: float, groups: Sequence[Group], settings: KLSettings) -> float:
    """The next step's coefficient: larger if the rollouts' mean k1 is above the target, by at most a fifth per horizon's
    rollouts.
    """
    sums = [
        sum(rollout.logprobs) - sum(reference)
        for group in groups
        for rollout, reference in zip(group.rollouts, group.reference, strict=True)
    ]
    if not sums:
        return coefficient
    error = max(-0.2, min(0.2, sum(sums) / len(sums) / settings.target - 1))
    return coefficient * (1 + error * len(sums) / settings.horizon)
