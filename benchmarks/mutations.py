"""Promise: a mutated recipe, row, file of a run folder or server answer gives a clear error or a right result.

    python -m benchmarks mutations --json benchmarks/results/mutations.json

10,000 mutants, drawn by hypothesis with a seed, a quarter of each kind. Each goes to the command line in a forked process of
its own. Each must end within its bounds of time and memory with exit status 0, or with 2 and one `error:` line, without a
traceback, and write nothing outside its folder. With status 0 its result must be right, by a rule that does not use the code
under test:

- recipe: `plan` read exactly the values that Python's own TOML reader finds, without changing one's type.
- rows: rows that were not touched keep the verdict that they have by construction; nothing is kept that is no text or number.
- run folder: the corpus that the run ends with is the one of an untouched run.
- server: each text that is kept is the one that stands in the answer, each count of tokens is at least 0.

Exit status 1 if any mutant fails; its kind, seed and text are printed.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks._forked import warm
from benchmarks._judged_mutants import KINDS
from benchmarks._measure import hardware, versions, write


@dataclass
class Tally:
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    slowest: float = 0.0


def try_kind(kind: str, examples: int, start: int, loud: bool = True) -> Tally:
    """Judge so many mutants of a kind."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        strategy, judge = KINDS[kind](base / "base")
        began = time.monotonic()

        @seed(start)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(strategy)
        def one(mutant: Any) -> None:
            place = base / "outer" / "place"
            shutil.rmtree(place.parent, ignore_errors=True)
            place.mkdir(parents=True)
            begin = time.monotonic()
            verdict = judge(mutant, place)
            tally.slowest = max(tally.slowest, time.monotonic() - begin)
            strays = [path.name for path in place.parent.iterdir() if path.name not in ("place", "out", "err")]
            if strays:
                verdict = f"written outside its folder: {strays}"
            good = verdict in ("right", "error")
            tally.outcomes[verdict if good else "failed"] += 1
            if not good:
                tally.failures.append({"kind": kind, "why": verdict, "mutant": repr(mutant)[:2000]})
                if loud:
                    print(f"FAILED {kind}: {verdict}\n    {repr(mutant)[:400]}", flush=True)
            done = sum(tally.outcomes.values())
            if loud and done % 250 == 0:
                rate = done / (time.monotonic() - began)
                print(
                    f"{kind}: {done:,} of {examples:,}, {rate:.1f} a second, {(examples - done) / rate:.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )

        one()
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000, help="mutants in all (default 10,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only this one. Repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args()
    warm()
    kinds = chosen.kind or list(KINDS)
    tallies = {kind: try_kind(kind, chosen.examples // len(kinds), chosen.seed) for kind in kinds}
    print(f"{'kind':12} mutants   right   error  failed  slowest s")
    for kind, tally in tallies.items():
        o = tally.outcomes
        print(
            f"{kind:12} {sum(o.values()):>7,} {o['right']:>7,} {o['error']:>7,} {o['failed']:>7,} {tally.slowest:>10.1f}"
        )
    result = {
        "name": "mutations",
        "date": str(date.today()),
        "hardware": hardware(),
        "versions": versions(["hypothesis", "torch", "transformers"]),
        "settings": {"examples": chosen.examples, "seed": chosen.seed},
        "kinds": {kind: dict(tally.outcomes) | {"slowest_s": tally.slowest} for kind, tally in tallies.items()},
        "failures": [failure for tally in tallies.values() for failure in tally.failures],
    }
    write(result, chosen.json)
    sys.exit(any(tally.failures for tally in tallies.values()))


if __name__ == "__main__":
    main()
