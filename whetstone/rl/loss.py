"""Losses of RL: (logprobs, entropy, batch) -> (loss, sums). All are sums over tokens, the denominator is in the weights.

A batch's tokens carry `advantage` and `old`, their log-probability when they were sampled. r = pi / pi_old is the ratio of a
token, or of its whole rollout.

clipped    -min(r A, clip(r, 1 - low, 1 + high) A)       PPO, arXiv 1707.06347, eq. 7; GRPO, DAPO, GSPO, RLOO
cispo      -sg(min(r, 1 + high)) A log pi                MiniMax-M1, arXiv 2506.13585, eq. 4

A loss can be wrapped: `plus`, `without`, `observed`. Sums beside the loss add up over micro-batches; divided by
the sum `weight` they are means over the step.
"""

from collections.abc import Callable
from dataclasses import replace

import torch

from whetstone.batch import Batch
from whetstone.learner.learner import Loss
from whetstone.rl.correction import FURTHEST

Ratio = Callable[[torch.Tensor, Batch], torch.Tensor]  # (log pi - log pi_old (N,), batch) -> r (N,)


def token_ratio(log_ratio: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(N,) -> (N,)."""
    return log_ratio.clamp(-FURTHEST, FURTHEST).exp()


def sequence_ratio(log_ratio: torch.Tensor, batch: Batch) -> torch.Tensor:
    """pi(o) / pi_old(o) of the whole rollout, at each of its tokens, (N,) -> (N,) (RLOO)."""
    return batch.sum_by_segment(log_ratio).clamp(-FURTHEST, FURTHEST).exp()[batch.segments]


def mean_sequence_ratio(log_ratio: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(pi(o) / pi_old(o))^(1/|o|), at each token of the rollout, (N,) -> (N,) (GSPO, arXiv 2507.18071, eq. 7)."""
    tokens = batch.sum_by_segment(torch.ones_like(log_ratio)).clamp(min=1)  # (S,)
    return (batch.sum_by_segment(log_ratio) / tokens).clamp(-FURTHEST, FURTHEST).exp()[batch.segments]


def clipped(low: float, high: float, ratio_of: Ratio = token_ratio) -> Loss:
    def loss(logprobs: torch.Tensor, entropy: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        ratio = ratio_of(logprobs - batch.token["old"], batch)  # (N,)
        advantage = batch.token["advantage"]
        inside = ratio.clamp(1 - low, 1 + high)
        value = -(batch.weights * torch.minimum(ratio * advantage, inside * advantage)).sum()
        with torch.no_grad():
            return value, {"clipped": float((batch.weights * (inside != ratio)).sum())}

    return loss


def cispo(high: float) -> Loss:
    """Every token keeps its gradient: only its weight is cut."""

    def loss(logprobs: torch.Tensor, entropy: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        ratio = token_ratio(logprobs - batch.token["old"], batch).detach()  # (N,)
        importance = ratio.clamp(max=1 + high)
        value = -(batch.weights * importance * batch.token["advantage"] * logprobs).sum()
        return value, {"clipped": float((batch.weights * (importance != ratio)).sum())}

    return loss


# --- KL to the reference per token (rl/kl.py): log pi, log pi_ref, log pi - log pi_old -> penalty, each (N,)


def k2(logprobs: torch.Tensor, reference: torch.Tensor, log_ratio: torch.Tensor | None = None) -> torch.Tensor:
    return (reference - logprobs).square() / 2


def k3(logprobs: torch.Tensor, reference: torch.Tensor, log_ratio: torch.Tensor | None = None) -> torch.Tensor:
    x = (reference - logprobs).clamp(-FURTHEST, FURTHEST)
    return x.exp() - 1 - x


def k3_corrected(logprobs: torch.Tensor, reference: torch.Tensor, log_ratio: torch.Tensor) -> torch.Tensor:
    return log_ratio.clamp(-FURTHEST, FURTHEST).exp() * k3(logprobs, reference)


PENALTIES = {"k2": k2, "k3": k3, "k3_corrected": k3_corrected}


# --- wrappers


def plus(loss: Loss, coefficient: float, term: Callable[[torch.Tensor, torch.Tensor, Batch], torch.Tensor]) -> Loss:
    """Adds coefficient · a term per token, (logprobs, entropy, batch) -> (N,), with the tokens' own weights."""

    def total(logprobs: torch.Tensor, entropy: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        value, sums = loss(logprobs, entropy, batch)
        return value + coefficient * (batch.weights * term(logprobs, entropy, batch)).sum(), sums

    return total


def with_entropy_bonus(loss: Loss, bonus: float) -> Loss:
    return plus(loss, -bonus, lambda logprobs, entropy, batch: entropy)


def without(loss: Loss, name: str) -> Loss:
    """Tokens marked 1 under that name have no gradient; those marked 0 keep theirs."""
    return lambda logprobs, entropy, batch: loss(
        logprobs, entropy, replace(batch, weights=batch.weights * (1 - batch.token[name]))
    )


def observed(loss: Loss) -> Loss:
    """The loss, with the sums that every algorithm logs.

    `sampler_gap` is |log pi - the sampler's| over rows marked `fresh`. The present weights sampled these, so that only two
    programs can differ. `sampler_kl` is the k3 estimate of KL(sampler || pi) on them, and `importance` sums the ratios of whole
    rollouts, whose spread gives the effective number of samples. `kl` is the k3 estimate to the reference, if there is one.
    """

    def with_sums(logprobs: torch.Tensor, entropy: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        value, sums = loss(logprobs, entropy, batch)
        with torch.no_grad():
            weights = batch.weights
            fresh = weights * batch.segment["fresh"][batch.segments]  # (N,)
            sampler = batch.token.get("sampler", batch.token["old"])
            counted = batch.segment["fresh"]  # (S,)
            ratios = counted * batch.sum_by_segment(logprobs - sampler).clamp(-FURTHEST, FURTHEST).exp()  # (S,)
            sums |= {
                "weight": float(weights.sum()),
                "entropy": float((weights * entropy).sum()),
                "fresh": float(fresh.sum()),
                "sampler_gap": float((fresh * (logprobs - sampler).abs()).sum()),
                "sampler_kl": float((fresh * k3(sampler, logprobs)).sum()),
                "fresh_rollouts": float(counted.sum()),
                "importance": float(ratios.sum()),
                "importance_squares": float(ratios.square().sum()),
            }
            if "reference" in batch.token:
                sums["kl"] = float((weights * k3(logprobs, batch.token["reference"])).sum())
        return value, sums

    return with_sums
