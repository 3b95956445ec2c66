"""Ask a teacher n times per problem and verify what it says (Phi-4-Mini-Reasoning: about 8 rollouts a question).

    [[stage]]
    kind = "rollouts"
    teacher = { server = "http://localhost:8000/v1", model = "deepseek-r1", max_tokens = 16384 }
    samples = 8          # first; where fewer than `enough` are right, as many again, up to `most`
    enough = 2
    most = 128

Worked solutions that came with the problems (`traces`) are kept, and nobody is asked where there are some.

Train and validation problems only: a test problem never reaches a teacher. Verified traces are lines of a journal, synced
as they come, so that a kill loses nothing and a resumed run doubles and pays for nothing again; at the end the journal
becomes the `rollouts` table, in the order of the problems. Answers that a judge has yet to see have a journal of their own.
Memory holds one block of problems.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, model_validator

from whetstone.decode.server_generator import Server, ServerGenerator, Spent
from whetstone.records import Completion, Problem, Sampling, Trace, Verifier, from_row, to_row
from whetstone.rollouts.mammoth import AUGMENTATION, ProgramGrader, program_prompts, program_trace
from whetstone.rollouts.procedural_teacher import ProceduralTeacher
from whetstone.rollouts.rounds import Plan, Rounds, Tally
from whetstone.rollouts.shipped import Shipped, shipped_traces
from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.progress import Bar, progress
from whetstone.run.settings import StageSettings
from whetstone.run.tables import Journal, read_records, write_rows
from whetstone.verify import MathVerifier
from whetstone.verify.program import Sandbox

SYNCED = 8  # answers of a server that are written and synced together
NO_REFERENCE = "no reference answer"


class Settings(StageSettings):
    problems: str | None = None  # the stage (or stage/artifact) that the problems come from
    traces: str | None = None  # the stage (or stage/artifact) that shipped worked solutions come from
    teacher: str | Server = "procedural"  # "procedural" explains formulas; { server = "…", model = "…" }; "none"
    samples: int = Field(default=8, ge=1)  # rollouts per problem
    enough: int = Field(default=0, ge=0)  # with a server: right rollouts below which more are asked; 0: `samples` alone
    most: int = Field(default=128, ge=1)  # with a server: rollouts of a problem that is hardly ever solved
    programs: int = Field(default=0, ge=0)  # rollouts per problem, beside the others, that are programs (MAmmoTH)
    instruction: str = (
        "Please reason step by step, and put your final answer within \\boxed{}."  # added to questions for a server
    )
    judge: Server | None = None  # a model asked about answers that no rule can read or decide
    wrong_rate: float = Field(default=0.2, ge=0, le=1)  # share of rollouts that end in a wrong conclusion (procedural)
    correction_rate: float = Field(default=0.2, ge=0, le=1)  # share in which the teacher slips, says "wait", mends it
    shortcut_rate: float = Field(default=0.0, ge=0, le=1)  # share of the operations it does in its head (procedural)
    check_rate: float = Field(default=0.5, ge=0, le=1)  # share that undo the last step to check it (procedural)
    given: bool = False  # the teacher first writes down the numbers of the question (procedural)
    block: int = Field(default=64, ge=1)  # problems verified and synced together

    @model_validator(mode="after")
    def teacher_is_known(self) -> "Settings":
        if isinstance(self.teacher, str) and self.teacher not in LOCAL_TEACHERS:
            raise ValueError(
                f'teacher = "{self.teacher}" is not known: write "procedural", which explains problems that carry a formula, '
                '"none", which keeps shipped solutions only, or a server, as in '
                'teacher = { server = "http://localhost:8000/v1", model = "name" }.'
            )
        return self


LOCAL_TEACHERS = ("procedural", "none")


class Teacher(Protocol):
    def traces(self, problem: Problem, n: int) -> list[Trace]: ...


class NoTeacher:
    """Answers nothing: only shipped solutions are kept."""

    def traces(self, problem: Problem, n: int) -> list[Trace]:
        raise ValueError("it ships no worked solution, and nobody is asked")


def run(stage: Stage) -> dict[str, Any]:
    settings = stage.settings
    finished = stage.folder / "collected.json"
    if finished.exists():  # killed between here and the manifest: the journal is gone, the work is not
        return read_json(finished)

    journal = stage.folder / "journal.jsonl"
    table = stage.inputs.get("traces")
    with ExitStack() as stack:
        verifier = stack.enter_context(MathVerifier())
        if settings.judge is not None:
            verifier = stack.enter_context(_judged(verifier, settings.judge, stage.folder / "judged.jsonl"))
        grader = ProgramGrader(stack.enter_context(Sandbox()), verifier) if settings.programs else None
        shipped = stack.enter_context(shipped_traces(table, stage.folder / "shipped.sqlite"))
        collection = _Collection(stage, verifier, grader, shipped, journal)
        told = collection.run()

    verdicts: Counter[str] = Counter()
    dropped: list[dict[str, Any]] = []
    kept = write_rows(stage.output("rollouts"), _count(collection.in_order(dropped, told["stopped"]), verdicts))
    write_rows(stage.output("dropped"), dropped)
    summary = {
        "teacher": settings.teacher if isinstance(settings.teacher, str) else settings.teacher.model,
        "problems": collection.total,
        "problems without a trace": len(dropped),
        "rollouts": kept,
        "right": verdicts["right"],
        "wrong": verdicts["wrong"],
        "undecided": verdicts["undecided"],
        **({"rollouts that failed": collection.failures} if collection.failures else {}),
        **({"isolation of programs": grader.isolation} if grader else {}),
        **{name: value for name, value in told.items() if value},
    }
    write_json(finished, summary)
    journal.unlink()
    collection.answers.unlink(missing_ok=True)
    return summary


def plan(stage: Stage) -> dict[str, Any]:
    """How many answers are asked for, once the problems are there."""
    samples = stage.settings.samples
    if not stage.inputs["problems"].exists():
        return {"rollouts": f"{samples:,} a problem"}
    asked = sum(p.split != "test" for p in read_records(Problem, stage.inputs["problems"]))
    return {"rollouts": f"at most {asked * samples:,}, {samples:,} for each of {asked:,} problems"}


def build_teacher(settings: Settings, seed: int) -> Teacher:
    """A teacher that answers in this process."""
    if settings.teacher == "none":
        return NoTeacher()
    return ProceduralTeacher(
        wrong_rate=settings.wrong_rate,
        correction_rate=settings.correction_rate,
        check_rate=settings.check_rate,
        shortcut_rate=settings.shortcut_rate,
        given=settings.given,
        seed=seed,
    )


def _judged(verifier: Verifier, judge: Server, journal: Path) -> Any:
    from whetstone.answer import JudgedVerifier

    sampling = Sampling(judge.temperature, judge.max_tokens, top_p=judge.top_p)
    return JudgedVerifier(verifier, ServerGenerator(judge), journal, sampling=sampling)


def collect(problems: Iterable[Problem], teacher: Teacher, verifier: Verifier, samples: int) -> list[dict[str, Any]]:
    """One journal line per problem: its verified traces, or the reason why there are none."""
    asked = [(problem, *_ask(teacher, problem, samples)) for problem in problems]
    return verified_lines(asked, verifier)


def verified_lines(asked: Sequence[tuple[Problem, list[Trace], str]], verifier: Verifier) -> list[dict[str, Any]]:
    """(problem, traces, why there are none) -> a journal line each; without a reference answer nothing is decided."""
    items = [
        (trace.text, problem.answer, problem.policy)
        for problem, traces, _ in asked
        if problem.answer
        for trace in traces
    ]
    verdicts = iter(verifier.check_many(items))
    lines = []
    for problem, traces, reason in asked:
        if problem.answer:
            checked = [(trace, next(verdicts)) for trace in traces]
            traces = [replace(trace, correct=verdict.correct, reason=verdict.reason) for trace, verdict in checked]
        else:
            traces = [replace(trace, reason=NO_REFERENCE) for trace in traces]
        lines.append({"problem_id": problem.id, "traces": [to_row(trace) for trace in traces], "reason": reason})
    return lines


def _ask(teacher: Teacher, problem: Problem, samples: int) -> tuple[list[Trace], str]:
    """A teacher may say that a problem is not for it: ValueError with the reason, or no traces."""
    try:
        traces = teacher.traces(problem, samples)
    except ValueError as error:
        return [], f"the teacher cannot explain it: {error}"
    return traces, "" if traces else "the teacher cannot explain it"


class _Collection:
    """The work of the stage: blocks of problems, each line journalled as it comes."""

    def __init__(self, stage: Stage, verifier: Verifier, grader: ProgramGrader | None, shipped: Shipped, path: Path):
        self.stage, self.settings, self.verifier, self.shipped = stage, stage.settings, verifier, shipped
        self.grader, self.path = grader, path
        self.answers = path.with_name("answers.jsonl")
        self.failures = 0  # rollouts that a server did not give, filled by `in_order`
        self.first_program = max(self.settings.samples, self.settings.most)  # index: those of the others are lower
        self.spent = Spent()
        self.total = sum(1 for _ in self.problems())

    def problems(self) -> Iterator[Problem]:
        return (p for p in read_records(Problem, self.stage.inputs["problems"]) if p.split != "test")

    def blocks(self) -> Iterator[list[Problem]]:
        left = self.problems()
        while block := list(islice(left, self.settings.block)):
            yield block

    def run(self) -> dict[str, Any]:
        """Asks what is not journalled yet. Returns what a server took: tokens, money, and why it was asked no more."""
        with Journal(self.path, keep=_Done.of) as journal:
            done: dict[str, list[_Done]] = {}
            for one in journal.rows:
                done.setdefault(one.problem_id, []).append(one)
                self.spent.add(*one.usage)
            journal.rows.clear()
            traces = sum(len(one.verdicts) for lines in done.values() for one in lines)
            with progress(self.total, "rollouts", unit="problems", done=len(done)) as bar:
                if isinstance(self.settings.teacher, Server):
                    return self._ask_server(self.settings.teacher, done, journal, bar)
                teacher = build_teacher(self.settings, self.stage.seed)
                for block in self.blocks():
                    left = [problem for problem in block if problem.id not in done]
                    lines = self._shipped_or(left, lambda p: _ask(teacher, p, self.settings.samples))
                    journal.append(lines)
                    traces += sum(len(line["traces"]) for line in lines)
                    bar.advance(len(lines), traces=traces)
        return {"stopped": ""}

    def _shipped_or(self, problems: Sequence[Problem], ask: Any) -> list[dict[str, Any]]:
        asked = []
        for problem in problems:
            traces = self.shipped.traces(problem)
            asked.append((problem, traces, "") if traces else (problem, *ask(problem)))
        lines = verified_lines(asked, self.verifier)
        if self.grader is not None:
            for problem, line in zip(problems, lines, strict=True):
                line["traces"] += self._own_program(problem)
        return lines

    def _own_program(self, problem: Problem) -> list[dict[str, Any]]:
        """The program that a problem's formula gives, run and compared; [] without a formula."""
        if not problem.formula:
            return []
        trace = program_trace(problem, self.first_program)
        (verdict,) = self.grader.verdicts([(problem, trace.text)])
        return [to_row(replace(trace, correct=verdict.correct, reason=verdict.reason))]

    def _asked_programs(
        self, problems: Sequence[Problem], generator: ServerGenerator, sampling: Sampling, done: dict[str, set[int]]
    ) -> Iterator[dict[str, Any]]:
        """The programs that a server writes, run and compared, a journal line each."""
        by_id = {problem.id: problem for problem in problems}
        prompts = program_prompts(problems, self.settings.programs, self.first_program, done)
        for some in _blocks(generator.generate(prompts, sampling)):
            verdicts = self.grader.verdicts([(by_id[one.problem_id], one.text) for one in some])
            for one, verdict in zip(some, verdicts, strict=True):
                teacher = self.settings.teacher.model
                trace = Trace(
                    one.problem_id, one.index, one.text, teacher, verdict.correct, verdict.reason, AUGMENTATION
                )
                yield {
                    "problem_id": trace.problem_id,
                    "traces": [to_row(trace)],
                    "reason": "",
                    "usage": list(one.usage),
                }

    def _ask_server(self, server: Server, done: dict[str, list["_Done"]], journal: Journal, bar: Bar) -> dict[str, Any]:
        settings = self.settings
        generator = ServerGenerator(server, self.spent)
        plan = Plan(settings.samples, settings.enough, max(settings.most, settings.samples))
        sampling = Sampling(server.temperature, server.max_tokens, top_p=server.top_p, seed=self.stage.seed)
        with ExitStack() as stack:
            answers, answered = None, {}
            if settings.judge is not None:
                verified = {(name, index) for name, lines in done.items() for one in lines for index, _ in one.verdicts}
                answers = stack.enter_context(Journal(self.answers, keep=lambda row: _answer(row, verified)))
                answered = self._answered(answers)
            rounds = Rounds(generator, self.verifier, plan, sampling, server.model, settings.instruction, answers)
            self._ask_blocks(rounds, done, answered, journal, bar)
        return {
            "stopped": rounds.stopped,
            "tokens_in": self.spent.tokens_in,
            "tokens_out": self.spent.tokens_out,
            "money": round(self.spent.money(server), 6),
        }

    def _answered(self, answers: Journal) -> dict[str, list[Completion]]:
        """What the teacher said in an earlier run and nobody verified, by problem; it is spent already."""
        found: dict[str, list[Completion]] = {}
        for one in filter(None, answers.rows):
            found.setdefault(one.problem_id, []).append(one)
            self.spent.add(*one.usage)
        answers.rows.clear()
        return found

    def _ask_blocks(
        self,
        rounds: Rounds,
        done: dict[str, list["_Done"]],
        answered: dict[str, list[Completion]],
        journal: Journal,
        bar: Bar,
    ) -> None:
        right = answers = 0
        for block in self.blocks():
            if rounds.stopped:
                break
            new = [problem for problem in block if problem.id not in done]
            with_traces = [problem for problem in new if self.shipped.traces(problem)]
            journal.append(self._shipped_or(with_traces, None))
            kept = {problem.id for problem in with_traces} | {
                name for name, lines in done.items() if any(line.shipped for line in lines)
            }
            asked = [problem for problem in block if problem.id not in kept and problem.answer]
            journal.append(
                {"problem_id": p.id, "traces": [], "reason": NO_REFERENCE}
                for p in new
                if p.id not in kept and not p.answer
            )
            known = {problem.id: _tally(done.get(problem.id, ())) for problem in asked}
            written = {name: {i for i in tally.indices if i >= self.first_program} for name, tally in known.items()}
            tallies = {name: tally.below(self.first_program) for name, tally in known.items()}
            waiting: list[dict[str, Any]] = []
            programs = self._asked_programs(asked, rounds.generator, rounds.sampling, written) if self.grader else ()
            before = [one for problem in asked for one in answered.get(problem.id, ())]
            try:
                for line in chain(rounds.lines(asked, tallies, before), programs):
                    waiting.append(line)
                    answers += 1
                    right += line["traces"][0]["correct"] is True
                    if len(waiting) == SYNCED:
                        ready, waiting = waiting, []  # first: what interrupts the writing must not write twice
                        journal.append(ready)
                    bar.advance(0, answers=answers, right=f"{right / answers:.0%}", **self._cost(self.settings.teacher))
                waiting += [
                    {
                        "problem_id": name,
                        "traces": [],
                        "reason": f"the server failed: {tally.failed}",
                        "failures": tally.failures,
                    }
                    for name, tally in tallies.items()
                    if tally.failed
                ]
            finally:  # whatever ends it, what was answered is paid for
                journal.append(waiting)
            bar.advance(len(new), answers=answers)

    def _cost(self, server: Server) -> dict[str, str]:
        tokens = {"tokens": f"{self.spent.tokens_in + self.spent.tokens_out:,}"}
        money = self.spent.money(server)
        return tokens | ({"cost": f"{money:.2f}"} if money else {})

    def in_order(self, dropped: list[dict[str, Any]], stopped: str) -> Iterator[Trace]:
        """The journal's traces in the order of the problems; `dropped` is filled with the problems that have none.

        A block's lines all lie before the next block's, in whatever order among themselves.
        """
        lines = _Ahead(_lines(self.path))
        for block in self.blocks():
            found: dict[str, list[dict[str, Any]]] = {problem.id: [] for problem in block}
            for line in lines.take_while(lambda line, found=found: line["problem_id"] in found):
                found[line["problem_id"]].append(line)
                self.failures += line.get("failures", 0)
            for problem in block:
                traces = [from_row(Trace, row) for line in found[problem.id] for row in line["traces"]]
                yield from sorted(traces, key=lambda trace: trace.index)
                if not traces:
                    reasons = [line["reason"] for line in found[problem.id]]
                    dropped.append({"problem_id": problem.id, "reason": reasons[-1] if reasons else stopped})


