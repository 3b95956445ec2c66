"""SRPO (Zhang et al. 2025, arXiv 2504.14286): two stages and history resampling, as changes to GRPO.

draw    an epoch runs over the problems that were not all right when they were last drawn; those never right stay, as a
        later policy may solve them
keep    remembers each problem's accuracy
credit  every token of the step weighs the same; a rollout that was cut off has advantage 0, and its tokens count

The two stages, hard mathematics first and then the mixture, are two `rl` stages of a recipe (recipes/srpo.toml): the
second takes the first one's model. No KL, as in the paper.

Differs from the paper: if every problem was all right, an epoch takes them all again. Its format and language rewards
are chosen by the recipe (`reward`).
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from whetstone.rl.algorithm import Algorithm, ClippedSettings, Draw, Group, Setup, State
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.credit import credit, normalised, token_mean

Settings = ClippedSettings  # no options of its own


def srpo(setup: Setup, settings: Settings) -> Algorithm:
    from whetstone.rl.loss import clipped

    base = grpo(setup)
    by_id = {problem.id: problem for problem in setup.problems}

    def draw(state: State, step: int, groups: Sequence[Group]) -> Draw:
        if groups:
            return Draw()
        chosen: list[str] = []
        wanted = min(setup.prompts, len(by_id))
        while len(chosen) < wanted:
            if not state.get("epoch_left"):
                begin_epoch(state)
            have = set(chosen)  # a step may span the end of an epoch and the start of the next
            taken = [name for name in state["epoch_left"] if name not in have][: wanted - len(chosen)]
            if not taken:  # all that is left of the epoch is in the step already: the step has fewer problems
                break
            chosen += taken
            have |= set(taken)
            state["epoch_left"] = [name for name in state["epoch_left"] if name not in have]
        problems = [by_id[name] for name in chosen]
        return Draw(problems, [setup.samples] * len(problems), setup.temperature)

    def begin_epoch(state: State) -> None:
        history = state.get("history", {})
        pool = [name for name in by_id if history.get(name, 0.0) < 1] or list(by_id)
        state["epoch"] = state.get("epoch", -1) + 1
        random.Random(f"{setup.seed}/epoch/{state['epoch']}").shuffle(pool)
        state["epoch_left"] = pool

    def keep(state: State, step: int, groups: Sequence[Group]) -> list[Group]:
        accuracies = {group.problem.id: group.accuracy for group in groups if group.rollouts}
        state["history"] = state.get("history", {}) | accuracies
        return base.keep(state, step, groups)

    loss = clipped(settings.clip_low, settings.clip_high)
    return replace(base, draw=draw, keep=keep, credit=credit(finished, token_mean), loss=loss)


def finished(group: Group) -> list[float]:
    """GRPO's advantages, and 0 for rollouts that were cut off."""
    advantages = normalised(group)
    return [0.0 if r.stop == "length" else a for r, a in zip(group.rollouts, advantages, strict=True)]
