"""Processes of one machine: the cores there are for them, and forks that share what their parent has in memory."""

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Terminated(KeyboardInterrupt):
    """SIGTERM, as KeyboardInterrupt is Ctrl-C: stop, keep what is done, say how to go on."""


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM raises Terminated in this process; forked children keep dying of it."""
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


def may_fork(device: str) -> bool:
    """Whether forked children may compute: a thread pool that the parent started is dead in them, and so is a GPU."""
    import torch

    return device == "cpu" and sys.platform == "linux" and torch.get_num_threads() == 1


def fork(what: str, work: Callable[[], None]) -> int:
    """The id of a child that does `work` and ends, with status 1 and a line on standard error if that raised."""
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    child = os.fork()
    if child:
        return child
    code = 1
    try:  # the child: no return into the caller's stack, no exit handlers of the parent
        gc.freeze()  # its collector must not touch, and so copy, what is shared
        work()
        code = 0
    except BaseException as error:
        os.write(2, f"{what} process: {error!r}\n".encode())
    finally:
        os._exit(code)


class CpuClock:
    """CPU seconds of this process, of its children, and of all that those which ended had."""

    RESCAN = 1.0  # seconds; looking for children costs a tenth of a millisecond

    def __init__(self) -> None:
        self._children: list[int] = []
        self._scanned = float("-inf")

    def seconds(self) -> float:
        if time.monotonic() - self._scanned > self.RESCAN:
            self._scanned, self._children = time.monotonic(), children()
        ended = os.times()
        return time.process_time() + ended.children_user + ended.children_system + sum(map(cpu_seconds, self._children))


def children() -> list[int]:
    """Processes that this one's main thread started and that live, where /proc tells."""
    with suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    return []


def cpu_seconds(pid: int) -> float:
    """Of another process, as far as Linux tells (its clock's number is made as clock_getcpuclockid(3) makes it)."""
    with suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)
    return 0.0
