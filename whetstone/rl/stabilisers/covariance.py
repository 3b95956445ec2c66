"""Clip-Cov and KL-Cov (Cui et al. 2025, arXiv 2505.22617): entropy collapses at few tokens; those are held back.

A token's covariance is (log pi - its mean)(A - its mean) over all tokens of the step: where it is large, an update makes
a likely token likelier. It is taken before the step is divided, by the log-probabilities of the sampler.

clip_cov  a share of the tokens, drawn at random among those whose covariance is between `low` and `high`, has no gradient
kl_cov    the share with the largest covariance pays coefficient · |log pi - log pi_old|

KL-Cov's penalty has no gradient while pi is pi_old: it needs several updates of a step's rollouts.

Differs from the authors' code: the covariance is that of the whole step at its first update, not of each mini-batch anew.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from whetstone.rl.algorithm import Algorithm, Group

if TYPE_CHECKING:
    import torch

    from whetstone.batch import Batch, Row

MARK = "held_back"  # 1 for a token that is, else 0
Choice = Callable[[list[float]], set[int]]  # covariances of all tokens -> positions of those held back


def clip_cov(algorithm: Algorithm, share: float, low: float = 1.0, high: float = 5.0, seed: int = 0) -> Algorithm:
    from whetstone.rl.loss import without

    def choose(covariances: list[float]) -> set[int]:
        between = [i for i, covariance in enumerate(covariances) if low < covariance < high]
        count = min(len(between), max(1, int(share * len(covariances))))
        return set(random.Random(f"{seed}/{sum(covariances)!r}").sample(between, count))

    return replace(algorithm, credit=marked(algorithm.credit, choose), loss=without(algorithm.loss, MARK))


def kl_cov(algorithm: Algorithm, share: float, coefficient: float = 1.0) -> Algorithm:
    def choose(covariances: list[float]) -> set[int]:
        order = sorted(range(len(covariances)), key=lambda i: -covariances[i])
        return set(order[: max(1, int(share * len(covariances)))])

    def loss(
        logprobs: "torch.Tensor", entropy: "torch.Tensor", batch: "Batch"
    ) -> "tuple[torch.Tensor, dict[str, float]]":
        value, sums = algorithm.loss(logprobs, entropy, batch)
        apart = (logprobs - batch.token["old"]).abs() if "old" in batch.token else logprobs * 0
        return value + coefficient * (batch.weights * batch.token[MARK] * apart).sum(), sums

    return replace(algorithm, credit=marked(algorithm.credit, choose), loss=loss)


def marked(
    credit: Callable[[Sequence[Group], Sequence[Group]], "list[list[Row]]"], choose: Choice
) -> Callable[[Sequence[Group], Sequence[Group]], "list[list[Row]]"]:
    """That credit, with every token of its rows marked."""

    def rows(kept: Sequence[Group], drawn: Sequence[Group]) -> "list[list[Row]]":
        parts = credit(kept, drawn)
        flat = [row for part in parts for row in part]
        chosen = choose(covariances(flat))
        at = 0
        for row in flat:
            row.token[MARK] = [float(i in chosen) for i in range(at, at + row.scored)]
            at += row.scored
        return parts

    return rows


def covariances(rows: Sequence["Row"]) -> list[float]:
    """Of log-probability and advantage, of each token in turn."""
    logprobs = [x for row in rows for x in row.token["old"]]
    advantages = [x for row in rows for x in row.token["advantage"]]
    count = max(1, len(logprobs))
    mean, typical = sum(logprobs) / count, sum(advantages) / count
    return [(p - mean) * (a - typical) for p, a in zip(logprobs, advantages, strict=True)]
