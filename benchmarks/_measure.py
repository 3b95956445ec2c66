"""What speed benchmarks share: CPU seconds, repeats in turns with a peer, a probe of the machine, one JSON object.

A rate is work per CPU second of this process and all its descendants, alive or ended. Other work on the machine does not
change it. Wall time is given too.
"""

import json
import os
import platform
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import whetstone

PROBE_STEPS = 300_000
FEATURES = (  # of a CPU, that decide how fast it multiplies
    "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16",
    "amx_int8", "asimd", "bf16", "i8mm", "sve",
)  # fmt: skip

Work = Callable[[], int]


@dataclass(frozen=True)
class Case:
    """One comparison. `ours` and `peer` prepare one repeat's work, fresh each time, which is not timed; what they return
    does it and says how much of `unit` it was."""

    name: str
    unit: str
    ours: Callable[[], Work]
    peer: Callable[[], Work]


def own_cpu() -> float:
    """CPU seconds of this process and all its descendants."""
    ours = os.times()
    total = time.process_time() + ours.children_user + ours.children_system
    if Path("/proc/self/stat").exists():
        total += sum(_alive_and_reaped(pid) for pid in descendants(os.getpid())) / os.sysconf("SC_CLK_TCK")
    return total


def descendants(root: int) -> list[int]:
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
    descendants, queue = [], [root]
    while queue:
        parent = queue.pop()
        children = [pid for pid, of in parents.items() if of == parent]
        descendants.extend(children)
        queue.extend(children)
    return descendants


def _alive_and_reaped(pid: int) -> int:
    """Clock ticks of a process and of its children that ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(ticks) for ticks in fields[11:15])


def resident_memory() -> int:
    """Bytes of memory that this process holds now; its peak if the system has no /proc."""
    status = Path("/proc/self/status")
    matched = re.search(r"VmRSS:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if matched:
        return int(matched[1]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def rates(work: Work) -> tuple[float, float]:
    """Work per CPU second and per wall second."""
    cpu, wall = own_cpu(), time.perf_counter()
    done = work()
    return done / max(own_cpu() - cpu, 1e-6), done / max(time.perf_counter() - wall, 1e-6)


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Both sides in turns, each first in every other repeat; the median, lowest and highest ratio."""
    measured = in_turns({"ours": case.ours, "peer": case.peer}, repeats)
    return beside(case.name, case.unit, measured["ours"], measured["peer"])


def in_turns(sides: Mapping[str, Callable[[], Work]], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Side -> its rates in each repeat. The order is reversed in every other repeat."""
    measured: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for repeat in range(repeats):
        for side in list(sides) if repeat % 2 == 0 else list(sides)[::-1]:
            measured[side].append(rates(sides[side]()))
    return measured


def beside(
    name: str, unit: str, ours: Sequence[tuple[float, float]], peer: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """The row of one comparison, from the rates of both sides in the same repeats."""
    ratios = [a[0] / b[0] for a, b in zip(ours, peer, strict=True)]
    return {
        "case": name,
        "ours": statistics.median(cpu for cpu, _ in ours),
        "peer": statistics.median(cpu for cpu, _ in peer),
        "unit": f"{unit}/CPU s",
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "ours_per_wall_second": statistics.median(wall for _, wall in ours),
        "peer_per_wall_second": statistics.median(wall for _, wall in peer),
    }


def machine_speed() -> float:
    """Millions of steps of a Python loop per CPU second: the speed of this machine at this moment."""
    start = time.process_time()
    total = 0
    for step in range(PROBE_STEPS):
        total += step * step % 7
    return PROBE_STEPS / (time.process_time() - start) / 1e6


def hardware() -> dict[str, Any]:
    cpu, flags = platform.processor() or platform.machine(), set[str]()
    if Path("/proc/cpuinfo").exists():
        told = Path("/proc/cpuinfo").read_text()
        matched = re.search(r"model name\s*: (.+)", told)
        cpu = matched[1] if matched else cpu
        flags = {flag for line in re.findall(r"(?:flags|Features)\s*: (.+)", told)[:1] for flag in line.split()}
    load = [round(load, 2) for load in os.getloadavg()]
    features = [name for name in FEATURES if name in flags]
    return {
        "cpu": cpu, "features": features, "cores": os.cpu_count(), "load": load, "system": platform.platform()
    }  # fmt: skip


def versions(packages: Sequence[str]) -> dict[str, str]:
    """`whetstone` is this checkout; the package index has another project of that name."""
    own = {"whetstone": whetstone.__version__}
    return {"python": platform.python_version(), **{name: own.get(name) or version(name) for name in packages}}


def compare(name: str, cases: Sequence[Case], repeats: int, packages: Sequence[str]) -> dict[str, Any]:
    """The benchmark's JSON object; a line is printed as each case is done."""
    before = machine_speed()
    rows = []
    for case in cases:
        rows.append(measure(case, repeats))
        print(line(rows[-1]), flush=True)
    return {
        "name": name,
        "cases": rows,
        "ratio": min(row["ratio"] for row in rows),
        "repeats": repeats,
        "versions": versions(packages),
        "hardware": hardware(),
        "machine_speed": {"before": before, "after": machine_speed(), "unit": "million loop steps/CPU s"},
        "date": date.today().isoformat(),
    }


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['case']:40} {row['ours']:12,.0f} {row['peer']:10,.0f} {row['unit']:16} "
        f"{row['ratio']:8.1f} x [{row['low']:.1f}, {row['high']:.1f}]   "
        f"wall: {row['ours_per_wall_second']:,.0f} and {row['peer_per_wall_second']:,.0f} per second"
    )


def write(result: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
