"""DAPO (Yu et al. 2025, arXiv 2503.14476), as changes to GRPO.

clip higher       loss    ratio clipped to [1 - 0.2, 1 + 0.28], eq. 10
dynamic sampling  draw    problems are drawn until `prompts` groups have signal, at most `rounds` times, eq. 11
                  keep    groups that are partly right; those beyond `prompts` are carried over to the next step
token mean        credit  every token of the step weighs the same, eq. 12
overlong          reward  minus a ramp from 0 to 1 over the last `soft_tokens` of the longest rollout, eq. 13
                  credit  with `mask_overlong`, rollouts that were cut off are not trained on

Differs from the paper: redrawing is bounded. A batch that is still short is weighted as if it were full, so that few
groups make a small gradient. Surplus groups are kept: the next step trains on them first, with the log-probabilities they
were sampled with. The best run of the paper does not mask overlong rollouts, so neither does the default.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from pydantic import Field

from whetstone.records import Problem, Rollout
from whetstone.rl.algorithm import Algorithm, ClippedSettings, Draw, Group, Reward, Setup, State
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.credit import Weight, credit, normalised
from whetstone.rl.draw import walk
from whetstone.rl.keep import partly_right

if TYPE_CHECKING:
    from whetstone.batch import Row


class Settings(ClippedSettings):
    clip_high: float = Field(0.28, gt=0, le=1000, description="how far the ratio may rise above 1")
    rounds: int = Field(10, gt=0, le=10**4, description="samplings of a step, at most")
    soft_tokens: int | None = Field(None, ge=0, description="ramp of the length penalty; None: max_tokens / 5; 0: none")
    mask_overlong: bool = Field(False, description="whether rollouts that were cut off are left out of training")

    def most_rollouts(self, rollouts: int) -> int:
        return rollouts * self.rounds


def dapo(setup: Setup, settings: Settings) -> Algorithm:
    ramp = setup.max_tokens // 5 if settings.soft_tokens is None else settings.soft_tokens

    def draw(state: State, step: int, groups: Sequence[Group]) -> Draw:
        """The first round asks for the groups that are missing, later ones for more: only a share of groups has signal."""
        state["round"] = state.get("round", 0) + 1 if groups else 1
        usable = sum(map(partly_right, groups))
        missing = setup.prompts - len(state.get("surplus", [])) - usable
        drawn = {group.problem.id for group in groups}
        without = {i for i, problem in enumerate(setup.problems) if problem.id in drawn}
        if missing <= 0 or state["round"] > settings.rounds or len(without) == len(setup.problems):
            return Draw()
        wanted = min(setup.prompts, ceil(missing * len(groups) / max(1, usable))) if groups else missing
        chosen, state["drawn"] = walk(len(setup.problems), state.get("drawn", 0), wanted, setup.seed, without)
        return Draw([setup.problems[i] for i in chosen], [setup.samples] * len(chosen), setup.temperature)

    def keep(state: State, step: int, groups: Sequence[Group]) -> list[Group]:
        carried = [Group.from_row(row) for row in state.get("surplus", [])]
        usable = [*carried, *filter(partly_right, groups)]
        state["surplus"] = [group.as_row() for group in usable[setup.prompts :]]
        return usable[: setup.prompts]

    def trained(rollout: Rollout) -> bool:
        return not (settings.mask_overlong and rollout.stop == "length")

    def full_batch_mean(kept: Sequence[Group]) -> Weight:
        tokens = sum(len(r.ids) for group in kept for r in group.rollouts if trained(r))
        full = tokens * setup.prompts / max(1, len(kept))  # tokens of a batch that has all its groups
        return lambda rollout: 1 / full

    def credited(kept: Sequence[Group], drawn: Sequence[Group]) -> "list[list[Row]]":
        rows = credit(normalised, full_batch_mean)(kept, kept)
        return [
            [row for row, rollout in zip(part, group.rollouts, strict=True) if trained(rollout)]
            for part, group in zip(rows, kept, strict=True)
        ]

    reward = soft_overlong(setup.reward, setup.max_tokens, ramp) if ramp else setup.reward
    base = grpo(setup, settings)
    return replace(base, draw=draw, keep=keep, credit=credited, reward=reward)


def soft_overlong(reward: Reward, longest: int, ramp: int) -> Reward:
    """Eq. 13: 0 up to longest - ramp tokens, then falling linearly to -1 at `longest`; added to the reward."""

    def shaped(problem: Problem, rollout: Rollout) -> float | None:
        plain = reward(problem, rollout)
        over = len(rollout.ids) - (longest - ramp)
        return None if plain is None else plain - min(1.0, max(0, over) / ramp)

    return shaped
