"""Problems + rollouts -> what each later stage learns from.

corpus    every right trace that passes `accept`, plus split "validation": traces of held-out validation problems
subset    compact and representative, all levels and domains: for supervised fine-tuning
pairs     a right and a wrong trace of one problem: for Rollout DPO on the teacher's text
prompts   train problems with their pass rate: for student rollouts and reinforcement learning
dropped   everything left out, with its reason; `card.json` counts it all, `card.md` says it in words
matches   training questions beside the test questions they equal or resemble

With `reserve`, a share of the train problems is kept from teaching, and pairs and prompts are made of these alone: a small
model that has seen the answers recalls them, and learns nothing from being right or wrong about them.

One pass over problems and rollouts, which lie in the same order, so memory holds one problem's traces, the index of the
test questions and the candidates of the subset; a second pass over the corpus writes the subset out.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from whetstone.corpus import label
from whetstone.corpus.accept import malformed, reason_to_drop
from whetstone.corpus.card import Card
from whetstone.corpus.contamination import TestQuestions
from whetstone.corpus.duplicates import mark_duplicates, near_duplicate_problems
from whetstone.corpus.limo import UNRATED, Solved, quality, solved, why_not_limo
from whetstone.corpus.pairs import make_pairs, preference
from whetstone.corpus.subset import Stratum, Subset
from whetstone.records import PROGRAM_REQUEST, Pair, Problem, Trace, to_row
from whetstone.run.folder import Stage, write_json, write_text
from whetstone.run.progress import progress
from whetstone.run.room import Input, Room
from whetstone.run.settings import Settings as Table
from whetstone.run.settings import StageSettings
from whetstone.run.tables import TableWriter, expand_path, find_file, read_records, read_rows, read_table

PROGRAM = "program"  # the augmentation of MAmmoTH's programs of thought
NO_REFERENCE = "no reference answer"  # the reason that the rollouts stage gives for it


class EvaluationSet(Table):
    """A file of questions that training problems must not be taken from, beside the recipe's own test problems."""

    path: str  # .jsonl, .json, .csv (also .gz) or .parquet; may contain $VARIABLES and ~
    question: str = "question"  # the column of the question
    name: str = ""  # in the list of matches; default: the folder's name


class PairFile(Table):
    """A file of ready preference pairs: a question with a chosen and a rejected answer, in one of the usual layouts."""

    path: str  # .jsonl, .json, .csv (also .gz) or .parquet; may contain $VARIABLES and ~
    name: str = ""  # the pairs' source; default: the folder's name
    limit: int = Field(default=0, ge=0)  # read at most so many rows; 0: all


class Settings(StageSettings):
    limo_solved: tuple[int, int] = (1, 3)  # fewest and most right rollouts of the strong model
    levels: list[int] | None = None  # levels that are taught (corpus, subset, pairs); None: all
    reserve: float = Field(default=0, ge=0, lt=1)  # share of train problems that are not taught: pairs and prompts
    traces_per_problem: int | None = Field(default=None, ge=1)  # for mid-training, the first ones; None: all accepted
    validation_problems: int = Field(default=64, ge=0)  # held-out problems whose loss mid-training watches; 0: all
    max_repetition: float = Field(default=0.6, ge=0, le=1)  # highest share of repeated 16-word windows
    max_characters: int = Field(default=0, ge=0)  # longest trace; 0: any length
    contamination_ngram: int = Field(default=13, ge=8, le=13)  # tokens shared with a test question
    contamination_near: float = Field(default=0.9, gt=0.5, le=1)  # Jaccard index of tokens in whatever order
    look_alikes: float = Field(
        default=0, ge=0, le=1
    )  # likeness but for numbers from which these go, too; 0: counted only
    against: tuple[EvaluationSet, ...] = ()  # evaluation sets beside the recipe's test problems
    near_duplicates: float = Field(default=0, ge=0, le=1)  # likeness from which the later of two problems goes; 0: none
    near_traces: float = Field(default=0, ge=0, le=1)  # likewise among the traces of one problem
    unverified: bool = False  # teach traces of problems without a reference answer as they come (imported chats)
    languages: list[str] | None = None  # of the questions that are taught, as in ["en"]; None: all
    imported_pairs: tuple[PairFile, ...] = ()  # ready preference pairs that join `pairs`
    subset_problems: int = Field(default=1000, ge=0)  # problems of the subset
    subset_traces: int = Field(default=1, ge=1)  # traces per problem of the subset, the best argued ones
    subset_by: Literal["representative", "quality", "limo", "diverse"] = (
        "representative"  # of a level and domain, drawn or best argued; best argued of all; longest of each domain (s1)
    )
    subset_balance: Literal["proportional", "equal"] = "proportional"  # shares of the levels and domains
    limo_length: float = Field(default=200, gt=0)  # words at which the length term of the quality score is one half
    pairs_per_problem: int = Field(default=1, ge=0)  # right/wrong pairs of one problem; a trace serves in one pair
    match_length: bool = True  # pair the right and wrong traces whose lengths are closest
    prompt_levels: list[int] | None = None  # levels of the RL prompts; None: all


