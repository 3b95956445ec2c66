"""MetaMath's inverse questions on all of GSM8K train: how many are possible, how many pass the check, and why others fail.

    WHETSTONE_DATA=data python -m benchmarks metamath_gsm8k --json benchmarks/results/metamath_gsm8k.json --read 100

MetaMath masks every number of a text without a check that it is determined. Here a question is made only if the solver
undoes the problem's formula step by step to exactly one value. `--read` prints that many at random, to be read by eye.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks._labelled import data
from benchmarks._measure import hardware, own_cpu, versions, write
from whetstone.arithmetic.number_words import mentions
from whetstone.problems.reading import Drop, Shipped
from whetstone.questions.metamath import MetamathSettings, augment
from whetstone.questions.sources.published import PublishedSource
from whetstone.records import Problem

MANY = 99  # questions of one kind that are requested: more than there are
KINDS = ("fobar", "self_verification", "resampled")


def gsm8k() -> list[Problem]:
    source = PublishedSource(kind="published", set="gsm8k", path=str(data() / "gsm8k" / "train.jsonl.gz"))
    return [item.problem for item in source.problems("gsm8k", "train", 0) if isinstance(item, Shipped)]


def run(problems: Sequence[Problem]) -> tuple[dict[str, Any], dict[str, list[Problem]]]:
    before = own_cpu()
    made: dict[str, list[Problem]] = {kind: [] for kind in KINDS}
    why: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    with_formula = [problem for problem in problems if problem.formula]
    for problem in with_formula:
        inverse, others = MetamathSettings(fobar=MANY, self_verification=MANY), MetamathSettings(resample=1)
        for kind, found in chain(augment(problem, inverse, 0), augment(problem, others, 0)):
            if isinstance(found, Drop):
                why[kind][_reason(found.detail.partition(": ")[2])] += 1
            else:
                made[kind].append(found)
    numbers = sum(len(mentions(problem.question)) for problem in problems)
    told = {
        "problems": len(problems),
        "with_formula": len(with_formula),
        "numbers_in_the_texts": numbers,
        "numbers_in_texts_with_formula": sum(len(mentions(problem.question)) for problem in with_formula),
        "made": {kind: len(found) for kind, found in made.items()},
        "problems_that_give_some": {kind: len({p.origin for p in found}) for kind, found in made.items()},
        "problems_that_give_fewer_than_asked": {kind: dict(found.most_common()) for kind, found in why.items()},
        "cpu_seconds": own_cpu() - before,
    }
    return told, made


def _reason(detail: str) -> str:
    return "the formula computes nothing" if detail.endswith("computes nothing") else detail


def show(told: dict[str, Any]) -> None:
    print(f"{told['problems']:,} problems, {told['with_formula']:,} of them with steps that join into one formula")
    print(
        f"{told['numbers_in_the_texts']:,} numbers in the texts, as many inverse questions of either kind in MetaMath's way; "
        f"{told['numbers_in_texts_with_formula']:,} in texts with a formula\n"
    )
    for kind in KINDS:
        print(
            f"{kind}: {told['made'][kind]:,} survive the check, from {told['problems_that_give_some'][kind]:,} problems"
        )
        for reason, count in list(told["problems_that_give_fewer_than_asked"][kind].items())[:8]:
            print(f"    {count:>6,} problems end with: {reason}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", type=int, default=0, help="print so many inverse questions at random")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    told, made = run(gsm8k())
    show(told)
    inverse = [(kind, problem) for kind in KINDS[:2] for problem in made[kind]]
    for kind, problem in random.Random(0).sample(inverse, chosen.read):
        print(f"{problem.id}\t{kind}\t{problem.answer}\t{problem.formula}\t{' '.join(problem.question.split())}")
    result = {"name": "metamath_gsm8k", "date": str(date.today()), "hardware": hardware(), "versions": versions([])}
    write(result | told, chosen.json)


if __name__ == "__main__":
    main()
