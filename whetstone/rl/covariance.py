"""The covariance of log-probability and advantage, by which Clip-Cov and KL-Cov choose tokens (Cui et al. 2025, 2505.22617).

A token's covariance is (log pi - its mean)(A - its mean) over all tokens of the step. If it is large, an update makes a
likely token likelier, and entropy collapses. It is taken before the step is divided, with the sampler's log-probabilities.

Differs from the authors' code: the covariance is that of the whole step at its first update, not of each mini-batch anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from whetstone.rl.algorithm import Group, StabiliserSettings

if TYPE_CHECKING:
    from whetstone.batch import Row

    Credit = Callable[[Sequence[Group], Sequence[Group]], list[list[Row]]]

Choice = Callable[[list[float]], set[int]]  # covariances of all tokens -> positions of the chosen ones


class CovarianceSettings(StabiliserSettings):
    share: float = Field(2e-4, gt=0, lt=1, description="share of the step's tokens that are held back")


def marked(credit: "Credit", mark: str, choose: Choice) -> "Credit":
    """That credit; its rows have 1 under `mark` for each chosen token, 0 for the others."""

    def rows(kept: Sequence[Group], drawn: Sequence[Group]) -> "list[list[Row]]":
        parts = credit(kept, drawn)
        values = covariances([row for part in parts for row in part])
        chosen = choose(values)
        marks = iter([float(i in chosen) for i in range(len(values))])
        return [
            [replace(row, token=row.token | {mark: [next(marks) for _ in range(row.scored)]}) for row in part]
            for part in parts
        ]

    return rows


def covariances(rows: Sequence["Row"]) -> list[float]:
    """Of log-probability and advantage, one number per token of all rows in turn."""
    logprobs = [x for row in rows for x in row.token["old"]]
    advantages = [x for row in rows for x in row.token["advantage"]]
    count = max(1, len(logprobs))
    mean_logprob, mean_advantage = sum(logprobs) / count, sum(advantages) / count
    return [(p - mean_logprob) * (a - mean_advantage) for p, a in zip(logprobs, advantages, strict=True)]
