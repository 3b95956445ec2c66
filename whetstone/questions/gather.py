"""The stage `questions`: every source of the recipe becomes one table of problems in which no question occurs twice.

    [[stage]]
    kind = "questions"
    [[stage.source]]
    kind = "procedural"                      # made here, endless
    families = ["chain", "equation", "word"]
    level = 3
    train = 2000
    test = 200
    benchmark = "three_operations"
    [[stage.source]]
    kind = "file"                            # .jsonl, .json, .csv (also .gz) or .parquet
    path = "my_problems.jsonl"
    [[stage.source]]
    kind = "published"                       # a known set with its licence, answer policy and worked solutions
    set = "gsm8k"
    path = "$WHETSTONE_DATA/gsm8k/train.jsonl.gz"
    [stage.metamath]
    resample = 5

Splits never share a question, compared as normalised text: sources are walked three times, first for test problems,
then for validation, then for training, and a text that was seen before is dropped, so that what the student is scored
on decides what it may train on. What MetaMath makes (from training problems only) comes last and yields to all others.

Worked solutions that published sets ship lie in `traces`, not yet verified: that is the rollouts stage's matter.
Whatever is left out is in `dropped/` with its reason. The tables depend on the settings, the files and the seed alone.
Memory: 16 bytes of hash for every question, and the training problems that MetaMath works on.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from difflib import get_close_matches
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from whetstone.decode.server_generator import ServerGenerator
from whetstone.questions import gym, procedural
from whetstone.questions.asdiv import AsdivSource, read_asdiv
from whetstone.questions.gym import GymSource
from whetstone.questions.layouts import is_non_commercial
from whetstone.questions.metamath import MetamathSettings, augment
from whetstone.questions.published import PublishedSource, Shipped, read_published
from whetstone.questions.rephrase import rephrased
from whetstone.questions.sources import (
    SPLITS,
    Drop,
    FileSource,
    excerpt,
    normalise,
    read_file,
    require_benchmark,
)
from whetstone.records import Problem, Sampling, Trace, to_row
from whetstone.run.folder import Stage
from whetstone.run.room import Estimate, Room
from whetstone.run.settings import Settings as Table
from whetstone.run.settings import StageSettings
from whetstone.run.tables import TableWriter, expand_path, find_file, write_records, write_rows

DRAWS = 5  # procedural problems drawn for each one wanted, before the source is taken to have no more


class ProceduralSource(Table):
    """Problems made by our own generators."""

    kind: Literal["procedural"]
    families: tuple[str, ...] = ("chain", "equation", "word")  # in turn
    level: int = Field(default=3, ge=1)  # operations in one problem
    digits: tuple[int, int] = (1, 3)  # fewest and most digits of an operand
    operators: str = "+-"  # which of + - * stand in chains
    train: int = Field(default=0, ge=0)  # how many
    validation: int = Field(default=0, ge=0)  # how many
    test: int = Field(default=0, ge=0)  # how many
    benchmark: str = ""  # name of the problem set that the test problems are scored in
    name: str = ""  # of the source; default: procedural and the level
    test_seed: int = 0  # the test problems are the same in every run, whatever its seed

    @property
    def title(self) -> str:
        return self.name or f"procedural-{self.level}"

    @property
    def splits(self) -> frozenset[str]:
        return frozenset(split for split in SPLITS if getattr(self, split) > 0)

    @model_validator(mode="after")
    def can_be_made(self) -> "ProceduralSource":
        require_benchmark(self.test > 0, self.benchmark, 'kind = "procedural"')
        for family in self.families:
            if family not in procedural.FAMILIES:
                near = get_close_matches(family, procedural.FAMILIES, n=1)
                meant = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"family {family!r} is unknown: there are {', '.join(procedural.FAMILIES)}.{meant}")
        if not self.families or not self.splits:
            raise ValueError(
                "this procedural source makes nothing: name families and say how many problems, as in train = 2000."
            )
        fewest, most = self.digits
        if not 1 <= fewest <= most:
            raise ValueError(f"digits = [{fewest}, {most}]: fewest and most digits of an operand, as in [1, 3].")
        return self


AnySource: TypeAlias = ProceduralSource | FileSource | PublishedSource | AsdivSource | GymSource
Source: TypeAlias = Annotated[AnySource, Field(discriminator="kind")]
Named: TypeAlias = dict[str, AnySource]


class Settings(StageSettings):
    """The stage `questions`."""

    source: tuple[Source, ...]  # where problems come from; an earlier one wins over a later
    exclude_non_commercial: bool = False  # leave out problems whose licence forbids commercial use
    metamath: MetamathSettings = MetamathSettings()  # new training problems out of those that have a formula

    @field_validator("source")
    @classmethod
    def there_is_a_source(cls, source: tuple[Source, ...]) -> tuple[Source, ...]:
        if not source:
            raise ValueError('no problems without a source. Add a [[stage.source]] with kind = "procedural" or "file"')
        return source


def reads(settings: Settings) -> list[Path]:
    """The files that the stage's result depends on. Raises ValueError for a path with a variable that is not set."""
    return [expand_path(path) for path in _files(settings)]


