"""Promise: right answers are accepted and wrong ones refused, as public labels say, beside math-verify on the same answers.

    python -m benchmarks verify_agreement --json benchmarks/results/verify_agreement.json

Reads the labelled answers in WHETSTONE_DATA. Printed: for each set the share that agrees with its labels, answers
accepted though labelled wrong, refused though labelled right, and undecided; the share of formulas that are read as
what they denote; and how many of 100,000 answers are accepted for another problem's reference. Every disagreement of
ours goes to a table (--table), where the column `judgement` is written by hand and kept when the table is written anew.

math-verify gets the reference in dollar signs and, in the main thread, its own timeouts of 5 seconds.
"""

import argparse
import csv
import logging
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._labelled import SETS, Labelled, crossed, data, lines
from benchmarks._measure import hardware, versions, write
from whetstone.verify import MathVerifier

TABLE = Path("docs/verifier_disagreements.tsv")
COLUMNS = ("set", "times", "answer", "reference", "label", "ours", "math_verify", "judgement")
EXCERPT = 70  # characters of an answer or reference that are shown
PAIRS = 100_000  # of boxed references, beside those of whole solutions
PEER_EVERY = 100  # math-verify gets one of so many pairs: at 40 ms each, all would take an hour
DEADLINE = 10.0  # seconds of computer algebra for one answer
WORDS = {True: "accepted", False: "refused", None: "undecided"}
LABELS = {True: "right", False: "wrong", None: ""}


@dataclass
class Tally:
    """Verdicts of one verifier against labels."""

    answers: int = 0
    agree: int = 0
    wrong_accepts: int = 0
    wrong_refusals: int = 0
    undecided: int = 0
    accepted: int = 0

    def add(self, label: bool | None, verdict: bool | None) -> None:
        self.answers += 1
        self.accepted += verdict is True
        self.agree += label is not None and verdict is label
        self.wrong_accepts += label is False and verdict is True
        self.wrong_refusals += label is True and verdict is False
        self.undecided += verdict is None


@dataclass
class Row:
    """One set: our tally, the peer's, and the answers on which we do not agree with the label."""

    group: str
    labelled: bool = True
    ours: Tally = field(default_factory=Tally)
    peer: Tally = field(default_factory=Tally)
    disagreements: list[dict[str, str]] = field(default_factory=list)


def peer_says(text: str, gold: str) -> bool:
    """math-verify as its users call it."""
    from math_verify import parse, verify

    return bool(verify(parse(gold), parse(text)))


def agreement(rows: Iterable[Labelled], verifier: MathVerifier, ask_peer: bool = True) -> dict[str, Row]:
    """Both verifiers' verdicts by group."""
    found: dict[str, Row] = {}
    for row in rows:
        group = found.setdefault(row.group, Row(row.group, row.label is not None))
        verdict = verifier.check(row.text, row.gold, row.policy)
        peer = peer_says(row.peer_text, row.peer_gold) if ask_peer else None
        group.ours.add(row.label, verdict.correct)
        group.peer.add(row.label, peer)
        if row.label is not None and verdict.correct is not row.label:
            group.disagreements.append(
                disagreement(row.group, verdict.answer or row.text, row.gold, row.label, verdict.correct, peer)
            )
    return found


def disagreement(group: str, answer: str, gold: str, label: Any, ours: Any, peer: Any) -> dict[str, str]:
    shown = (excerpt(text) for text in (answer, gold))
    return dict(zip(COLUMNS[:-1], (group, "1", *shown, LABELS[label], WORDS[ours], WORDS[peer]), strict=True))


def excerpt(text: str) -> str:
    """The end of a text, which holds the answer, on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= EXCERPT else f"… {flat[-EXCERPT:]}"


def false_accepts(
    pairs: Iterable[tuple[str, str]], verifier: MathVerifier, every: int
) -> tuple[dict[str, int], list[dict[str, str]]]:
    """How many answers are accepted for another problem's reference; math-verify is asked about some of the pairs."""
    counts: Counter[str] = Counter()
    accepted = []
    for number, (text, gold) in enumerate(pairs):
        verdict = verifier.check(text, gold)
        counts["pairs"] += 1
        counts["accepted"] += verdict.correct is True
        counts["undecided"] += verdict.correct is None
        asked = number % every == 0
        peer = peer_says(text, f"${gold}$") if asked or verdict.correct else None
        counts["peer_pairs"] += asked
        counts["peer_accepted"] += asked and peer is True
        if verdict.correct:
            accepted.append(disagreement("crossed", verdict.answer, gold, False, True, peer))
        elif asked and peer:
            accepted.append(
                disagreement("crossed, math-verify", verdict.answer or text, gold, False, verdict.correct, True)
            )
    return dict(counts), accepted


