"""The corpus of `recipes/data_room.toml`: counts by source, drops by reason, gold answers that the verifier reads.

    WHETSTONE_DATA=data python -m benchmarks data_room --json benchmarks/results/data_room.json

A gold answer counts as read if the verifier finds it equal to itself in a box. Rows whose answer is unreadable or missing
are all listed.
"""

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._labelled import data
from benchmarks._measure import hardware, versions, write
from whetstone.pipeline.running import run_recipe
from whetstone.recipe import Recipe, read_recipe
from whetstone.records import Problem, Trace
from whetstone.run.folder import read_json
from whetstone.run.tables import read_records, read_rows
from whetstone.verify import MathVerifier

RECIPE = Path(__file__).parent.parent / "recipes" / "data_room.toml"
NO_GOLD = ("no answer found", "empty answer")  # why the questions stage could not read a row's answer


def folder_of(recipe: Recipe, stage: str) -> Path:
    return recipe.folder / recipe.stage(stage).folder_name


def gold_answers(recipe: Recipe) -> dict[str, Any]:
    problems = list(read_records(Problem, folder_of(recipe, "questions") / "problems"))
    unread = [
        {"id": row["id"], "reason": row["reason"], "answer": row["detail"]}
        for row in read_rows(folder_of(recipe, "questions") / "dropped")
        if row["reason"] in NO_GOLD
    ]
    with MathVerifier() as verifier:
        items = [(f"\\boxed{{{p.answer}}}", p.answer, p.policy) for p in problems]
        for problem, verdict in zip(problems, verifier.check_many(items), strict=True):
            if not verdict.correct:
                unread.append({"id": problem.id, "reason": verdict.reason, "answer": problem.answer})
    rows = len(problems) + sum(row["reason"] in NO_GOLD for row in unread)
    return {"rows": rows, "read": rows - len(unread), "share": 1 - len(unread) / rows, "unread": unread}


def solutions(recipe: Recipe) -> dict[str, Counter[str]]:
    """Verdicts on the worked solutions by teacher."""
    results: dict[str, Counter[str]] = {}
    for trace in read_records(Trace, folder_of(recipe, "rollouts") / "rollouts"):
        verdict = "undecided" if trace.correct is None else "right" if trace.correct else f"wrong: {trace.reason}"
        results.setdefault(trace.teacher, Counter())[verdict] += 1
    return results


def build(folder: Path) -> dict[str, Any]:
    recipe = read_recipe(RECIPE, [f"run.folder={folder}"])
    run_recipe(recipe)
    questions = read_json(folder_of(recipe, "questions") / "manifest.json")
    card = read_json(folder_of(recipe, "corpus") / "card.json")
    used = [read_json(folder_of(recipe, name) / "manifest.json") for name in ("questions", "rollouts", "corpus")]
    return {
        "problems": questions["summary"]["sources"],
        "problems_dropped": questions["summary"]["reasons"],
        "solutions": {teacher: dict(verdicts) for teacher, verdicts in solutions(recipe).items()},
        "gold": gold_answers(recipe),
        "card": card,
        "cpu_seconds": {stage["name"]: stage["cpu_seconds"] for stage in used},
        "peak_memory_mb": max(stage["peak_memory"] for stage in used) / 1e6,
        "page": (folder_of(recipe, "corpus") / "card.md").read_text(),
    }


def show(results: dict[str, Any]) -> None:
    print("\nproblems by source")
    for source, counts in results["problems"].items():
        print(f"    {source:20} " + ", ".join(f"{count:,} {split}" for split, count in counts.items()))
    print("rows that gave no problem")
    for reason, count in results["problems_dropped"].items():
        print(f"    {count:>7,} {reason}")
    print("worked solutions, verified")
    for teacher, verdicts in results["solutions"].items():
        print(f"    {teacher:20} " + ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.items()))
    gold = results["gold"]
    print(f"gold answers read: {gold['read']:,} of {gold['rows']:,}, {gold['share']:.2%}; the rest:")
    for row in gold["unread"]:
        print(f"    {row['id']}: {row['reason']}: {row['answer']!r:.120}")
    print(f"\n{results['page']}")
    print(f"CPU seconds {results['cpu_seconds']}, {results['peak_memory_mb']:,.0f} MB at the peak")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the run here (default: nowhere)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    os.environ["WHETSTONE_DATA"] = str(data().resolve())
    with tempfile.TemporaryDirectory() as scratch:
        results = build(chosen.folder or Path(scratch))
    show(results)
    header = {"name": "data_room", "date": str(date.today()), "hardware": hardware(), "versions": versions(["pyarrow"])}
    write(header | results, chosen.json)


if __name__ == "__main__":
    main()