def plan(stage: Stage) -> Estimate:
    """What can be said before anything is read."""
    made = sum(source.train + source.validation + source.test for source in stage.settings.source if _is_made(source))
    files = ", ".join(str(path) for path in reads(stage.settings))
    return Estimate(({"procedural problems": f"{made:,}"} if made else {}) | ({"files": files} if files else {}))


def run(stage: Stage) -> dict[str, Any]:
    """Writes `problems` and `dropped`; returns the counts.

    Raises ValueError or FileNotFoundError for a source that cannot be read, ValueError where no problem is left.
    """
    settings = stage.settings
    assert isinstance(settings, Settings), f"the stage {stage.name} was given {type(settings).__name__}"
    named = _named(settings.source)
    for path in _files(settings):
        find_file(path)  # all of them now, rather than the last one after the work on the others
    counts = Counter[tuple[str, str]]()  # (source, split) or ("metamath", augmentation) -> problems
    with Dropped(stage.output("dropped")) as dropped, TableWriter(stage.output("traces")) as traces:
        shipped, rephrase = ShippedTraces(traces), partial(_rephrase, stage)
        gathered = _gathered(settings, named, stage.seed, counts, dropped, shipped, rephrase)
        total = write_records(stage.output("problems"), gathered)
    if not total:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in dropped.reasons.most_common(3))
        raise ValueError(
            f"stage {stage.name} found no problem: {dropped.reasons.total()} rows were dropped"
            f"{': ' + reasons if reasons else ', the sources are empty'}. Look at them in {stage.output('dropped')} "
            "and mend the sources in the recipe."
        )
    summary = _summary(named, counts, dropped.reasons) | ({"traces": traces.total} if traces.total else {})
    _say(summary)
    return summary


def _rephrase(stage: Stage, problems: list[Problem]) -> Iterator[Problem | Drop]:
    settings = stage.settings.metamath
    generator = ServerGenerator(settings.model)
    sampling = Sampling(
        settings.model.temperature, settings.model.max_tokens, top_p=settings.model.top_p, seed=stage.seed
    )
    yield from rephrased(problems, generator, settings.rephrase, sampling, stage.folder / "rephrased.jsonl")


def _summary(named: Named, counts: Counter[tuple[str, str]], reasons: Counter[str]) -> dict[str, Any]:
    short = [
        f"{title} gave {counts[title, split]} of {getattr(source, split)} {split} problems: {_bounds(source)} no more that "
        "another split does not hold"
        for title, source in named.items()
        if _is_made(source)
        for split in SPLITS
        if counts[title, split] < getattr(source, split)
    ]
    benchmarks = Counter[str]()
    for title, source in named.items():
        if "test" in source.splits:
            benchmarks[source.benchmark] += counts[title, "test"]
    made = {augmentation: count for (title, augmentation), count in counts.items() if title == "metamath"}
    by_split = {split: sum(counts[title, split] for title in named) for split in reversed(SPLITS)}
    by_split["train"] += sum(made.values())
    return {
        "problems": sum(by_split.values()),
        **by_split,
        "benchmarks": dict(benchmarks),
        "sources": {
            title: {split: counts[title, split] for split in SPLITS if split in s.splits} for title, s in named.items()
        },
        "augmented": made,
        "dropped": reasons.total(),
        "reasons": dict(reasons.most_common()),
        "short": short,
    }


