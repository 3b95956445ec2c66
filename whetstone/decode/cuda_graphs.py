"""Decoding steps on a GPU as CUDA graphs: captured once per shape, then replayed with one launch instead of some hundreds.

A step of one token for each of B sequences is a function of one row of integers: last ids, positions, block tables. To have
few shapes, B and the width of the tables are rounded up; the padding repeats the last sequence, so it writes what that
sequence writes, where that sequence writes it. A shape is captured when it comes for the third time, and its first replay is
compared with the step itself. If anything fails, steps run without graphs from then on.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from whetstone.decode.paged_attention import padded_tables
from whetstone.run.progress import say

CAPTURE_AT = 3  # the use of a shape at which it is captured
LEAST_WIDTH = 8  # blocks of a table

# ids (B,), positions (B,), tables (B, M) -> logits (B, V)
Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Graph = tuple[torch.Tensor, Callable[[], None], torch.Tensor]  # its input (a plan), what replays it, its output (B, V)


def rounded_up(count: int) -> int:
    """The number of rows that `count` rows are padded to: at most a half more.

    >>> [rounded_up(n) for n in (1, 2, 3, 5, 7, 9, 33, 200)]
    [1, 2, 3, 6, 8, 12, 48, 256]
    """
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if power >= 4 and count <= power * 3 // 4 else power


class GraphedStep:
    """Calls `step`, or replays a captured graph of it. The result is valid until the next call.

    `reserve` is called with the longest sequence's length before each step; if it returns another number, graphs are void.
    """

    def __init__(self, step: Step, reserve: Callable[[int], int], device: torch.device):
        self.step, self.reserve, self.device = step, reserve, device
        self.pool: Any = None  # memory of all graphs, as only one runs at a time
        self.graphs: dict[tuple[int, int], Graph] = {}
        self.uses: dict[tuple[int, int], int] = {}
        self.reserved = 0
        self.works = True

    def __call__(self, ids: list[int], positions: list[int], tables: list[list[int]]) -> torch.Tensor:
        """Logits (B, V) after the tokens `ids` at `positions` of the sequences with these block tables."""
        count = len(ids)
        reserved = self.reserve(max(positions) + 1)
        if reserved != self.reserved:
            self.graphs.clear()
            self.reserved = reserved
        padded = padded_tables(tables, LEAST_WIDTH)
        shape = rounded_up(count), 1 << (padded.shape[1] - 1).bit_length()
        plan = torch.from_numpy(pack_plan(ids, positions, padded, *shape))
        graph = self._graph(plan, shape)
        if graph is None:
            return self._run(plan.to(self.device), shape)[:count]
        captured_plan, replay, out = graph
        captured_plan.copy_(plan)
        replay()
        return out[:count]

    def _run(self, plan: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
        rows, width = shape
        ids, positions, tables = plan.split([rows, rows, rows * width])
        return self.step(ids, positions, tables.view(rows, width))

    def _graph(self, plan: torch.Tensor, shape: tuple[int, int]) -> Graph | None:
        self.uses[shape] = self.uses.get(shape, 0) + 1
        if self.works and shape not in self.graphs and self.uses[shape] >= CAPTURE_AT:
            try:
                self.graphs[shape] = self.capture(lambda plan: self._run(plan, shape), plan.to(self.device))
            except RuntimeError as error:  # out of memory, or the step cannot be captured
                self.works = False
                say(f"decoding on the GPU without CUDA graphs, which is slower: {str(error).splitlines()[0]}")
        return self.graphs.get(shape) if self.works else None

    def capture(self, run: Callable[[torch.Tensor], torch.Tensor], plan: torch.Tensor) -> Graph:
        """The graph of a function of a plan. Raises RuntimeError if the replay does not give what `run` gives."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # kernels and workspaces must be made before the capture
            expected = run(plan)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # "thread_local": other threads may use the GPU meanwhile
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            out = run(plan)
        self.pool = self.pool or graph.pool()
        graph.replay()
        if not bool((out - expected).abs().max() <= 0.02 * expected.abs().max()):
            raise RuntimeError("a replayed step does not give what the step itself gives")
        return plan, graph.replay, out


def pack_plan(ids: list[int], positions: list[int], tables: np.ndarray, rows: int, width: int) -> np.ndarray:
    """Ids, positions and tables (B, M) end to end, padded to `rows` rows and tables of `width`: (rows * (2 + width),)."""
    count, missing = len(ids), rows - len(ids)
    plan = np.zeros(rows * (2 + width), dtype=np.int64)
    plan[:rows] = [*ids, *[ids[-1]] * missing]
    plan[rows : 2 * rows] = [*positions, *[positions[-1]] * missing]
    wide = plan[2 * rows :].reshape(rows, width)
    wide[:count, : tables.shape[1]] = tables
    wide[count:] = wide[count - 1]
    return plan
