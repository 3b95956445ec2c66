"""What each rule of data makes from each public set, what the filters leave of it, and rows to read by eye.

    whetstone run recipes/smollm2.toml --to corpus
    python -m benchmarks data_by_rule runs/smollm2 --json benchmarks/results/data_by_rule.json
    python -m benchmarks data_by_rule runs/smollm2 --read 50 --rule "other numbers"

A rule is how a trace came to be: the equations alone, the written solution, the same with other numbers, an inverse question, a
program. Rows per CPU second are those of the stages' own manifests.
"""

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, versions, write
from benchmarks.seeds import line
from whetstone.records import PROGRAM, Problem, Trace
from whetstone.run.folder import MANIFEST, read_json
from whetstone.run.tables import read_records, read_rows

RULES = ("equations", "written", "other numbers", "other numbers, written", "fobar", "self-verification", "program")
MADE = {"resampled": "other numbers", "fobar": "fobar", "self_verification": "self-verification"}


def folder_of(run: Path, kind: str) -> Path:
    folders = [path.parent for path in sorted(run.glob(f"[0-9]*/{MANIFEST}")) if read_json(path)["kind"] == kind]
    if not folders:
        raise SystemExit(f"error: {run} has no finished {kind} stage. Make it with `whetstone run RECIPE --to corpus`.")
    return folders[0]


def rule_of(problem: Problem, trace: Trace) -> str:
    if trace.augmentation == PROGRAM:
        return "program"
    made = MADE.get(problem.id.rpartition("/")[2].partition("-")[0], "") if problem.origin else ""
    written = trace.teacher != "equations"
    if not made:
        return "written" if written else "equations"
    return f"{made}, written" if written else made


def traces_of(run: Path) -> Iterator[tuple[str, Problem, Trace]]:
    """(rule, problem, trace) of every rollout for training."""
    problems = {p.id: p for p in read_records(Problem, folder_of(run, "questions") / "problems") if p.split == "train"}
    for trace in read_records(Trace, folder_of(run, "rollouts") / "rollouts"):
        if problem := problems.get(trace.problem_id):
            yield rule_of(problem, trace), problem, trace


def counted(run: Path) -> dict[str, dict[str, dict[str, int]]]:
    """set -> rule -> made, right, and what becomes of it in the corpus: taught, reserved, or the reason why it is left out."""
    corpus = folder_of(run, "corpus")
    taught = {(row["problem_id"], row["index"]) for row in read_rows(corpus / "corpus")}
    problems: dict[str, str] = {}
    rows: dict[tuple[str, int], str] = {}
    for row in read_rows(corpus / "dropped"):
        if row["index"] is None:
            problems[row["problem_id"]] = row["reason"]
        else:
            rows[row["problem_id"], row["index"]] = row["reason"]
    counts: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for rule, problem, trace in traces_of(run):
        own, key = counts[problem.source][rule], (problem.id, trace.index)
        own["made"] += 1
        own["right"] += trace.correct is True
        own["taught" if key in taught else rows.get(key) or problems.get(problem.id, "its level is not taught")] += 1
    return {source: {rule: dict(count) for rule, count in rules.items()} for source, rules in counts.items()}


def table(counts: dict[str, dict[str, dict[str, int]]]) -> Iterator[str]:
    yield line(
        ["set", "rule", "made", "right", "kept from tests", "too long", "second of a problem", "reserved", "taught"]
    )
    yield line(["---", "---", *["---:"] * 7])
    for source, rules in counts.items():
        for rule in sorted(rules, key=RULES.index):
            count = rules[rule]

            def like(*parts: str, count: dict[str, int] = count) -> str:
                return f"{sum(n for reason, n in count.items() if any(part in reason for part in parts)):,}"

            yield line(
                [source, rule, f"{count['made']:,}", f"{count['right']:,}", like("test question"), like("longer than"),
                 like("beyond traces"), like("reserved"), f"{count.get('taught', 0):,}"]
            )  # fmt: skip


def speeds(run: Path) -> dict[str, Any]:
    stages = {kind: read_json(folder_of(run, kind) / MANIFEST) for kind in ("questions", "rollouts", "corpus")}
    seconds = {kind: stage["cpu_seconds"] for kind, stage in stages.items()}
    made = {
        "questions": stages["questions"]["summary"]["problems"],
        "rollouts": stages["rollouts"]["summary"]["rollouts"],
    }
    made["corpus"] = made["rollouts"]
    return {kind: {"rows": made[kind], "cpu_seconds": seconds[kind]} for kind in stages}


def show_rows(run: Path, rule: str, count: int) -> None:
    originals = {p.id: p for p in read_records(Problem, folder_of(run, "questions") / "problems")}
    found = [(problem, trace) for own, problem, trace in traces_of(run) if own == rule]
    for problem, trace in random.Random(0).sample(found, min(count, len(found))):
        print(f"--- {problem.id}  answer {problem.answer}  {trace.reason}")
        if problem.origin in originals:
            print(f"was {' '.join(originals[problem.origin].question.split())}")
        print(f"Q   {' '.join(problem.question.split())}\nA   {trace.text.replace(chr(10), ' | ')}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with a finished corpus")
    parser.add_argument("--read", type=int, default=0, help="print so many rows of `--rule` at random")
    parser.add_argument("--rule", choices=RULES, default="other numbers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    if chosen.read:
        return show_rows(chosen.run, chosen.rule, chosen.read)
    counts, speed = counted(chosen.run), speeds(chosen.run)
    print("\n".join(table(counts)))
    for kind, own in speed.items():
        print(
            f"{kind}: {own['rows']:,} rows in {own['cpu_seconds']:.0f} CPU s, {own['rows'] / own['cpu_seconds']:.0f} a second"
        )
    dropped = Counter(
        f"{row['reason']}: {row['detail'].partition(': ')[2].partition(': ')[0] or row['detail']}"
        for row in read_rows(folder_of(chosen.run, "questions") / "dropped")  # "reason: 1 of 2: why: detail"
        if row["reason"].startswith("metamath")
    )
    reasons = read_json(folder_of(chosen.run, "rollouts") / MANIFEST)["summary"].get("reasons", {})
    for reason, number in [*dropped.most_common(), *reasons.items()]:
        print(f"{number:>8,} {reason}")
    result = {"name": "data_by_rule", "date": str(date.today()), "hardware": hardware(), "versions": versions([])}
    write(
        result | {"counts": counts, "speed": speed, "refused": dict(dropped), "without_equations": reasons}, chosen.json
    )


if __name__ == "__main__":
    main()
