"""Ask a teacher n times per problem and verify its answers (Phi-4-Mini-Reasoning: about 8 rollouts per question).

    [[stage]]
    kind = "rollouts"
    teacher = { server = "http://localhost:8000/v1", model = "deepseek-r1", max_tokens = 16384 }   # asked as [prompt] says
    samples = 8          # at first; if fewer than `enough` are right, as many again, up to `most`
    enough = 2
    most = 128

No teacher is asked about test problems, or about problems that came with a worked solution (`traces`), which is kept.

Verified traces are lines of a journal, synced as they come: a kill loses nothing, and a resumed run neither repeats nor pays
for anything again. In the end the journal becomes the `rollouts` table, in the order of the problems. Answers that wait for a
judge have a journal of their own. Memory holds one block of problems, or two for each process that shares them.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any, ClassVar, TypeVar

from pydantic import Field, model_validator

from whetstone.decode.server_generator import Server, ServerGenerator, Spent
from whetstone.judge import JudgedVerifier
from whetstone.prompting import BOX_REQUEST, prompting_of
from whetstone.records import CUT_OFF, Problem, Sampling, Trace, Verifier, to_row
from whetstone.rollouts.equations_teacher import EquationsTeacher
from whetstone.rollouts.journal import Done, Line, in_order, verified_lines
from whetstone.rollouts.local_teacher import LocalTeacher
from whetstone.rollouts.mammoth import ProgramGrader
from whetstone.rollouts.procedural_teacher import Procedural, ProceduralTeacher
from whetstone.rollouts.rounds import Plan, Rounds
from whetstone.rollouts.server_teacher import ServerTeacher, take_answers, unverified
from whetstone.rollouts.shipped import shipped_traces
from whetstone.run.fanout import fan_out
from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.progress import Bar, progress, say
from whetstone.run.room import Estimate, Input, Room
from whetstone.run.settings import ParallelSettings, StageSettings
from whetstone.run.tables import Journal, read_records, write_rows
from whetstone.verify import MathVerifier
from whetstone.verify.program import Sandbox, require_isolation

T = TypeVar("T")

SHOWN = 3  # reasons named in an error
MOSTLY = 0.5  # share of a server's answers above which it is said that they are cut off, or have no answer
LACKS = {  # what answers lack, and what to change
    CUT_OFF: "Raise max_tokens of the teacher, or give it easier problems.",
    "no answer": "See the rollouts table: the instruction asks for a box, and the teacher should end with one.",
}
FIRST = 16  # answers after which it may be said
MANY = 32_768  # problems that several processes share: they take seconds to start, and one does some 7,000 rollouts a second
SYNCED = 8  # answers of a server that are written and synced together
REMEDIES = {
    "equations": "Take a source whose solutions annotate their equations (gsm8k) or with formulas (asdiv), or leave this stage "
    "out: the corpus gives prompts without it, and dpo and rl try the student itself.",
    "procedural": "Name the column of the formula (columns of the source), or a server, as in "
    'teacher = { server = "http://localhost:8000/v1", model = "name" }, or leave this stage out: the corpus gives prompts '
    "without it, and dpo and rl try the student itself.",
    "none": 'teacher = "none" keeps the solutions that problems come with: take a source that ships some, name a server, or '
    "leave this stage out: the corpus gives prompts without it, and dpo and rl try the student itself.",
}


class Settings(StageSettings):
    teacher: str | Server = Field(
        "procedural",
        description='explains formulas; "equations": writes their equations alone; or { server = "…", model = "…" }; "none": '
        "shipped solutions only",
    )
    beside_shipped: bool = Field(
        False, description="the teacher answers problems with a shipped solution, too; not with a server"
    )
    procedural: Procedural = Field(Procedural(), description="how the procedural teacher explains")
    samples: int = Field(8, ge=1, le=10**6, description="rollouts per problem")
    enough: int = Field(0, ge=0, description="with a server: ask for more until so many are right; 0: `samples` alone")
    most: int = Field(128, ge=1, le=10**6, description="with `enough`: at most so many rollouts per problem")
    programs: int = Field(0, ge=0, le=10**6, description="programs per problem, beside the other rollouts (MAmmoTH)")
    instruction: str = Field(
        BOX_REQUEST, description="what a server is asked for after a question; this default yields to `[prompt] after`"
    )
    block: int = Field(64, ge=1, le=10**6, description="problems that are asked about and verified together")
    judge: Server | None = Field(None, description="a model that compares the answers that no rule can read")

    MOVED: ClassVar[Mapping[str, str]] = {name: f"procedural.{name}" for name in Procedural.model_fields}

    @model_validator(mode="after")
    def teacher_is_known(self) -> "Settings":
        if isinstance(self.teacher, str) and self.teacher not in ("procedural", "equations", "none"):
            raise ValueError(
                f'teacher = "{self.teacher}" is not known: write "procedural", which explains problems that carry a formula, '
                '"equations", which writes equations without words, "none", which keeps shipped solutions only, or a server, '
                'as in teacher = { server = "http://localhost:8000/v1", model = "name" }.'
            )
        if self.beside_shipped and self.teacher not in ("procedural", "equations"):
            raise ValueError(
                "beside_shipped = true asks a teacher of this process about problems that ship solutions. Say "
                'teacher = "equations" or "procedural", or leave it out.'
            )
        return self


def run(stage: Stage) -> dict[str, Any]:
    settings = stage.settings
    finished = stage.folder / "collected.json"
    if finished.exists():  # the stage was killed after its tables were written and before its manifest
        return read_json(finished)
    collection = Collection(stage)
    cost = collection.collect()
    counts: Counter[str] = Counter()
    dropped: list[dict[str, Any]] = []  # problems without a trace of the teacher; some have shipped ones
    kept = write_rows(stage.output("rollouts"), collection.rows(counts, dropped, cost.get("stopped", "")))
    write_rows(stage.output("dropped"), dropped)
    if not kept:
        raise ValueError(_nothing_collected(stage, collection.total, dropped))
    summary = {
        "teacher": settings.teacher if isinstance(settings.teacher, str) else settings.teacher.model,
        "problems": collection.total,
        "problems without a trace": counts["without a trace"],
        "rollouts": kept,
        **{verdict: counts[verdict] for verdict in ("right", "wrong", "undecided")},
        **{name: counts[name] for name in ("rollouts that failed", CUT_OFF) if counts[name]},
        **({"reasons": dict(_counted(dropped))} if dropped else {}),
        **{name: value for name, value in cost.items() if value},
    }
    write_json(finished, summary)
    collection.journal.unlink()
    collection.answers.unlink(missing_ok=True)
    return summary


def _nothing_collected(stage: Stage, asked: int, dropped: Sequence[Mapping[str, Any]]) -> str:
    """The message of a stage without a single rollout."""
    teacher = stage.settings.teacher
    if not asked:
        return (
            f"{stage.name}: no problem of {stage.inputs['problems']} is for training or validation, and no teacher is asked "
            "about test problems. Give training problems in the questions stage (train)."
        )
    counted = "; ".join(f"{count:,} {reason}" for reason, count in _counted(dropped)[:SHOWN])
    remedy = REMEDIES.get(teacher) if isinstance(teacher, str) else "See why in the reasons, mend it and run again."
    return f"{stage.name} has no rollout of any of the {asked:,} problems: {counted}. {remedy}"


def _counted(dropped: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """How often for which reason, without the details: the most frequent first."""
    reasons = (": ".join(row["reason"].split(": ")[:2]) or "no answer came" for row in dropped)
    return Counter(reasons).most_common()


def check(settings: Settings) -> None:
    """Before any stage runs. Raises ValueError if programs cannot be isolated, or a server's `${NAME}` is not set."""
    for server in (settings.teacher, settings.judge):
        if isinstance(server, Server):
            server.require_variables()
    if settings.programs:
        require_isolation()


