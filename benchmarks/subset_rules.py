"""The result of each training stage's subset rule: what was kept, by level, domain, length and pass rate.

    python -m benchmarks subset_rules recipes/tiny.toml recipes/word_problems.toml --json benchmarks/results/subset_rules.json

Phi-4-Mini-Reasoning (arXiv 2504.21233) gives mid-training all that is right, fine-tuning a compact and representative subset
of all levels, DPO right against wrong, and RL prompts whose responses are of like length, that can be solved and are not too
easy. A recipe's finished run is read if there is one (`--folder` names the folder of runs); else the stages up to the
corpus are run in a temporary folder. Student pairs and RL prompts are described only for stages that have run.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks._measure import hardware, versions, write
from whetstone.corpus import label
from whetstone.corpus.build import with_rows
from whetstone.pipeline.running import run_recipe, stage_for
from whetstone.recipe import Recipe, read_recipe
from whetstone.recipe_stage import RecipeStage
from whetstone.records import Rollout, Trace, from_row
from whetstone.rl.stabilisers.prompt_optimization import length_spread
from whetstone.run.folder import MANIFEST, read_json
from whetstone.run.tables import read_rows

SHOWN = 6  # levels or reasons named in a line
RATES = ("never", "sometimes", "always")


@dataclass
class Part:
    """Rows and their problems."""

    rows: int = 0
    characters: int = 0
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)  # id -> level, domain

    def add(self, problem_id: str, level: Any, domain: str, text: str) -> None:
        self.rows += 1
        self.characters += len(text)
        self.problems[problem_id] = str(level), domain

    def told(self) -> dict[str, Any]:
        """Shares are of problems."""
        levels, domains = (Counter(labels[place] for labels in self.problems.values()) for place in (0, 1))
        return {
            "rows": self.rows,
            "problems": len(self.problems),
            "levels": shares(levels),
            "domains": shares(domains),
            "characters": self.characters / self.rows if self.rows else 0,
        }


def shares(counts: Counter[str]) -> dict[str, float]:
    return {name: counts[name] / counts.total() for name in sorted(counts)}


def furthest(one: dict[str, float], other: dict[str, float]) -> float:
    """The largest difference of two shares, in percentage points."""
    return 100 * max((abs(one.get(name, 0) - other.get(name, 0)) for name in {*one, *other}), default=0.0)


def rate(right: int, of: int) -> str:
    return RATES[0] if not right else RATES[2] if right == of else RATES[1]


# --- the rules ---


def rules(recipe: Recipe) -> dict[str, Any]:
    corpus = next(stage for stage in reversed(recipe.stages) if stage.kind == "corpus")
    folder, inputs = recipe.folder / corpus.folder_name, stage_for(recipe, corpus).inputs
    taught, subset = Part(), Part()
    for part, table in ((taught, "corpus"), (subset, "subset")):
        for row in read_rows(folder / table):
            if row["split"] == "train":
                part.add(row["problem_id"], row["level"], row["domain"], row["text"])
    pairs = list(read_rows(folder / "pairs"))
    prompts = list(read_rows(folder / "prompts"))
    answered = with_rows(inputs["problems"], inputs["rollouts"])
    traces = ((problem, [from_row(Trace, row) for row in rows]) for problem, rows in answered)
    teacher = Teacher(traces, {row["problem_id"] for row in pairs})
    drops = Counter(row["reason"] for row in read_rows(folder / "dropped"))
    return {
        "train_problems": teacher.problems,
        "midtrain": {"of": teacher.told(), "kept": taught.told(), "dropped": dict(drops.most_common())},
        "sft": {"of": taught.told(), "kept": subset.told()},
        "dpo": {"problems_with_both": teacher.with_both, **gaps(pairs, teacher.gaps)},
        "student_pairs": {
            stage.name: gaps(list(read_rows(recipe.folder / stage.folder_name / "pairs")), {})
            for stage in finished(recipe, "dpo")
            if stage.settings.source == "student"
        },
        "prompts": {
            "of": teacher.problems,
            "kept": len(prompts),
            "levels": shares(Counter(str(row["level"]) for row in prompts)),
            "teacher_pass_rate": mean(known)
            if (known := [p["pass_rate"] for p in prompts if p["pass_rate"] is not None])
            else None,
        },
        "rl": {stage.name: chosen_prompts(recipe.folder / stage.folder_name) for stage in finished(recipe, "rl")},
    }


class Teacher:
    """One pass over the train problems and the teacher's answers."""

    def __init__(self, found: Iterator[tuple[Any, list[Any]]], paired: set[str]):
        self.problems = self.rollouts = self.right = self.with_both = 0
        self.levels, self.domains = Counter[str](), Counter[str]()
        self.gaps: dict[str, float] = {}  # per paired problem: the mean over all pairs of a right and a wrong trace
        for problem, traces in found:
            if problem.split != "train":
                continue
            right = [len(trace.text) for trace in traces if trace.correct]
            wrong = [len(trace.text) for trace in traces if trace.correct is False]
            self.problems += 1
            self.rollouts += len(traces)
            self.right += len(right)
            self.with_both += bool(right and wrong)
            self.levels[str(label.level(problem, label.pass_rate(traces)))] += 1
            self.domains[label.domain(problem)] += 1
            if problem.id in paired and right and wrong:
                self.gaps[problem.id] = mean(abs(a - b) for a, b in product(right, wrong))

    def told(self) -> dict[str, Any]:
        return {
            "rows": self.rollouts,
            "right": self.right,
            "problems": self.problems,
            "levels": shares(self.levels),
            "domains": shares(self.domains),
        }


