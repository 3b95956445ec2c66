"""Reward rebalancing (Phi-4-Mini-Reasoning): oversample hard prompts, then half right and half wrong.

draw    a prompt without a right rollout is sampled again, up to `oversample` rollouts in all
keep    groups whose accuracy is above `threshold` are dropped; all right rollouts are kept, and as many wrong ones,
        drawn at random

With ±1 rewards a kept group has mean 0 and standard deviation 1, so every advantage is ±1: prompts no longer weigh by
their difficulty.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from whetstone.rl.algorithm import Algorithm, Draw, Group, HardPromptsSettings, Setup, State


class Settings(HardPromptsSettings):
    oversample: int = Field(16, gt=0, le=10**6, description="rollouts of a hard prompt, at most (paper: 128)")

    def most_rollouts(self, rollouts: int, samples: int) -> int:
        return rollouts // samples * max(samples, self.oversample)


def reward_rebalancing(algorithm: Algorithm, setup: Setup, settings: Settings) -> Algorithm:
    def draw(state: State, step: int, groups: Sequence[Group]) -> Draw:
        inner = algorithm.draw(state, step, groups)
        if inner.problems or not groups:
            return inner
        hard = [g for g in groups if not any(r.correct for r in g.rollouts) and g.sampled < settings.oversample]
        return replace(
            inner,
            problems=[g.problem for g in hard],
            counts=[min(setup.samples, settings.oversample - g.sampled) for g in hard],
        )

    def keep(state: State, step: int, groups: Sequence[Group]) -> list[Group]:
        balanced = [half for group in groups if (half := half_right(group, step)) is not None]
        return algorithm.keep(state, step, balanced)

    def half_right(group: Group, step: int) -> Group | None:
        if group.accuracy > settings.threshold:
            return None
        right = [r for r in group.rollouts if r.correct is True]
        wrong = [r for r in group.rollouts if r.correct is False]
        drawn = random.Random(f"{setup.seed}/{step}/{group.problem.id}").sample(wrong, min(len(right), len(wrong)))
        chosen = {r.index for r in right} | {r.index for r in drawn}
        return replace(group, rollouts=[r for r in group.rollouts if r.index in chosen])

    return replace(algorithm, draw=draw, keep=keep)
