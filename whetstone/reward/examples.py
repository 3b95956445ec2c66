"""What a reward model learns from: pairs of a better and a worse answer, or single answers that are right or wrong."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whetstone.chat import Exchange
from whetstone.pairing import build_pairs
from whetstone.pool import try_student
from whetstone.problems.files import expand_path
from whetstone.problems.preferences import read_preferences
from whetstone.prompting import BARE, Prompting
from whetstone.records import Pair, Problem, Rollout, Trace
from whetstone.reward.settings import Settings
from whetstone.run.folder import Stage
from whetstone.run.tables import read_records

if TYPE_CHECKING:
    from whetstone.batch import Row
    from whetstone.chat import Chat
    from whetstone.learner.parallel import ProcessGroup
    from whetstone.learner.student import Student

AT_ONCE = 256  # examples that are tokenised together


@dataclass(frozen=True)
class Answer:
    """An answer, as ids that were sampled or as text, and whether it is right (of a pair: the chosen side)."""

    right: bool
    prompt_ids: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    exchange: Exchange | None = None


@dataclass(frozen=True)
class Example:
    """A pair (chosen, rejected), or one answer. `problem_id` is that of the problem or preference."""

    problem_id: str
    answers: tuple[Answer, ...]


@dataclass
class Examples:
    """The rows to train on and those that are held out: two rows a pair (chosen first), or one an answer."""

    train: list[list["Row"]] = field(default_factory=list)
    held_out: list[list["Row"]] = field(default_factory=list)
    held_out_ids: list[str] = field(default_factory=list)  # of their problems
    dropped: list[dict[str, str]] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)  # facts for the manifest


def read_examples(stage: Stage, student: "Student", process_group: "ProcessGroup") -> Examples:
    """Raises ValueError, with counts by reason, if nothing is left to train on."""
    settings: Settings = stage.settings
    found = Examples()
    examples = {"student": _of_student, "rollouts": _of_rollouts, "pairs": _of_pairs, "files": _of_files}[
        settings.source
    ](stage, found, student, process_group)
    if settings.loss == "logistic":
        examples = _single(examples)
    longest = min(settings.max_length, student.context)
    for example, rows in _tokenised(examples, student.chat):
        if isinstance(rows, str):
            reason, _, detail = rows.partition(": ")
            found.dropped.append({"problem_id": example.problem_id, "reason": reason, "detail": detail})
        elif (length := max(len(row.ids) for row in rows)) > longest:
            detail = f"{length:,} tokens exceed {longest:,} (max_length, or the model's context)"
            found.dropped.append({"problem_id": example.problem_id, "reason": "too long", "detail": detail})
        elif is_held_out(example.problem_id, settings.held_out, stage.seed):
            found.held_out.append(rows)
            found.held_out_ids.append(example.problem_id)
        else:
            found.train.append(rows)
    if not found.train:
        reasons = Counter(row["reason"] for row in found.dropped)
        why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common()) or "there is none"
        raise ValueError(
            f"{stage.name} has nothing to train on: {why}; {len(found.held_out):,} are held out. Right and wrong answers of "
            "the same problems are needed: sample more (pool.samples, pool.prompts), at other levels (pool.levels), or name "
            "another source."
        )
    return found


def is_held_out(problem_id: str, share: float, seed: int) -> bool:
    """Whether a problem is held out. It depends on its id and the seed alone, so all its answers are on one side."""
    digest = hashlib.sha256(f"{seed}/held out/{problem_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _tokenised(examples: Iterable[Example], chat: "Chat") -> Iterator[tuple[Example, "list[Row] | str"]]:
    waiting: list[Example] = []
    for example in examples:
        waiting.append(example)
        if len(waiting) == AT_ONCE:
            yield from _rows_of(waiting, chat)
            waiting = []
    yield from _rows_of(waiting, chat)


def _rows_of(examples: Sequence[Example], chat: "Chat") -> Iterator[tuple[Example, "list[Row] | str"]]:
    from whetstone.batch import answer_row
    from whetstone.reward_model import answer_rows

    exchanges = [answer.exchange for example in examples for answer in example.answers if answer.exchange]
    of_text = iter(answer_rows(chat, exchanges))
    for example in examples:
        rows: list[Any] = []
        for answer in example.answers:
            row = next(of_text) if answer.exchange else answer_row(answer.prompt_ids, answer.ids)
            if not isinstance(row, str):
                row.segment["right"] = float(answer.right)
            rows.append(row)
        yield example, next((row for row in rows if isinstance(row, str)), rows)


def _single(examples: Iterable[Example]) -> Iterator[Example]:
    for example in examples:
        for answer in example.answers:
            yield Example(example.problem_id, (answer,))


# --- sources


def _of_student(stage: Stage, found: Examples, student: "Student", process_group: "ProcessGroup") -> Iterator[Example]:
    settings: Settings = stage.settings
    tried = try_student(stage, student, process_group)
    found.dropped += tried.dropped
    found.counts |= tried.counts
    for problem, group in zip(tried.problems, tried.groups, strict=True):
        if settings.loss == "logistic":
            answers = [Answer(r.correct, r.prompt_ids, r.ids) for r in group if r.correct is not None]
            yield from (Example(problem.id, (answer,)) for answer in answers)
        else:
            yield from (_of_pair(pair, student.prompting) for pair in _pairs(stage, problem, group))


def _of_rollouts(stage: Stage, found: Examples, student: "Student", *_: Any) -> Iterator[Example]:
    """The teacher's traces, right against wrong."""
    settings: Settings = stage.settings
    problems = {problem.id: problem for problem in read_records(Problem, stage.inputs["problems"])}
    groups: dict[str, list[Trace]] = {}
    for trace in read_records(Trace, stage.inputs["rollouts"]):
        if trace.correct is not None and problems[trace.problem_id].split != "test":
            groups.setdefault(trace.problem_id, []).append(trace)
    for name, traces in groups.items():
        problem = problems[name]
        if settings.loss == "logistic":
            messages = student.prompting.prompt(problem, 0).messages
            yield from (Example(name, (Answer(bool(t.correct), exchange=Exchange(messages, t.text)),)) for t in traces)
        else:
            pairs = _pairs(stage, problem, [_as_rollout(trace) for trace in traces])
            yield from (_of_pair(pair, student.prompting) for pair in pairs)


