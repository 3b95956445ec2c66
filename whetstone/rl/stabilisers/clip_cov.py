"""Clip-Cov (Cui et al. 2025, arXiv 2505.22617), as two changes to an algorithm.

credit  a share of the tokens is marked, drawn at random among those whose covariance is between `low` and `high`
loss    marked tokens have no gradient
"""

import random
from dataclasses import replace

from pydantic import Field

from whetstone.rl.algorithm import Algorithm, Setup
from whetstone.rl.covariance import CovarianceSettings, marked

MARK = "clip_cov"


class Settings(CovarianceSettings):
    low: float = Field(1.0, description="smallest covariance of a token that is held back")
    high: float = Field(5.0, description="largest covariance of a token that is held back")


def clip_cov(algorithm: Algorithm, setup: Setup, settings: Settings) -> Algorithm:
    from whetstone.rl.loss import without

    def choose(covariances: list[float]) -> set[int]:
        between = [i for i, covariance in enumerate(covariances) if settings.low < covariance < settings.high]
        count = min(len(between), max(1, int(settings.share * len(covariances))))
        return set(random.Random(f"{setup.seed}/{sum(covariances)!r}").sample(between, count))

    return replace(algorithm, credit=marked(algorithm.credit, MARK, choose), loss=without(algorithm.loss, MARK))
