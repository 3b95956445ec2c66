"""What a piece of work used: wall time, CPU time, and the peak memory of this process."""

import ctypes
import os
import re
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

USAGE = ("wall_seconds", "cpu_seconds", "peak_memory")


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Fills wall and CPU seconds (children that have ended included) and this process's peak memory in bytes."""
    usage: dict[str, Any] = {}
    _reset_peak_memory()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    try:
        yield usage
    finally:
        usage["wall_seconds"] = round(time.perf_counter() - wall, 3)
        usage["cpu_seconds"] = round(_cpu_seconds() - cpu, 3)
        usage["peak_memory"] = peak_memory()


def together(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """What two attempts at the same work used."""
    times = {name: round(one[name] + other[name], 3) for name in ("wall_seconds", "cpu_seconds")}
    return times | {"peak_memory": max(one["peak_memory"], other["peak_memory"])}


def peak_memory() -> int:
    """Bytes of the largest resident size: since the last reset on Linux, of the whole process elsewhere."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        if match := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(match[1]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def free_memory() -> float:
    """Bytes that processes of this machine, or of this container, can still take; elsewhere than on Linux, all there are."""
    with suppress(OSError, AttributeError):
        free = int(re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024  # type: ignore[index]
        with suppress(OSError, ValueError):  # no limit, or no control groups
            group = Path("/sys/fs/cgroup")
            limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
            return max(0, min(free, limit - used))
        return free
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class _Heap(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


def give_back_memory(least: float) -> None:
    """Return what was freed to the system if that is more than `least` bytes; only with glibc.

    A heap keeps free pages between blocks that live long. Tensors of other sizes do not fit there, so that a process which
    allocates and frees tensors of changing sizes holds more and more pages.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            library = ctypes.CDLL(None)
            library.mallinfo2.restype = _Heap
            if library.mallinfo2().fordblks > least:
                library.malloc_trim(0)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _reset_peak_memory() -> None:
    if sys.platform == "linux":
        # "5" resets the peak to the present size (proc(5)); if that is forbidden, the peak is that of the whole process
        with suppress(OSError), open("/proc/self/clear_refs", "w") as handle:
            handle.write("5")