def _pairs(stage: Stage, problem: Problem, group: Sequence[Rollout]) -> list[Pair]:
    settings: Settings = stage.settings
    return build_pairs(problem, group, settings.pairs_per_problem, stage.seed, settings.pairing)


def _as_rollout(trace: Trace) -> Rollout:
    """A trace has no ids; its characters stand in for their number."""
    return Rollout(trace.problem_id, trace.index, [], [0] * len(trace.text), [], 1.0, "end", trace.text, trace.correct)


def _of_pairs(stage: Stage, found: Examples, student: "Student", *_: Any) -> Iterator[Example]:
    return (_of_pair(pair, student.prompting) for pair in read_records(Pair, stage.inputs["pairs"]))


def _of_pair(pair: Pair, prompting: Prompting = BARE) -> Example:
    """Sampled ids as they are; else the text."""
    if pair.chosen_ids and pair.prompt_ids:
        sides = ((True, pair.chosen_ids), (False, pair.rejected_ids))
        return Example(pair.problem_id, tuple(Answer(right, pair.prompt_ids, ids) for right, ids in sides))
    messages = prompting.messages(pair.question, pair.system, pair.policy, pair.chosen)
    texts = ((True, pair.chosen), (False, pair.rejected))
    return Example(pair.problem_id, tuple(Answer(right, exchange=Exchange(messages, text)) for right, text in texts))


def _of_files(stage: Stage, found: Examples, *_: Any) -> Iterator[Example]:
    for file in stage.settings.preferences:
        for identity, pair in read_preferences(file.path, file.name or expand_path(file.path).parent.name):
            if isinstance(pair, ValueError):
                reason, _, detail = str(pair).partition(": ")
                found.dropped.append({"problem_id": identity, "reason": reason, "detail": detail})
                continue
            texts = ((True, pair.chosen), (False, pair.rejected))
            answers = (Answer(right, exchange=Exchange(pair.messages, text)) for right, text in texts)
            yield Example(identity, tuple(answers))
