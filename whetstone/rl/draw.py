"""Which problems a step samples: a walk over all problems, in an order that is shuffled again in every epoch."""

import random
from collections.abc import Callable, Collection, Sequence

from whetstone.rl.algorithm import Draw, Group, Setup, State


def once(setup: Setup) -> Callable[[State, int, Sequence[Group]], Draw]:
    """Each step samples the next `prompts` problems, once."""

    def draw(state: State, step: int, groups: Sequence[Group]) -> Draw:
        if groups:
            return Draw()
        chosen = [setup.problems[i] for i in window(len(setup.problems), setup.prompts, step, setup.seed)]
        return Draw(chosen, [setup.samples] * len(chosen), setup.temperature)

    return draw


def window(count: int, size: int, step: int, seed: int) -> list[int]:
    """The `step`-th `size` indices of an endless shuffled walk over `count` things: a function of (seed, step)."""
    return walk(count, step * size, size, seed)[0]


def walk(count: int, start: int, size: int, seed: int, without: Collection[int] = ()) -> tuple[list[int], int]:
    """(the next `size` indices of the walk from position `start`, the position after them).

    No index occurs twice, and none of `without` occurs.
    """
    chosen: dict[int, None] = {}
    at, shuffled, order = start, -1, list[int]()
    size = min(size, count - len(without))
    while len(chosen) < size:
        epoch, i = divmod(at, count)
        if epoch != shuffled:
            shuffled, order = epoch, list(range(count))
            random.Random(f"{seed}/draw/{epoch}").shuffle(order)
        if order[i] not in without:  # a step may span two epochs
            chosen[order[i]] = None
        at += 1
    return list(chosen), at
