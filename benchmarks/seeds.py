"""Promise: a recipe gains with every seed: the same recipe under several seeds.

    python -m benchmarks.seeds recipes/tiny.toml --seeds 0 1 2

Each seed is a run of its own, `runs/NAME-sSEED`; finished stages are not repeated. Printed as Markdown, for each
problem set: each stage's mean@n for each seed and its paired difference to the stage it started from, with the 95 %
interval of a bootstrap over problems; then stages that started from the same model, one beside the other. "all seeds"
resamples the problems of all seeds together, as different problems: how certain the gain of these models is. The columns of
single seeds show how much models differ.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from whetstone.evaluate.comparisons import compared, read_marks, starts
from whetstone.measure import paired_bootstrap
from whetstone.recipe import read_recipe
from whetstone.run.folder import read_json

Run = dict[str, Any]


def run_seed(
    recipe: Path, sets: Sequence[str], name: str, seed: int, folder: Path, aloud: bool, to: str | None = None
) -> str:
    """Start or finish one run (up to the stage `to`); returns the error, or "". Unless `aloud`, its output goes to a log."""
    words = [word for value in (*sets, f"run.name={name}", f"run.seed={seed}") for word in ("--set", value)]
    command = [sys.executable, "-m", "whetstone.cli", "run", str(recipe), *words, *(["--to", to] if to else [])]
    if aloud:
        status = subprocess.run(command, stdout=sys.stderr, check=False).returncode
        return f"seed {seed} ended with status {status}" if status else ""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("ab") as log:
        status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    return f"seed {seed} ended with status {status}: see {folder / 'log.txt'}" if status else ""


def read_run(folder: Path, seed: int) -> Run:
    """Scores, costs and generations of a finished run."""
    begun = {"base": "", **starts(folder)}
    scores = read_json(folder / "scores.json")["scores"]
    costs = {}
    for path in sorted(folder.glob("[0-9]*-*/manifest.json")):
        manifest = read_json(path)
        costs[manifest["name"]] = {key: manifest[key] for key in ("wall_seconds", "cpu_seconds", "peak_memory")}
    scoring = [read_json(path) for path in sorted(folder.glob("scores/*/manifest.json"))]
    costs["scoring"] = {
        "wall_seconds": sum(used["wall_seconds"] for used in scoring),
        "cpu_seconds": sum(used["cpu_seconds"] for used in scoring),
        "peak_memory": max((used["peak_memory"] for used in scoring), default=0),
    }
    marks = {
        (score["stage"], score["benchmark"]): read_marks(folder / "scores" / score["stage"] / score["benchmark"])
        for score in scores
    }
    speeds = [entry["matmul_gflops"] for entry in read_json(folder / "run.json")["history"]]
    return {
        "seed": seed, "folder": str(folder), "starts": begun, "scores": scores, "costs": costs, "marks": marks,
        "matmul_gflops": speeds,
    }  # fmt: skip


def differences(
    runs: Sequence[Run], stage: str, benchmark: str, other: str | None = None
) -> dict[str, tuple[float, float, float]]:
    """Seed, or "all seeds" -> (difference to the stage's start, or to another stage, low, high); {} for the base."""
    found: dict[str, tuple[float, float, float]] = {}
    pooled: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for run in runs:
        start = other or run["starts"].get(stage)
        ours, theirs = run["marks"].get((stage, benchmark)), run["marks"].get((start, benchmark))
        if not ours or not theirs:
            continue
        found[str(run["seed"])] = paired_bootstrap(ours, theirs)
        for side, marks in zip(pooled, (ours, theirs), strict=True):
            side += [row | {"problem_id": f"{run['seed']}/{row['problem_id']}"} for row in marks]
    if len(found) > 1:
        found["all seeds"] = paired_bootstrap(*pooled)
    return found


def stages_of(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run["starts"]))


def score_table(runs: Sequence[Run], benchmark: str) -> Iterator[str]:
    """Markdown lines: stages down, seeds across; shares in per cent, differences in points."""
    found = {(run["seed"], s["stage"]): s for run in runs for s in run["scores"] if s["benchmark"] == benchmark}
    some = list(found.values())[-1]  # the base may have fewer samples
    main = ", the main set" if some["main"] else ""
    yield f"**{benchmark}**{main}: mean@{some['samples']} of {some['problems']} problems, temperature {some['temperature']}, %"
    yield ""
    seeds = [str(run["seed"]) for run in runs]
    columns = [*seeds, *(["all seeds"] if len(runs) > 1 else [])]
    header = ["stage", *(f"seed {s}" for s in seeds), "mean", "from"]
    header += [f"gain, {'seed ' if c in seeds else ''}{c} [95 %]" for c in columns]
    yield line(header)
    yield line(["---", *["---:"] * (len(seeds) + 1), "---", *["---:"] * len(columns)])
    for stage in stages_of(runs):
        means = [found[run["seed"], stage]["mean"] if (run["seed"], stage) in found else None for run in runs]
        known = [mean for mean in means if mean is not None]
        if not known:
            continue
        gains = differences(runs, stage, benchmark)
        start = next(run["starts"][stage] for run in runs if stage in run["starts"])
        cells = [stage, *(percent(mean) for mean in means), percent(sum(known) / len(known)), start]
        yield line([*cells, *(interval(gains.get(c)) for c in columns)])


