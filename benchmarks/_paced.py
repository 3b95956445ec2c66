"""A training loop in its own process that makes a step on request, so that two loops can take turns."""

import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from benchmarks._measure import Work, own_cpu

ONE_THREAD = {  # for libraries that read it when they are loaded
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


class Gate:
    """A loop calls it after each step; it returns when the next step may begin."""

    def __init__(self, pipe: Connection):
        self.pipe = pipe
        self.left, self.done, self.seen = 1, 0, list[dict[str, float]]()

    def step_done(self, done: int, **seen: float) -> None:
        """`done` is how much work the step was; the numbers `seen` in it are passed on."""
        self.left -= 1
        self.done += done
        self.seen.append(seen)
        if self.left:
            return
        self.pipe.send(("done", self.done, peak_memory(), self.seen))
        self.left, self.done, self.seen = self.pipe.recv(), 0, []
        if not self.left:
            os._exit(0)  # ends the process in the middle of the loop, which saves nothing more


def peak_memory() -> float:
    """Peak memory of this process and of the largest of its children, in MB."""
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(peaks) * (1e-6 if sys.platform == "darwin" else 1024e-6)


class Paced:
    """`loop(gate, …)` in a fresh interpreter, after its first step, which belongs to the start.

    `loop` must be importable, not a function of the main program. Its output is not shown. `seen` holds the loop's numbers
    of each step.
    """

    def __init__(self, loop: Callable[..., None], *arguments: Any):
        os.environ.update(ONE_THREAD)
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        cpu, wall = own_cpu(), time.perf_counter()
        self.process = context.Process(target=_serve, args=(theirs, loop, arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.seen: list[dict[str, float]] = []
        self._wait()
        self.startup = {"cpu_s": own_cpu() - cpu, "wall_s": time.perf_counter() - wall}

    def steps(self, count: int) -> Work:
        """The next `count` steps, as a function that returns how much work they were."""

        def work() -> int:
            self.pipe.send(count)
            return self._wait()

        return work

    def _wait(self) -> int:
        try:
            what, message, self.peak_memory_mb, seen = self.pipe.recv()
        except EOFError:
            raise RuntimeError(f"the loop's process ended with status {self.process.exitcode}") from None
        if what == "failed":
            raise RuntimeError(f"the loop failed:\n{message}")
        self.seen += seen
        return message

    def close(self) -> None:
        if self.process.is_alive():
            self.pipe.send(0)
            self.process.join(10)
            self.process.kill()


def must_agree(ours: Paced, peer: Paced, name: str, tolerance: float) -> None:
    """Raises ValueError unless the gradient norms of the first step are the same, within a share of ours."""
    a, b = ours.seen[0]["gradient_norm"], peer.seen[0]["gradient_norm"]
    if not abs(a - b) <= tolerance * a:
        raise ValueError(
            f"{name}: its first step's gradient has the norm {b:.6g} and ours {a:.6g}, more than {tolerance} apart: the two "
            "do not do the same work, so their speeds say nothing. Look for what differs in the two loops."
        )


def _serve(pipe: Connection, loop: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        import torch

        torch.set_num_threads(1)
        loop(Gate(pipe), *arguments)
        raise RuntimeError("the loop came to its end: give it more data")
    except Exception:
        pipe.send(("failed", traceback.format_exc(), 0.0, []))
