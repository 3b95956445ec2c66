"""Off-policy corrections: rollouts that another distribution sampled than the learner's.

A sampler that computes in another type, in another engine or with older weights samples from mu, not from pi_old. With
`correction` the learner scores each rollout before the first update, the policy's ratio is to that score, and each token's loss
is weighted by w, the ratio pi_old / mu of the token or of its whole rollout:

truncate   min(w, limit)                           TIS: Ionides 2008; IMPALA (arXiv 1802.01561)
mask       w if floor <= w <= limit, else 0        IcePop (arXiv 2510.18855) for tokens; for rollouts, sequences are masked

The weight is a constant. Rollouts of older steps are treated alike, so that the ratio to older weights is in w too, as in
decoupled PPO (Hilton et al. 2021, arXiv 2110.00641).

    token      an error of one token counts once: little variance, and a bias, because the states were sampled by mu
    sequence   unbiased before `limit` cuts it, with a variance that grows with the length of a rollout
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from whetstone.run.settings import Settings, changed

if TYPE_CHECKING:
    import torch

    from whetstone.batch import Batch
    from whetstone.learner.learner import Learner, Loss
    from whetstone.rl.update import Credited

FURTHEST = 20.0  # nats at which a log-ratio is cut: the exp of a large one overflows


class CorrectionSettings(Settings):
    """How rollouts count that the sampler finds more or less likely than the learner."""

    kind: Literal["none", "truncate", "mask"] = Field("none", description="of the weights that are out of bounds")
    level: Literal["token", "sequence"] = Field("token", description="whose ratio is the weight")
    limit: float = Field(2.0, gt=1, le=1e6, description="largest weight")
    floor: float = Field(0.0, ge=0, lt=1, description="mask: smallest weight")

    @model_validator(mode="after")
    def _options_are_used(self) -> "CorrectionSettings":
        if self.kind == "none" and (named := changed(self)):
            raise ValueError(f'{named[0]} = {getattr(self, named[0])!r} has no effect: set kind = "truncate" or "mask"')
        if self.floor and self.kind != "mask":
            raise ValueError(
                f'floor = {self.floor} belongs to kind = "mask": truncation has no lower bound. Leave it out'
            )
        return self


def importance(old: Sequence[float], sampler: Sequence[float], level: str) -> list[float]:
    """pi_old / mu at each token of a rollout, from both log-probabilities.

    >>> importance([0.0, 0.0], [math.log(0.5), math.log(0.25)], "sequence")
    [8.0, 8.0]
    """
    gaps = [a - b for a, b in zip(old, sampler, strict=True)]
    if level == "sequence":
        gaps = [math.fsum(gaps)] * len(gaps)
    return [math.exp(max(-FURTHEST, min(FURTHEST, gap))) for gap in gaps]


def bounded(weight: float, settings: CorrectionSettings) -> float:
    if settings.kind == "truncate":
        return min(weight, settings.limit)
    return weight if settings.floor <= weight <= settings.limit else 0.0


def with_correction(
    learner: "Learner", groups: "Sequence[Credited]", settings: CorrectionSettings
) -> "tuple[list[Credited], dict[str, float]]":
    """The groups with the learner's score as the old policy and a weight per token, and what the weights were.

    `importance` is the mean weight before its bounds, `corrected` the share of tokens whose weight is out of them, and
    `mismatch` the mean |log pi_old - log mu|, in nats per token.
    """
    scored: list[Credited] = []
    tokens = total = changed = apart = 0.0
    for group, rows in groups:
        weighted = []
        for row, logprobs in zip(rows, learner.row_logprobs(rows, group.temperature), strict=True):
            old, sampler = logprobs.tolist(), row.token["old"]
            raw = importance(old, sampler, settings.level)
            weights = [bounded(weight, settings) for weight in raw]
            tokens, total = tokens + len(raw), total + sum(raw)
            changed += sum(a != b for a, b in zip(raw, weights, strict=True))
            apart += sum(abs(a - b) for a, b in zip(old, sampler, strict=True))
            weighted.append(replace(row, token=row.token | {"old": old, "sampler": sampler, "correction": weights}))
        scored.append((group, weighted))
    sums = {"importance": total, "corrected": changed, "mismatch": apart}
    return scored, {name: value / tokens for name, value in sums.items()} if tokens else {}


def corrected(loss: "Loss") -> "Loss":
    """The loss in which each token has its correction as a further weight."""

    def weighted(
        logprobs: "torch.Tensor", entropy: "torch.Tensor", batch: "Batch"
    ) -> "tuple[torch.Tensor, dict[str, float]]":
        return loss(logprobs, entropy, replace(batch, weights=batch.weights * batch.token["correction"]))

    return weighted
