"""Promise: every training stage of the demo earns its place, with several seeds, with one process and with two.

    python -m benchmarks demo --json benchmarks/results/demo.json     # recipes/tiny.toml, seeds 0 to 4, two processes, then one
    python -m benchmarks demo --seeds 0 1 --processes 2               # a part of it; finished stages are not repeated
    python -m benchmarks demo --collect --json …                      # run nothing: only read the runs that are finished
    python -m benchmarks demo --show benchmarks/results/demo.json     # print the tables of an earlier result, as in README

A run is `FOLDER/NAME-sSEED-pPROCESSES`; one that is not finished, or that other settings made, is left out. After each run the
numbers so far are written: for each process count and stage the accuracy of each seed on the main problem set with its 95 %
interval, the mean, the lowest and the highest; the paired gain over the stage it started from, of each seed and of all seeds
together (a bootstrap over problems); the share of operations whose result is written without the steps of the arithmetic; wall
and CPU seconds. Each stage keeps the revision that made it.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, versions, write
from benchmarks.seeds import Run, differences, interval, line, percent, read_run, run_seed, stages_of
from whetstone.pipeline.machine import git_revision
from whetstone.pipeline.staleness import plan_recipe
from whetstone.recipe import Recipe, read_recipe
from whetstone.run.folder import read_json

RECIPE = Path(__file__).parent.parent / "recipes" / "tiny.toml"
FOLDER = Path("~/.cache/whetstone/demo")
NAMES = {"base": "untrained base", "midtrain": "mid-training", "sft": "fine-tuning", "dpo": "Rollout DPO", "rl": "RL"}
ALL = "all seeds"

# An operation in columns, `12+30:2+0=2,…`, or without, `12+30=42`
STEP = re.compile(r"^\d+[-+]\d+([:=])", re.MULTILINE)


def share_in_the_head(texts: Sequence[str]) -> float:
    """The share of the operations of some answers whose result is written without the columns."""
    signs = [sign for text in texts for sign in STEP.findall(text)]
    return signs.count("=") / max(1, len(signs))


def texts_of(run: Run, stage: str, benchmark: str) -> list[str]:
    import pyarrow.parquet as pq

    folder = Path(run["folder"]) / "scores" / stage / benchmark
    return [
        text
        for part in sorted(folder.glob("part-*.parquet"))
        for text in pq.read_table(part, columns=["text"])["text"].to_pylist()
    ]


def is_finished(recipe: Recipe) -> bool:
    """Whether each stage of the run is there, made by the settings that the recipe has now."""
    return all(state.status == "done" for _, state in plan_recipe(recipe))


def read(folder: Path, seed: int) -> Run:
    """A run with the revisions of its stages. A stage that was interrupted has no costs: only its last attempt was timed."""
    run = read_run(folder, seed)
    manifests = {manifest["name"]: manifest for manifest in map(read_json, folder.glob("[0-9]*-*/manifest.json"))}
    whole = {name for name, manifest in manifests.items() if manifest.get("attempts", 1) == 1}
    costs = {name: used if name in whole or name == "scoring" else {} for name, used in run["costs"].items()}
    return run | {"costs": costs, "revisions": {name: made.get("git_revision") for name, made in manifests.items()}}


def summary(runs: Sequence[Run], processes: int) -> dict[str, Any]:
    """The numbers of the runs of one process count."""
    benchmark = next(score["benchmark"] for score in runs[0]["scores"] if score["main"])
    walls, cpus = ([whole(run, kind) for run in runs] for kind in ("wall_seconds", "cpu_seconds"))
    return {
        "processes": processes,
        "seeds": [run["seed"] for run in runs],
        "benchmark": benchmark,
        "stages": [stage_numbers(runs, stage, benchmark) for stage in stages_of(runs)],
        "wall_seconds": walls,
        "cpu_seconds": cpus,
        "revisions": [run["revisions"] for run in runs],
        "matmul_gflops": [run["matmul_gflops"] for run in runs],
    }


def whole(run: Run, kind: str) -> float | None:
    """Seconds of all stages and of the scoring; None if those of a stage are not known."""
    used = [cost.get(kind) for cost in run["costs"].values()]
    return None if None in used else round(sum(used), 1)


def stage_numbers(runs: Sequence[Run], stage: str, benchmark: str) -> dict[str, Any]:
    scores = [next(s for s in run["scores"] if (s["stage"], s["benchmark"]) == (stage, benchmark)) for run in runs]
    means = [score["mean"] for score in scores]
    costs = [run["costs"].get(stage, {}) for run in runs]  # the base has none
    gains = differences(runs, stage, benchmark)
    return {
        "stage": stage,
        "from": runs[0]["starts"][stage],
        "problems": scores[0]["problems"],
        "samples": scores[0]["samples"],
        "temperature": scores[0]["temperature"],
        "mean": statistics.fmean(means),
        "lowest": min(means),
        "highest": max(means),
        "scores": [{"seed": run["seed"], **intervals_of(score)} for run, score in zip(runs, scores, strict=True)],
        "gains": [{"seed": seed, "difference": d, "low": low, "high": high} for seed, (d, low, high) in gains.items()],
        "in_the_head": share_in_the_head([text for run in runs for text in texts_of(run, stage, benchmark)]),
        "wall_seconds": [cost.get("wall_seconds") for cost in costs],
        "cpu_seconds": [cost.get("cpu_seconds") for cost in costs],
    }  # fmt: skip


def intervals_of(score: Mapping[str, Any]) -> dict[str, float]:
    return {name: score[name] for name in ("mean", "low", "high")}


def table(case: Mapping[str, Any]) -> Iterator[str]:
    """Markdown: stages down, seeds across; shares in per cent, gains in points."""
    seeds = case["seeds"]
    columns = ["mean", "gain [95 %]", "seeds that gain", "in the head, %", "CPU s"]
    yield line(["after", *(f"seed {seed}" for seed in seeds), *columns])
    yield line(["---", *["---:"] * (len(seeds) + len(columns))])
    for row in case["stages"]:
        gains = {gain["seed"]: gain for gain in row["gains"]}
        pooled = gains.pop(ALL, None) or next(iter(gains.values()), None)
        yield line(
            [
                NAMES.get(row["stage"], row["stage"]),
                *(percent(score["mean"]) for score in row["scores"]),
                percent(row["mean"]),
                interval(pooled and (pooled["difference"], pooled["low"], pooled["high"])),
                f"{sum(gain['low'] > 0 for gain in gains.values())} of {len(seeds)}" if gains else "",
                percent(row["in_the_head"]) if gains else "",
                seconds(row["cpu_seconds"]) if gains else "",
            ]
        )
    yield line(["whole run, with scoring", *[""] * (len(seeds) + 4), seconds(case["cpu_seconds"])])


def seconds(values: Sequence[float | None]) -> str:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return f"{statistics.fmean(known):.0f}" if known else ""


def gain_table(case: Mapping[str, Any]) -> Iterator[str]:
    """Markdown: the paired gain of each stage with each seed."""
    rows = [row for row in case["stages"] if row["gains"]]
    yield line(["gain [95 %]", *(f"seed {seed}" for seed in case["seeds"])])
    yield line(["---", *["---:"] * len(case["seeds"])])
    for row in rows:
        found = {gain["seed"]: (gain["difference"], gain["low"], gain["high"]) for gain in row["gains"]}
        yield line([NAMES.get(row["stage"], row["stage"]), *(interval(found.get(str(s))) for s in case["seeds"])])


def tables(result: Mapping[str, Any]) -> str:
    """What README shows of a result."""
    parts = []
    for case in result["cases"]:
        words = {1: "one process", 2: "two processes"}.get(case["processes"], f"{case['processes']} processes")
        parts += [f"**{words}**", "\n".join(table(case)), "\n".join(gain_table(case))]
    return "\n\n".join(parts) + "\n"


def collect(folders: Mapping[tuple[int, int], Path], recipe: Path) -> dict[str, Any]:
    """The numbers of finished runs, (processes, seed) -> run folder."""
    cases = [
        summary([read(folder, seed) for (count, seed), folder in folders.items() if count == processes], processes)
        for processes in dict.fromkeys(count for count, _ in folders)
    ]
    return {
        "name": "demo",
        "recipe": recipe.name,
        "cases": cases,
        "revision": git_revision(),
        "versions": versions(("torch", "transformers")),
        "hardware": hardware(),
        "date": date.today().isoformat(),
    }


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 1], help="[parallel] forks of the runs")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the runs lie, best outside the checkout")
    parser.add_argument("--set", action="append", default=[], metavar="NAME.KEY=VALUE", help="as for whetstone run")
    parser.add_argument("--collect", action="store_true", help="run nothing, only read the runs that are finished")
    parser.add_argument("--show", type=Path, metavar="FILE", help="run nothing, only print the tables of this result")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options().parse_args(arguments)
    if chosen.show:
        print(tables(read_json(chosen.show)), end="")
        return
    name = read_recipe(chosen.recipe, chosen.set).run.name
    finished: dict[tuple[int, int], Path] = {}
    failures = []
    for processes, seed in product(chosen.processes, chosen.seeds):
        run = f"{name}-s{seed}-p{processes}"
        sets = [*chosen.set, f"run.folder={chosen.folder.expanduser().resolve()}", f"parallel.forks={processes}"]
        recipe = read_recipe(chosen.recipe, [*sets, f"run.name={run}", f"run.seed={seed}"])
        if not chosen.collect:
            failures.append(run_seed(chosen.recipe, sets, run, seed, recipe.folder, aloud=True))
        if is_finished(recipe):
            finished[processes, seed] = recipe.folder
            write(collect(finished, chosen.recipe), chosen.json)  # the next run may take an hour
    if finished:
        print(tables(collect(finished, chosen.recipe)), end="")
    sys.exit("; ".join(filter(None, failures)) or (0 if finished else "no run is finished"))


if __name__ == "__main__":
    main()
