"""Problems + rollouts -> what each later stage learns from.

corpus    every right trace that passes `accept`, plus split "validation": traces of held-out validation problems
subset    compact and representative, all levels and domains: for supervised fine-tuning
pairs     a right and a wrong trace of one problem: for Rollout DPO on the teacher's text
prompts   train problems with their pass rate: for student rollouts and reinforcement learning
dropped   everything left out, with its reason; `card.json` counts it all, `card.md` says it in words
matches   training questions beside the test questions that they equal or resemble

With `reserve`, a share of the train problems is not taught, and only these give pairs and prompts: a small model recalls the
answers that it was taught, and learns nothing from being right or wrong about them.

Memory holds one problem's traces, the index of the test questions and the candidates of the subset.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from whetstone.corpus import label
from whetstone.corpus.accept import malformed, reason_to_drop
from whetstone.corpus.card import Card
from whetstone.corpus.contamination import ContaminationSettings, TestQuestions
from whetstone.corpus.duplicates import mark_duplicates, near_duplicate_problems
from whetstone.corpus.empty import refuse_empty
from whetstone.corpus.files import PairFile
from whetstone.corpus.limo import Solved, quality, solved, why_not_limo
from whetstone.corpus.pairs import make_pairs
from whetstone.corpus.subset import Stratum, Subset, SubsetSettings
from whetstone.problems.files import find_files, read_paths
from whetstone.records import PROGRAM, PROGRAM_REQUEST, Pair, Problem, Trace, to_row
from whetstone.run.folder import Stage, write_json, write_text
from whetstone.run.progress import progress
from whetstone.run.room import Input, Room
from whetstone.run.settings import StageSettings
from whetstone.run.tables import TableWriter, read_records, read_rows

TABLES = ("corpus", "pairs", "prompts", "dropped", "matches")


class Settings(StageSettings):
    levels: list[int] | None = Field(None, description="levels that are taught (corpus, subset, pairs); None: all")
    languages: list[str] | None = Field(None, description='of the questions that are taught, as in ["en"]; None: all')
    reserve: float = Field(0, ge=0, lt=1, description="share of train problems kept for pairs and prompts, not taught")
    traces_per_problem: int | None = Field(None, ge=1, description="traces for mid-training, the first ones; None: all")
    validation_problems: int = Field(64, ge=0, description="held-out problems of the validation loss; 0: all")
    unverified: bool = Field(False, description="teach traces without a reference answer too (imported chats)")
    max_repetition: float = Field(0.6, ge=0, le=1, description="highest share of repeated 16-word windows in a trace")
    max_characters: int = Field(0, ge=0, description="longest trace; 0: any length")
    near_traces: float = Field(0, ge=0, le=1, description="likeness at which the later of two traces goes; 0: off")
    near_duplicates: float = Field(0, ge=0, le=1, description="the same for two problems; 0: off")
    contamination: ContaminationSettings = Field(ContaminationSettings(), description="training against test questions")
    subset: SubsetSettings = Field(SubsetSettings(), description="the compact subset for supervised fine-tuning")
    pairs_per_problem: int = Field(1, ge=0, description="right/wrong pairs per problem; a trace serves in one pair")
    imported_pairs: tuple[PairFile, ...] = Field((), description="ready preference pairs that are added to `pairs`")
    prompt_levels: list[int] | None = Field(None, description="levels of the RL prompts; None: all")

    MOVED: ClassVar[Mapping[str, str]] = {
        **{f"subset_{key}": f"subset.{key}" for key in ("problems", "traces", "by")},
        **{key: f"contamination.{key}" for key in ("against", "look_alikes")},
        "limo_solved": "subset.solved",
        "subset_balance": "subset.by",
        "limo_length": SubsetSettings.MOVED["half_length"],
        "contamination_near": "contamination.near",
        "contamination_ngram": ContaminationSettings.MOVED["ngram"],
        "match_length": "fixed: traces whose lengths are closest are always paired",
    }


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
    total = sum(1 for _ in read_rows(stage.inputs["problems"]))
    with ExitStack() as stack:
        build.open(stack)
        bar = stack.enter_context(progress(total, "corpus", unit="problems"))
        for problem, traces, rated in build.problems():
            if problem.split != "test":
                build.add(problem, traces, rated)
            bar.advance(1, accepted=build.tables["corpus"].total)
        for file in stage.settings.imported_pairs:
            build.add_pairs_of(file)
    build.write_subset()
    build.card.rows |= {name: table.total for name, table in build.tables.items() if name != "matches"}
    write_json(stage.folder / "card.json", build.card.to_json())
    write_text(stage.folder / "card.md", build.card.to_markdown(stage.name))
    refuse_empty(stage, build.card)
    return {**build.card.rows, "drops": build.card.drops, "contamination": build.card.matches}


def with_traces(problems: Path, rollouts: Path | None) -> Iterator[tuple[Problem, list[Trace]]]:
    """Every problem with its traces ([] if it has none). The rollouts must be in the order of the problems."""
    traces = read_records(Trace, rollouts) if rollouts else ()
    groups = groupby(traces, key=lambda trace: trace.problem_id)
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


def shuffle_key(seed: int, name: str) -> str:
    """Sorting by it shuffles, in a way that depends only on the seed and the names."""
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


class _Build:
    """One pass over problems and rollouts: its tables, counts and candidates of the subset."""

    def __init__(self, stage: Stage):
        self.stage, self.settings, self.card = stage, stage.settings, Card()
        settings, problems = self.settings, stage.inputs["problems"]
        tests = (problem for problem in read_records(Problem, problems) if problem.split == "test")
        others = (problem for file in settings.contamination.against for problem in file.questions())
        self.tests = TestQuestions(chain(tests, others), settings.contamination)
        self.held_out = held_out(read_records(Problem, problems), settings.validation_problems, stage.seed)
        self.contaminated: set[str] = set()  # ids of problems that repeat test questions
        self.repeats: dict[str, str] = {}
        if settings.near_duplicates:
            train = (problem for problem in read_records(Problem, problems) if problem.split == "train")
            self.repeats = near_duplicate_problems(train, settings.near_duplicates)
        self.subset = Subset(settings.subset, key=lambda name: shuffle_key(stage.seed, name))

    def open(self, stack: ExitStack) -> None:
        self.tables = {name: stack.enter_context(TableWriter(self.stage.output(name))) for name in TABLES}

    def problems(self) -> Iterator[tuple[Problem, list[Trace], Solved]]:
        """Every problem with its traces, and how often the weak and the strong model solved it, if they are named."""
        inputs = self.stage.inputs
        raters = {name: with_traces(inputs["problems"], inputs[name]) for name in ("weak", "strong") if name in inputs}
        for problem, traces in with_traces(inputs["problems"], inputs.get("rollouts")):
            yield problem, traces, Solved(**{name: solved(next(rater)[1]) for name, rater in raters.items()})

    def drop(self, problem_id: str, reason: str, index: int | None = None, detail: str = "") -> None:
        self.card.drops[reason] += 1
        self.tables["dropped"].add({"problem_id": problem_id, "index": index, "reason": reason, "detail": detail})

    def add(self, problem: Problem, traces: list[Trace], rated: Solved) -> None:
        settings, trains = self.settings, problem.split == "train"
        if self._left_out(problem):
            return
        rate = label.pass_rate(traces)
        labels = {"level": label.level(problem, rate), "domain": label.domain(problem), "pass_rate": rate}
        reserved = trains and self._reserved(problem)
        practised = trains and (reserved or not settings.reserve)  # gives pairs and prompts
        if practised:
            self._add_prompt(problem, labels)
        if settings.levels is not None and labels["level"] not in settings.levels:
            return self.drop(problem.id, "level is not taught", detail=f"level {labels['level']}")
        right, wrong = self._sort_out(traces)
        if practised:
            self._add_pairs(problem, right, wrong)
        if reserved:
            return self.drop(problem.id, "reserved for pairs and prompts")
        taught = self._taught(right) if trains else right[:1]
        if trains:
            self._offer(problem, taught, labels, rated)
        labels |= {"school": label.school(problem.question), "language": label.language(problem.question)}
        for trace in taught:
            row = corpus_row(problem, trace, labels)
            self.tables["corpus"].add(row)
            self.card.add(problem, row)
        indices = {trace.index for trace in taught}
        for trace in (trace for trace in right if trace.index not in indices):
            limit = "traces_per_problem" if trains else "one validation trace a problem"
            self.drop(problem.id, f"beyond {limit}", trace.index)

    def _left_out(self, problem: Problem) -> bool:
        """Drops a problem that is not held out for validation, repeats another, or is in another language."""
        languages = self.settings.languages
        if problem.split == "validation" and problem.id not in self.held_out:
            self.drop(problem.id, "beyond validation_problems")
        elif self._contaminated(problem):
            pass  # _contaminated has dropped it, with the test question
        elif problem.id in self.repeats:
            self.drop(problem.id, "near duplicate problem", detail=f"of {self.repeats[problem.id]}")
        elif languages is not None and (spoken := label.language(problem.question)) not in languages:
            self.drop(problem.id, "language is not taught", detail=spoken)
        else:
            return False
        return True

    def _contaminated(self, problem: Problem) -> bool:
        """Records a match with a test question. Drops the problem if it is contaminated, or if look-alikes go too.

        What was made of such a problem goes with it: an inverse question shares neither numbers nor long runs with the test.
        """
        match = self.tests.match(problem.question, problem.formula)
        if match is not None:
            self.card.add_match(problem, match)
            self.tables["matches"].add({"problem_id": problem.id, "question": problem.question, **asdict(match)})
            if match.contaminated or self.settings.contamination.look_alikes > 0:
                self.contaminated.add(problem.id)
                self.drop(problem.id, f"test question ({match.rule})", detail=match.test_id)
                return True
        if made := problem.origin in self.contaminated:
            self.drop(problem.id, "made of a test question", detail=problem.origin)
        return made

    def _reserved(self, problem: Problem) -> bool:
        """By hash of the original's id: what MetaMath made of a problem goes where the problem goes."""
        draw = int(shuffle_key(self.stage.seed, problem.origin or problem.id)[:12], 16) / 16**12
        return draw < self.settings.reserve

    def _sort_out(self, traces: list[Trace]) -> tuple[list[Trace], list[Trace]]:
        """The right and the wrong traces that are well formed and differ. All but the right ones are dropped."""
        right, wrong = [], []
        settings = self.settings
        for trace, first, duplicate in mark_duplicates(traces, settings.near_traces):
            if duplicate:
                self.drop(trace.problem_id, duplicate, trace.index, f"of rollout {first}")
                continue
            reason = reason_to_drop(trace, settings.max_repetition, settings.max_characters, settings.unverified)
            if not reason:
                right.append(trace)
                continue
            if reason.startswith("wrong"):
                wrong.append(trace)
            self.drop(trace.problem_id, reason, trace.index)
        return right, wrong

    def _taught(self, right: list[Trace]) -> list[Trace]:
        """The first chains of thought and the first programs, as many of each as a problem may have."""
        limit = self.settings.traces_per_problem
        thoughts, programs = _by_kind(right)
        return thoughts[:limit] + programs[:limit]

    def _offer(self, problem: Problem, taught: list[Trace], labels: dict[str, Any], rated: Solved) -> None:
        """Offers the problem to the subset, with its best argued traces."""
        if not taught:
            return
        settings = self.settings.subset
        if unfit := why_not_limo(rated, settings.solved):
            self.card.not_in_subset[unfit] += 1
            return
        best = sorted(taught, key=lambda trace: (-quality(trace.text), trace.index))
        stratum, merit = self._merit(best[0].text, labels)
        self.subset.offer(problem.id, stratum, merit, [trace.index for trace in best[: settings.traces]])

    def _merit(self, text: str, labels: dict[str, Any]) -> tuple[Stratum, float]:
        """The stratum in which a problem competes for a place in the subset, and its merit there."""
        by, well_argued = self.settings.subset.by, quality(text)
        if by == "limo":
            return ("", ""), well_argued
        if by == "diverse":
            return ("", labels["domain"]), float(len(text))
        return (str(labels["level"]), labels["domain"]), well_argued

    def _add_pairs(self, problem: Problem, right: list[Trace], wrong: list[Trace]) -> None:
        """Pairs two chains of thought, or two programs."""
        for chosen, rejected, request in zip(_by_kind(right), _by_kind(wrong), ("", PROGRAM_REQUEST), strict=True):
            for pair in make_pairs(problem, chosen, rejected, self.settings.pairs_per_problem):
                self._add_pair(replace(pair, question=pair.question + request))

    def _add_pair(self, pair: Pair) -> None:
        self.tables["pairs"].add(to_row(pair))
        self.card.add_pair(pair)

    def add_pairs_of(self, file: PairFile) -> None:
        """Ready pairs, except those that cannot be read, are malformed or have a test question."""
        limits = self.settings.max_repetition, self.settings.max_characters
        for identity, pair in file.pairs():
            if isinstance(pair, ValueError):
                reason, _, detail = str(pair).partition(": ")
                self.drop(identity, f"imported pair: {reason}", detail=detail)
            elif reason := malformed(pair.chosen, *limits) or malformed(pair.rejected, *limits):
                self.drop(identity, f"imported pair: {reason}")
            elif not self._contaminated(Problem(identity, pair.question, "")):
                self._add_pair(pair)

    def _add_prompt(self, problem: Problem, labels: dict[str, Any]) -> None:
        levels = self.settings.prompt_levels
        if labels["pass_rate"] is not None:
            self.card.pass_rates[round(labels["pass_rate"], 1)] += 1
        if not problem.answer.strip():
            self.drop(problem.id, "prompt without an answer to verify")
        elif levels is None or labels["level"] in levels:
            self.tables["prompts"].add({**to_row(problem), **labels})
            self.card.add_prompt(labels)
        else:
            self.card.not_in_prompts["its level is not among prompt_levels"] += 1

    def write_subset(self) -> None:
        chosen = self.subset.choose()  # problem id -> indices of its traces
        with TableWriter(self.stage.output("subset")) as table:
            for row in read_rows(self.stage.output("corpus")):
                if row["index"] in chosen.get(row["problem_id"], ()):
                    table.add(row)
                    self.card.subset_levels[str(row["level"])] += 1
        self.tables["subset"] = table


def _by_kind(traces: list[Trace]) -> tuple[list[Trace], list[Trace]]:
    """Chains of thought, and programs."""
    return [t for t in traces if t.augmentation != PROGRAM], [t for t in traces if t.augmentation == PROGRAM]


def corpus_row(problem: Problem, trace: Trace, labels: dict[str, Any]) -> dict[str, Any]:
    return {
        "problem_id": problem.id,
        "index": trace.index,
        "question": problem.question + (PROGRAM_REQUEST if trace.augmentation == PROGRAM else ""),
        "system": problem.system,
        "text": trace.text,
        "answer": problem.answer,
        "policy": problem.policy,
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
        "rollouts": Input(("rollouts",), optional=True, description="without them it gives prompts alone"),
        # of a weak model, whose problems are too easy, and of a strong one, which solves hard problems now and then (LIMO)
        "weak": Input(("rollouts",), optional=True, only_named=True),
        "strong": Input(("rollouts",), optional=True, only_named=True),
    },
    gives=("corpus", "subset", "pairs", "prompts"),
    reads=reads,
    check=check,
)
