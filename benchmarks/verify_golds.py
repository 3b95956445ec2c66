"""Promise: a reference accepts itself, and no answer that says nothing: `0=0`, `1=1`, `1=2`, `x=x`, "" or the question again.

    python -m benchmarks verify_golds --json benchmarks/results/verify_golds.json

The references are those of MATH, OlympiadBench, Minerva and MMLU-STEM (the text of the right choice) in WHETSTONE_DATA. What
they accept of each other is counted by `verify_agreement`. Ends with an error if any reference accepts an empty answer.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks._labelled import data, lines
from benchmarks._measure import hardware, versions, write
from whetstone.verify import MathVerifier, last_box

EMPTY = ("0=0", "1=1", "1=2", "x=x", "")
SHOWN = 20


def golds(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(set, question, reference answer)."""
    for part in ("train", "test"):
        for row in lines(folder / f"math/{part}.jsonl.gz"):
            if answer := last_box(row["solution"]):
                yield "MATH", row["problem"], answer
    for row in lines(folder / "olympiadbench/test.jsonl.gz"):
        yield from (("OlympiadBench", row["question"], answer.strip("$")) for answer in row["final_answer"])
    for row in lines(folder / "minerva_math/test.jsonl.gz"):
        if answer := last_box(row["solution"]):
            yield "Minerva", row["problem"], answer
    for row in lines(folder / "mmlu_stem/test.jsonl.gz"):
        yield "MMLU-STEM", row["question"], row["choices"][row["answer"]]


def tried(rows: Iterable[tuple[str, str, str]], verifier: MathVerifier) -> tuple[dict[str, Counter], list[list[str]]]:
    """Counts by set, and the references that refuse themselves or accept what says nothing."""
    counts: dict[str, Counter] = {}
    wrong = []
    for name, question, gold in rows:
        count = counts.setdefault(name, Counter())
        count["references"] += 1
        for how, text in (("boxed", f"\\boxed{{{gold}}}"), ("in a sentence", f"The answer is $\\boxed{{{gold}}}$.")):
            verdict = verifier.check(text, gold)
            count["accept themselves"] += verdict.correct is True and how == "boxed"
            if verdict.correct is not True:
                wrong.append([name, how, gold, gold, verdict.reason])
        for answer in (*EMPTY, question):
            if answer.strip() == gold.strip():
                continue
            texts = [answer] if answer in ("", question) else [answer, f"\\boxed{{{answer}}}"]
            for text in texts:
                verdict = verifier.check(text, gold)
                count["answers that say nothing"] += 1
                count["accepted"] += verdict.correct is True
                count["undecided"] += verdict.correct is None
                if verdict.correct is True:
                    wrong.append([name, "says nothing", text[-80:], gold, verdict.reason])
    return counts, wrong


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--rows", type=int, help="only so many references of each set")
    chosen = parser.parse_args(arguments)
    seen: Counter[str] = Counter()
    rows = []
    for row in golds(data()):
        seen[row[0]] += 1
        if chosen.rows is None or seen[row[0]] <= chosen.rows:
            rows.append(row)
    with MathVerifier() as verifier:
        counts, wrong = tried(rows, verifier)
    for name, count in counts.items():
        print(f"{name:14} " + ", ".join(f"{kind} {number:,}" for kind, number in count.items()))
    for row in wrong[:SHOWN]:
        print(" | ".join(row))
    result: dict[str, Any] = {"name": "verify_golds", "sets": counts, "wrong": wrong}
    write(result | {"versions": versions(["whetstone", "math-verify"]), "hardware": hardware()}, chosen.json)
    if any(count["accepted"] for count in counts.values()):
        sys.exit("error: a reference accepts an answer that says nothing.")


if __name__ == "__main__":
    main()