def formulas(rows: Iterable[dict[str, Any]]) -> tuple[dict[str, int], list[dict[str, str]]]:
    """How many formulas our reader, our reader with computer algebra, and math-verify read as what they denote.

    "otherwise" counts those that our reader reads as something else; what it does not read, it leaves to computer algebra.
    """
    from math_verify import parse

    from benchmarks._as_sympy import NotSaid, expected, one_value, read_as_sympy
    from whetstone.verify.algebra import parsed
    from whetstone.verify.exact import TooLarge, Unreadable

    counts: Counter[str] = Counter()
    otherwise = []
    for row in rows:
        try:
            wanted = expected(row["expected_sympy"])
        except NotSaid:
            counts["set aside: the expectation is no formula"] += 1
            continue
        counts["formulas"] += 1
        candidates = parse(f"${row['latex']}$")
        counts["peer"] += bool(candidates) and _one_value(candidates[0], wanted, one_value)
        try:
            found = read_as_sympy(row["latex"])
        except (TooLarge, Unreadable, NotSaid):
            counts["with computer algebra"] += _one_value(parsed(row["latex"]), wanted, one_value)
            continue
        right = _one_value(found, wanted, one_value)
        counts["reader"] += right
        counts["with computer algebra"] += right
        counts["otherwise"] += not right
        if not right:
            said = disagreement("latex_to_sympy", row["latex"], row["expected_sympy"], True, False, None)
            otherwise.append(said | {"math_verify": ""})
    return dict(counts), otherwise


def _one_value(found: Any, wanted: Any, one_value: Any) -> bool:
    try:
        return found is not None and one_value(found, wanted)
    except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError):
        return False  # sympy cannot compare the two


def merged(disagreements: Iterable[dict[str, str]], table: Path) -> list[dict[str, str]]:
    """One row for each different disagreement, with the judgement that the table holds already."""
    judged = {}
    if table.exists():
        with table.open(newline="") as file:
            judged = {key(row): row["judgement"] for row in csv.DictReader(file, delimiter="\t")}
    times: Counter[tuple[str, ...]] = Counter()
    rows = {}
    for row in disagreements:
        times[key(row)] += 1
        rows.setdefault(key(row), row)
    return [row | {"times": str(times[at]), "judgement": judged.get(at, "")} for at, row in rows.items()]


def key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[column] for column in ("set", "answer", "reference", "label", "ours"))


def write_table(rows: Sequence[dict[str, str]], table: Path) -> None:
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def printed(rows: Iterable[Row]) -> Iterator[str]:
    """Markdown: ours and math-verify's figure in each cell."""
    yield "| set | answers | agree, % | accepted though wrong | refused though right | undecided |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for row in rows:
        pairs = [
            (f"{100 * tally.agree / tally.answers:.2f}", tally.wrong_accepts, tally.wrong_refusals, tally.undecided)
            if row.labelled
            else (f"mean {100 * tally.accepted / tally.answers:.2f}", "", "", tally.undecided)
            for tally in (row.ours, row.peer)
        ]
        cells = [f"{ours} / {peer}" if ours != "" else "" for ours, peer in zip(*pairs, strict=True)]
        yield f"| {row.group} | {row.ours.answers} | {' | '.join(cells)} |"


def published_mean(folder: Path) -> str:
    told = (folder / "outputs_tora_gsm8k/tora-70b-v1.0.metrics.txt").read_text()
    return told.partition("[")[2].partition("]")[0]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--table", type=Path, metavar="FILE", default=TABLE, help=f"disagreements; default {TABLE}")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="boxed references crossed with other references")
    chosen = parser.parse_args(arguments)
    folder = data()
    logging.disable(logging.CRITICAL)  # math-verify logs each text that it cannot read
    warnings.filterwarnings("ignore")
    result: dict[str, Any] = {"name": "verify_agreement", "sets": []}
    with MathVerifier(deadline=DEADLINE) as verifier:
        rows = [row for each in SETS for row in agreement(each(folder), verifier).values()]
        print("Ours / math-verify:\n\n" + "\n".join(printed(rows)))
        print(f"\nThe mean published with outputs_tora_gsm8k is {published_mean(folder)}.", flush=True)
        read, otherwise = formulas(lines(folder / "latex_to_sympy/pairs.jsonl"))
        print(
            f"\nlatex_to_sympy, {read['formulas']} formulas: our reader alone reads {read['reader']} as expected and "
            f"{read['otherwise']} otherwise; with computer algebra {read['with computer algebra']}; math-verify "
            f"{read['peer']}.",
            flush=True,
        )
        counts, accepted = false_accepts(crossed(folder, chosen.pairs), verifier, PEER_EVERY)
    print(
        f"\n{counts['pairs']:,} answers beside other problems' references: {counts['accepted']} accepted, "
        f"{counts['undecided']} undecided; math-verify accepts {counts['peer_accepted']} of {counts['peer_pairs']:,}."
    )
    disagreements = merged([d for row in rows for d in row.disagreements] + otherwise + accepted, chosen.table)
    write_table(disagreements, chosen.table)
    open_ones = sum(not row["judgement"] for row in disagreements)
    print(f"\n{len(disagreements)} different disagreements are in {chosen.table}, {open_ones} without a judgement.")
    result["sets"] = [
        {"set": row.group, "labelled": row.labelled, "ours": vars(row.ours), "math_verify": vars(row.peer)}
        for row in rows
    ]
    result |= {"formulas": read, "crossed": counts, "published_mean_of_tora": published_mean(folder)}
    result |= {"versions": versions(["whetstone", "math-verify", "sympy"]), "hardware": hardware()}
    write(result | {"date": date.today().isoformat()}, chosen.json)
    if unjudged := [row for row in disagreements if row["set"] == "crossed" and not row["judgement"]]:
        sys.exit(
            f"error: {len(unjudged)} answers were accepted for another problem's reference and are not judged yet."
        )


if __name__ == "__main__":
    main()
