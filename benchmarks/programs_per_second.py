"""Programs of thought per second, at each level of isolation that this machine offers, on gsm_hard's programs.

    WHETSTONE_DATA=data python -m benchmarks programs_per_second --json benchmarks/results/programs_per_second.json

One sandbox process, one program after the other. Rates are per second of wall time and of processor time (the sandbox's and
its forks'). A level that this machine does not offer is printed with the reason.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks._labelled import lines
from benchmarks._measure import hardware, own_cpu, versions, write
from whetstone.verify.isolation.kernel import LEVELS
from whetstone.verify.program import Outcome, Refused, Sandbox

FILE = "gsm_hard/gsmhardv2.jsonl.gz"


def programs(rows: int | None = None) -> list[dict[str, Any]]:
    folder = os.environ.get("WHETSTONE_DATA")
    path = Path(folder or "") / FILE
    if not folder or not path.exists():
        sys.exit(f"error: {path} is not there: the programs are read from it. Name the folder in WHETSTONE_DATA.")
    return list(islice(lines(path), rows))


def reached(outcome: Outcome, target: float) -> bool:
    """Targets are published rounded to ten decimals."""
    try:
        return outcome.answer is not None and abs(float(outcome.answer) - target) <= max(6e-11, 1e-14 * abs(target))
    except ValueError:
        return False


def measure(level: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    before = own_cpu()
    with Sandbox(seconds=10.0, levels=(level,)) as sandbox:
        try:
            sandbox.require()
        except Refused as error:
            return {"level": level, "refused": str(error)}
        begin = time.perf_counter()
        outcomes = [sandbox.run(row["code"]) for row in rows]
        wall = time.perf_counter() - begin
        used = own_cpu() - before  # includes the start; read while the sandbox lives, so that its forks are counted
    right = sum(reached(outcome, row["target"]) for outcome, row in zip(outcomes, rows, strict=True))
    return {
        "level": level,
        "programs": len(rows),
        "per_second": len(rows) / wall,
        "per_processor_second": len(rows) / used,
        "slowest_s": max(outcome.seconds for outcome in outcomes),
        "reached_target": right / len(rows),
        "reasons": dict(Counter(outcome.reason for outcome in outcomes)),
    }


def run(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    measured = [measure(level, rows) for level in LEVELS]
    print("level        programs   per second   per processor second   slowest s   reach their target")
    for result in measured:
        if "refused" in result:
            print(f"{result['level']:12} not offered by this machine: {result['refused']}")
        else:
            print(
                f"{result['level']:12} {result['programs']:>8,} {result['per_second']:>12.1f} "
                f"{result['per_processor_second']:>22.1f} {result['slowest_s']:>11.2f} {result['reached_target']:>20.2%}"
            )
    return {
        "name": "programs_per_second",
        "date": str(date.today()),
        "hardware": hardware(),
        "versions": versions(["sympy", "numpy"]),
        "levels": measured,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="only so many programs (default: all 1,319)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    result = run(programs(chosen.rows))
    write(result, chosen.json)


if __name__ == "__main__":
    main()
