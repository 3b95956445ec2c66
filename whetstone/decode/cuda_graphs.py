"""Decoding steps on a GPU, captured once for each shape and replayed: a launch instead of some hundreds.

A step of one token for each of n sequences is a function of a flat row of integers: their last ids, their positions, their
tables of blocks. Rows are filled up to one of few counts, tables to one of few widths, so that there are few shapes; what is
filled up is a copy of the last row: it writes what that row writes, where that row writes it. A shape that comes
for the third time is captured, and what its replay gives is compared with the step itself; where that fails, for whatever
reason, the steps run as they are from then on.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from whetstone.decode.blocks import Owner
from whetstone.decode.kv_cache import tables_of
from whetstone.run.progress import say

COMES_AGAIN = 3  # times that a shape is seen until it is captured
NARROWEST = 8  # blocks of a table, at least

Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # ids, positions, tables -> (n, V)
Replay = tuple[torch.Tensor, Callable[[], None], torch.Tensor]  # the plan it reads, what runs it, what it writes


def filled_up(count: int) -> int:
    """The number of rows that `count` are filled up to: at most a half more.

    >>> [filled_up(n) for n in (1, 2, 3, 5, 7, 9, 33, 200)]
    [1, 2, 3, 6, 8, 12, 48, 256]
    """
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if power >= 4 and count <= power * 3 // 4 else power


class Replayed:
    """Calls `step`, or replays what was captured of it. What it returns holds until the next call.

    `reserve` is told the longest sequence of each step before, and gives another number when what was captured is void.
    `capture` makes a Replay of a function of a plan, over that plan.
    """

    def __init__(
        self,
        step: Step,
        reserve: Callable[[int], int],
        device: torch.device,
        capture: Callable[..., Replay] | None = None,
    ):
        self.step, self.reserve, self.device = step, reserve, device
        self.capture = capture or Capture()
        self.replays: dict[tuple[int, int], Replay] = {}
        self.seen: dict[tuple[int, int], int] = {}
        self.reserved = 0
        self.works = True

    def __call__(self, ids: Sequence[int], positions: Sequence[int], rows: Sequence[Owner]) -> torch.Tensor:
        """(n, V) after the tokens `ids` at `positions` of the sequences `rows`."""
        count = len(ids)
        reserved = self.reserve(max(positions) + 1)
        if reserved != self.reserved:
            self.replays.clear()
            self.reserved = reserved
        tables = tables_of(rows, NARROWEST)
        shape = filled_up(count), 1 << (tables.shape[1] - 1).bit_length()
        plan = torch.from_numpy(flat(ids, positions, tables, *shape))
        replay = self._replay(plan, shape)
        if replay is None:
            return self._run(plan.to(self.device), shape)[:count]
        kept, run, out = replay
        kept.copy_(plan)
        run()
        return out[:count]

    def _run(self, plan: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        rows, width = shape
        ids, positions, tables = plan.split([rows, rows, rows * width])
        return self.step(ids, positions, tables.view(rows, width))

    def _replay(self, plan: torch.Tensor, shape: tuple[int, int]) -> Replay | None:
        self.seen[shape] = self.seen.get(shape, 0) + 1
        if self.works and shape not in self.replays and self.seen[shape] >= COMES_AGAIN:
            try:
                self.replays[shape] = self.capture(lambda kept: self._run(kept, shape), plan.to(self.device))
            except RuntimeError as error:  # out of memory, or something in the step that cannot be captured
                self.works = False
                say(f"decoding on the GPU without CUDA graphs, which is slower: {str(error).splitlines()[0]}")
        return self.replays.get(shape) if self.works else None


class Capture:
    """Into CUDA graphs that share their memory, as only one runs at a time."""

    def __init__(self) -> None:
        self.pool: Any = None

    def __call__(self, run: Callable[[torch.Tensor], torch.Tensor], plan: torch.Tensor) -> Replay:
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):  # kernels and workspaces are made before, not while it is captured
            expected = run(plan)
        torch.cuda.current_stream().wait_stream(beside)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):  # others may use the GPU
            out = run(plan)
        self.pool = self.pool or graph.pool()
        graph.replay()
        if not same(out, expected):
            raise RuntimeError("a replayed step is not what the step gives")
        return plan, graph.replay, out


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= 0.02 * b.abs().max())


def flat(ids: Sequence[int], positions: Sequence[int], tables: np.ndarray, rows: int, width: int) -> np.ndarray:
    """Ids, positions, tables, end to end, the last row repeated and the tables widened."""
    count, more = len(ids), rows - len(ids)
    plan = np.zeros(rows * (2 + width), dtype=np.int64)
    plan[:rows] = [*ids, *[ids[-1]] * more]
    plan[rows : 2 * rows] = [*positions, *[positions[-1]] * more]
    wide = plan[2 * rows :].reshape(rows, width)
    wide[:count, : tables.shape[1]] = tables
    wide[count:] = wide[count - 1]
    return plan
