"""The stage `questions`: every source of the recipe becomes one table of problems in which no question occurs twice.

Splits never share a question, compared as normalised text. Sources are walked three times, first for test problems, then for
validation, then for training, and a repeated text is dropped: what the student is scored on decides what it may train on.
What MetaMath makes (from training problems only) comes last and yields to all others.

Worked solutions that published sets ship go to `traces`, unverified: the rollouts stage verifies them.
Whatever is left out is in `dropped/` with its reason. The tables depend on the settings, the files and the seed alone.
Memory: 16 bytes of hash for every question, and the training problems that MetaMath works on, with their solutions.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator

from whetstone.decode.server_generator import ServerGenerator
from whetstone.problems.files import read_paths
from whetstone.problems.published import is_non_commercial
from whetstone.problems.reading import Drop, Shipped
from whetstone.questions.metamath import MetamathSettings, augment
from whetstone.questions.register import Dropped, Register, ShippedTraces, refusal
from whetstone.questions.rephrase import rephrased
from whetstone.questions.source import Source, source_kinds
from whetstone.questions.splits import SPLITS
from whetstone.records import Problem, Sampling
from whetstone.run import user_file
from whetstone.run.folder import Stage
from whetstone.run.progress import say
from whetstone.run.room import Estimate, Room
from whetstone.run.settings import Registered, StageSettings
from whetstone.run.tables import TableWriter, write_records

METAMATH = "metamath"  # the row of what MetaMath made in the summary; no source may have this title


def _by_kind(table: Any) -> Any:
    return Source.of(table).model_validate(table) if isinstance(table, dict) else table


AnySource: TypeAlias = Annotated[SerializeAsAny[Source], BeforeValidator(_by_kind), Registered("kind", source_kinds)]


class Settings(StageSettings):
    """The stage `questions`."""

    source: tuple[AnySource, ...] = Field(description="where problems come from; an earlier one wins over a later")
    exclude_non_commercial: bool = Field(False, description="leave out problems whose licence forbids commercial use")
    metamath: MetamathSettings = Field(MetamathSettings(), description="new training problems made of others")

    @field_validator("source")
    @classmethod
    def there_is_a_source(cls, source: tuple[Source, ...]) -> tuple[Source, ...]:
        if not source:
            raise ValueError('no problems without a source. Add a [[stage.source]] with kind = "procedural" or "file"')
        return source


def reads(settings: Settings) -> list[Path]:
    """The files that the stage's result depends on. Raises ValueError for a path with a variable that is not set."""
    own_kinds = (user_file.file_of(source.kind) for source in settings.source)
    return [*(file for path in _files(settings) for file in read_paths(path)), *(file for file in own_kinds if file)]


def check(settings: Settings) -> None:
    """Before any stage runs. Raises ValueError or FileNotFoundError for a source that cannot give anything here."""
    for source in settings.source:
        source.check()


def benchmarks(settings: Settings) -> list[str]:
    """The problem sets of its test problems, in order."""
    return [source.benchmark for source in settings.source if "test" in source.splits]


def plan(stage: Stage) -> Estimate:
    """What can be said before anything is read."""
    made = sum(source.wanted(split) for source in stage.settings.source for split in SPLITS)
    files = ", ".join(str(path) for path in reads(stage.settings))
    return Estimate(({"procedural problems": f"{made:,}"} if made else {}) | ({"files": files} if files else {}))


def run(stage: Stage) -> dict[str, Any]:
    """Writes `problems`, `traces` and `dropped`; returns the counts.

    Raises ValueError or FileNotFoundError for a source that cannot be read, ValueError if no problem is left.
    """
    check(stage.settings)  # all sources now, rather than the last one after the work on the others
    with TableWriter(stage.output("dropped")) as dropped_rows, TableWriter(stage.output("traces")) as traces:
        dropped = Dropped(dropped_rows)
        gathering = Gathering(stage, dropped, ShippedTraces(traces))
        total = write_records(stage.output("problems"), gathering.problems())
    if not total:
        raise ValueError(f"stage {stage.name} found no problem: {_why_none(dropped, stage.output('dropped'))}")
    summary = gathering.summary() | ({"traces": traces.total} if traces.total else {})
    _say_summary(summary)
    return summary


def _why_none(dropped: Dropped, table: Path) -> str:
    """The commonest reasons why rows were dropped, and what to do."""
    if not dropped.reasons:
        return "its sources hold no row. Name files with rows in them in the recipe."
    reasons = ", ".join(f"{reason} ({count})" for reason, count in dropped.reasons.most_common(3))
    total = dropped.reasons.total()
    return f"{total} rows were dropped: {reasons}. Look at them in {table} and mend the sources in the recipe."


def _files(settings: Settings) -> list[str]:
    return [path for source in settings.source for path in source.files]


