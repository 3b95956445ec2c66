"""Promise: RL whose rollouts come from two vLLM servers learns as RL that samples in its own process does.

    python -m benchmarks rollout_servers --model runs/tiny/05-sft/model --command .venv-vllm/bin/vllm serve \
        --json benchmarks/results/rollout_servers.json

The same few steps of GRPO, for each seed once in this process and once with two servers that are launched and ended. The random
streams differ, so the rewards are compared by their means over all rollouts of all steps, with the interval of the difference
(a bootstrap over steps, paired by step, which share their prompts). The sampler's gap to the learner is the mean over the
steps. With `--staleness 1` the servers sample a step ahead. The share of a step in which training waits is logged; from the
seconds of sampling and of training, the gain is computed that servers on devices of their own would give.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, versions, write
from whetstone.pipeline.running import run_recipe
from whetstone.recipe import read_recipe

RECIPE = """
[run]
name = "{name}"
folder = "{folder}"
seed = {seed}
threads = 1
[model]
path = "{model}"
[scores]
samples = 1
max_tokens = 288
{sampler}
[[stage]]
kind = "questions"
[[stage.source]]
kind = "procedural"
families = ["chain", "equation", "word"]
level = 3
train = 200
validation = 2
[[stage.source]]
kind = "procedural"
level = 1
test = 1
benchmark = "none"
[[stage]]
kind = "rl"
stabilisers = []
steps = {steps}
prompts_per_step = {prompts}
samples = 8
staleness = {staleness}
max_tokens = 288
pool = {{ prompts = 64, samples = 0 }}
optimizer = {{ learning_rate = 1e-4 }}
"""
DRAWS = 2000


def run(chosen: argparse.Namespace, seed: int, servers: bool, folder: Path) -> dict[str, Any]:
    """Rewards, gaps and seconds of one run, from its metrics."""
    table = {
        "launch": 2,
        "command": chosen.command,
        "options": chosen.options,
    }
    sampler = "[sampler]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
    name = f"{'servers' if servers else 'own'}-{seed}"
    recipe = folder / f"{name}.toml"
    values = {"name": name, "folder": folder, "seed": seed, "model": Path(chosen.model).resolve()}
    sizes = {"steps": chosen.steps, "prompts": chosen.prompts, "staleness": chosen.staleness if servers else 0}
    recipe.write_text(RECIPE.format(**values, **sizes, sampler=sampler if servers else ""))
    began = time.monotonic()
    run_recipe(read_recipe(recipe))
    rows = [json.loads(line) for line in (folder / name / "02-rl" / "metrics.jsonl").read_text().splitlines()]
    return {
        "seed": seed,
        "sampler": "two vLLM servers" if servers else "own process",
        "rewards": [row["reward"] for row in rows],
        "accuracy_at_the_end": statistics.mean(row["accuracy"] for row in rows[len(rows) // 2 :]),
        "rollouts": sum(row["rollouts"] for row in rows),
        "sampler_gap": statistics.mean(row["sampler_gap"] for row in rows if "sampler_gap" in row),
        "wall_s": round(time.monotonic() - began, 1),
        **({"staleness": chosen.staleness} | timed(rows) if servers else {}),
    }


def timed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the steps. The gain is the time of a step in which sampling and training take turns, over that of one in which
    each has a device of its own, and the slower one decides.
    """
    means = {
        name: statistics.mean(row[name] for row in rows if name in row)
        for name in ("waiting", "sampling_seconds", "training_seconds", "staleness", "mismatch")
        if any(name in row for row in rows)
    }
    sampling, training = means["sampling_seconds"], means["training_seconds"]
    return {"means": means, "computed_gain": (sampling + training) / max(sampling, training)}


def difference(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Mean of servers - own over the steps, with a bootstrap's 95 % interval."""
    gaps = [there - here for here, there in pairs]
    rng = random.Random(0)
    means = sorted(statistics.mean(rng.choices(gaps, k=len(gaps))) for _ in range(DRAWS))
    return {"mean": statistics.mean(gaps), "low": means[DRAWS // 40], "high": means[-DRAWS // 40]}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a fine-tuned model of recipes/tiny.toml")
    parser.add_argument("--command", nargs="+", default=["vllm", "serve"], help="what starts a server")
    parser.add_argument("--options", nargs="*", default=["--enforce-eager", "--max-model-len=512"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=8, help="of a step, with eight rollouts each")
    parser.add_argument("--staleness", type=int, default=0, help="steps that the servers sample ahead")
    parser.add_argument("--folder", type=Path, help="where the runs are kept; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="keep the numbers here")
    chosen = parser.parse_args(arguments)
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="whetstone-"))
    folder.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    for seed in chosen.seeds:
        runs += [run(chosen, seed, servers, folder) for servers in (False, True)]
        own, there = runs[-2:]
        result = {
            "name": "rollout_servers",
            "date": date.today().isoformat(),
            "hardware": hardware(),
            "versions": versions(["torch", "transformers"]),
            "settings": {"steps": chosen.steps, "prompts": chosen.prompts, "samples": 8, "options": chosen.options}
            | {"staleness": chosen.staleness},
            "runs": runs,
            "difference": difference(
                [
                    pair
                    for a, b in zip(runs[::2], runs[1::2], strict=True)
                    for pair in zip(a["rewards"], b["rewards"], strict=True)
                ]
            ),
        }
        print(
            f"seed {seed}: mean reward {statistics.mean(own['rewards']):.3f} here, {statistics.mean(there['rewards']):.3f} by "
            f"servers (gaps {own['sampler_gap']:.1e}, {there['sampler_gap']:.1e} nats); difference of all seeds "
            f"{result['difference']}"
        )
        write(result, chosen.json)


if __name__ == "__main__":
    main()
