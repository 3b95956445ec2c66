"""math-verify in processes that can be killed: a deadline that holds for any input, from any thread, and a memory cap.

SIGALRM works in the main thread only and a big-integer power holds the interpreter lock, so nothing inside a process
can stop sympy for sure; ending the process can. A worker is a fresh interpreter with pipes (4-byte length, then JSON),
not a fork or a `multiprocessing` child: it never imports the caller's main module and inherits no locks.

A worker dies with its parent: an idle one sees the end of its input, or that its parent changed; a busy one is ended by
the kernel's timer a second after its deadline. (The kernel's parent-death signal is no use: it fires when the *thread*
that started the worker ends.)
"""

import atexit
import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetstone.verify.equal import NotRead, Undecided

START_SECONDS = 120.0  # to import sympy; several at once on a busy machine take long
MEMORY_BYTES = 1 << 30  # address space of a worker; an idle one takes about 0.3 GiB of it
ROOT = str(Path(__file__).resolve().parents[2])


class Died(Exception):
    """The worker ended without an answer."""


@dataclass(slots=True)
class Budget:
    """Seconds of worker time that one check may still take."""

    left: float


class Worker:
    """One process. Used by one thread at a time."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES):
        start = f"import sys; sys.path.insert(0, {ROOT!r}); from whetstone.verify.algebra import serve; serve()"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "WHETSTONE_WORKER_MEMORY": str(memory_bytes)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        self.owner = os.getpid()
        try:
            self._receive(time.monotonic() + START_SECONDS)
        except TimeoutError:
            self.kill()
            raise RuntimeError(
                f"a verifier process was not ready after {START_SECONDS:.0f} s: importing math-verify should take one "
                f"or two. Try `{sys.executable} -c 'import math_verify'`."
            ) from None
        except Died:
            self.kill()
            raise RuntimeError(
                "a verifier process ended while starting: math-verify cannot be imported, or the memory cap of "
                f"{memory_bytes >> 20} MiB is too small. Try `{sys.executable} -c 'import math_verify'`."
            ) from None

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The worker's reply; TimeoutError after `seconds` of wall time, Died when it ends without one."""
        body = json.dumps({**question, "seconds": seconds}).encode()
        try:
            self.process.stdin.write(struct.pack(">I", len(body)) + body)
            self.process.stdin.flush()
        except (BrokenPipeError, OSError) as error:
            raise BrokenPipeError("the worker had ended before it was asked") from error
        return self._receive(time.monotonic() + seconds)

    def _receive(self, deadline: float) -> dict[str, Any]:
        descriptor = self.process.stdout.fileno()
        wanted, data = 4, b""
        body = False
        while True:
            while len(data) < wanted:
                left = deadline - time.monotonic()
                if left <= 0 or not _readable(descriptor, left):
                    raise TimeoutError
                piece = os.read(descriptor, wanted - len(data))
                if not piece:
                    raise Died
                data += piece
            if body:
                return json.loads(data)
            wanted, data, body = struct.unpack(">I", data)[0], b"", True

    def kill(self) -> None:
        """Ends the process at once and reaps it."""
        if self.owner == os.getpid():
            with contextlib.suppress(OSError):
                self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()  # unlike select(), also for descriptors above 1023
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(max(1, int(seconds * 1000))))


class Workers:
    """A pool, started when first needed and kept warm. Safe from any thread, and in a forked child."""

    def __init__(self, size: int = 1, memory_bytes: int = MEMORY_BYTES):
        if size < 1:
            raise ValueError(f"workers = {size}: comparing hard answers needs a process. Use 1 or more.")
        self.size = size
        self.memory_bytes = memory_bytes
        self.started = 0  # processes started so far
        self._reset()
        POOLS.add(self)

    def _reset(self) -> None:
        self.owner = os.getpid()
        self.idle: list[Worker] = []
        self.busy: set[Worker] = set()
        self.lock = threading.Lock()
        self.slots = threading.Semaphore(self.size)

    def same(self, gold: str, answer: str, budget: Budget) -> bool:
        """math-verify's guarded word on two LaTeX texts, within what is left of the budget.

        Only the worker's own work is charged, not waiting for one or starting it. Raises Undecided ("timeout",
        "crashed", "out of memory", "reference answer unreadable") or NotRead.
        """
        if self.owner != os.getpid():
            self._reset()  # the parent's workers stay the parent's
        with self.slots:
            reply = self._ask_one({"gold": gold, "answer": answer}, budget)
        if "problem" in reply:
            raise NotRead if reply["problem"] == "unreadable answer" else Undecided(reply["problem"])
        return bool(reply["equal"])

    def _ask_one(self, question: dict[str, Any], budget: Budget) -> dict[str, Any]:
        for attempt in (1, 2):
            if budget.left <= 0:
                return {"problem": "timeout"}
            with self.lock:
                worker = self.idle.pop() if self.idle else None
            if worker is None:
                worker = Worker(self.memory_bytes)
                self.started += 1
            with self.lock:
                self.busy.add(worker)
            usable = False
            start = time.monotonic()
            try:
                reply = worker.ask(question, budget.left)
                usable = reply.get("problem") != "out of memory"
                return reply
            except TimeoutError:
                return {"problem": "timeout"}
            except Died:
                return {"problem": "crashed"}
            except BrokenPipeError:
                if attempt == 2:
                    return {"problem": "crashed"}
            finally:
                budget.left -= time.monotonic() - start
                with self.lock:
                    self.busy.discard(worker)
                    if usable:
                        self.idle.append(worker)
                if not usable:
                    worker.kill()
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Ends all processes. A later question starts new ones."""
        if self.owner != os.getpid():
            return
        with self.lock:
            workers = [*self.idle, *self.busy]
            self.idle.clear()
        for worker in workers:
            worker.kill()


POOLS: "weakref.WeakSet[Workers]" = weakref.WeakSet()


@atexit.register
def _close_pools() -> None:
    for pool in list(POOLS):
        pool.close()
