"""Promise: each algorithm learns. All start from one fine-tuned model and use equally many rollouts; plain controls too.

    python -m benchmarks algorithms                        # RL algorithms, Rollout DPO variants, SFT on right rollouts
    python -m benchmarks algorithms --table stabilisers    # the paper's three stabilisers, one by one and together
    python -m benchmarks algorithms --table adapters       # LoRA at several ranks, beside all weights
    python -m benchmarks algorithms --table feedback       # PPO by verifier and by reward model, distillation, majority
    python -m benchmarks algorithms --table staleness      # GRPO sampled by older weights, corrected and not
    python -m benchmarks algorithms --only grpo dapo --seeds 0

One run, `runs/algorithms`: the model is made once, by the shortened walk of recipes/dapo.toml; then every variant and seed
is a stage of its own from that model (its random streams depend on the stage's name). The first seed of every variant comes
before the second of any. Finished stages are not repeated, and FILE is written after each. A larger teacher is made in a run of
its own, `runs/larger_teacher`, by the same walk.

Printed as Markdown: accuracy on the held-out problems, the paired differences to the start and to GRPO with the 95 % interval
of a bootstrap over problems (all seeds' samples of a problem together), the range over seeds, the stage's processor seconds
and, beside them, those of what it needs (a reward model, a teacher), and what training looked like.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import combinations, product
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, versions
from benchmarks.seeds import interval, line, percent
from whetstone.evaluate.comparisons import read_marks
from whetstone.measure import paired_bootstrap
from whetstone.run.folder import read_json, write_text
from whetstone.run.metrics import read_metrics

BASE = Path(__file__).parent.parent / "recipes" / "dapo.toml"
START = "sft"
RUN = "algorithms"
LARGER_RUN = "larger_teacher"
ROLLOUTS = 4096  # of every variant
RL = {
    "kind": "rl", "model": START, "steps": 64, "rollouts": ROLLOUTS, "prompts_per_step": 16, "samples": 8, "updates": 2,
    "max_tokens": 224, "pool.prompts": 800, "pool.levels": [2], "pool.samples": 0,
    "optimizer.learning_rate": 1e-4, "optimizer.warmup": 0.02, "checkpoint_every": 20, "stabilisers": [],
}  # fmt: skip
DPO = {
    "kind": "dpo", "model": START, "source": "student", "pool.levels": [2], "pool.prompts": ROLLOUTS // 8, "pool.samples": 8,
    "temperature": 0.8, "max_tokens": 224, "pairs_per_problem": 3, "chosen_nll": 1.0,
    "optimizer.learning_rate": 1e-4, "batch_pairs": 16, "checkpoint_every": 20,
}  # fmt: skip
PAPER = ["prompt_optimization", "reward_rebalancing", "temperature_annealing"]
# The rollouts with which prompt optimisation tries candidates are part of the budget
TRIED = {"pool.prompts": 300, "pool.samples": 2, "pool.solvable": False, "rollouts": ROLLOUTS - 600}

ALGORITHMS: dict[str, dict[str, Any]] = {
    "grpo": RL | {"algorithm": "grpo"},
    "dr_grpo": RL | {"algorithm": "dr_grpo"},
    "dapo": RL | {"algorithm.name": "dapo", "algorithm.rounds": 4, "algorithm.soft_tokens": 40},
    "srpo": RL | {"algorithm": "srpo"},
    "gspo": RL | {"algorithm": "gspo"},
    "cispo": RL | {"algorithm": "cispo"},
    "rloo": RL | {"algorithm": "rloo"},
    "reinforce_pp": RL | {"algorithm": "reinforce_pp"},
    "paper": RL | {"algorithm": "grpo", "stabilisers": PAPER, **TRIED},
    "dpo": DPO | {"beta": 0.01},
    "dpo_hardest": DPO | {"beta": 0.01, "pairing": "hardest"},
    "ipo": DPO | {"loss": "ipo", "beta": 1.0},
    "simpo": DPO | {"loss": "simpo", "beta": 2.0, "target_margin": 0.5},
    "sft_on_right": {
        "kind": "sft", "model": START, "data": "dpo-{seed}/pairs", "optimizer.learning_rate": 1e-4, "batch_tokens": 2048,
    },
}  # fmt: skip
SHORT = {"prompt_optimization": "P", "reward_rebalancing": "R", "temperature_annealing": "T"}
STABILISERS: dict[str, dict[str, Any]] = {
    "".join(SHORT[name] for name in chosen) or "none": RL
    | {"algorithm": "grpo", "updates": 1, "stabilisers": list(chosen), **TRIED}
    for count in range(4)
    for chosen in combinations(PAPER, count)
}
# Scaled by alpha / rank, the best learning rate hardly depends on the rank, and is about ten times that of all weights
# (Schulman et al. 2025, LoRA Without Regret)
ADAPTERS: dict[str, dict[str, Any]] = {"grpo": ALGORITHMS["grpo"]} | {
    f"lora_{rank}": RL
    | {"algorithm": "grpo", "adapter.rank": rank, "adapter.alpha": 32, "optimizer.learning_rate": 1e-3}
    for rank in (1, 8, 32)
}
PPO = RL | {
    "algorithm.name": "ppo", "algorithm.critic.pretraining": 2, "algorithm.critic.clip_value": 0.5,
    "algorithm.critic.optimizer.learning_rate": 1e-3, "prompts_per_step": 32, "samples": 4, "updates": 4,
    "kl.coefficient": 0.002, "kl.estimator": "k1",
}  # fmt: skip
DISTILL = {
    "kind": "distill", "model": START, "divergence": "reverse", "steps": 32, "prompts_per_step": 16, "max_tokens": 224,
    "pool.prompts": 800, "pool.levels": [2], "optimizer.learning_rate": 3e-4, "optimizer.schedule": "linear",
    "checkpoint_every": 20,
}  # fmt: skip
FEEDBACK: dict[str, dict[str, Any]] = {
    "grpo": ALGORITHMS["grpo"],
    "ppo": PPO,
    "ppo_reward_model": PPO | {"reward": "reward_model", "reward_model": "reward-{seed}", "kl.coefficient": 0.1},
    "distill_grpo": DISTILL | {"teacher": "grpo-{seed}"},
    "distill_larger": DISTILL | {"teacher_model": "{larger}"},
    "distill_larger_96": DISTILL | {"teacher_model": "{larger}", "steps": 96},
    # At ten times this rate it made its own wrong majorities more frequent until none was right
    "self_majority": DISTILL
    | {"target": "majority", "samples": 8, "divergence": None, "optimizer.learning_rate": 1e-4},
}
STALENESS: dict[str, dict[str, Any]] = {"grpo": ALGORITHMS["grpo"]} | {
    "stale_1": RL | {"algorithm": "grpo", "staleness": 1},
    "stale_4": RL | {"algorithm": "grpo", "staleness": 4},
    "stale_4_uncorrected": RL | {"algorithm": "grpo", "staleness": 4, "correction.kind": "none"},
}
TABLES = {
    "algorithms": ALGORITHMS, "stabilisers": STABILISERS, "adapters": ADAPTERS, "feedback": FEEDBACK, "staleness": STALENESS,
}  # fmt: skip
# Stages that variants read and that give no model to score
HELPERS: dict[str, dict[str, Any]] = {
    "reward": {
        "kind": "reward", "model": START, "pool.prompts": 400, "pool.levels": [2], "pool.samples": 8, "max_tokens": 224,
        "epochs": 2, "optimizer.learning_rate": 3e-4, "optimizer.warmup": 0.1,
    },
}  # fmt: skip
VARIANTS = HELPERS | {name: settings for variants in TABLES.values() for name, settings in variants.items()}
TEACHER = {
    "model.layers": 4, "model.hidden": 192, "model.mlp": 576, "midtrain.epochs": 6, "midtrain.tokens": 3_450_000,
}  # fmt: skip
# What a variant needs beside its own stage
NEEDS = {
    "ppo_reward_model": ("reward",),
    "distill_grpo": ("grpo",),
    "distill_larger": (LARGER_RUN,),
    "distill_larger_96": (LARGER_RUN,),
}


def stage_name(variant: str, seed: int) -> str:
    return f"{variant}-{seed}"


def recipe(seeds: Iterable[int], name: str, folder: Path) -> str:
    """TOML: the stages of the base recipe up to the fine-tuned model, then each variant of each seed."""
    walk, fine_tuned, _ = BASE.read_text(encoding="utf-8").partition('[[stage]]\nkind = "rl"')
    assert fine_tuned, f"{BASE} has no RL stage to be left out"
    parts = [walk.replace('name = "dapo"', f'name = "{name}"\nfolder = {json.dumps(str(folder.resolve()))}', 1)]
    for seed in seeds:
        for variant, settings in VARIANTS.items():
            named = {"kind": settings["kind"], "name": stage_name(variant, seed)} | settings
            keys = [f"{key} = {toml(value, seed, folder)}" for key, value in named.items() if value is not None]
            parts.append("\n".join(["[[stage]]", *keys]))
    return "\n".join(parts) + "\n"


def toml(value: Any, seed: int, folder: Path) -> str:
    if isinstance(value, float):
        return repr(value)
    return json.dumps(
        value.format(seed=seed, larger=folder.resolve() / LARGER_RUN) if isinstance(value, str) else value
    )


def read_variant(run: Path, variant: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Scores of the seeds beside the start's and GRPO's, and the numbers of the last steps."""
    benchmark = next(s["benchmark"] for s in read_json(run / "scores.json")["scores"] if s["main"])
    scores = {s["stage"]: s for s in read_json(run / "scores.json")["scores"] if s["benchmark"] == benchmark}
    names = [stage_name(variant, seed) for seed in seeds]
    manifests = [read_json(stage_folder(run, name) / "manifest.json") for name in names]
    metrics = [[row for row in read_metrics(stage_folder(run, name)) if "gradient_norm" in row] for name in names]

    def marks(of: Iterable[str]) -> list[dict[str, Any]]:
        return [mark for name in of for mark in read_marks(run / "scores" / name / benchmark)]

    difference, low, high = paired_bootstrap(marks(names), marks([START]))
    beside = [name for name in (stage_name("grpo", seed) for seed in seeds) if name in scores]
    norms = [row["gradient_norm"] for rows in metrics for row in rows]
    lengths = [row["response_length"] for rows in metrics for row in rows if "response_length" in row]
    return {
        "variant": variant,
        "seeds": list(seeds),
        "start": scores[START]["mean"],
        "means": [scores[name]["mean"] for name in names],
        "truncated": statistics.fmean(scores[name]["truncated"] for name in names),
        "tokens": statistics.fmean(scores[name]["mean_tokens"] for name in names),
        "difference": difference,
        "low": low,
        "high": high,
        "over_grpo": paired_bootstrap(marks(names), marks(beside)) if len(beside) == len(names) else None,
        "entropy": last(metrics, "entropy"),
        "updates": statistics.fmean(m["summary"].get("updates", m["summary"].get("steps", 0)) for m in manifests),
        "rollouts": statistics.fmean(m["summary"].get("rollouts", 0) for m in manifests),
        "cpu_seconds": statistics.fmean(m["cpu_seconds"] for m in manifests),
        "needed_cpu_seconds": sum(needed_seconds(run, name, seeds) for name in NEEDS.get(variant, ())),
        "norm_variance": statistics.pvariance(norms) / statistics.fmean(norms) ** 2 if norms else None,
        "length_spread": statistics.pstdev(lengths) / statistics.fmean(lengths) if lengths else None,
    }