def reads(settings: Settings) -> list[Path]:
    """The files that the stage's result depends on beside its inputs."""
    return [expand_path(found.path) for found in (*settings.against, *settings.imported_pairs)]


def run(stage: Stage) -> dict[str, Any]:
    build = _Build(stage)
    total = sum(1 for _ in read_rows(stage.inputs["problems"]))
    with ExitStack() as stack:
        build.open(stack)
        bar = stack.enter_context(progress(total, "corpus", unit="problems"))
        for problem, traces, solved in build.problems():
            if problem.split != "test":
                build.add(problem, traces, solved)
            bar.advance(1, accepted=build.tables["corpus"].total)
        for file in stage.settings.imported_pairs:
            build.add_pairs(file)
    build.write_subset()
    build.card.rows |= {name: table.total for name, table in build.tables.items() if name != "matches"}
    write_json(stage.folder / "card.json", build.card.to_json())
    write_text(stage.folder / "card.md", build.card.to_markdown(stage.name))
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
            chain(tests, others),
            self.settings.contamination_ngram,
            self.settings.contamination_near,
            self.settings.look_alikes,
        )
        self.held_out = held_out(read_records(Problem, problems), self.settings.validation_problems, stage.seed)
        self.repeats: dict[str, str] = {}
        if self.settings.near_duplicates:
            taught = (p for p in read_records(Problem, problems) if p.split == "train")
            self.repeats = near_duplicate_problems(taught, self.settings.near_duplicates)
        self.subset = Subset(
            problems=self.settings.subset_problems,
            by=self.settings.subset_by,
            balance="equal" if self.settings.subset_by == "diverse" else self.settings.subset_balance,
            key=lambda name: shuffle_key(stage.seed, name),
        )

    def open(self, stack: ExitStack) -> None:
        names = ("corpus", "pairs", "prompts", "dropped", "matches")
        self.tables = {name: stack.enter_context(TableWriter(self.stage.output(name))) for name in names}

    def problems(self) -> Iterator[tuple[Problem, list[Trace], Solved]]:
        """Every problem with its traces and how often a weak and a strong model solved it, where the recipe names them."""
        inputs = self.stage.inputs
        raters = [
            with_traces(inputs["problems"], inputs[name]) if name in inputs else None for name in ("weak", "strong")
        ]
        for problem, traces in with_traces(inputs["problems"], inputs["rollouts"]):
            weak, strong = (None if rater is None else solved(next(rater)[1]) for rater in raters)
            yield problem, traces, Solved(weak, strong)

    def drop(self, problem_id: str, reason: str, index: int | None = None, detail: str = "") -> None:
        self.card.drops[reason] += 1
        self.tables["dropped"].add({"problem_id": problem_id, "index": index, "reason": reason, "detail": detail})

    def add(self, problem: Problem, traces: list[Trace], rated: Solved = UNRATED) -> None:
        settings = self.settings
        if problem.split == "validation" and problem.id not in self.held_out:
            return self.drop(problem.id, "beyond validation_problems")
        if self._contaminated(problem):
            return None
        if problem.id in self.repeats:
            return self.drop(problem.id, "near duplicate problem", detail=f"of {self.repeats[problem.id]}")
        spoken = label.language(problem.question)
        if settings.languages is not None and spoken not in settings.languages:
            return self.drop(problem.id, "language is not taught", detail=spoken)
        rate = label.pass_rate(traces)
        labels = {"level": label.level(problem, rate), "domain": label.domain(problem), "pass_rate": rate}
        more = {"school": label.school(problem.question), "language": spoken}
        reserved = problem.split == "train" and self._reserved(problem)
        if problem.split == "train" and (reserved or not settings.reserve):
            self._add_prompt(problem, labels)
        if settings.levels is not None and labels["level"] not in settings.levels:
            return self.drop(problem.id, "level is not taught", detail=f"level {labels['level']}")
        right, wrong = self._sort_out(traces)
        if reserved or (problem.split == "train" and not settings.reserve):
            for kind in ("", PROGRAM):  # a chain of thought and a program are no pair
                sides = [
                    [t for t in side if (t.augmentation == PROGRAM) == (kind == PROGRAM)] for side in (right, wrong)
                ]
                for pair in make_pairs(problem, *sides, settings.pairs_per_problem, settings.match_length):
                    asked = replace(pair, question=pair.question + PROGRAM_REQUEST) if kind else pair
                    self._add_pair(asked)
        if reserved:
            return self.drop(problem.id, "reserved for pairs and prompts")
        if problem.split == "train":
            limit, programs = settings.traces_per_problem, [t for t in right if t.augmentation == PROGRAM]
            taught = [t for t in right if t.augmentation != PROGRAM][:limit] + programs[:limit]
            best = sorted(taught, key=lambda trace: (-quality(trace.text, settings.limo_length), trace.index))
            unfit = why_not_limo(rated, settings.limo_solved)
            if unfit and best:
                self.card.not_in_subset[unfit] += 1
            elif best:
                indices = [trace.index for trace in best[: settings.subset_traces]]
                stratum, merit = self._merit(best[0].text, labels)
                self.subset.offer(problem.id, stratum, merit, indices)
        else:
            taught = right[:1]
        for trace in taught:
            row = corpus_row(problem, trace, labels | more)
            self.tables["corpus"].add(row)
            self.card.add(problem, row)
        indices = {trace.index for trace in taught}
        for trace in (t for t in right if t.index not in indices):
            limit = "traces_per_problem" if problem.split == "train" else "one validation trace a problem"
            self.drop(problem.id, f"beyond {limit}", trace.index)

    def _merit(self, text: str, labels: dict[str, Any]) -> tuple[Stratum, float]:
        """Among which problems this one competes for a place of the subset, and by what."""
        by, well_argued = self.settings.subset_by, quality(text, self.settings.limo_length)
        if by == "limo":
            return ("", ""), well_argued
        if by == "diverse":
            return ("", labels["domain"]), float(len(text))
        return (str(labels["level"]), labels["domain"]), well_argued

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
        drop = match.contaminated or self.settings.look_alikes > 0
        if drop:
            self.drop(problem.id, f"test question ({match.rule})", detail=match.test_id)
        return drop

    def _add_pair(self, pair: Pair) -> None:
        self.tables["pairs"].add(to_row(pair))
        self.card.add_pair(pair)

    def _add_prompt(self, problem: Problem, labels: dict[str, Any]) -> None:
        levels = self.settings.prompt_levels
        if labels["pass_rate"] is not None:
            self.card.pass_rates[round(labels["pass_rate"], 1)] += 1
        if not problem.answer.strip():
            self.drop(problem.id, "prompt without an answer to verify")
        elif levels is None or labels["level"] in levels:
            self.tables["prompts"].add({**to_row(problem), **labels})
            self.card.add_prompt(labels)

    def _sort_out(self, traces: list[Trace]) -> tuple[list[Trace], list[Trace]]:
        """Right and wrong traces that are well formed and differ; all but the right ones are dropped."""
        right, wrong = [], []
        limits = self.settings.max_repetition, self.settings.max_characters
        for trace, first, how in mark_duplicates(traces, self.settings.near_traces):
            if how:
                self.drop(trace.problem_id, how, trace.index, f"of rollout {first}")
                continue
            if self.settings.unverified and trace.reason == NO_REFERENCE:
                reason = malformed(trace.text, *limits)
            else:
                reason = reason_to_drop(trace, *limits)
            if not reason:
                right.append(trace)
                continue
            if reason.startswith("wrong"):
                wrong.append(trace)
            self.drop(trace.problem_id, reason, trace.index)
        return right, wrong

    def add_pairs(self, file: PairFile) -> None:
        """Ready pairs, except what is no pair, what is a test question, and what runs in circles."""
        path = find_file(file.path)
        name = file.name or path.parent.name
        for number, row in islice(read_table(path), file.limit or None):
            identity = f"{name}/{number}"
            try:
                if not isinstance(row, dict):
                    raise ValueError(f"broken row: {row}")
                question, chosen, rejected = preference(row)
            except ValueError as error:
                reason, _, detail = str(error).partition(": ")
                self.drop(identity, f"imported pair: {reason}", detail=detail)
                continue
            problem = Problem(identity, question, "")
            limits = self.settings.max_repetition, self.settings.max_characters
            wrong_form = malformed(chosen, *limits) or malformed(rejected, *limits)
            if not question or chosen == rejected:
                self.drop(
                    identity, "imported pair: no question" if not question else "imported pair: both sides are equal"
                )
            elif wrong_form:
                self.drop(identity, f"imported pair: {wrong_form}")
            elif not self._contaminated(problem):
                self._add_pair(Pair(identity, question, chosen, rejected, source=name))

    def write_subset(self) -> None:
        chosen = self.subset.choose()
        with TableWriter(self.stage.output("subset")) as table:
            for row in read_rows(self.stage.output("corpus")):
                if row["index"] in chosen.get(row["problem_id"], ()):
                    table.add(row)
                    self.card.subset_levels[str(row["level"])] += 1
        self.tables["subset"] = table


def corpus_row(problem: Problem, trace: Trace, labels: dict[str, Any]) -> dict[str, Any]:
    return {
        "problem_id": problem.id,
        "index": trace.index,
        "question": problem.question + (PROGRAM_REQUEST if trace.augmentation == PROGRAM else ""),
        "text": trace.text,
        "answer": problem.answer,
        **labels,
        "augmentation": trace.augmentation,
        "teacher": trace.teacher,
        "repetition": round(label.repetition(trace.text), 3),
        "characters": len(trace.text),
        "source": problem.source,
        "licence": problem.licence,
        "split": problem.split,
    }


ROOM = Room(
    settings=Settings,
    run=run,
    inputs={
        "problems": Input(("problems",)),
        "rollouts": Input(("rollouts",)),
        "weak": Input(
            ("rollouts",), optional=True, only_named=True
        ),  # what a weak model ever solves is too easy (LIMO)
        "strong": Input(("rollouts",), optional=True, only_named=True),  # what it solves now and then joins the subset
    },
    gives=("corpus", "subset", "pairs", "prompts"),
    reads=reads,
)