def plan(stage: Stage) -> Estimate:
    """How many answers are asked for, once the problems exist."""
    samples, programs = stage.settings.samples, stage.settings.programs
    isolated = {"programs": f"{programs:,} per problem, run isolated at {require_isolation()}"} if programs else {}
    if not stage.inputs["problems"].exists():
        return Estimate({"rollouts": f"{samples:,} per problem", **isolated})
    problems = [p for p in read_records(Problem, stage.inputs["problems"]) if p.split != "test"]
    asked, explained = len(problems), sum(p.formula != "" for p in problems)
    words = f"at most {asked * samples:,}, {samples:,} for each of {asked:,} problems"
    if stage.settings.teacher == "procedural" and explained < asked:
        words += f"; only {explained:,} of them have the formula that the procedural teacher explains"
    return Estimate({"rollouts": words, **isolated})


def build_teacher(settings: Settings, seed: int) -> ProceduralTeacher | EquationsTeacher | None:
    """A teacher that answers in this process, if any does."""
    if settings.teacher == "equations":
        return EquationsTeacher()
    return None if settings.teacher == "none" else ProceduralTeacher(settings.procedural, seed)


class Collection:
    """The work of the stage: blocks of problems are answered and verified, and each line is journalled as it comes."""

    def __init__(self, stage: Stage):
        self.stage, self.settings = stage, stage.settings
        self.journal = stage.folder / "journal.jsonl"
        self.answers = stage.folder / "answers.jsonl"  # that wait for the judge
        self.total = sum(1 for _ in self.problems())
        self.counts: Counter[str] = Counter()  # of this run: traces, right ones, and what answers lack
        self.warned: set[str] = set()

    def problems(self) -> Iterator[Problem]:
        return (p for p in read_records(Problem, self.stage.inputs["problems"]) if p.split != "test")

    def blocks(self) -> Iterator[list[Problem]]:
        return self._in_blocks(self.problems())

    def _in_blocks(self, items: Iterator[T]) -> Iterator[list[T]]:
        return iter(lambda: list(islice(items, self.settings.block)), [])

    def collect(self) -> dict[str, Any]:
        """Asks for what is not journalled yet. Returns what a server took, and why it was asked no more."""
        with ExitStack() as stack:
            verifier = self._verifier(stack)
            programs = None
            if self.settings.programs:
                first = max(self.settings.samples, self.settings.most)  # the chains of thought have lower indices
                sandbox = stack.enter_context(Sandbox())
                programs = ProgramGrader(sandbox, verifier, first, self.settings.programs)
                say(f"   programs are run isolated at {sandbox.in_words()}")
            table = self.stage.inputs.get("traces")
            shipped = stack.enter_context(shipped_traces(table, self.stage.folder / "shipped.sqlite"))
            journal = stack.enter_context(Journal(self.journal, keep=Done.of))
            done: dict[str, list[Done]] = {}
            for row in journal.rows:
                done.setdefault(row.problem_id, []).append(row)
            journal.rows.clear()
            teacher = self._teacher(stack, verifier, programs, done)
            bar = stack.enter_context(progress(self.total, "rollouts", unit="problems", done=len(done)))
            if isinstance(teacher, ServerTeacher):
                self._ask(teacher, shipped, done, journal, bar)
            else:
                self._answer(teacher, shipped, done, journal, bar)
            isolation = {"isolation of programs": programs.isolation} if programs else {}
            judged = {"judge": dict(verifier.counts)} if isinstance(verifier, JudgedVerifier) else {}
            return isolation | judged | (teacher.summary() if isinstance(teacher, ServerTeacher) else {})

    def _answer(
        self, teacher: LocalTeacher, shipped: Callable[[Problem], list[Trace]], done: Collection[str], journal: Journal,
        bar: Bar,
    ) -> None:  # fmt: skip
        """Several processes share many problems, unless a judge is asked: its opinions have one journal."""
        new = ((problem, shipped(problem)) for problem in self.problems() if problem.id not in done)
        shared = self.total >= MANY and not self.settings.judge
        parallel = self.stage.parallel if shared else ParallelSettings(forks=1)
        for lines in fan_out(teacher, self._in_blocks(new), parallel):
            journal.append(lines)
            for line in lines:
                self._count(line)
            bar.advance(len(lines), **self._shown())

    def _ask(
        self, teacher: ServerTeacher, shipped: Callable[[Problem], list[Trace]], done: Mapping[str, Sequence[Done]],
        journal: Journal, bar: Bar,
    ) -> None:  # fmt: skip
        """Blocks of problems, one after the other: each is asked about in rounds."""
        settled = {name for name, rows in done.items() if any(row.settled for row in rows)}
        for block in self.blocks():
            if teacher.stopped:
                break
            new = [problem for problem in block if problem.id not in done]
            ready = [(problem, traces, "") for problem in new if (traces := shipped(problem))]
            if ready:
                journal.append(verified_lines(ready, teacher.rounds.verifier, teacher.programs))
            own = settled | {problem.id for problem, _, _ in ready} if ready else settled
            lines = teacher.lines([problem for problem in block if problem.id not in own], done)
            self._write(lines, teacher, journal, bar)
            bar.advance(len(new))

    def _verifier(self, stack: ExitStack) -> Verifier:
        rules = stack.enter_context(MathVerifier())
        judge = self.settings.judge
        if judge is None:
            return rules
        sampling = Sampling(judge.temperature, judge.max_tokens, top_p=judge.top_p)
        opinions = self.stage.folder / "judged.jsonl"
        return stack.enter_context(JudgedVerifier(rules, ServerGenerator(judge), opinions, sampling=sampling))

    def _teacher(
        self, stack: ExitStack, verifier: Verifier, programs: ProgramGrader | None, done: Mapping[str, Sequence[Done]]
    ) -> LocalTeacher | ServerTeacher:
        settings, server, seed = self.settings, self.settings.teacher, self.stage.seed
        if isinstance(server, str):
            teacher = build_teacher(settings, seed)
            return LocalTeacher(teacher, settings.samples, settings.beside_shipped, verifier, programs)
        rows = [row for rows in done.values() for row in rows]
        spent = Spent()
        for row in rows:
            spent.add(*row.usage)
        answers, answered = None, {}
        if settings.judge is not None:
            verified = {(row.problem_id, index) for row in rows for index, _ in row.verdicts}
            answers = stack.enter_context(Journal(self.answers, keep=lambda row: unverified(row, verified)))
            answered = take_answers(answers, spent)
        generator = ServerGenerator(server, spent)
        plan = Plan(settings.samples, settings.enough, max(settings.most, settings.samples))
        sampling = Sampling(server.temperature, server.max_tokens, top_p=server.top_p, seed=seed)
        prompting = prompting_of(self.stage.prompt, None).for_teacher(settings.instruction)
        rounds = Rounds(generator, verifier, plan, sampling, server.model, prompting, answers)
        return ServerTeacher(rounds, answered, programs)

    def _write(self, lines: Iterable[Line], teacher: ServerTeacher, journal: Journal, bar: Bar) -> None:
        """Journals the lines, some at a time. Whatever ends it, those that came are kept: they are paid for."""
        waiting: list[Line] = []
        try:
            for line in lines:
                waiting.append(line)
                if len(waiting) == SYNCED:
                    ready, waiting = waiting, []  # first: an interrupt during the writing must not write twice
                    journal.append(ready)
                self._count(line)
                self._warn()
                bar.advance(0, **self._shown(), **teacher.cost())
        finally:
            if waiting:
                journal.append(waiting)

    def _count(self, line: Line) -> None:
        self.counts["traces"] += len(line["traces"])
        self.counts["right"] += sum(trace["correct"] is True for trace in line["traces"])
        for trace in line["traces"]:
            self.counts[CUT_OFF if trace["reason"].endswith(CUT_OFF) else trace["reason"].partition(":")[0]] += 1

    def _shown(self) -> dict[str, Any]:
        traces = self.counts["traces"]
        return {"traces": traces, "right": f"{self.counts['right'] / max(1, traces):.0%}"}

    def _warn(self) -> None:
        """Once for each thing that most answers lack."""
        traces = self.counts["traces"]
        for lack in LACKS:
            if lack not in self.warned and traces >= FIRST and self.counts[lack] > MOSTLY * traces:
                self.warned.add(lack)
                share = self.counts[lack] / traces
                say(f"warning: {self.stage.name}: {share:.0%} of the teacher's answers so far: {lack}. {LACKS[lack]}")

    def rows(self, counts: Counter[str], dropped: list[dict[str, Any]], stopped: str) -> Iterator[dict[str, Any]]:
        """The rows of the `rollouts` table. Counts their verdicts, and fills `dropped` with the problems that have none."""
        for problem, traces, reason, failures in in_order(self.journal, self.blocks()):
            counts["rollouts that failed"] += failures
            counts["without a trace"] += not traces
            if not traces or (reason and self.settings.beside_shipped):
                dropped.append({"problem_id": problem.id, "reason": reason or stopped})
            for trace in traces:
                counts["undecided" if trace.correct is None else "right" if trace.correct else "wrong"] += 1
                counts[CUT_OFF] += trace.reason.endswith(CUT_OFF)
                yield to_row(trace)


ROOM = Room(
    settings=Settings,
    run=run,
    plan=plan,
    inputs={"problems": Input(("problems",)), "traces": Input(("traces",), optional=True)},
    gives=("rollouts",),
    asks=lambda settings: isinstance(settings.teacher, Server),
    check=check,
)