class _Done:
    """What a resumed stage must know of a journal line: not its texts."""

    __slots__ = ("problem_id", "shipped", "usage", "verdicts")

    def __init__(self, problem_id: str, verdicts: list[tuple[int, bool]], usage: tuple[int, int], shipped: bool):
        self.problem_id, self.verdicts, self.usage, self.shipped = problem_id, verdicts, usage, shipped

    @classmethod
    def of(cls, line: dict[str, Any]) -> "_Done":
        verdicts = [(row["index"], row["correct"] is True) for row in line["traces"]]
        return cls(line["problem_id"], verdicts, tuple(line.get("usage", (0, 0))), "usage" not in line)


def _tally(lines: Iterable[_Done]) -> Tally:
    return Tally(dict(verdict for line in lines for verdict in line.verdicts))


def _answer(row: dict[str, Any], verified: set[tuple[str, int]]) -> Completion | None:
    """A line of the answers, where it has no verdict yet."""
    if (row["problem_id"], row["index"]) in verified:
        return None
    return Completion(row["problem_id"], row["index"], row["text"], row["stop"], usage=tuple(row["usage"]))


def _blocks(completions: Iterator[Completion]) -> Iterator[list[Completion]]:
    """As many as are synced together; the last ones before a failure come before it."""
    some: list[Completion] = []
    try:
        for one in completions:
            some.append(one)
            if len(some) == SYNCED:
                yield some
                some = []
    except Exception:
        if some:
            yield some
        raise
    if some:
        yield some


class _Ahead:
    """An iterator that can be read up to the first item that does not fit, which stays."""

    def __init__(self, items: Iterator[dict[str, Any]]):
        self.items, self.next = items, next(items, None)

    def take_while(self, fits: Any) -> Iterator[dict[str, Any]]:
        while self.next is not None and fits(self.next):
            yield self.next
            self.next = next(self.items, None)


def _lines(journal: Path) -> Iterator[dict[str, Any]]:
    with journal.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _count(traces: Iterable[Trace], verdicts: Counter[str]) -> Iterator[dict[str, Any]]:
    for trace in traces:
        verdicts["undecided" if trace.correct is None else "right" if trace.correct else "wrong"] += 1
        yield to_row(trace)
