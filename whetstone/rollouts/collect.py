"""Ask a teacher n times per problem and verify what it says (Phi-4-Mini-Reasoning: about 8 rollouts a question).

Train and validation problems only: a test problem never reaches a teacher. Each problem's verified traces are one line
of a journal, synced block by block, so that a kill loses nothing and a resumed run doubles nothing; at the end the
journal becomes the `rollouts` table, in the order of the problems.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from whetstone.records import Problem, Trace, Verifier, from_row, to_row
from whetstone.rollouts.procedural_teacher import ProceduralTeacher
from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.progress import progress
from whetstone.run.settings import StageSettings
from whetstone.run.tables import Journal, read_records, write_rows
from whetstone.verify import MathVerifier


class Settings(StageSettings):
    problems: str | None = None  # the stage (or stage/artifact) that the problems come from
    teacher: str = "procedural"  # who answers: "procedural" explains problems that carry a formula
    samples: int = Field(default=8, ge=1)  # rollouts per problem
    wrong_rate: float = Field(default=0.2, ge=0, le=1)  # share of rollouts that end in a wrong conclusion (procedural)
    correction_rate: float = Field(default=0.2, ge=0, le=1)  # share in which the teacher slips, says "wait", mends it
    shortcut_rate: float = Field(default=0.0, ge=0, le=1)  # share of the operations it does in its head (procedural)
    block: int = Field(default=64, ge=1)  # problems verified and synced together


class Teacher(Protocol):
    def traces(self, problem: Problem, n: int) -> list[Trace]: ...


def run(stage: Stage) -> dict[str, Any]:
    settings = stage.settings
    finished = stage.folder / "collected.json"
    if finished.exists():  # killed between here and the manifest: the journal is gone, the work is not
        return read_json(finished)

    teacher = build_teacher(settings, stage.seed)
    problems = [p for p in read_records(Problem, stage.inputs["problems"]) if p.split != "test"]
    journal = stage.folder / "journal.jsonl"
    with MathVerifier() as verifier:
        _collect(problems, teacher, verifier, settings, journal)

    verdicts: Counter[str] = Counter()
    kept = write_rows(stage.output("rollouts"), _count(_read_traces(journal), verdicts))
    dropped = write_rows(stage.output("dropped"), _read_dropped(journal))
    summary = {
        "teacher": settings.teacher,
        "problems": len(problems),
        "problems without a trace": dropped,
        "rollouts": kept,
        "right": verdicts["right"],
        "wrong": verdicts["wrong"],
        "undecided": verdicts["undecided"],
    }
    write_json(finished, summary)
    journal.unlink()
    return summary


def plan(stage: Stage) -> dict[str, Any]:
    """How many answers are asked for, once the problems are there."""
    samples = stage.settings.samples
    if not stage.inputs["problems"].exists():
        return {"rollouts": f"{samples:,} a problem"}
    asked = sum(p.split != "test" for p in read_records(Problem, stage.inputs["problems"]))
    return {"rollouts": f"at most {asked * samples:,}, {samples:,} for each of {asked:,} problems"}


def build_teacher(settings: Settings, seed: int) -> Teacher:
    if settings.teacher == "procedural":
        return ProceduralTeacher(
            wrong_rate=settings.wrong_rate,
            correction_rate=settings.correction_rate,
            shortcut_rate=settings.shortcut_rate,
            seed=seed,
        )
    raise ValueError(
        f'teacher = "{settings.teacher}" is not known: the rollouts stage has one teacher today, "procedural", which '
        'explains problems that carry a formula. Write teacher = "procedural", or leave the key out.'
    )


def collect(problems: Iterable[Problem], teacher: Teacher, verifier: Verifier, samples: int) -> list[dict[str, Any]]:
    """One journal line per problem: its verified traces, or the reason why there are none."""
    lines, items, texts = [], [], []
    for problem in problems:
        traces, reason = _ask(teacher, problem, samples)
        lines.append({"problem_id": problem.id, "traces": traces, "reason": reason})
        items += [(trace.text, problem.answer, problem.policy) for trace in traces]
        texts += traces
    verified = iter(
        replace(trace, correct=verdict.correct, reason=verdict.reason)
        for trace, verdict in zip(texts, verifier.check_many(items), strict=True)
    )
    for line in lines:
        line["traces"] = [to_row(next(verified)) for _ in line["traces"]]
    return lines


def _collect(problems: list[Problem], teacher: Teacher, verifier: Verifier, settings: Settings, path: Path) -> None:
    with Journal(path) as journal:
        done = {line["problem_id"] for line in journal.rows}
        traces = sum(len(line["traces"]) for line in journal.rows)
        journal.rows.clear()
        left = [p for p in problems if p.id not in done]
        with progress(len(problems), "rollouts", unit="problems", done=len(done)) as bar:
            for start in range(0, len(left), settings.block):
                lines = collect(left[start : start + settings.block], teacher, verifier, settings.samples)
                journal.append(lines)
                traces += sum(len(line["traces"]) for line in lines)
                bar.advance(len(lines), traces=traces)


def _ask(teacher: Teacher, problem: Problem, samples: int) -> tuple[list[Trace], str]:
    """A teacher may say that a problem is not for it: ValueError with the reason, or no traces."""
    try:
        traces = teacher.traces(problem, samples)
    except ValueError as error:
        return [], f"the teacher cannot explain it: {error}"
    return traces, "" if traces else "the teacher cannot explain it"


def _lines(journal: Path) -> Iterator[dict[str, Any]]:
    with journal.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _read_traces(journal: Path) -> Iterator[Trace]:
    return (from_row(Trace, row) for line in _lines(journal) for row in line["traces"])


def _read_dropped(journal: Path) -> Iterator[dict[str, Any]]:
    return ({"problem_id": x["problem_id"], "reason": x["reason"]} for x in _lines(journal) if not x["traces"])


def _count(traces: Iterable[Trace], verdicts: Counter[str]) -> Iterator[dict[str, Any]]:
    for trace in traces:
        verdicts["undecided" if trace.correct is None else "right" if trace.correct else "wrong"] += 1
        yield to_row(trace)
