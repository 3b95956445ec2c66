"""Promise: a reward model picks a better one of eight answers than the majority does, or the honest null.

    python -m benchmarks algorithms --table feedback --only ppo_reward_model   # makes the model and reward-0, -1, -2
    python -m benchmarks best_of_eight runs/algorithms --reward-model reward-0 reward-1 reward-2 --json FILE

Nothing is sampled: the saved answers of a scored stage (default: sft) to the held-out problems are taken, on which no reward
model was trained. Several models are judged together, each chooses. `mean` is the share of right answers, `majority` that of
problems whose most frequent answer is right, `length` takes the shortest answer, `best` the one with the highest reward, `any`
counts a problem with one right answer.
Differences are paired by problem, with the 95 % interval of a bootstrap over problems.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, versions
from benchmarks.seeds import interval, percent
from whetstone.measure import majority_right, mean_interval, paired_bootstrap
from whetstone.records import Problem, Verifier
from whetstone.run.folder import read_json
from whetstone.run.tables import read_rows

Row = dict[str, Any]
RULES = ("mean", "length", "majority", "best", "any")


def choices(rows: Sequence[Row], rewards: Sequence[float], verifier: Verifier) -> dict[str, float]:
    """How right each rule is on the answers to one problem; of equal rewards or lengths, the first."""
    right = [float(row["correct"] is True) for row in rows]
    return {
        "mean": sum(right) / len(right),
        "length": right[min(range(len(rows)), key=lambda i: rows[i]["tokens"])],
        "majority": majority_right(rows, verifier),
        "best": right[max(range(len(rows)), key=rewards.__getitem__)],
        "any": max(right),
    }


def by_rule(
    problems: Mapping[str, Sequence[Row]], rewards: Mapping[str, Sequence[float]], verifier: Verifier
) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {rule: [] for rule in RULES}
    for name, rows in problems.items():
        for rule, value in choices(rows, rewards[name], verifier).items():
            found[rule].append({"problem_id": name, "correct": value})
    return found


def rewards_of(folder: Path, problems: Mapping[str, Sequence[Row]]) -> dict[str, list[float]]:
    from whetstone.reward_model import RewardModel
    from whetstone.run.settings import ParallelSettings

    model = RewardModel.load(folder, ParallelSettings(device="cpu"))
    return {
        name: model.of_texts([(Problem(name, row["question"], row["gold"]), row["text"]) for row in rows])
        for name, rows in problems.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    from whetstone.verify import MathVerifier

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--stage", default="sft", help="whose answers")
    parser.add_argument(
        "--reward-model", nargs="+", default=["reward"], metavar="STAGE", help="the stages that made them"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    chosen = parser.parse_args(arguments)
    benchmark = next(s["benchmark"] for s in read_json(chosen.run / "scores.json")["scores"] if s["main"])
    problems: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(chosen.run / "scores" / chosen.stage / benchmark):
        problems[row["problem_id"]].append(row)
    folders = {name: next(chosen.run.glob(f"[0-9]*-{name}")) for name in chosen.reward_model}
    began = time.process_time()
    rewards = {name: rewards_of(folder / "reward_model", problems) for name, folder in folders.items()}
    seconds = time.process_time() - began
    with MathVerifier() as verifier:
        by_model = {name: by_rule(problems, given, verifier) for name, given in rewards.items()}
    found = dict(next(iter(by_model.values())))
    found["best"] = [row for rows in by_model.values() for row in rows["best"]]
    results = {
        rule: dict(zip(("mean", "low", "high", "problems"), mean_interval(rows), strict=True))
        for rule, rows in found.items()
    }
    differences = {rule: paired_bootstrap(found["best"], found[rule]) for rule in ("mean", "length", "majority")}
    for rule, result in results.items():
        beside = f"   best - {rule}: {interval(differences[rule])}" if rule in differences else ""
        print(f"{rule:10}{percent(result['mean'])} [{percent(result['low'])}, {percent(result['high'])}]{beside}")
    if chosen.json:
        facts = {"name": "best_of_eight", "date": date.today().isoformat(), "hardware": hardware()}
        facts |= {
            "versions": versions(("torch", "transformers")),
            "stage": chosen.stage,
            "scoring_cpu_seconds": seconds,
        }
        facts |= {
            "results": results,
            "best_minus": differences,
            "best_by_model": {name: mean_interval(rows["best"])[0] for name, rows in by_model.items()},
            "assessments": {name: read_json(f / "assessment.json")["after"] for name, f in folders.items()},
        }
        chosen.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
