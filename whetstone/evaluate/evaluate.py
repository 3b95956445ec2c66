"""What the scores of a run mean, and the score of any model on any problem set.

The stage reads the generations that lie behind `scores.json` and writes `evaluation/comparisons.json`: the paired
difference, with its 95 % interval, between each training stage and the model it started from and between stages that
started from the same model (a stage and its control), on every problem set, overall and by level and domain; and the
table of mean, majority vote and pass@k.

Whatever is printed carries the number of problems and samples, the interval, the truncation share and the sampling.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from whetstone.evaluate.benchmarks import BENCHMARKS, Benchmark, find_file, read_field
from whetstone.evaluate.comparisons import compare, compared, group_means, read_marks, starts
from whetstone.records import Problem, Score, to_row
from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.room import Input, Room
from whetstone.run.settings import ParallelSettings, ScoreSettings, StageSettings
from whetstone.run.tables import read_table

OURS = ("question", "answer", "id", "level", "domain", "policy")  # columns of a problem file, the first two needed
SHOWN = 3  # unusable rows named in an error


class Settings(StageSettings):
    """There is nothing to set: every scored stage is compared."""


def run(stage: Stage) -> dict[str, Any]:
    run_folder = stage.folder.parent
    scores = read_scores(run_folder)
    benchmarks = list(dict.fromkeys(score["benchmark"] for score in scores))
    stages = list(dict.fromkeys(score["stage"] for score in scores))
    begun = {name: start for name, start in starts(run_folder).items() if name in stages}
    comparisons: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    for benchmark in benchmarks:
        marks = {name: read_marks(run_folder / "scores" / name / benchmark) for name in stages}
        for name in stages:
            groups += group_means(name, benchmark, marks[name])
        for name, other in compared(begun):
            if marks[name] and marks.get(other):
                comparisons += compare(name, other, benchmark, marks[name], marks[other])
    found = {"scores": scores, "comparisons": comparisons, "groups": groups}
    write_json(stage.output("evaluation") / "comparisons.json", found)
    return {"stages": len(stages), "benchmarks": benchmarks, "comparisons": len(comparisons)}


def read_scores(run_folder: Path) -> list[dict[str, Any]]:
    path = run_folder / "scores.json"
    if not path.exists():
        raise ValueError(
            f"{path} is missing: evaluate compares the scores of the training stages, and none is scored yet. Put a "
            "training stage above it, and test problems with a benchmark into the questions stage."
        )
    return read_json(path)["scores"]


def evaluate_model(
    model: str,
    benchmark: str,
    samples: int,
    temperature: float,
    max_tokens: int,
    output: Path | None = None,
    policy: str | None = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[Score]:
    """Score a Hugging Face folder, or a run folder's last model, on a problem file or a known problem set.

    `columns` maps question, answer, id, level, domain and policy to the file's own names. `output` keeps the
    generations and a scores.json; without it they are thrown away. Unusable input is a ValueError with what to do.
    """
    from whetstone.measure import score_model

    folder = find_model(model)
    problems = read_problems(benchmark, policy, columns or {})
    settings = ScoreSettings(
        main=problems[0].benchmark, samples=samples, temperature=temperature, max_tokens=max_tokens
    )
    with tempfile.TemporaryDirectory() as aside:
        target = output or Path(aside)
        scores = score_model(folder, problems, settings, ParallelSettings(), seed, target, model)
    if output:
        write_json(output / "scores.json", {"scores": [to_row(score) for score in scores]})
    return scores


def find_model(model: str) -> Path:
    """A Hugging Face folder, or the last complete training stage's of a run folder."""
    folder = Path(model)
    if (folder / "config.json").is_file():
        return folder
    trained = [path.parent for path in sorted(folder.glob("[0-9]*-*/model/config.json"))]
    trained = [path for path in trained if (path.parent / "manifest.json").exists()]
    if trained:
        return trained[-1]
    raise ValueError(
        f"model {model!r} is neither a Hugging Face folder (it has no config.json) nor a run folder with a complete "
        "training stage. Name a folder with config.json and safetensors, or runs/NAME after whetstone run RECIPE."
    )


def read_problems(benchmark: str, policy: str | None = None, columns: Mapping[str, str] | None = None) -> list[Problem]:
    """The test problems of a file or a known set. A row that cannot be used is an error: fewer rows are another set."""
    unknown = [name for name in columns or {} if name not in OURS]
    if unknown:
        raise ValueError(f"column {unknown[0]!r} is not one that problems have. Use {', '.join(OURS)}.")
    is_file = Path(benchmark).is_file()
    path = Path(benchmark) if is_file else find_file(benchmark)
    problems: list[Problem] = []
    unusable: list[str] = []
    for line, row in read_table(path):
        problem = row if isinstance(row, str) else _read_problem(row, line, benchmark, is_file, policy, columns or {})
        if isinstance(problem, Problem):
            problems.append(problem)
        else:
            unusable.append(f"line {line}: {problem}")
    if unusable and (is_file or len(unusable) != BENCHMARKS[benchmark].unanswered):
        more = f" (and {len(unusable) - SHOWN} more)" if len(unusable) > SHOWN else ""
        raise ValueError(
            f"{path}: {len(unusable)} of {len(unusable) + len(problems)} rows cannot be used: "
            f"{'; '.join(unusable[:SHOWN])}{more}. A score on fewer problems would be another benchmark's: mend or "
            "remove the rows, or name the right columns with --column question=THEIRS --column answer=THEIRS."
        )
    if not problems:
        raise ValueError(f"{path} holds no problem: there is nothing to score. Name a file with one problem a row.")
    repeated = _repeated(problem.id for problem in problems)
    if repeated:
        raise ValueError(
            f"{path}: the id {repeated!r} stands in two rows, and samples are told apart by it. Make ids differ, or "
            "leave the id column out: rows are then numbered."
        )
    return problems


def _read_problem(
    row: Mapping[str, Any], line: int, benchmark: str, is_file: bool, policy: str | None, columns: Mapping[str, str]
) -> Problem | str:
    """A problem, or why the row is none."""
    known = _file_layout(row, columns) if is_file else BENCHMARKS[benchmark]
    try:
        question, answer = (str(read_field(row, how) or "").strip() for how in (known.question, known.answer))
        labels = {name: read_field(row, how) for name, how in known.labels.items()}
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        return (
            f"no {error} in it (it has {', '.join(row)})"
            if isinstance(error, KeyError)
            else f"unexpected form: {error}"
        )
    if not question or not answer:
        return "the question is empty" if not question else "the answer is empty"
    name = Path(benchmark).name.split(".")[0] if is_file else benchmark
    level = labels.get("level")
    return Problem(
        id=str(labels.get("id") or f"{name}-{line}"),
        question=question,
        answer=answer,
        split="test",
        benchmark=name,
        level=int(level) if str(level or "").isdigit() else None,
        domain=str(labels.get("domain") or ""),
        source=name,
        policy=policy or str(labels.get("policy") or known.policy),
    )


def _file_layout(row: Mapping[str, Any], columns: Mapping[str, str]) -> Benchmark:
    """A user's file: our own column names unless `columns` says otherwise; the optional ones where they are there."""
    labels = {name: columns.get(name, name) for name in OURS[2:] if name in columns or name in row}
    return Benchmark("", columns.get("question", "question"), columns.get("answer", "answer"), labels=labels)


def _repeated(names: Iterator[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


ROOM = Room(
    settings=Settings,
    run=run,
    # The comparisons are made again if the last model changes
    inputs={"problems": Input(("problems",)), "model": Input(("model",), optional=True)},
    gives=("evaluation",),
    reads_run=True,
)
