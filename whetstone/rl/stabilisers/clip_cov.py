"""Clip-Cov (Cui et al. 2025, arXiv 2505.22617), as two changes to an algorithm.

credit  a share of the tokens is marked, drawn at random among those whose covariance is between 1 and 5
loss    marked tokens have no gradient
"""

import random
from dataclasses import replace

from whetstone.rl.algorithm import Algorithm, Setup
from whetstone.rl.covariance import CovarianceSettings, marked

MARK = "clip_cov"
LOW, HIGH = 1.0, 5.0  # the band of covariances

Settings = CovarianceSettings


def clip_cov(algorithm: Algorithm, setup: Setup, settings: Settings) -> Algorithm:
    from whetstone.rl.loss import without

    def choose(covariances: list[float]) -> set[int]:
        between = [i for i, covariance in enumerate(covariances) if LOW < covariance < HIGH]
        count = min(len(between), max(1, int(settings.share * len(covariances))))
        return set(random.Random(f"{setup.seed}/{sum(covariances)!r}").sample(between, count))

    return replace(algorithm, credit=marked(algorithm.credit, MARK, choose), loss=without(algorithm.loss, MARK))
