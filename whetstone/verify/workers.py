"""math-verify in processes that can be killed: a deadline that holds for any input, from any thread, and a memory cap.

SIGALRM works in the main thread only and a big-integer power holds the interpreter lock, so nothing inside a process
can stop sympy for sure; ending the process can. A worker therefore is two processes: one that has imported math-verify and
only watches, and a fork of it that computes. The fork that misses its deadline, its processor time or its memory is killed
and forked anew in milliseconds.

A worker dies with its parent: it sees the end of its input, or that its parent changed; should the watching process be
killed alone, the kernel's timers end a busy fork a second after its deadline. (The kernel's parent-death signal is no use:
it fires when the *thread* that started the worker ends.)
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from whetstone.verify.children import START_SECONDS, Child, Died, Pool
from whetstone.verify.equal import NotRead, Undecided

ATTEMPTS = 3  # workers that may die of other causes than its question, one after the other, before it is given up
MEMORY_BYTES = 1 << 30  # address space of a worker; an idle one takes about 0.3 GiB of it
GRACE_SECONDS = 0.25  # past a deadline, for the watching process to say so; then it is killed itself


@dataclass(slots=True)
class Budget:
    """Seconds of worker time that one check may still take."""

    left: float


class NotStarted(RuntimeError):
    """A worker ended before it was ready."""


class Worker(Child):
    """A process with math-verify in it, and its fork."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "WHETSTONE_WORKER_MEMORY": str(memory_bytes)}
        super().__init__("from whetstone.verify.algebra import serve; serve()", environment)
        try:
            self.receive(START_SECONDS)
        except TimeoutError:
            self.kill()
            raise RuntimeError(
                f"a verifier process was not ready after {START_SECONDS:.0f} s: importing math-verify should take one "
                f"or two. Try `{sys.executable} -c 'import math_verify'`."
            ) from None
        except Died:
            self.kill()
            raise NotStarted(
                "a verifier process ended while starting: math-verify cannot be imported, or the memory cap of "
                f"{memory_bytes >> 20} MiB is too small. Try `{sys.executable} -c 'import math_verify'`."
            ) from None


class Workers(Pool[Worker]):
    """A pool of them, with the threads for those who do not want to wait: `askers`, one for each, and one `reader`."""

    def __init__(self, size: int = 1, memory_bytes: int = MEMORY_BYTES):
        if size < 1:
            raise ValueError(f"workers = {size}: comparing hard answers needs a process. Use 1 or more.")
        self.memory_bytes = memory_bytes
        super().__init__(size)

    def reset(self) -> None:
        super().reset()
        self.closings = 0
        self._new_threads()

    def _new_threads(self) -> None:
        self.askers = ThreadPoolExecutor(self.size, "verify")
        self.reader = ThreadPoolExecutor(1, "verify")

    def close(self) -> None:
        """Ends all workers, and what waits for one. A later question starts new ones."""
        with self.lock:
            self.closings += 1
            threads = self.askers, self.reader
            self._new_threads()
        for executor in threads:
            executor.shutdown(wait=False, cancel_futures=True)
        super().close()

    def start(self) -> Worker:
        try:
            return Worker(self.memory_bytes)
        except NotStarted:  # killed, perhaps: what is wrong with the installation is so the second time, too
            return Worker(self.memory_bytes)

    def same(self, gold: str, answer: str, budget: Budget) -> bool:
        """math-verify's guarded word on two LaTeX texts, within what is left of the budget.

        Only the worker's own work is charged, not waiting for one or starting it. Raises Undecided ("timeout",
        "crashed", "out of memory", "reference answer unreadable") or NotRead.
        """
        reply = self._ask_one({"gold": gold, "answer": answer}, budget)
        if "problem" in reply:
            raise NotRead if reply["problem"] == "unreadable answer" else Undecided(reply["problem"])
        return bool(reply["equal"])

    def _ask_one(self, question: dict[str, Any], budget: Budget) -> dict[str, Any]:
        closings = self.closings
        for attempt in range(1, ATTEMPTS + 1):
            if budget.left <= 0:
                return {"problem": "timeout"}
            try:
                with self.lend() as worker:
                    start = time.monotonic()
                    try:
                        return worker.ask({**question, "seconds": budget.left}, budget.left + GRACE_SECONDS)
                    finally:
                        budget.left -= time.monotonic() - start
            except TimeoutError:
                return {"problem": "timeout"}
            except (Died, BrokenPipeError):  # the fork takes the blame for a question; this was somebody else's doing
                if attempt == ATTEMPTS or self.closings != closings:
                    return {"problem": "crashed"}
        raise AssertionError("unreachable")
