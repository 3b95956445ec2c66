"""How fast training goes, for the step's line: tokens a second, MFU, padding, memory, time left."""

import resource
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from whetstone.learner import flops
from whetstone.learner.learner import Learner
from whetstone.run.processes import CpuClock

STEPS = 20  # rates are those of so many last steps, with all that was done in them: sampling, validation, checkpoints


class Pace:
    """Of `total` steps of a learner, from now on.

    tokens_per_second        trained on
    tokens_per_cpu_second    the same by the CPU time of this process and its children
    mfu                      the learner's operations (flops.py) by what its devices could have done in the time
    padding                  share of the positions computed that hold no token; rows without padding have none
    memory                   bytes: the most that a GPU held so far, or what this process holds now (once a second)
    seconds_left             at this rate
    """

    def __init__(self, learner: Learner, total: int):
        self.learner, self.total = learner, total
        dtype = torch.bfloat16 if learner.parallel.compute == "bfloat16" else next(learner.model.parameters()).dtype
        self.peak = flops.peak(learner.device, dtype) * learner.processes
        self.clock = CpuClock()
        self.tokens = 0
        self.seen = deque([self._now()], maxlen=STEPS + 1)
        self._memory, self._asked = 0, float("-inf")

    def add(self, step: int, tokens: int) -> dict[str, Any]:
        """After a step, counted from 0, that trained on `tokens`."""
        self.tokens += tokens
        self.seen.append(self._now())
        (wall, cpu, trained, work), steps = self._since_first(), len(self.seen) - 1
        positions = self.learner.work["positions"]
        return {
            "tokens_per_second": round(trained / wall),
            "tokens_per_cpu_second": round(trained / cpu),
            "mfu": round(work / (wall * self.peak), 4),
            "padding": round(1 - self.learner.work["tokens"] / positions, 4) if positions else 0.0,
            "memory": self._memory_now(),
            "seconds_left": round((self.total - step - 1) * wall / steps),
        }

    def _now(self) -> tuple[float, float, int, float]:
        return time.perf_counter(), self.clock.seconds(), self.tokens, self.learner.work["flops"]

    def _since_first(self) -> tuple[float, float, int, float]:
        wall, cpu, tokens, work = (b - a for a, b in zip(self.seen[0], self.seen[-1], strict=True))
        return max(1e-9, wall), max(1e-9, cpu), tokens, work

    def _memory_now(self) -> int:
        if self.learner.device == "cuda":
            return torch.cuda.max_memory_allocated()
        if time.monotonic() - self._asked > 1:
            self._asked, self._memory = time.monotonic(), resident_bytes()
        return self._memory


def resident_bytes() -> int:
    """Of this process now, on Linux; the most it ever held elsewhere."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