def stage_folder(run: Path, name: str) -> Path:
    return next(run.glob(f"[0-9]*-{name}"), run / name)


def needed_seconds(run: Path, name: str, seeds: Sequence[int]) -> float:
    """Processor seconds of a stage that a variant needs, the mean over the seeds; of the larger teacher all its training."""
    if name == LARGER_RUN:
        made = [
            read_json(stage_folder(run.parent / LARGER_RUN, stage) / "manifest.json") for stage in ("midtrain", START)
        ]
        return sum(manifest["cpu_seconds"] for manifest in made)
    found = [read_json(stage_folder(run, stage_name(name, seed)) / "manifest.json") for seed in seeds]
    return statistics.fmean(manifest["cpu_seconds"] for manifest in found)


def finished(run: Path, variant: str, seeds: Sequence[int]) -> list[int]:
    """The seeds of which the variant is trained and scored."""
    return [
        seed
        for seed in seeds
        if all(
            (folder / "manifest.json").exists()
            for folder in (stage_folder(run, stage_name(variant, seed)), run / "scores" / stage_name(variant, seed))
        )
    ]


def make_larger(folder: Path, sets: Sequence[str]) -> None:
    """The walk of the base recipe with a larger model. Its tokenizer is the same, as it is made from the same corpus."""
    path = folder / f"{LARGER_RUN}.toml"
    path.write_text(recipe([], LARGER_RUN, folder), encoding="utf-8")
    values = (*sets, *(f"{key}={value}" for key, value in TEACHER.items()))
    run_stages(path, values, "--to", START)


