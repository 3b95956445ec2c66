"""The compact subset for supervised fine-tuning: few problems that represent all levels and domains.

A stratum is one level of one domain. Every stratum gets at least one place while places last; the others are given out in
proportion to the stratum's size ("proportional") or evenly ("equal"). `by` says which problems of a stratum are taken:

representative   drawn by hash
quality          those with the best argued traces (`limo.quality`)
limo             the best argued of all: one stratum for all levels and domains (LIMO)
diverse          each domain gets as many places and gives its longest traces, as in s1 (Muennighoff et al. 2025, arXiv
                 2501.19393). Differs: s1 draws long traces with a bias, here the longest are taken

Memory holds, per stratum, as many candidates as there are places.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from whetstone.run.settings import Settings

Stratum = tuple[str, str]  # level, domain


class SubsetSettings(Settings):
    """The compact subset for supervised fine-tuning."""

    problems: int = Field(1000, ge=0, description="problems of the subset")
    traces: int = Field(1, ge=1, description="traces per problem, the best argued ones")
    by: Literal["representative", "quality", "limo", "diverse"] = Field(
        "representative",
        description="drawn within each level and domain; best argued there; best argued of all; longest of each domain (s1)",
    )
    balance: Literal["proportional", "equal"] = Field("proportional", description="shares of the levels and domains")
    solved: tuple[int, int] = Field((1, 3), description="fewest and most right rollouts of the `strong` model (LIMO)")
    half_length: float = Field(200, gt=0, description="words at which the length term of `quality` is one half (LIMO)")


class Subset:
    """Collects candidates, then chooses. `key` maps a problem id to hexadecimal digits that shuffle the problems."""

    def __init__(self, settings: SubsetSettings, key: Callable[[str], str]):
        self.problems, self.by, self.key = settings.problems, settings.by, key
        self.balance = "equal" if settings.by == "diverse" else settings.balance
        self.sizes: Counter[Stratum] = Counter()
        self._best: dict[Stratum, list[tuple[float, int, str, list[int]]]] = {}

    def offer(self, problem_id: str, stratum: Stratum, quality: float, indices: list[int]) -> None:
        """A problem, and the indices of its traces that would be taken with it."""
        self.sizes[stratum] += 1
        heap = self._best.setdefault(stratum, [])
        shuffled = -int(self.key(problem_id), 16)
        candidate = (0.0 if self.by == "representative" else quality, shuffled, problem_id, indices)
        if len(heap) < self.problems:
            heapq.heappush(heap, candidate)
        elif heap:
            heapq.heappushpop(heap, candidate)

    def choose(self) -> dict[str, set[int]]:
        """Problem id -> indices of the chosen traces."""
        places = allocate(self.sizes, self.problems, self.balance)
        chosen: dict[str, set[int]] = {}
        for stratum, heap in self._best.items():
            for _, _, problem_id, indices in heapq.nlargest(places[stratum], heap):
                chosen[problem_id] = set(indices)
        return chosen


def allocate(sizes: Counter[Stratum], places: int, balance: str) -> dict[Stratum, int]:
    """Places per stratum, at most its size: one place at a time to the stratum that is furthest behind its share.

    >>> allocate(Counter({("1", "a"): 90, ("2", "a"): 10}), 10, "proportional")
    {('1', 'a'): 9, ('2', 'a'): 1}
    >>> allocate(Counter({("1", "a"): 90, ("2", "a"): 3}), 10, "equal")
    {('1', 'a'): 7, ('2', 'a'): 3}
    """
    allocated = dict.fromkeys(sorted(sizes), 0)

    def behind(stratum: Stratum) -> tuple[float, Stratum]:
        weight = sizes[stratum] if balance == "proportional" else 1
        return (allocated[stratum] / weight if allocated[stratum] else -1.0), stratum

    queue = [behind(stratum) for stratum in allocated]
    heapq.heapify(queue)
    for _ in range(min(places, sizes.total())):
        _, stratum = heapq.heappop(queue)
        allocated[stratum] += 1
        if allocated[stratum] < sizes[stratum]:
            heapq.heappush(queue, behind(stratum))
    return allocated
