"""Problems + rollouts -> what each later stage learns from.

corpus    every right trace that passes `accept`, plus split "validation": traces of held-out validation problems
subset    compact and representative, all levels and domains: for supervised fine-tuning
pairs     a right and a wrong trace of one problem: for Rollout DPO on the teacher's text
prompts   train problems with their pass rate: for student rollouts and reinforcement learning
dropped   everything left out, with its reason; `card.json` counts it all
matches   training questions beside the test questions they equal or resemble

With `reserve`, a share of the train problems is kept from teaching, and pairs and prompts are made of these alone: a small
model that has seen the answers recalls them, and learns nothing from being right or wrong about them.

One pass over problems and rollouts, which lie in the same order, so memory holds one problem's traces, the index of the
test questions and the candidates of the subset; a second pass over the corpus writes the subset out.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from whetstone.corpus import label
from whetstone.corpus.accept import reason_to_drop
from whetstone.corpus.card import Card
from whetstone.corpus.contamination import TestQuestions
from whetstone.corpus.duplicates import mark_duplicates
from whetstone.corpus.limo import quality
from whetstone.corpus.pairs import make_pairs
from whetstone.corpus.subset import Subset
from whetstone.records import Problem, Trace, to_row
from whetstone.run.folder import Stage, write_json
from whetstone.run.progress import progress
from whetstone.run.settings import Settings as Table
from whetstone.run.settings import StageSettings
from whetstone.run.tables import TableWriter, expand_path, find_file, read_records, read_rows, read_table


class EvaluationSet(Table):
    """A file of questions that training problems must not be taken from, beside the recipe's own test problems."""

    path: str  # .jsonl, .json, .csv (also .gz) or .parquet; may contain $VARIABLES and ~
    question: str = "question"  # the column of the question
    name: str = ""  # in the list of matches; default: the folder's name


class Settings(StageSettings):
    problems: str | None = None  # the stage (or stage/artifact) that the problems come from
    rollouts: str | None = None  # the stage (or stage/artifact) that the teacher's traces come from
    levels: list[int] | None = None  # levels that are taught (corpus, subset, pairs); None: all
    reserve: float = Field(default=0, ge=0, lt=1)  # share of train problems that are not taught: pairs and prompts
    traces_per_problem: int | None = Field(default=None, ge=1)  # for mid-training, the first ones; None: all accepted
    validation_problems: int = Field(default=64, ge=0)  # held-out problems whose loss mid-training watches; 0: all
    max_repetition: float = Field(default=0.6, ge=0, le=1)  # highest share of repeated 16-word windows
    max_characters: int = Field(default=0, ge=0)  # longest trace; 0: any length
    contamination_ngram: int = Field(default=13, ge=8, le=13)  # tokens shared with a test question
    contamination_near: float = Field(default=0.9, gt=0.5, le=1)  # Jaccard index of tokens in whatever order
    against: tuple[EvaluationSet, ...] = ()  # evaluation sets beside the recipe's test problems
    subset_problems: int = Field(default=1000, ge=0)  # problems of the subset
    subset_traces: int = Field(default=1, ge=1)  # traces per problem of the subset, the best argued ones
    subset_by: Literal["representative", "quality"] = "representative"  # which problems of a level and domain
    subset_balance: Literal["proportional", "equal"] = "proportional"  # shares of the levels and domains
    limo_length: float = Field(default=200, gt=0)  # words at which the length term of the quality score is one half
    pairs_per_problem: int = Field(default=1, ge=0)  # right/wrong pairs of one problem; a trace serves in one pair
    match_length: bool = True  # pair the right and wrong traces whose lengths are closest
    prompt_levels: list[int] | None = None  # levels of the RL prompts; None: all


def reads(settings: Settings) -> list[Path]:
    """The files that the stage's result depends on beside its inputs."""
    return [expand_path(found.path) for found in settings.against]


