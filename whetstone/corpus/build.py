"""Problems + rollouts -> what each later stage learns from.

corpus    every right trace that passes `accept`, plus split "validation": traces of held-out validation problems
subset    compact and representative, all levels and domains: for supervised fine-tuning
pairs     a right and a wrong trace of one problem: for Rollout DPO on the teacher's text
prompts   train problems with their pass rate: for student rollouts and reinforcement learning
dropped   everything left out, with its reason; `card.json` counts it all, `card.md` says it in words
matches   training questions beside the test questions that they equal or resemble

With `reserve`, a share of the train problems is not taught, and only these give pairs and prompts: a small model recalls the
answers that it was taught, and learns nothing from being right or wrong about them.

`[parallel] forks` processes share the problems, or Ray's machines do (`run/fanout.py`); the corpus is the same. Memory holds
some parts of the tables, the index of the test questions and the candidates of the subset.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

from whetstone.corpus.accept import malformed
from whetstone.corpus.card import Card
from whetstone.corpus.contamination import Match, TestQuestions
from whetstone.corpus.duplicates import near_duplicate_problems
from whetstone.corpus.empty import refuse_empty
from whetstone.corpus.files import PairFile
from whetstone.corpus.limo import Solved
from whetstone.corpus.part import TABLES, Asked, Made, Maker, Making, Part, drops, shuffle_key
from whetstone.corpus.settings import Settings
from whetstone.corpus.subset import Subset
from whetstone.problems.files import find_files, read_paths
from whetstone.records import Problem
from whetstone.run.fanout import fan_out
from whetstone.run.folder import Stage, write_json, write_text
from whetstone.run.progress import progress
from whetstone.run.room import Input, Room
from whetstone.run.tables import TableWriter, count_rows, read_records, read_rows, read_where, shard_of_row

PART_ROWS = 16_384  # rollouts, or problems without any, that are worked on together; long ones by the shard
RATED = ("problem_id", "correct")  # columns of the weak and the strong model's rollouts
MATCHED = 1_000  # problems that are compared with the test questions together

Row = dict[str, Any]


def reads(settings: Settings) -> list[Path]:
    """The user's files that the result depends on, besides the stage's inputs."""
    outside = (*settings.contamination.against, *settings.imported_pairs)
    return [path for file in outside for path in read_paths(file.path)]


def check(settings: Settings) -> None:
    """Before any stage runs. Raises ValueError or FileNotFoundError if one of these files is missing."""
    for file in (*settings.contamination.against, *settings.imported_pairs):
        find_files(file.path)


def run(stage: Stage) -> dict[str, Any]:
    build = _Build(stage)
    maker = Maker(stage.settings, stage.seed, stage.inputs.get("rollouts"))
    with ExitStack() as stack:
        build.open(stack)
        bar = stack.enter_context(progress(count_rows(stage.inputs["problems"]), "corpus", unit="problems"))
        for made in fan_out(maker, build.parts(), stage.parallel):
            build.take(made)
            bar.advance(made.problems, accepted=build.tables["corpus"].total)
        for file in stage.settings.imported_pairs:
            build.take_pairs_of(file)
    build.write_subset()
    build.card.rows |= {name: table.total for name, table in build.tables.items() if name != "matches"}
    write_json(stage.folder / "card.json", build.card.to_json())
    write_text(stage.folder / "card.md", build.card.to_markdown(stage.name))
    refuse_empty(stage, build.card)
    return {**build.card.rows, "drops": build.card.drops, "contamination": build.card.matches}


def with_rows(
    problems: Path, rollouts: Path | None, columns: Sequence[str] | None = None
) -> Iterator[tuple[Problem, list[Row]]]:
    """Every problem with the rows of its rollouts, or these columns of them. Rollouts must be in the order of the problems."""
    rows = read_rows(rollouts, columns) if rollouts else ()
    groups = groupby(rows, key=lambda row: row["problem_id"])
    waiting = next(groups, None)
    for problem in read_records(Problem, problems):
        answered = waiting is not None and waiting[0] == problem.id
        yield problem, list(waiting[1]) if answered else []
        if answered:
            waiting = next(groups, None)
    if waiting:
        raise ValueError(
            f"{rollouts}: the rollouts of problem {waiting[0]} have no place among those of {problems}: they were "
            "collected from other problems, or are in another order. Name the problems stage that the rollouts were "
            "collected from, or collect them again."
        )


def held_out(problems: Iterable[Problem], count: int, seed: int) -> set[str]:
    """The ids of `count` validation problems (0: all), drawn by hash."""
    ids = sorted((p.id for p in problems if p.split == "validation"), key=lambda name: shuffle_key(seed, name))
    return set(ids[:count] if count else ids)


@dataclass(frozen=True)
class _Matcher:
    """Problems -> by id, the test question that each of them repeats or resembles."""

    tests: TestQuestions

    def __call__(self, problems: Sequence[Problem]) -> dict[str, Match]:
        found = ((problem.id, self.tests.match(problem.question, problem.formula)) for problem in problems)
        return {name: match for name, match in found if match is not None}


class _Build:
    """The stage's tables, counts and candidates of the subset, and what a problem's part must know of the others."""

    def __init__(self, stage: Stage):
        self.stage, self.settings, self.card = stage, stage.settings, Card()
        settings = self.settings
        tests = (problem for problem in self._problems() if problem.split == "test")
        others = (problem for file in settings.contamination.against for problem in file.questions())
        self.tests = TestQuestions(chain(tests, others), settings.contamination)
        self.held_out = held_out(self._problems(), settings.validation_problems, stage.seed)
        self.matches: dict[str, Match] = {}
        for found in fan_out(_Matcher(self.tests), self._compared(), stage.parallel):
            self.matches |= found
        self.contaminated: set[str] = set()  # ids of problems that repeat test questions
        self.repeats: Mapping[str, str] = {}
        if settings.near_duplicates:
            train = (problem for problem in self._problems() if problem.split == "train")
            self.repeats = near_duplicate_problems(train, settings.near_duplicates)
        self.subset = Subset(settings.subset, key=lambda name: shuffle_key(stage.seed, name))

    def _problems(self) -> Iterator[Problem]:
        return read_records(Problem, self.stage.inputs["problems"])

    def _beyond(self, problem: Problem) -> bool:
        """Is it a validation problem that is not held out?"""
        return problem.split == "validation" and problem.id not in self.held_out

    def _compared(self) -> Iterator[list[Problem]]:
        """The problems that may be used, some at a time."""
        left = (problem for problem in self._problems() if problem.split != "test" and not self._beyond(problem))
        return iter(lambda: list(islice(left, MATCHED)), [])

    def open(self, stack: ExitStack) -> None:
        self.tables = {name: stack.enter_context(TableWriter(self.stage.output(name))) for name in TABLES}

    def parts(self) -> Iterator[Part]:
        """All problems, in parts that end with a shard of the rollouts."""
        rollouts = self.stage.inputs.get("rollouts")
        shard = shard_of_row(rollouts) if rollouts else lambda row: 0
        asked, first, row = list[Asked](), 0, 0
        for one in self._asked():
            if max(len(asked), row - first) >= PART_ROWS or (asked and shard(row) != shard(first)):
                yield Part(first, asked)
                asked, first = [], row
            asked.append(one)
            row += one.rollouts
        yield Part(first, asked)

    def _asked(self) -> Iterator[Asked]:
        """Every problem with what is known of it, and how often the weak and the strong model solved it, if they are named."""
        problems, inputs = self.stage.inputs["problems"], self.stage.inputs
        raters = {name: with_rows(problems, inputs[name], RATED) for name in ("weak", "strong") if name in inputs}
        for problem, rows in with_rows(problems, inputs.get("rollouts"), ("problem_id",)):
            rated = {name: sum(row["correct"] is True for row in next(rater)[1]) for name, rater in raters.items()}
            yield Asked(problem, len(rows), Solved(**rated), self.matches.get(problem.id), self._left_out(problem))

    def _left_out(self, problem: Problem) -> tuple[str, str] | None:
        """Why a problem goes, and a detail: it is not held out for validation, repeats a test question or another problem.

        What was made of a test question goes with it: an inverse question shares neither numbers nor long runs with the test.
        """
        match = self.matches.get(problem.id)
        if self._beyond(problem):
            return "beyond validation_problems", ""
        if match is not None and drops(match, self.settings):
            self.contaminated.add(problem.id)
            return f"test question ({match.rule})", match.test_id
        if problem.origin in self.contaminated:
            return "made of a test question", problem.origin
        if problem.id in self.repeats:
            return "near duplicate problem", f"of {self.repeats[problem.id]}"
        return None

    def take(self, made: Made) -> None:
        """Adds a part to the tables, the counts and the candidates of the subset."""
        for name, rows in made.rows.items():
            for row in rows:
                self.tables[name].add(row)
        self.card.merge(made.card)
        for offer in made.offers:
            self.subset.offer(*offer)

    def take_pairs_of(self, file: PairFile) -> None:
        """Ready pairs, except those that cannot be read, are malformed or have a test question."""
        limits = self.settings.max_repetition, self.settings.max_characters
        for identity, pair in file.pairs():
            making = Making(self.settings, self.stage.seed)
            if isinstance(pair, ValueError):
                reason, _, detail = str(pair).partition(": ")
                making.drop(identity, f"imported pair: {reason}", detail=detail)
            elif reason := malformed(pair.chosen, *limits) or malformed(pair.rejected, *limits):
                making.drop(identity, f"imported pair: {reason}")
            else:
                match = self.tests.match(pair.question)
                making.add_match(Problem(identity, pair.question, ""), match)
                if match is not None and drops(match, self.settings):
                    making.drop(identity, f"test question ({match.rule})", detail=match.test_id)
                else:
                    making.add_pair(pair)
            self.take(making.made)

    def write_subset(self) -> None:
        chosen = self.subset.choose()  # problem id -> indices of its traces
        columns = "problem_id", "index"
        with TableWriter(self.stage.output("subset")) as table:
            for row in read_where(self.stage.output("corpus"), columns, lambda name, i: i in chosen.get(name, ())):
                table.add(row)
                self.card.subset_levels[str(row["level"])] += 1
        self.tables["subset"] = table


ROOM = Room(
    settings=Settings,
    run=run,
    inputs={
        "problems": Input(("problems",)),
        "rollouts": Input(("rollouts",), optional=True, description="without them it gives prompts alone"),
        # of a weak model, whose problems are too easy, and of a strong one, which solves hard problems now and then (LIMO)
        "weak": Input(("rollouts",), optional=True, only_named=True),
        "strong": Input(("rollouts",), optional=True, only_named=True),
    },
    gives=("corpus", "subset", "pairs", "prompts"),
    reads=reads,
    check=check,
)