class Gathering:
    """One walk over the sources, and the counts of what stayed and what was left out."""

    def __init__(self, stage: Stage, dropped: Dropped, traces: ShippedTraces):
        self.stage, self.settings = stage, stage.settings
        self.dropped, self.traces = dropped, traces
        self.sources = _titled(self.settings.source)
        self.register = Register(frozenset(title for title, s in self.sources.items() if s.own_formulas))
        self.counts = Counter[tuple[str, str]]()  # (source, split) or (METAMATH, augmentation) -> problems
        self._rules = {title: self._rules_of(source) for title, source in self.sources.items()}
        self._computed: list[tuple[Shipped, MetamathSettings]] = []  # whose formula or equations are known; its rules
        self._to_rephrase: list[Problem] = []

    def problems(self) -> Iterator[Problem]:
        """Every problem that stays, one after the other; what is left out goes to `dropped` on the way."""
        reported: set[str] = set()  # sources whose bad rows are dropped already: files are read once for each split
        for split in SPLITS:
            for title, source in self.sources.items():
                if split in source.splits:
                    yield from self._from_source(source, title, split, report=title not in reported)
                    reported.add(title)
        yield from self._augmented()

    def _from_source(self, source: Source, title: str, split: str, report: bool) -> Iterator[Problem]:
        for file, line, item in source.placed_problems(title, split, self.stage.seed):
            if isinstance(item, Drop):
                if report:
                    self.dropped.add(item)
                continue
            problem, solutions = (item.problem, item.traces) if isinstance(item, Shipped) else (item, ())
            if problem.split != split:
                continue
            drop = self._non_commercial(problem) or self.register.admit(problem)
            if drop:
                self.dropped.add(replace(self.traces.kept_of(drop, problem, solutions), file=file, line=line))
                continue
            self.counts[title, split] += 1
            yield problem
            if solutions:
                self.traces.add(problem, solutions)
            if split == "train":
                self._remember(self._rules[title], problem, solutions)
            if self.counts[title, split] == source.wanted(split):
                return

    def _rules_of(self, source: Source) -> MetamathSettings:
        own = {} if source.resample is None else {"resample": source.resample}
        return self.settings.metamath.model_copy(update=own)

    def _remember(self, rules: MetamathSettings, problem: Problem, solutions: tuple[str, ...]) -> None:
        by_rule = rules.resample or rules.fobar or rules.self_verification
        if by_rule and (problem.formula or problem.equations):
            self._computed.append((Shipped(problem, solutions), rules))
        if rules.rephrase:
            self._to_rephrase.append(problem)

    def _non_commercial(self, problem: Problem) -> Drop | None:
        if self.settings.exclude_non_commercial and is_non_commercial(problem.licence):
            return refusal(problem, "licence forbids commercial use", problem.licence)
        return None

    def _augmented(self) -> Iterator[Problem]:
        seed = self.stage.seed
        by_rules = (new for one, rules in self._computed for new in augment(one.problem, rules, seed, one.traces))
        by_model = (("rephrased", new) for new in self._rephrased())
        for augmentation, item in chain(by_rules, by_model):
            new, solutions = (item.problem, item.traces) if isinstance(item, Shipped) else (item, ())
            drop = new if isinstance(new, Drop) else self.register.admit(new)
            if drop:
                self.dropped.add(drop)
                continue
            self.counts[METAMATH, augmentation] += 1
            yield new
            if solutions:
                self.traces.add(new, solutions)

    def _rephrased(self) -> Iterator[Problem | Drop]:
        if not self._to_rephrase:
            return
        model, count = self.settings.metamath.model, self.settings.metamath.rephrase
        sampling = Sampling(model.temperature, model.max_tokens, top_p=model.top_p, seed=self.stage.seed)
        journal = self.stage.folder / "rephrased.jsonl"
        yield from rephrased(self._to_rephrase, ServerGenerator(model), count, sampling, journal)

    def summary(self) -> dict[str, Any]:
        counts, sources = self.counts, self.sources
        short = [
            f"{title} gave {counts[title, split]} of {source.wanted(split)} {split} problems: it has no more that another "
            "split does not hold"
            for title, source in sources.items()
            for split in SPLITS
            if counts[title, split] < source.wanted(split)
        ]
        benchmarks = Counter[str]()
        for title, source in sources.items():
            if "test" in source.splits:
                benchmarks[source.benchmark] += counts[title, "test"]
        by_source = {t: {split: counts[t, split] for split in SPLITS if split in s.splits} for t, s in sources.items()}
        augmented = {augmentation: count for (title, augmentation), count in counts.items() if title == METAMATH}
        by_split = {split: sum(counts[title, split] for title in sources) for split in reversed(SPLITS)}
        by_split["train"] += sum(augmented.values())
        return {
            "problems": sum(by_split.values()),
            **by_split,
            "benchmarks": dict(benchmarks),
            "sources": by_source,
            "augmented": augmented,
            "dropped": self.dropped.reasons.total(),
            "reasons": dict(self.dropped.reasons.most_common()),
            "short": short,
        }


def _titled(sources: tuple[Source, ...]) -> Mapping[str, Source]:
    """Every source under a title of its own; the second of a title is `title-2`, so that ids stay apart."""
    titled: dict[str, Source] = {}
    for source in sources:
        title, n = source.title, 1
        while title in titled or title == METAMATH:
            n += 1
            title = f"{source.title}-{n}"
        titled[title] = source
    return titled


def _say_summary(summary: dict[str, Any]) -> None:
    rows = {**summary["sources"], **({METAMATH: summary["augmented"]} if summary["augmented"] else {})}
    width = max(map(len, [*rows, "left out"]))
    for title, counts in rows.items():
        say(f"   {title:<{width}}" + "".join(f"{count:>9,} {name}" for name, count in counts.items()))
    say(f"   {'left out':<{width}}{summary['dropped']:>9,}")
    for reason, count in summary["reasons"].items():
        say(f"   {'':<{width}}{count:>9,} {reason}")
    for line in summary["short"]:
        say(f"   warning: {line}")


ROOM = Room(
    settings=Settings,
    run=run,
    plan=plan,
    gives=("problems", "traces"),
    reads=reads,
    check=check,
    benchmarks=benchmarks,
)