def run(stage: Stage) -> dict[str, Any]:
    build = _Build(stage)
    total = sum(1 for _ in read_rows(stage.inputs["problems"]))
    with ExitStack() as stack:
        build.open(stack)
        bar = stack.enter_context(progress(total, "corpus", unit="problems"))
        for problem, traces in with_traces(stage.inputs["problems"], stage.inputs["rollouts"]):
            if problem.split != "test":
                build.add(problem, traces)
            bar.advance(1, accepted=build.tables["corpus"].total)
    build.write_subset()
    build.card.rows |= {name: table.total for name, table in build.tables.items() if name != "matches"}
    write_json(stage.folder / "card.json", build.card.to_json())
    return {**build.card.rows, "drops": build.card.drops, "contamination": build.card.matches}


def with_traces(problems: Path, rollouts: Path) -> Iterator[tuple[Problem, list[Trace]]]:
    """Every problem with its traces ([] where it has none). Rollouts lie in the order of the problems, as collected."""
    groups = groupby(read_records(Trace, rollouts), key=lambda trace: trace.problem_id)
    waiting = next(groups, None)
    for problem in read_records(Problem, problems):
        if waiting and waiting[0] == problem.id:
            yield problem, list(waiting[1])
            waiting = next(groups, None)
        else:
            yield problem, []
    if waiting:
        raise ValueError(
            f"{rollouts}: the rollouts of problem {waiting[0]} have no place among those of {problems}: they were "
            "collected from other problems, or lie in another order. Name the problems stage that the rollouts were "
            "collected from, or collect them again."
        )


def held_out(problems: Iterable[Problem], count: int, seed: int) -> set[str]:
    """`count` of the validation problems (0: all), drawn by hash."""
    ids = sorted((p.id for p in problems if p.split == "validation"), key=lambda name: shuffle_key(seed, name))
    return set(ids[:count] if count else ids)


def shuffle_key(seed: int, name: str) -> str:
    """Sorting by it is a shuffle that depends on the seed and the names alone."""
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def evaluation_questions(found: EvaluationSet) -> Iterator[Problem]:
    """The questions of a file. Raises ValueError for a row without one, FileNotFoundError."""
    path = find_file(found.path)
    name = found.name or path.parent.name
    for number, row in read_table(path):
        question = row.get(found.question) if isinstance(row, dict) else None
        if not isinstance(question, str):
            why = f"it has {', '.join(map(repr, row))}" if isinstance(row, dict) else row
            raise ValueError(
                f"{path}, row {number}, has no text in the column {found.question!r}: {why}. A question that cannot be read "
                'cannot be kept out of training. Name the column, as in against = [{ path = "…", question = "problem" }].'
            )
        yield Problem(f"{name}/{number}", question, "", "test", name)