def _say(summary: dict[str, Any]) -> None:
    rows = {**summary["sources"], **({"metamath": summary["augmented"]} if summary["augmented"] else {})}
    width = max(map(len, [*rows, "left out"]))
    for title, made in rows.items():
        print(f"{title:<{width}}" + "".join(f"{count:>9,} {name}" for name, count in made.items()))
    print(f"{'left out':<{width}}{summary['dropped']:>9,}")
    for reason, count in summary["reasons"].items():
        print(f"{'':<{width}}{count:>9,} {reason}")
    for line in summary["short"]:
        print(line)


def _named(sources: tuple[Source, ...]) -> Named:
    """Every source under a name of its own; the second of a name is `name-2`, so that ids stay apart."""
    named: Named = {}
    for source in sources:
        title, n = source.title, 1
        while title in named or title == "metamath":  # metamath is a row of its own in the summary
            n += 1
            title = f"{source.title}-{n}"
        named[title] = source
    return named


def _is_made(source: AnySource) -> bool:
    return isinstance(source, ProceduralSource | GymSource)


def _bounds(source: ProceduralSource | GymSource) -> str:
    if isinstance(source, ProceduralSource):
        return f"level {source.level} with digits {list(source.digits)} has"
    return f"{', '.join(source.tasks)} have"


def _files(settings: Settings) -> list[str]:
    """The paths of the local files, as the recipe writes them."""
    return [source.path for source in settings.source if not _is_made(source) and source.path]


class Dropped:
    """What is left out, written as it comes and made a table at the end."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lines = folder / "dropped.jsonl.part"
        self.reasons = Counter[str]()

    def __enter__(self) -> "Dropped":
        self._out = self.lines.open("w", encoding="utf-8")
        return self

    def add(self, drop: Drop) -> None:
        self.reasons[drop.reason] += 1
        self._out.write(json.dumps(asdict(drop), ensure_ascii=False) + "\n")

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        self._out.close()
        if not failed:
            with self.lines.open(encoding="utf-8") as lines:
                write_rows(self.folder, map(json.loads, lines))
        self.lines.unlink()


class Register:
    """Which questions and ids are taken, and by which split.

    Procedural problems of two splits do not share their sum either: "Compute 12 + 3." and "What is 12 + 3?" are one.
    """

    def __init__(self, procedural_titles: frozenset[str] = frozenset()) -> None:
        self._procedural_titles = procedural_titles
        self._splits: dict[bytes, str] = {}  # of a text, or of a domain and a sum
        self._ids: set[bytes] = set()

    def admit(self, problem: Problem) -> Drop | None:
        """Take the problem's place, or say why it has none."""
        key, identity = _digest(normalise(problem.question)), _digest(problem.id)
        if key in self._splits:
            holder = self._splits[key]
            if holder == problem.split:
                return self._drop(problem, "duplicate question")
            return self._drop(problem, f"question is in the {holder} split", f"it would have been {problem.split}")
        if identity in self._ids:
            return self._drop(problem, "duplicate id", "another question has this id")
        if problem.source in self._procedural_titles:
            same_sum = _digest(f"{problem.domain}\0{problem.formula}")
            holder = self._splits.setdefault(same_sum, problem.split)
            if holder != problem.split:
                return self._drop(problem, f"question is in the {holder} split", "in other words")
        self._splits[key] = problem.split
        self._ids.add(identity)
        return None

    @staticmethod
    def _drop(problem: Problem, reason: str, detail: str = "") -> Drop:
        return Drop(problem.source, None, problem.id, reason, detail, excerpt(problem.question))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class ShippedTraces:
    """The worked solutions of published sets, one row each; a repeated question adds its solutions to the first one's.

    They lie in the order in which they are found, which need not be that of the problems. Memory: a hash and an id for
    every problem that has some.
    """

    def __init__(self, table: TableWriter):
        self.table = table
        self._holders: dict[bytes, tuple[str, int]] = {}  # question -> problem id and how many traces it has

    def add(self, problem: Problem, texts: Sequence[str]) -> None:
        """The traces of a problem that was admitted."""
        self._write(_digest(normalise(problem.question)), problem.id, 0, texts, problem.source)

    def add_to_first(self, repeated: Problem, texts: Sequence[str]) -> bool:
        """The traces of a row whose question is there already; False where that one ships none itself."""
        key = _digest(normalise(repeated.question))
        if key not in self._holders:
            return False
        self._write(key, *self._holders[key], texts, repeated.source)
        return True

    def _write(self, key: bytes, problem_id: str, first: int, texts: Sequence[str], teacher: str) -> None:
        for index, text in enumerate(texts, first):
            self.table.add(to_row(Trace(problem_id, index, text, teacher)))
        self._holders[key] = problem_id, first + len(texts)


