"""Comparisons between the stages of a run.

The stage reads the generations behind `scores.json` and writes `evaluation/comparisons.json`: the paired difference, with its
95 % interval, between each training stage and the model it started from, and between stages that started from the same
model (a stage and its control), on every problem set, overall and by level and domain; and what others published on the same
problem sets.
"""

from pathlib import Path
from typing import Any

from whetstone.evaluate.comparisons import compare, compared, group_means, read_marks, starts
from whetstone.evaluate.published import beside
from whetstone.run.folder import Stage, write_json
from whetstone.run.manifest import read_scores as scores_in
from whetstone.run.room import Input, Room
from whetstone.run.settings import StageSettings


class Settings(StageSettings):
    """There is nothing to set: every scored stage is compared."""


def run(stage: Stage) -> dict[str, Any]:
    run_folder = stage.folder.parent
    scores = read_scores(run_folder)
    benchmarks = list(dict.fromkeys(score["benchmark"] for score in scores))
    stages = list(dict.fromkeys(score["stage"] for score in scores))
    started = {name: start for name, start in starts(run_folder).items() if name in stages}
    comparisons: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    for benchmark in benchmarks:
        marks = {name: read_marks(run_folder / "scores" / name / benchmark) for name in stages}
        for name in stages:
            groups += group_means(name, benchmark, marks[name])
        for name, other in compared(started):
            if marks[name] and marks.get(other):
                comparisons += compare(name, other, benchmark, marks[name], marks[other])
    results = {"scores": scores, "comparisons": comparisons, "groups": groups, "published": beside(scores)}
    write_json(stage.output("evaluation") / "comparisons.json", results)
    return {"stages": len(stages), "benchmarks": benchmarks, "comparisons": len(comparisons)}


def read_scores(run_folder: Path) -> list[dict[str, Any]]:
    path = run_folder / "scores.json"
    if not path.exists():
        raise ValueError(
            f"{path} is missing: evaluate compares the scores of training stages, and none has been scored. Put a training "
            "stage above it, and test problems with a benchmark into the questions stage."
        )
    return scores_in(path)


ROOM = Room(
    settings=Settings,
    run=run,
    # The comparisons are made again if the last model changes
    inputs={"problems": Input(("problems",)), "model": Input(("model",), optional=True)},
    gives=("evaluation",),
    reads_run=True,
)
