"""The compact subset for supervised fine-tuning: few problems that stand for all levels and domains.

A stratum is one level of one domain. Every stratum gets at least one place while places last; the rest go by the
stratum's size ("proportional") or evenly ("equal"). Within a stratum problems are drawn by hash ("representative") or
the best argued come first ("quality"). LIMO takes the best argued of all ("limo": one stratum). s1 (Muennighoff et al. 2025,
arXiv 2501.19393) draws a domain and then favours long traces: "diverse" gives each domain as many places and takes the
longest, where s1 draws them with a bias. Memory holds, per stratum, as many candidates as there are places.
"""

import heapq
from collections import Counter
from collections.abc import Callable

Stratum = tuple[str, str]  # level, domain


class Subset:
    def __init__(self, problems: int, by: str, balance: str, key: Callable[[str], str]):
        self.problems, self.by, self.balance, self.key = problems, by, balance, key
        self.sizes: Counter[Stratum] = Counter()
        self._best: dict[Stratum, list[tuple[float, int, str, list[int]]]] = {}

    def offer(self, problem_id: str, stratum: Stratum, quality: float, indices: list[int]) -> None:
        """A problem and the indices of its traces that would come along."""
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
    """Places per stratum, never more than it has: one place at a time to the stratum that is furthest behind its share.

    >>> allocate(Counter({("1", "a"): 90, ("2", "a"): 10}), 10, "proportional")
    {('1', 'a'): 9, ('2', 'a'): 1}
    >>> allocate(Counter({("1", "a"): 90, ("2", "a"): 3}), 10, "equal")
    {('1', 'a'): 7, ('2', 'a'): 3}
    """
    given = dict.fromkeys(sorted(sizes), 0)

    def behind(stratum: Stratum) -> tuple[float, Stratum]:
        weight = sizes[stratum] if balance == "proportional" else 1
        return (given[stratum] / weight if given[stratum] else -1.0), stratum

    queue = [behind(stratum) for stratum in given]
    heapq.heapify(queue)
    for _ in range(min(places, sizes.total())):
        _, stratum = heapq.heappop(queue)
        given[stratum] += 1
        if given[stratum] < sizes[stratum]:
            heapq.heappush(queue, behind(stratum))
    return given