def gaps(pairs: Sequence[dict[str, Any]], at_random: dict[str, float]) -> dict[str, Any]:
    """Difference in length of the sides of the pairs, in characters."""
    told: dict[str, Any] = {"pairs": len(pairs), "problems": len({row["problem_id"] for row in pairs})}
    if pairs:
        chosen, rejected = (mean(len(row[side]) for row in pairs) for side in ("chosen", "rejected"))
        gap = mean(abs(len(row["chosen"]) - len(row["rejected"])) for row in pairs)
        told |= {"chosen": chosen, "rejected": rejected, "gap": gap}
    if at_random:
        told["gap_at_random"] = mean(at_random.values())
    return told


def finished(recipe: Recipe, kind: str) -> list[RecipeStage]:
    return [
        stage
        for stage in recipe.stages
        if stage.kind == kind and (recipe.folder / stage.folder_name / MANIFEST).exists()
    ]


def chosen_prompts(folder: Path) -> dict[str, Any]:
    """The candidates of an RL stage and those it trained on, by the rollouts with which they were tried."""
    kept = set(read_json(folder / "prompts.json")["kept"])
    groups: dict[str, list[Rollout]] = {}
    if (folder / "candidates.jsonl").exists():
        with (folder / "candidates.jsonl").open(encoding="utf-8") as lines:
            for rollout in (from_row(Rollout, json.loads(line)) for line in lines):
                groups.setdefault(rollout.problem_id, []).append(rollout)
    return {
        "counts": read_json(folder / "prompts.json")["facts"]["candidates"],
        "before": tried(groups.values()),
        "after": tried(group for name, group in groups.items() if name in kept),
    }


def tried(groups: Any) -> dict[str, Any]:
    decided = [(group, [r.correct for r in group if r.correct is not None]) for group in groups]
    with_verdict = [(group, verdicts) for group, verdicts in decided if verdicts]
    if not with_verdict:
        return {"prompts": len(decided)}
    rates = Counter(rate(sum(verdicts), len(verdicts)) for _, verdicts in with_verdict)
    return {
        "prompts": len(decided),
        "pass_rate": mean(sum(verdicts) / len(verdicts) for _, verdicts in with_verdict),
        "rates": {name: rates[name] for name in RATES},
        "spread": mean(length_spread(group) for group, _ in with_verdict),
    }


# --- in words ---


