"""How fast training goes, for the progress line: tokens per second, MFU, padding, memory, time left."""

import resource
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from whetstone.learner import flops
from whetstone.learner.learner import Learner
from whetstone.run.processes import CpuClock
from whetstone.run.usage import peak_memory

STEPS = 20  # rates are averages over the last STEPS steps, including their sampling, validation and checkpoints


class Pace:
    """The pace of a learner over `total` steps, measured from now on.

    tokens_per_second        tokens trained on
    tokens_per_cpu_second    the same, divided by the CPU time of this process and its children
    mfu                      the learner's operations (flops.py), divided by what its devices could have done
    padding                  share of the computed positions that hold no token
    memory                   bytes: the most that a GPU held so far, or what this process holds now (read once per second)
    seconds_left             at this pace
    """

    def __init__(self, learner: Learner, total: int):
        self.learner, self.total = learner, total
        dtype = torch.bfloat16 if learner.parallel.compute == "bfloat16" else next(learner.model.parameters()).dtype
        self.peak = flops.peak(learner.device, dtype) * learner.processes
        self.clock = CpuClock()
        self.tokens = 0
        self.history = deque([self._now()], maxlen=STEPS + 1)
        self._memory, self._asked = 0, float("-inf")

    def add(self, step: int, tokens: int) -> dict[str, Any]:
        """The pace after `step`, counted from 0, which trained on `tokens`."""
        self.tokens += tokens
        self.history.append(self._now())
        (wall, cpu, trained, work), steps = self._since_first(), len(self.history) - 1
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
        wall, cpu, tokens, work = (b - a for a, b in zip(self.history[0], self.history[-1], strict=True))
        return max(1e-9, wall), max(1e-9, cpu), tokens, work

    def _memory_now(self) -> int:
        if self.learner.device == "cuda":
            return torch.cuda.max_memory_allocated()
        if time.monotonic() - self._asked > 1:
            self._asked, self._memory = time.monotonic(), resident_bytes()
        return self._memory


def resident_bytes() -> int:
    """Memory of this process: on Linux what it holds now, elsewhere the most that it held so far."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return peak_memory()