def control_table(runs: Sequence[Run], benchmark: str) -> Iterator[str]:
    """Markdown lines: two stages that started from the same model, such as a method and its control; none without such."""
    begun = {stage: start for run in runs for stage, start in run["starts"].items() if stage != "base"}
    pairs = [(stage, other) for stage, other in compared(begun) if begun[stage] != other]
    columns = [*(str(run["seed"]) for run in runs), *(["all seeds"] if len(runs) > 1 else [])]
    if pairs:
        yield line(
            ["stage", "beside", *(f"difference, {'' if c == 'all seeds' else 'seed '}{c} [95 %]" for c in columns)]
        )
        yield line(["---", "---", *["---:"] * len(columns)])
    for stage, other in pairs:
        found = differences(runs, stage, benchmark, other)
        yield line([stage, other, *(interval(found.get(c)) for c in columns)])


def cost_table(runs: Sequence[Run]) -> Iterator[str]:
    """Markdown lines: each stage's time, the mean over seeds, and the highest peak of memory."""
    seeds = [f"seed {run['seed']}" for run in runs]
    yield line(["stage", *(f"wall s, {s}" for s in seeds), "wall s, mean", "CPU s, mean", "peak GB, highest"])
    yield line(["---", *["---:"] * (len(runs) + 3)])
    names = list(dict.fromkeys(name for run in runs for name in run["costs"] if name != "scoring"))
    totals = [0.0] * (len(runs) + 2)
    highest = 0
    for name in [*names, "scoring"]:
        used = [run["costs"][name] for run in runs if name in run["costs"]]
        walls = [run["costs"].get(name, {}).get("wall_seconds", 0.0) for run in runs]
        means = [sum(u[key] for u in used) / len(used) for key in ("wall_seconds", "cpu_seconds")]
        peak = max(u["peak_memory"] for u in used)
        totals = [total + value for total, value in zip(totals, [*walls, *means], strict=True)]
        highest = max(highest, peak)
        yield line([name, *(f"{value:.1f}" for value in (*walls, *means)), f"{peak / 1e9:.2f}"])
    yield line(["all", *(f"{total:.1f}" for total in totals), f"{highest / 1e9:.2f}"])


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def interval(found: tuple[float, float, float] | None) -> str:
    if found is None:
        return ""
    difference, low, high = (100 * value for value in found)
    return f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]"


def print_tables(runs: Sequence[Run]) -> None:
    by_main = sorted((s for run in runs for s in run["scores"]), key=lambda s: not s["main"])
    for benchmark in dict.fromkeys(score["benchmark"] for score in by_main):
        print("\n".join(score_table(runs, benchmark)), end="\n\n")
        if controls := list(control_table(runs, benchmark)):
            print("\n".join(controls), end="\n\n")
    print("\n".join(cost_table(runs)), end="\n\n")
    for run in runs:
        speeds = [
            f"{s['before']:.0f} to {s['after']:.0f}" if s["after"] else f"{s['before']:.0f}"
            for s in run["matmul_gflops"]
        ]
        print(f"seed {run['seed']}: machine speed before to after {', '.join(speeds)} GFLOP/s (fp32 512 x 512)")


def as_json(runs: Sequence[Run]) -> dict[str, Any]:
    """All that is in the tables, without the generations."""
    benchmarks = dict.fromkeys(score["benchmark"] for run in runs for score in run["scores"])
    return {
        "runs": [{key: value for key, value in run.items() if key != "marks"} for run in runs],
        "gains": [
            {"benchmark": benchmark, "stage": stage, "seed": seed, "difference": d, "low": low, "high": high}
            for benchmark in benchmarks
            for stage in stages_of(runs)
            for seed, (d, low, high) in differences(runs, stage, benchmark).items()
        ],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time; with more than one, set run.threads")
    parser.add_argument("--set", action="append", default=[], metavar="NAME.KEY=VALUE", help="as for whetstone run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    chosen = parser.parse_args(arguments)
    recipe = read_recipe(chosen.recipe, chosen.set)
    names = {seed: f"{recipe.run.name}-s{seed}" for seed in chosen.seeds}
    folders = {seed: recipe.run.folder / name for seed, name in names.items()}
    with ThreadPoolExecutor(chosen.parallel) as pool:
        failures = list(
            pool.map(
                lambda seed: run_seed(
                    chosen.recipe, chosen.set, names[seed], seed, folders[seed], chosen.parallel == 1
                ),
                names,
            )
        )
    finished = [read_run(folders[s], s) for s, failed in zip(names, failures, strict=True) if not failed]
    if finished:
        print_tables(finished)
        if chosen.json:
            chosen.json.write_text(json.dumps(as_json(finished), indent=2) + "\n")
    sys.exit("; ".join(filter(None, failures)) or 0)


if __name__ == "__main__":
    main()
