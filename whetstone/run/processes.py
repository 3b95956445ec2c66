"""Processes of one machine: how many cores they may use, and forks that share the memory of their parent."""

import gc
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C: stop, keep finished work, say how to continue."""


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM raises Terminated in this process. Forked children still die of it."""
    owner = os.getpid()

    def stop(number: int, frame: object) -> None:
        if os.getpid() == owner:
            raise Terminated
        os._exit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(wanted: int) -> int:
    """The recipe's number, else the user's OMP_NUM_THREADS, else the cores that this process may use."""
    own = re.match(r"\s*(\d+)", os.environ.get("OMP_NUM_THREADS", ""))  # "4,2" is 4, and 2 in nested regions
    return wanted or (int(own[1]) if own else 0) or cores()


def may_fork(device: str) -> bool:
    """Whether forked children may compute. A thread pool of the parent does not work in them, and neither does a GPU."""
    import torch

    return can_fork(device) and torch.get_num_threads() == 1


def can_fork(device: str) -> bool:
    """Whether forked children may compute once this process has one thread (`one_thread`)."""
    return device == "cpu" and sys.platform == "linux"


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes with one thread meanwhile, so that forked children can."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fork(what: str, work: Callable[[], None], brief: bool = False) -> int:
    """The id of a child that does `work` and ends: with status 1 and a line on standard error if that raises.

    `what` names it in that line. For `brief` work the parent does not collect its garbage first, which takes 0.2 s.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if not brief:
        gc.collect()
    child = os.fork()
    if child:
        return child
    code = 1
    try:  # the child must not return into the caller's stack or run the parent's exit handlers
        gc.freeze()  # the collector would touch shared pages, and so copy them
        work()
        code = 0
    except BaseException as error:
        os.write(2, f"{what} process: {error!r}\n".encode())
    finally:
        os._exit(code)


class CpuClock:
    """CPU seconds of this process and its children, those that have ended included."""

    RESCAN = 1.0  # seconds between looking for children, which takes a tenth of a millisecond

    def __init__(self) -> None:
        self._children: list[int] = []
        self._scanned = float("-inf")

    def seconds(self) -> float:
        if time.monotonic() - self._scanned > self.RESCAN:
            self._scanned, self._children = time.monotonic(), children()
        ended = os.times()
        return time.process_time() + ended.children_user + ended.children_system + sum(map(cpu_seconds, self._children))


def children() -> list[int]:
    """Living processes that this one's main thread started; none on a system without /proc."""
    with suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    return []


def cpu_seconds(pid: int) -> float:
    """Of another process; 0 except on Linux. The number of its clock is made as in clock_getcpuclockid(3)."""
    with suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)
    return 0.0