def run_stages(recipe_file: Path, sets: Iterable[str], *selection: str) -> None:
    """`whetstone run`; ends the program with its status if that is not 0."""
    command = [sys.executable, "-m", "whetstone.cli", "run", str(recipe_file), *selection]
    command += [word for value in sets for word in ("--set", value)]
    if status := subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        sys.exit(f"{' '.join(selection)} ended with status {status}")


def last(metrics: Sequence[Sequence[Mapping[str, Any]]], name: str, steps: int = 3) -> float | None:
    """The mean over the last steps of all seeds."""
    found = [row[name] for rows in metrics for row in rows[-steps:] if name in row]
    return statistics.fmean(found) if found else None


def table(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"start: {percent(found[0]['start'])} %"
    yield ""
    columns = ["variant", "accuracy, %", "seeds", "over the start [95 %]", "learns", "over GRPO [95 %]", "entropy"]
    columns += ["answer tokens", "cut off, %", "updates", "rollouts", "CPU s", "and what it needs"]
    yield line([*columns, "gradient norm, var/mean²", "length, std/mean"])
    yield line(["---", "---:", "---:", "---:", "---", *["---:"] * 10])
    for row in sorted(found, key=lambda row: -row["difference"]):
        yield line(
            [
                row["variant"],
                percent(statistics.fmean(row["means"])),
                f"{percent(min(row['means']))} to {percent(max(row['means']))} ({len(row['means'])})",
                interval((row["difference"], row["low"], row["high"])),
                "yes" if row["low"] > 0 else "no" if row["low"] > -0.02 else "falls",
                interval(row["over_grpo"]) if row["over_grpo"] and row["variant"] != "grpo" else "",
                number(row["entropy"]),
                f"{row['tokens']:.0f}",
                percent(row["truncated"]),
                f"{row['updates']:.0f}",
                f"{row['rollouts']:.0f}",
                f"{row['cpu_seconds']:.0f}",
                f"{row['needed_cpu_seconds']:.0f}" if row["needed_cpu_seconds"] else "",
                number(row["norm_variance"]),
                number(row["length_spread"]),
            ]
        )


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def read_finished(run: Path, names: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    done = {name: finished(run, name, seeds) for name in names}
    return [read_variant(run, name, of) for name, of in done.items() if of]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=TABLES, default="algorithms")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="of that table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where the run lies")
    parser.add_argument("--set", action="append", default=[], metavar="NAME.KEY=VALUE", help="as for whetstone run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    chosen = parser.parse_args(arguments)
    variants = TABLES[chosen.table]
    names = chosen.only or list(variants)
    if unknown := set(names) - set(variants):
        parser.error(f"there is no {', '.join(sorted(unknown))}: there are {', '.join(variants)}.")
    # The file has all variants of all seeds, so that some can be run now and the others later
    path, run = chosen.folder / f"{RUN}.toml", chosen.folder / RUN
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe(range(max(chosen.seeds) + 1), RUN, chosen.folder), encoding="utf-8")
    if any(LARGER_RUN in NEEDS.get(name, ()) for name in names):
        make_larger(chosen.folder, chosen.set)
    run_stages(path, chosen.set, "--to", START)
    for seed, name in product(chosen.seeds, names):
        for stage in (*NEEDS.get(name, ()), name):
            if stage in VARIANTS:
                run_stages(path, chosen.set, "--only", stage_name(stage, seed))
        if chosen.json:
            facts = {"name": chosen.table, "date": date.today().isoformat(), "hardware": hardware()}
            facts |= {"versions": versions(("torch", "transformers")), "rollouts": ROLLOUTS}
            found = read_finished(run, list(variants), chosen.seeds)
            write_text(chosen.json, json.dumps(facts | {"variants": found}, indent=2) + "\n")
    print("\n".join(table(read_finished(run, names, chosen.seeds))))


if __name__ == "__main__":
    main()
