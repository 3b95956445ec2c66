"""The journal of a rollouts stage: its lines, what a resumed stage must know of them, and the order they are read back in.

A line holds some traces of one problem, or the reason why there are none:

    {"problem_id": "p1", "traces": [{…}], "reason": "", "usage": [90, 1400]}

`usage` (tokens of prompt and completion) is there only if a server gave the trace: such a problem may get more lines. A line
without it settles its problem: nobody is asked about it again.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whetstone.records import NO_REFERENCE, Problem, Trace, Verifier, from_row, to_row
from whetstone.rollouts.mammoth import ProgramGrader

Line = dict[str, Any]


def line(problem_id: str, traces: Iterable[Trace] = (), reason: str = "", **more: Any) -> Line:
    return {"problem_id": problem_id, "traces": [to_row(trace) for trace in traces], "reason": reason, **more}


def verified_lines(
    answered: Sequence[tuple[Problem, Sequence[Trace], str]], verifier: Verifier, programs: ProgramGrader | None = None
) -> list[Line]:
    """A line for each (problem, traces, reason why there are none). Without a reference answer nothing is decided.

    With `programs`, the program of the problem's formula comes along.
    """
    items = [(t.text, p.answer, p.policy) for p, traces, _ in answered if p.answer for t in traces]
    verdicts = iter(verifier.check_many(items))
    lines = []
    for problem, traces, reason in answered:
        if problem.answer:
            pairs = [(trace, next(verdicts)) for trace in traces]
            traces = [replace(trace, correct=verdict.correct, reason=verdict.reason) for trace, verdict in pairs]
        else:
            traces = [replace(trace, reason=NO_REFERENCE) for trace in traces]
        program = programs.of_formula(problem) if programs else None
        lines.append(line(problem.id, [*traces, program] if program else traces, reason))
    return lines


@dataclass(frozen=True, slots=True)
class Done:
    """What a resumed stage must know of a line, without its texts."""

    problem_id: str
    verdicts: tuple[tuple[int, bool], ...]  # (index of the rollout, is it right?)
    usage: tuple[int, int]
    settled: bool

    @classmethod
    def of(cls, row: Line) -> "Done":
        verdicts = tuple((trace["index"], trace["correct"] is True) for trace in row["traces"])
        return cls(row["problem_id"], verdicts, tuple(row.get("usage", (0, 0))), "usage" not in row)


def in_order(journal: Path, blocks: Iterable[Sequence[Problem]]) -> Iterator[tuple[Problem, list[Trace], str, int]]:
    """(problem, its traces by index, the reason if there are none, how many rollouts failed), in the order of the problems.

    Reads the journal once, in the memory of one block: the lines of a block lie before those of the next one, in any order
    among themselves.
    """
    with journal.open(encoding="utf-8") as lines:
        rows = map(json.loads, lines)
        row = next(rows, None)
        for block in blocks:
            by_problem: dict[str, list[Line]] = {problem.id: [] for problem in block}
            while row is not None and row["problem_id"] in by_problem:
                by_problem[row["problem_id"]].append(row)
                row = next(rows, None)
            for problem in block:
                own = by_problem[problem.id]
                traces = [from_row(Trace, trace) for line in own for trace in line["traces"]]
                failures = sum(line.get("failures", 0) for line in own)
                reason = own[-1]["reason"] if own else ""
                yield problem, sorted(traces, key=lambda trace: trace.index), reason, failures