def _gathered(
    settings: Settings,
    named: Named,
    seed: int,
    counts: Counter[tuple[str, str]],
    dropped: Dropped,
    traces: ShippedTraces,
    rephrase: Callable[[list[Problem]], Iterator[Problem | Drop]],
) -> Iterator[Problem]:
    """Every problem that stays, as it is found; `counts`, `dropped` and `traces` are filled on the way."""
    register = Register(frozenset(title for title, source in named.items() if isinstance(source, ProceduralSource)))
    with_formula: list[Problem] = []
    to_rephrase: list[Problem] = []
    asdiv = {title: tuple(read_asdiv(s, title)) for title, s in named.items() if isinstance(s, AsdivSource)}  # 2,305
    reported: set[str] = set()  # sources whose bad rows are in `dropped` already: files are read once for each split
    for split in SPLITS:
        for title, source in named.items():
            if split not in source.splits:
                continue
            for item in asdiv.get(title) or _read(source, title, split, seed):
                if isinstance(item, Drop):
                    if title not in reported:
                        dropped.add(item)
                    continue
                problem, texts = (item.problem, item.traces) if isinstance(item, Shipped) else (item, ())
                if problem.split != split:
                    continue
                left_out = _unwanted(problem, settings) or register.admit(problem)
                if left_out:
                    if left_out.reason == "duplicate question" and texts and traces.add_to_first(problem, texts):
                        left_out = replace(left_out, detail="its worked solutions are kept")
                    dropped.add(left_out)
                    continue
                counts[title, split] += 1
                yield problem
                if texts:
                    traces.add(problem, texts)
                if split == "train" and settings.metamath.on and problem.formula:
                    with_formula.append(problem)
                if split == "train" and settings.metamath.rephrase:
                    to_rephrase.append(problem)
                if _is_made(source) and counts[title, split] == getattr(source, split):
                    break
            reported.add(title)
    by_rules = (found for original in with_formula for found in augment(original, settings.metamath, seed))
    by_model = (("rephrased", found) for found in rephrase(to_rephrase)) if to_rephrase else ()
    for augmentation, made in chain(by_rules, by_model):
        left_out = made if isinstance(made, Drop) else register.admit(made)
        if left_out:
            dropped.add(left_out)
        else:
            counts["metamath", augmentation] += 1
            yield made


def _unwanted(problem: Problem, settings: Settings) -> Drop | None:
    if settings.exclude_non_commercial and is_non_commercial(problem.licence):
        reason = "licence forbids commercial use"
        return Drop(problem.source, None, problem.id, reason, problem.licence, excerpt(problem.question))
    return None


def _read(source: AnySource, title: str, split: str, seed: int) -> Iterator[Problem | Shipped | Drop]:
    if isinstance(source, FileSource):
        return read_file(source, title)
    if isinstance(source, PublishedSource):
        return read_published(source, title)
    return _made(source, title, split, seed)


def _made(source: ProceduralSource | GymSource, title: str, split: str, seed: int) -> Iterator[Problem]:
    """Distinct problems of one split, more than are wanted, as another split may hold some of them."""
    stream = f"test/{source.benchmark}/{source.test_seed}" if split == "test" else f"{split}/{title}/{seed}"
    number_seed, wanted = int.from_bytes(_digest(stream)[:4], "big"), DRAWS * getattr(source, split)
    if isinstance(source, GymSource):
        drawn: Iterable[Problem] = islice(gym.generate(source, number_seed), wanted)
    else:
        drawn = procedural.generate(source.families, source.level, wanted, number_seed, source.digits, source.operators)
    for number, problem in enumerate(drawn, 1):
        yield replace(
            problem,
            id=f"{title}/{split}-{number}",
            split=split,
            benchmark=source.benchmark if split == "test" else "",
            source=title,
        )


ROOM = Room(settings=Settings, run=run, plan=plan, gives=("problems", "traces"), reads=reads)
