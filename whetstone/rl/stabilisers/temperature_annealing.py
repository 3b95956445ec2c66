"""Temperature annealing (Phi-4-Mini-Reasoning): T falls linearly from 1.0 to 0.6 over the first half of the steps.

T(s) = start - (start - end) · min(1, s / (share · S)) for step s of S. The learner scores rollouts at the temperature they
were sampled with: T travels with the rollout.
"""

from collections.abc import Sequence
from dataclasses import replace

from whetstone.rl.algorithm import Algorithm, Draw, Group, State


def temperature(step: int, steps: int, start: float = 1.0, end: float = 0.6, share: float = 0.5) -> float:
    return start - (start - end) * min(1.0, step / max(1e-9, share * steps))


def temperature_annealing(
    algorithm: Algorithm, steps: int, start: float = 1.0, end: float = 0.6, share: float = 0.5
) -> Algorithm:
    def draw(state: State, step: int, groups: Sequence[Group]) -> Draw:
        return replace(algorithm.draw(state, step, groups), temperature=temperature(step, steps, start, end, share))

    return replace(algorithm, draw=draw)
