"""math-verify in processes that can be killed: a deadline that holds for any input and from any thread, and a memory cap.

SIGALRM works in the main thread only, and a big-integer power holds the interpreter lock. So nothing inside a process can
stop sympy for sure, but ending the process can. A worker therefore is two processes: one that has imported math-verify and
only watches, and its fork that computes. A fork that has used up its processor time or its memory is killed, and the watching
process forks again in milliseconds. Processor time is what counts, so that verdicts do not depend on what else the machine
does; a fork that gets none is killed after PATIENCE times as many seconds.

A worker ends with its parent: it sees the end of its input, or that its parent has changed. If the watching process alone is
killed, the kernel's timers end a busy fork a second after its deadline. (The kernel's parent-death signal does not help: it is
sent when the *thread* that started the worker ends.)

Whoever else kills workers (the kernel when memory runs out, an administrator) costs time and no verdict: the question is asked
again, of a new worker if need be, with its budget untouched.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from whetstone.verify.children import Child, Died, Pool
from whetstone.verify.equal import NotRead, Undecided
from whetstone.verify.wire import PATIENCE

ATTEMPTS = 10  # how often a question is asked whose worker is killed while it answers
MEMORY_BYTES = 1 << 30  # address space of a worker; an idle one takes about 0.3 GiB of it
GRACE_SECONDS = (
    0.25  # past the time that the watching process gives its forks (two, if the first crashes); then it is killed, too
)


@dataclass(slots=True)
class Budget:
    """Seconds of a worker's processor time left for one check."""

    left: float


class Worker(Child):
    """A process with math-verify in it, and its fork."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "WHETSTONE_WORKER_MEMORY": str(memory_bytes)}
        super().__init__("verifier", "from whetstone.verify.algebra import serve; serve()", environment)
        self.until_ready(
            f"Either math-verify cannot be imported (try `{sys.executable} -c 'import math_verify'`, which takes a second "
            f"or two), or the memory cap of {memory_bytes >> 20} MiB is too small."
        )


class Workers(Pool[Worker]):
    """A pool of workers, with threads for callers that do not want to wait: `askers`, one per worker, and one `reader`."""

    def __init__(self, size: int = 1, memory_bytes: int = MEMORY_BYTES):
        if size < 1:
            raise ValueError(f"workers = {size}: comparing hard answers needs a process. Use 1 or more.")
        self.memory_bytes = memory_bytes
        super().__init__(size)

    def reset(self) -> None:
        super().reset()
        self._new_threads()

    def _new_threads(self) -> None:
        self.askers = ThreadPoolExecutor(self.size, "verify")
        self.reader = ThreadPoolExecutor(1, "verify")

    def close(self) -> None:
        """Ends all workers and cancels the questions that wait for one. A later question starts new ones."""
        with self.lock:
            threads = self.askers, self.reader
            self._new_threads()
        for executor in threads:
            executor.shutdown(wait=False, cancel_futures=True)
        super().close()

    def start(self) -> Worker:
        return Worker(self.memory_bytes)

    def same(self, gold: str, answer: str, budget: Budget) -> bool:
        """Whether computer algebra finds two LaTeX texts equal, within the budget.

        Only the worker's own work is charged to the budget, not waiting for a worker or starting it. Raises Undecided
        ("timeout", "crashed", "out of memory", "reference answer unreadable"), NotRead, or NotStarted if no worker starts.
        """
        reply = self._ask({"gold": gold, "answer": answer}, budget)
        if "problem" in reply:
            raise NotRead if reply["problem"] == "unreadable answer" else Undecided(reply["problem"])
        return bool(reply["equal"])

    def _ask(self, question: dict[str, Any], budget: Budget) -> dict[str, Any]:
        """A worker's reply. A worker that was killed from outside is charged to nobody, and the question asked again."""
        closings = self.closings
        for _ in range(ATTEMPTS):
            if budget.left <= 0:
                return {"problem": "timeout"}
            worker = None
            try:
                with self.lend() as worker:
                    reply = worker.ask({**question, "seconds": budget.left}, 2 * PATIENCE * budget.left + GRACE_SECONDS)
                    if reply != {"problem": "killed"}:  # this is about its fork
                        budget.left -= reply.get("seconds", budget.left)
                        return reply
            except TimeoutError:
                budget.left = 0.0
                return {"problem": "timeout"}
            except BrokenPipeError:  # it had ended before it was asked
                pass
            except Died:
                if not worker.was_killed:
                    break
            if self.closings != closings:
                break
        return {"problem": "crashed"}
