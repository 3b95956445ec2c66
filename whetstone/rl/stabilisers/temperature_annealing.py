"""Temperature annealing (Phi-4-Mini-Reasoning): T falls linearly from 1.0 to 0.6 over the first half of the steps.

T(s) = 1 - (1 - to) · min(1, s / (S/2)) for step s of S. The learner scores rollouts at the temperature they were sampled
with: T travels with the rollout.
"""

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from whetstone.rl.algorithm import Algorithm, Draw, Group, Setup, StabiliserSettings, State


class Settings(StabiliserSettings):
    to: float = Field(0.6, gt=0, le=100, description="temperature after the first half of the steps; it begins at 1.0")


def temperature_annealing(algorithm: Algorithm, setup: Setup, settings: Settings) -> Algorithm:
    def draw(state: State, step: int, groups: Sequence[Group]) -> Draw:
        return replace(algorithm.draw(state, step, groups), temperature=temperature(step, setup.steps, settings.to))

    return replace(algorithm, draw=draw)


def temperature(step: int, steps: int, to: float) -> float:
    return 1.0 - (1.0 - to) * min(1.0, step / (0.5 * steps))
