"""Answers graded per CPU second: `whetstone.verify` beside math-verify, on fresh strings that no cache has seen.

    python -m benchmarks verify_vs_math_verify --json benchmarks/results/verify_vs_math_verify.json

Cases: short integers; short fractions and decimals; the mix of all labelled sets in WHETSTONE_DATA; completions of 50 kB
that end in a box or a stated answer. Each side's accuracy on the same answers and its start-up are stated. CPU seconds
are those of this process and its workers. math-verify runs in the main thread with its own timeouts, as its users do.
"""

import argparse
import logging
import random
import statistics
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from benchmarks._labelled import SETS, Labelled, data, lines
from benchmarks._measure import Case, Work, compare, own_cpu, write
from benchmarks.verify_agreement import peer_says
from whetstone.verify import MathVerifier

TARGETS = {"short integers": 50, "short fractions and decimals": 50, "labelled sets": 10, "50 kB completions": 20}
REPEATS = 5
SHORT = (20_000, 600)  # answers per repeat, ours and the peer's, chosen to take about equally long
LONG = (1_000, 60)
LONG_CHARACTERS = 50_000
MIXED = 1_500  # labelled answers a repeat, the same for both
STARTS = 3

STARTUP = {  # the first verdict of a fresh interpreter
    "whetstone.verify, first short answer": "from whetstone.verify import verify; verify('0.5', '1/2')",
    "whetstone.verify, first answer for computer algebra": r"from whetstone.verify import verify; "
    r"verify(r'\sum_{k=1}^{4} k', '10')",
    "math-verify, first short answer": "from math_verify import parse, verify; verify(parse('$1/2$'), parse('0.5'))",
}

Rows = Callable[[int], Sequence[Labelled]]


class Graders:
    """Both verifiers on rows, and how often each was right."""

    def __init__(self, verifier: MathVerifier):
        self.verifier = verifier
        self.right: Counter[tuple[str, str]] = Counter()
        self.graded: Counter[tuple[str, str]] = Counter()

    def ours(self, case: str, rows: Sequence[Labelled]) -> Work:
        def work() -> int:
            check = self.verifier.check
            verdicts = [check(row.text, row.gold, row.policy).correct for row in rows]
            return self.count("ours", case, rows, verdicts)

        return work

    def peer(self, case: str, rows: Sequence[Labelled]) -> Work:
        def work() -> int:
            verdicts = [peer_says(row.peer_text, row.peer_gold) for row in rows]
            return self.count("math-verify", case, rows, verdicts)

        return work

    def count(self, side: str, case: str, rows: Sequence[Labelled], verdicts: Sequence[bool | None]) -> int:
        labelled = [(row.label, verdict) for row, verdict in zip(rows, verdicts, strict=True) if row.label is not None]
        self.graded[side, case] += len(labelled)
        self.right[side, case] += sum(label is verdict for label, verdict in labelled)
        return len(rows)

    def accuracy(self) -> dict[str, dict[str, float]]:
        cases = dict.fromkeys(case for _, case in self.graded)
        return {
            case: {side: self.right[side, case] / self.graded[side, case] for side in ("ours", "math-verify")}
            for case in cases
        }


def row(text: str, gold: str, label: bool) -> Labelled:
    return Labelled("", text, gold, label, text, f"${gold}$")


def integers(numbers: Iterator[int]) -> Iterator[Labelled]:
    """Boxed and equal, boxed and different, without LaTeX, with a unit, with thousands separators."""
    for i in numbers:
        yield row(f"The answer is \\boxed{{{i}}}.", f"{i}", True)
        yield row(f"The answer is \\boxed{{{i + 1}}}.", f"{i}", False)
        yield row(f"so the answer is {i}", f"{i}", True)
        yield row(f"\\boxed{{{i}\\text{{ cm}}}}", f"{i}", True)
        yield row(f"\\boxed{{{i:,}}}", f"{i}", True)


def fractions(numbers: Iterator[int]) -> Iterator[Labelled]:
    """Equal and different ones, in LaTeX and with a slash, and decimals beside fractions."""
    for i in numbers:
        yield row(f"\\boxed{{\\frac{{{i}}}{{{i + 1}}}}}", f"\\frac{{{i}}}{{{i + 1}}}", True)
        yield row(f"\\boxed{{\\frac{{{i}}}{{{i + 1}}}}}", f"\\frac{{{i + 1}}}{{{i}}}", False)
        yield row(f"\\boxed{{{i / 8}}}", f"\\frac{{{i}}}{{8}}", True)
        yield row(f"The answer is {2 * i}/8.", f"{i}/4", True)
        yield row(f"\\boxed{{-\\dfrac{{{i}}}{{7}}}}", f"-\\frac{{{i}}}{{7}}", True)


