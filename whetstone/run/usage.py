"""What a piece of work used: wall time, CPU time, and the peak memory of this process."""

import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Fills wall and CPU seconds (children that have ended included) and this process's peak memory in bytes."""
    usage: dict[str, Any] = {}
    _reset_peak_memory()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    yield usage
    usage["wall_seconds"] = round(time.perf_counter() - wall, 3)
    usage["cpu_seconds"] = round(_cpu_seconds() - cpu, 3)
    usage["peak_memory"] = peak_memory()


def peak_memory() -> int:
    """Bytes of the largest resident size: since the last reset on Linux, of the whole process elsewhere."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        if match := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(match[1]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _reset_peak_memory() -> None:
    if sys.platform == "linux":
        # "5" resets the peak to the present size (proc(5)); if that is forbidden, the peak is that of the whole process
        with suppress(OSError), open("/proc/self/clear_refs", "w") as handle:
            handle.write("5")
