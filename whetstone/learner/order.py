"""The items of each optimizer step. They depend on (seed, step) only, so that resuming needs nothing but a step number.

Items (conversations, packed rows, pairs) are taken epoch after epoch, each epoch in its own order, until a step has enough
tokens. Memory holds one number per item, for at most two epochs, and one per step.
"""

import random
from array import array
from collections.abc import Sequence
from functools import lru_cache

import numpy as np


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch, (count,). It depends on (seed, epoch) only."""
    return _shuffled(count, random.Random(f"{seed}/{epoch}"))


def short_first(lengths: Sequence[int], seed: int, share: float) -> np.ndarray:
    """All indices, (count,): a random `share` of them roughly from short to long, then the others in random order.

    Roughly: each length is multiplied by a random factor from 1 to 2 before sorting.
    """
    lengths = np.asarray(lengths)
    rng = random.Random(f"{seed}/short first")
    shuffled = _shuffled(len(lengths), rng)
    keys = lengths * (1 + np.fromiter((rng.random() for _ in range(len(lengths))), float, len(lengths)))
    first = shuffled[: round(share * len(lengths))]
    return np.concatenate([first[np.argsort(keys[first], kind="stable")], shuffled[len(first) :]])


def _shuffled(count: int, rng: random.Random) -> np.ndarray:
    indices = array("I", range(count))  # 4 bytes each; a list takes 36
    rng.shuffle(indices)
    return np.array(indices, np.uint32)


class StepPlan(Sequence[list[int]]):
    """`plan[step]` are the items of a step."""

    def __init__(self, count: int, seed: int, first: Sequence[int] | None = None):
        self.count = count
        self.ends = array("q")  # items taken by the end of each step, over all epochs
        self.epoch = lru_cache(maxsize=2)(  # a step may span two epochs
            lambda epoch: np.asarray(first) if first is not None and epoch == 0 else order(count, seed, epoch)
        )

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, step: int) -> list[int]:
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        at = self.ends[step - 1] if step else 0
        items: list[int] = []
        while at < self.ends[step]:
            epoch, start = divmod(at, self.count)
            part = self.epoch(epoch)[start : start + self.ends[step] - at]
            items += part.tolist()
            at += len(part)
        return items


def plan_steps(
    sizes: Sequence[int],
    budget: int,
    seed: int,
    epochs: float,
    tokens: int = 0,
    first: Sequence[int] | None = None,
    steps: int = 0,
) -> StepPlan:
    """Divide `epochs` passes over the items into steps of at least `budget` tokens, or evenly into `steps` steps.

    `epochs` may be 1.5. `first` is the order of the first epoch, if it is not to be shuffled. The plan ends earlier once
    `tokens` are spent (0: no limit). If an item is longer than a step's even share, there are fewer steps. Raises ValueError
    if the epochs hold no item.

    >>> plan = plan_steps([3, 5, 7], budget=8, seed=0, epochs=1, first=[0, 1, 2])
    >>> len(plan), plan[1]
    (2, [2])
    >>> len(plan_steps([3, 5, 7], budget=8, seed=0, epochs=2, steps=4))
    4
    """
    sizes = np.asarray(sizes, np.int64)
    plan = StepPlan(len(sizes), seed, first)
    total = int(sizes.sum())
    limit = min(int(epochs * total), tokens or int(epochs * total))
    if total and limit < 1:
        raise ValueError(
            f"epochs = {epochs:g} of {len(sizes):,} items is less than one of them: nothing would be trained. Raise epochs."
        )
    epoch = begun = spent = 0  # `begun`, `spent`: tokens before the current step, and before the epoch

    def due() -> int:
        """Tokens by the end of the current step: the next multiple of limit / steps, without drift."""
        return -(-(begun * steps // limit + 1) * limit // steps) if steps else begun + budget

    while spent < limit:
        walked = spent + np.cumsum(sizes[plan.epoch(epoch)])
        stop = min(int(np.searchsorted(walked, limit)), len(sizes) - 1)  # the item that reaches the limit, or the last
        at = int(np.searchsorted(walked, due()))
        while at <= stop:
            plan.ends.append(epoch * len(sizes) + at + 1)
            begun = int(walked[at])
            at = int(np.searchsorted(walked, due()))
        spent = int(walked[stop])
        epoch += 1
    if begun < spent:
        plan.ends.append((epoch - 1) * len(sizes) + stop + 1)
    return plan