class _Build:
    """The one pass: what it writes, counts and remembers."""

    def __init__(self, stage: Stage):
        self.stage, self.settings, self.card = stage, stage.settings, Card()
        problems = stage.inputs["problems"]
        tests = (p for p in read_records(Problem, problems) if p.split == "test")
        others = (p for found in self.settings.against for p in evaluation_questions(found))
        self.tests = TestQuestions(
            chain(tests, others), self.settings.contamination_ngram, self.settings.contamination_near
        )
        self.held_out = held_out(read_records(Problem, problems), self.settings.validation_problems, stage.seed)
        self.subset = Subset(
            problems=self.settings.subset_problems,
            by=self.settings.subset_by,
            balance=self.settings.subset_balance,
            key=lambda name: shuffle_key(stage.seed, name),
        )

    def open(self, stack: ExitStack) -> None:
        names = ("corpus", "pairs", "prompts", "dropped", "matches")
        self.tables = {name: stack.enter_context(TableWriter(self.stage.output(name))) for name in names}

    def drop(self, problem_id: str, reason: str, index: int | None = None, detail: str = "") -> None:
        self.card.drops[reason] += 1
        self.tables["dropped"].add({"problem_id": problem_id, "index": index, "reason": reason, "detail": detail})

    def add(self, problem: Problem, traces: list[Trace]) -> None:
        settings = self.settings
        if problem.split == "validation" and problem.id not in self.held_out:
            return self.drop(problem.id, "beyond validation_problems")
        if self._contaminated(problem):
            return None
        rate = label.pass_rate(traces)
        labels = {"level": label.level(problem, rate), "domain": label.domain(problem), "pass_rate": rate}
        reserved = problem.split == "train" and self._reserved(problem)
        if problem.split == "train" and (reserved or not settings.reserve):
            self._add_prompt(problem, labels)
        if settings.levels is not None and labels["level"] not in settings.levels:
            return self.drop(problem.id, "level is not taught", detail=f"level {labels['level']}")
        right, wrong = self._sort_out(traces)
        if reserved or (problem.split == "train" and not settings.reserve):
            for pair in make_pairs(problem, right, wrong, settings.pairs_per_problem, settings.match_length):
                self.tables["pairs"].add(to_row(pair))
        if reserved:
            return self.drop(problem.id, "reserved for pairs and prompts")
        if problem.split == "train":
            taught = right[: settings.traces_per_problem]
            best = sorted(taught, key=lambda trace: (-quality(trace.text, settings.limo_length), trace.index))
            if best:
                self.subset.offer(
                    problem.id,
                    stratum=(str(labels["level"]), labels["domain"]),
                    quality=quality(best[0].text, settings.limo_length),
                    indices=[trace.index for trace in best[: settings.subset_traces]],
                )
        else:
            taught = right[:1]
        for trace in taught:
            row = corpus_row(problem, trace, labels)
            self.tables["corpus"].add(row)
            self.card.add(problem, row)
        for trace in right[len(taught) :]:
            limit = "traces_per_problem" if problem.split == "train" else "one validation trace a problem"
            self.drop(problem.id, f"beyond {limit}", trace.index)

    def _reserved(self, problem: Problem) -> bool:
        """By hash of the original's id: what MetaMath made of a problem goes where the problem goes."""
        draw = int(shuffle_key(self.stage.seed, problem.origin or problem.id)[:12], 16) / 16**12
        return draw < self.settings.reserve

    def _contaminated(self, problem: Problem) -> bool:
        match = self.tests.match(problem.question, problem.formula)
        if match is None:
            return False
        self.card.add_match(problem, match)
        self.tables["matches"].add({"problem_id": problem.id, "question": problem.question, **asdict(match)})
        if match.contaminated:
            self.drop(problem.id, f"test question ({match.rule})", detail=match.test_id)
        return match.contaminated

    def _add_prompt(self, problem: Problem, labels: dict[str, Any]) -> None:
        levels = self.settings.prompt_levels
        if labels["pass_rate"] is not None:
            self.card.pass_rates[round(labels["pass_rate"], 1)] += 1
        if not problem.answer.strip():
            self.drop(problem.id, "prompt without an answer to verify")
        elif levels is None or labels["level"] in levels:
            self.tables["prompts"].add({**to_row(problem), **labels})

    def _sort_out(self, traces: list[Trace]) -> tuple[list[Trace], list[Trace]]:
        """Right and wrong traces that are well formed and differ; all but the right ones are dropped."""
        right, wrong = [], []
        for trace, first in mark_duplicates(traces):
            if first is not None:
                self.drop(trace.problem_id, "duplicate trace", trace.index, f"of rollout {first}")
                continue
            reason = reason_to_drop(trace, self.settings.max_repetition, self.settings.max_characters)
            if not reason:
                right.append(trace)
                continue
            if reason.startswith("wrong"):
                wrong.append(trace)
            self.drop(trace.problem_id, reason, trace.index)
        return right, wrong

    def write_subset(self) -> None:
        chosen = self.subset.choose()
        with TableWriter(self.stage.output("subset")) as table:
            for row in read_rows(self.stage.output("corpus")):
                if row["index"] in chosen.get(row["problem_id"], ()):
                    table.add(row)
        self.tables["subset"] = table


def corpus_row(problem: Problem, trace: Trace, labels: dict[str, Any]) -> dict[str, Any]:
    return {
        "problem_id": problem.id,
        "index": trace.index,
        "question": problem.question,
        "text": trace.text,
        "answer": problem.answer,
        **labels,
        "augmentation": trace.augmentation,
        "source": problem.source,
        "split": problem.split,
    }