def long_completions(solutions: str, numbers: Iterator[int]) -> Iterator[Labelled]:
    """Worked solutions one after the other, each completion from another place on; the answer is in the last line."""
    for i in numbers:
        start = i * 997 % max(1, len(solutions) - LONG_CHARACTERS)
        thought = f"Attempt {i}. {solutions[start : start + LONG_CHARACTERS]}"
        yield row(f"{thought}\nThe answer is $\\boxed{{{i}}}$.", f"{i}", True)
        yield row(f"{thought}\nThe answer is ${i}$.", f"{i + 1}", False)


def worked_solutions(folder: Path) -> str:
    """The texts of MATH's solutions without their boxes."""
    rows = islice(lines(folder / "math/train.jsonl.gz"), 2_000)
    return "\n\n".join(row["solution"].replace("\\boxed", "") for row in rows)


def short_case(name: str, kind: Callable[[Iterator[int]], Iterator[Labelled]], graders: Graders, sizes: Any) -> Case:
    """Each repeat of each side takes the next numbers, so that no string repeats."""
    rows = kind(count(11))
    return Case(
        name,
        "answers",
        lambda: graders.ours(name, list(islice(rows, sizes[0]))),
        lambda: graders.peer(name, list(islice(rows, sizes[1]))),
    )


def mixed_case(name: str, rows: Sequence[Labelled], graders: Graders, size: int) -> Case:
    """Each repeat takes the next of the shuffled rows, the same for both sides."""
    shuffled = random.Random(0).sample(list(rows), len(rows))
    ours, peer = iter(shuffled), iter(shuffled)
    return Case(
        name,
        "answers",
        lambda: graders.ours(name, list(islice(ours, size))),
        lambda: graders.peer(name, list(islice(peer, size))),
    )


def startup(code: str) -> dict[str, float]:
    """Seconds of CPU and of wall time, the median of a few."""
    import time

    found = []
    for _ in range(STARTS):
        cpu, wall = own_cpu(), time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
        found.append((own_cpu() - cpu, time.perf_counter() - wall))
    return dict(zip(("cpu_s", "wall_s"), map(statistics.median, zip(*found, strict=True)), strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    chosen = parser.parse_args(arguments)
    folder = data()
    logging.disable(logging.CRITICAL)  # math-verify logs each text that it cannot read
    warnings.filterwarnings("ignore")
    with MathVerifier() as verifier:
        graders = Graders(verifier)
        verifier.check(
            r"\sum_{k=1}^{4} k", "10"
        )  # a worker is started and warm, and math-verify imported, before the clock
        peer_says("0.5", "$1/2$")
        solutions = worked_solutions(folder)
        labelled = [row for each in SETS for row in each(folder)]
        cases = [
            short_case("short integers", integers, graders, SHORT),
            short_case("short fractions and decimals", fractions, graders, SHORT),
            mixed_case("labelled sets", labelled, graders, MIXED),
            short_case("50 kB completions", lambda numbers: long_completions(solutions, numbers), graders, LONG),
        ]
        result = compare("verify_vs_math_verify", cases, chosen.repeats, ["whetstone", "math-verify", "sympy"])
    result["accuracy"] = graders.accuracy()
    result["startup"] = {name: startup(code) for name, code in STARTUP.items()}
    for case, sides in result["accuracy"].items():
        print(f"{case:40} right: ours {100 * sides['ours']:.2f} %, math-verify {100 * sides['math-verify']:.2f} %")
    for name, seconds in result["startup"].items():
        print(f"{name:56} {seconds['cpu_s']:.2f} CPU s, {seconds['wall_s']:.2f} s")
    write(result, chosen.json)
    short = {case["case"]: case["ratio"] for case in result["cases"] if case["ratio"] < TARGETS[case["case"]]}
    print(f"worst case: {result['ratio']:.1f} x; below their targets: {short or 'none'}")


if __name__ == "__main__":
    main()
