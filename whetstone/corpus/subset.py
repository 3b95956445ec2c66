"""The compact subset for supervised fine-tuning: few problems that represent all levels and domains.

A stratum is one level of one domain. Every stratum gets at least one place while places last; the others are given out in
proportion to the strata's sizes. `by` says which problems of a stratum are taken:

representative   drawn by hash
quality          those with the best argued traces (`limo.quality`)
limo             the best argued of all: one stratum for all levels and domains (LIMO)
diverse          all domains get equally many places, for their longest traces, as in s1 (Muennighoff et al. 2025, arXiv
                 2501.19393). Differs: s1 draws with a bias towards long traces, here the longest are taken

Memory holds, per stratum, as many candidates as there are places.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from whetstone.run.settings import Settings

Stratum = tuple[str, str]  # level, domain


class SubsetSettings(Settings):
    """The compact subset for supervised fine-tuning."""

    problems: int = Field(1000, ge=0, description="problems of the subset")
    traces: int = Field(1, ge=1, description="traces per problem, the best argued ones")
    by: Literal["representative", "quality", "limo", "diverse"] = Field(
        "representative",
        description="drawn per level and domain; best argued there, or of all; longest per domain (s1)",
    )
    solved: tuple[int, int] = Field((1, 3), description="fewest and most right rollouts of the `strong` model (LIMO)")

    @field_validator("solved")
    @classmethod
    def _fewest_comes_first(cls, solved: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= solved[0] <= solved[1]:
            raise ValueError("fewest and most right rollouts, as in [1, 3]")
        return solved

    MOVED: ClassVar[Mapping[str, str]] = {
        "balance": 'by: places are in proportion to each level and domain, and even over domains if by = "diverse"',
        "half_length": "fixed: the length term of a trace's quality is one half at 200 words",
    }


class Subset:
    """Collects candidates, then chooses. `key` maps a problem id to hexadecimal digits that shuffle the problems."""

    def __init__(self, settings: SubsetSettings, key: Callable[[str], str]):
        self.problems, self.by, self.key = settings.problems, settings.by, key
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
        places = allocate(self.sizes, self.problems, even=self.by == "diverse")
        best = (heapq.nlargest(places[stratum], heap) for stratum, heap in self._best.items())
        return {problem_id: set(indices) for heap in best for _, _, problem_id, indices in heap}


def allocate(sizes: Counter[Stratum], places: int, even: bool = False) -> dict[Stratum, int]:
    """Places per stratum, at most its size: one place at a time to the stratum that is furthest behind its share.

    The share is in proportion to the stratum's size or, with `even`, the same for all.

    >>> allocate(Counter({("1", "a"): 90, ("2", "a"): 10}), 10)
    {('1', 'a'): 9, ('2', 'a'): 1}
    >>> allocate(Counter({("1", "a"): 90, ("2", "a"): 3}), 10, even=True)
    {('1', 'a'): 7, ('2', 'a'): 3}
    """
    allocated = dict.fromkeys(sorted(sizes), 0)

    def behind(stratum: Stratum) -> tuple[float, Stratum]:
        weight = 1 if even else sizes[stratum]
        return (allocated[stratum] / weight if allocated[stratum] else -1.0), stratum

    queue = [behind(stratum) for stratum in allocated]
    heapq.heapify(queue)
    for _ in range(min(places, sizes.total())):
        _, stratum = heapq.heappop(queue)
        allocated[stratum] += 1
        if allocated[stratum] < sizes[stratum]:
            heapq.heappush(queue, behind(stratum))
    return allocated
