"""Which items each optimizer step takes: a function of (seed, step) alone, so that resuming needs a step number only.

Items (conversations, packed rows, pairs) are walked epoch after epoch, each epoch in an order of its own, at least so many
tokens a step. Memory holds one number an item of at most two epochs, and one a step, whatever the corpus and the epochs.
"""

import random
from array import array
from collections.abc import Sequence
from functools import lru_cache

import numpy as np


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch, (count,): a function of (seed, epoch) alone."""
    return _shuffled(count, random.Random(f"{seed}/{epoch}"))


def short_first(lengths: Sequence[int], seed: int, share: float) -> np.ndarray:
    """All indices: a random `share` of them from short to long, loosely (a length counts as up to twice itself), then the
    others in any order, so that what is trained on last is like the whole."""
    lengths = np.asarray(lengths)
    rng = random.Random(f"{seed}/short first")
    shuffled = _shuffled(len(lengths), rng)
    keys = lengths * (1 + np.fromiter((rng.random() for _ in range(len(lengths))), float, len(lengths)))
    first = shuffled[: round(share * len(lengths))]
    return np.concatenate([first[np.argsort(keys[first], kind="stable")], shuffled[len(first) :]])


def _shuffled(count: int, rng: random.Random) -> np.ndarray:
    indices = array("I", range(count))  # 4 bytes each, where a list takes 36
    rng.shuffle(indices)
    return np.array(indices, np.uint32)


class StepPlan(Sequence[list[int]]):
    """`plan[step]`: the items of a step, looked up without walking there."""

    def __init__(self, count: int, seed: int, first: Sequence[int] | None = None):
        self.count = count
        self.ends = array("q")  # how many items were walked, over all epochs, when each step ended
        self.epoch = lru_cache(maxsize=2)(  # a step may lie across two
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
    sizes: Sequence[int], budget: int, seed: int, epochs: float, tokens: int = 0, first: Sequence[int] | None = None
) -> StepPlan:
    """Items in the order of each epoch, at least `budget` tokens a step.

    `first` is the order of the first epoch, where it is not to be shuffled. Ends after `epochs` passes (1.5 is one and a
    half), or sooner once `tokens` are spent (0: no such limit).

    >>> plan = plan_steps([3, 5, 7], budget=8, seed=0, epochs=1, first=[0, 1, 2])
    >>> len(plan), plan[1]
    (2, [2])
    """
    sizes = np.asarray(sizes, np.int64)
    plan = StepPlan(len(sizes), seed, first)
    total = int(sizes.sum())
    limit = min(int(epochs * total), tokens or int(epochs * total))
    epoch = begun = spent = 0  # tokens walked when the open step, and the epoch, began
    while spent < limit:
        walked = spent + np.cumsum(sizes[plan.epoch(epoch)])
        stop = min(int(np.searchsorted(walked, limit)), len(sizes) - 1)  # the item that reaches the limit, or the last
        at = int(np.searchsorted(walked, begun + budget))
        while at <= stop:
            plan.ends.append(epoch * len(sizes) + at + 1)
            begun = int(walked[at])
            at = int(np.searchsorted(walked, begun + budget))
        spent = int(walked[stop])
        epoch += 1
    if begun < spent:
        plan.ends.append((epoch - 1) * len(sizes) + stop + 1)
    return plan