def table(name: str, found: dict[str, Any]) -> str:
    """The rules of one recipe, as a table of Markdown."""
    mid, sft, dpo, prompts = found["midtrain"], found["sft"], found["dpo"], found["prompts"]
    all_of, taught, subset = mid["of"], mid["kept"], sft["kept"]
    rows = [
        (
            "mid-training: all that is right",
            f"{all_of['rows']:,} rollouts ({all_of['right']:,} right) of {all_of['problems']:,} problems",
            f"{taught['rows']:,} of {taught['problems']:,} problems",
            f"levels {percents(taught['levels'])}; {taught['characters']:,.0f} characters per row; left out, validation "
            "included: " + ", ".join(f"{why} {count:,}" for why, count in list(mid["dropped"].items())[:SHOWN]),
        ),
        (
            "fine-tuning: compact, representative, all levels",
            f"{sft['of']['rows']:,} rows of {sft['of']['problems']:,} problems",
            f"{subset['rows']:,} of {subset['problems']:,} problems",
            f"levels {percents(subset['levels'])}: at most {furthest(taught['levels'], subset['levels']):.1f} points from the "
            f"corpus, domains {furthest(taught['domains'], subset['domains']):.1f}; "
            f"{len(subset['levels'])} of {len(taught['levels'])} levels, {len(subset['domains'])} of "
            f"{len(taught['domains'])} domains; {subset['characters']:,.0f} characters per row",
        ),
        (
            "DPO on the teacher's text: right against wrong",
            f"{dpo['problems_with_both']:,} problems with both",
            f"{dpo['pairs']:,} pairs of {dpo['problems']:,} problems",
            lengths(dpo),
        ),
        *(
            (
                f"DPO on the student's text ({stage})",
                "what it sampled",
                f"{pairs['pairs']:,} pairs of {pairs['problems']:,} problems",
                lengths(pairs),
            )
            for stage, pairs in found["student_pairs"].items()
        ),
        (
            "RL: prompts with an answer to verify",
            f"{prompts['of']:,} problems",
            f"{prompts['kept']:,}",
            f"levels {percents(prompts['levels'])}; the teacher's pass rate {percent(prompts['teacher_pass_rate'])}",
        ),
        *(
            (
                f"RL: of like length, solvable, not too easy ({stage})",
                f"{chosen['before']['prompts']:,} candidates: {rates_of(chosen['before'])}",
                f"{chosen['after']['prompts']:,}: {rates_of(chosen['after'])}",
                ", ".join(f"{why} {count:,}" for why, count in chosen["counts"].items()),
            )
            for stage, chosen in found["rl"].items()
        ),
    ]
    head = f"| {name} | of | kept | what |\n| --- | --- | --- | --- |\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def percents(found: dict[str, float]) -> str:
    most = sorted(found, key=lambda name: -found[name])[:SHOWN]
    return ", ".join(f"{name} {found[name]:.0%}" for name in found if name in most)


def percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.0%}"


def lengths(pairs: dict[str, Any]) -> str:
    if not pairs["pairs"]:
        return ""
    told = f"right {pairs['chosen']:,.0f}, wrong {pairs['rejected']:,.0f} characters, {pairs['gap']:,.0f} apart"
    return told + (f" (any right and wrong: {pairs['gap_at_random']:,.0f})" if "gap_at_random" in pairs else "")


def rates_of(found: dict[str, Any]) -> str:
    if "rates" not in found:
        return "untried"
    solved = ", ".join(f"{count:,} {name}" for name, count in found["rates"].items())
    return f"pass rate {found['pass_rate']:.0%} ({solved} solved), spread of lengths {found['spread']:.2f}"


def measure(path: Path, folder: Path | None) -> tuple[str, dict[str, Any]]:
    """Reads a recipe's run if its corpus is finished, else runs the stages up to it."""
    recipe = read_recipe(path, [f"run.folder={folder}"] if folder else [])
    if finished(recipe, "corpus"):
        return recipe.run.name, rules(recipe)
    with tempfile.TemporaryDirectory() as scratch:
        recipe = read_recipe(path, [f"run.folder={scratch}"])
        corpus = next(stage for stage in reversed(recipe.stages) if stage.kind == "corpus")
        run_recipe(recipe, last=corpus.name)
        return recipe.run.name, rules(recipe)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", type=Path, nargs="+")
    parser.add_argument("--folder", type=Path, help="of the runs (default: that of the recipe)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    found = dict(measure(path, chosen.folder) for path in chosen.recipes)
    print()
    for name, one in found.items():
        print(table(name, one))
    told = {
        "name": "subset_rules",
        "date": str(date.today()),
        "hardware": hardware(),
        "versions": versions(["pyarrow"]),
    }
    write(told | {"recipes": found}, chosen.json)


if __name__ == "__main__":
    main()
