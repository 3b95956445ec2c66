"""Programs of thought per second, at each level of isolation that this machine offers, on gsm_hard's programs.

    WHETSTONE_DATA=data python -m benchmarks programs_per_second --json benchmarks/results/programs_per_second.json

One sandbox process, one program after the other. Rates are per second of wall time and of processor time (the sandbox's and
its forks'). A level that cannot be had is said with the reason.
"""

import argparse
import gzip
import json
import os
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware
from whetstone.verify.program import LEVELS, Outcome, Sandbox

FILE = "gsm_hard/gsmhardv2.jsonl.gz"


def programs(rows: int | None = None) -> list[dict[str, Any]]:
    folder = os.environ.get("WHETSTONE_DATA")
    path = Path(folder or "") / FILE
    if not folder or not path.exists():
        sys.exit(f"error: {path} is not there: the programs are read from it. Name the folder in WHETSTONE_DATA.")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines][:rows]


def reached(outcome: Outcome, target: float) -> bool:
    """Targets are published rounded to ten decimals."""
    try:
        return outcome.answer is not None and abs(float(outcome.answer) - target) <= max(6e-11, 1e-14 * abs(target))
    except ValueError:
        return False


def processor_seconds() -> float:
    """Of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(level: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    with Sandbox(seconds=10.0, levels=(level,)) as sandbox:
        if sandbox.level is None:
            return {"level": level, "refused": sandbox.run("").detail}
    before = processor_seconds()
    with Sandbox(seconds=10.0, levels=(level,)) as sandbox:
        assert sandbox.level == level
        begin = time.perf_counter()
        outcomes = [sandbox.run(row["code"]) for row in rows]
        wall = time.perf_counter() - begin
    used = processor_seconds() - before  # starting is in it
    right = sum(reached(outcome, row["target"]) for outcome, row in zip(outcomes, rows, strict=True))
    return {
        "level": level,
        "programs": len(rows),
        "per_second": len(rows) / wall,
        # in namespaces of their own programs are accounted to nobody here
        "per_processor_second": None if level == "namespaces" else len(rows) / used,
        "slowest_s": max(outcome.seconds for outcome in outcomes),
        "reached_target": right / len(rows),
        "reasons": dict(Counter(outcome.reason for outcome in outcomes)),
    }


def run(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = [measure(level, rows) for level in LEVELS]
    print("level        programs   per second   per processor second   slowest s   reach their target")
    for one in found:
        if "refused" in one:
            print(f"{one['level']:12} not to be had here: {one['refused']}")
        else:
            busy = "" if one["per_processor_second"] is None else f"{one['per_processor_second']:.1f}"
            print(
                f"{one['level']:12} {one['programs']:>8,} {one['per_second']:>12.1f} {busy:>22} "
                f"{one['slowest_s']:>11.2f} {one['reached_target']:>20.2%}"
            )
    return {
        "name": "programs_per_second",
        "date": str(date.today()),
        "hardware": hardware(),
        "versions": {"python": platform.python_version()},
        "levels": found,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="only so many programs (default: all 1,319)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    result = run(programs(chosen.rows))
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
