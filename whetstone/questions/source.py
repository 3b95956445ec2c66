"""What a `[[stage.source]]` is. Each kind is one file in `questions/sources/`, which ends with `SOURCE = ItsClass`.

`MadeSource` is the parent of sources that make problems, `RowSource` of those that read rows. Both have the keys `train`,
`validation` and `test`: how many problems are made, or which shares of the rows go where.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pkgutil import iter_modules
from typing import Any, ClassVar, TypeAlias

from pydantic import Field, field_validator, model_validator

from whetstone.problems.files import find_files
from whetstone.problems.reading import Drop, ProblemSet, Shipped, read_problem
from whetstone.problems.row import BrokenRow, Numbered, Row
from whetstone.questions.splits import SPLITS, hash_fraction, normalise
from whetstone.records import Problem
from whetstone.run import user_file
from whetstone.run.mistakes import suggestion
from whetstone.run.names import Name
from whetstone.run.settings import Settings
from whetstone.verify.policy import get_policy

Item: TypeAlias = Problem | Shipped | Drop
PlacedItem: TypeAlias = tuple[str, int | None, Item]  # file, line
DRAWS = 5  # problems drawn for each one wanted, before the source is taken to have no more
ROUNDING = 1e-6  # of the sum of shares
MOST = 10**9  # problems of a split: each takes 16 bytes of memory


def installed(package: str) -> bool:
    return sys.modules.get(package) is not None or find_spec(package) is not None


class Source(Settings):
    """Where problems come from."""

    kind: str = Field(description='which source, or a class of your own as "file.py:MySource"')
    name: Name = Field("", description="of the source; default: by its kind")
    benchmark: Name = Field("", description="name of the problem set that its test problems are scored in")
    resample: int | None = Field(
        None,
        ge=0,
        le=10**4,
        description="variants of each of its training problems with other numbers; None: metamath.resample",
    )

    own_formulas: ClassVar[bool] = False  # whether two splits may not share a formula either

    @property
    def has_formulas(self) -> bool:
        """Whether its problems may carry formulas, which the procedural teacher explains."""
        return True

    @property
    def ships_solutions(self) -> bool:
        """Whether its problems may come with worked solutions."""
        return False

    @property
    def title(self) -> str:
        return self.name or self.kind.rpartition(":")[2]

    @property
    def splits(self) -> frozenset[str]:
        """The splits that it gives problems of."""
        raise NotImplementedError

    @property
    def files(self) -> tuple[str, ...]:
        """The local files that it reads, as the recipe writes them: its `path`, if it has one."""
        path = getattr(self, "path", "")
        return (path,) if path else ()

    def check(self) -> None:
        """Raises ValueError or FileNotFoundError for what can be seen to be wrong before the source is read."""
        for path in self.files:
            find_files(path)

    def wanted(self, split: str) -> int:
        """How many problems of a split are asked for; 0: as many as there are."""
        return 0

    def problems(self, title: str, split: str, seed: int) -> Iterator[Item]:
        """Problems, some of which may be of another split, and rows that gave none.

        Raises ValueError or FileNotFoundError for what cannot be read.
        """
        raise NotImplementedError

    def placed_problems(self, title: str, split: str, seed: int) -> Iterator[PlacedItem]:
        """What `problems` gives, with the file ("" if there is but one) and the line that it comes from, None if from none."""
        return (("", None, item) for item in self.problems(title, split, seed))

    def placed(self, problem: Problem, split: str) -> Problem:
        return replace(problem, split=split, benchmark=self.benchmark if split == "test" else "")

    @model_validator(mode="after")
    def test_problems_have_a_benchmark(self) -> "Source":
        if "test" in self.splits and not self.benchmark:
            raise ValueError(
                f'kind = "{self.kind}" gives test problems but no benchmark: scores are listed under the name of a problem '
                'set. Add benchmark = "a_name".'
            )
        return self

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> type["Source"]:
        """The class that reads a table of the recipe, by its kind. Raises ValueError, FileNotFoundError."""
        kind, known = str(table.get("kind", "")), source_kinds()
        if user_file.file_of(kind) is None:
            if kind in known:
                return known[kind]
            raise ValueError(
                f"kind = {kind!r} is no source of problems{suggestion(kind, known)} There are {', '.join(known)}, and classes "
                'of your own as "file.py:MySource"'
            )
        source = user_file.load(kind)
        if not (isinstance(source, type) and issubclass(source, Source)):
            raise ValueError(f"kind = {kind!r} is no class below whetstone.questions.source.Source")
        return source


@cache
def source_kinds() -> Mapping[str, type[Source]]:
    """The class of every kind of source: the `SOURCE` of each file in `questions/sources/`, by the file's name."""
    package = import_module("whetstone.questions.sources")
    names = [module.name for module in iter_modules(package.__path__)]
    return {name: import_module(f"{package.__name__}.{name}").SOURCE for name in names}


class SplitSource(Source):
    """A source that gives as much of each split as the recipe says."""

    train: int | float = Field(0, ge=0, le=MOST, description="training problems: how many, or their share of the rows")
    validation: int | float = Field(0, ge=0, le=MOST, description="validation problems: how many, or their share")
    test: int | float = Field(0, ge=0, le=MOST, description="test problems: how many, or their share")

    @property
    def splits(self) -> frozenset[str]:
        return frozenset(split for split in SPLITS if getattr(self, split) > 0)


class MadeSource(SplitSource):
    """Problems that a generator makes: the recipe says how many."""

    test_seed: int = Field(0, description="the test problems are the same in every run, whatever its seed")

    def draw(self, seed: int) -> Iterator[Problem]:
        """Problems without a split, a function of the seed; may be endless."""
        raise NotImplementedError

    def wanted(self, split: str) -> int:
        return int(getattr(self, split))

    def problems(self, title: str, split: str, seed: int) -> Iterator[Problem]:
        """More problems of a split than are wanted, as another split may hold some of them."""
        stream = f"test/{self.benchmark}/{self.test_seed}" if split == "test" else f"{split}/{title}/{seed}"
        number_seed = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=16).digest()[:4], "big")
        for number, problem in enumerate(islice(self.draw(number_seed), DRAWS * self.wanted(split)), 1):
            yield self.placed(replace(problem, id=f"{title}/{split}-{number}", source=title), split)

    @model_validator(mode="after")
    def makes_something(self) -> "MadeSource":
        if not self.splits:
            raise ValueError(f'kind = "{self.kind}" makes nothing: say how many problems, as in train = 2000.')
        for split in self.splits:
            if (count := getattr(self, split)) % 1:
                raise ValueError(
                    f"{split} = {count} is no number of problems. Say how many to make, as in {split} = 200."
                )
        return self


class RowSource(SplitSource):
    """Problems that are rows of a file or of a set. The hash of a question's normalised text decides its split, so that copies
    of a text stay together. Training gets what `validation` and `test` leave.
    """

    path: str = Field(
        "", description="a file, a folder of parts or a pattern (docs/your_data.md); may hold $VARIABLES, ~"
    )
    limit: int = Field(0, ge=0, description="read at most so many rows; 0: all")
    policy: str = Field("", description="the answer policy of its problems; default: the set's, or math")
    licence: str = Field("", description="kept with every problem; default: the set's")

    MOVED: ClassVar[Mapping[str, str]] = {
        "split": "train, validation and test, the shares of the rows: test = 1 for test problems only",
        "keep_together": 'gone: the texts decide. The corpus leaves out what is like a test problem, with "contamination"',
    }

    @property
    def layout(self) -> ProblemSet:
        raise NotImplementedError

    def rows(self) -> Iterator[Numbered]:
        """The rows with their lines."""
        raise NotImplementedError

    def placed_rows(self) -> Iterator[tuple[str, int, Row | BrokenRow]]:
        """The rows with their file, "" if there is but one, and their line in it."""
        return (("", line, row) for line, row in self.rows())

    @property
    def splits(self) -> frozenset[str]:
        return super().splits | ({"train"} if self._train_gets_some else set())

    def problems(self, title: str, split: str, seed: int) -> Iterator[Item]:
        """Every row, whatever its split; rows are read one after the other."""
        return (item for _, _, item in self.placed_problems(title, split, seed))

    def placed_problems(self, title: str, split: str, seed: int) -> Iterator[PlacedItem]:
        layout = self.layout
        for file, line, row in islice(self.placed_rows(), self.limit or None):
            item = read_problem(row, line, layout, title, file=file)
            if isinstance(item, Shipped):
                item = replace(item, problem=self._finished(item.problem))
            yield file, line, self._finished(item) if isinstance(item, Problem) else item

    def _finished(self, problem: Problem) -> Problem:
        """The problem in its split, with what the recipe says of the source."""
        policy, licence = self.policy or problem.policy, self.licence or problem.licence
        return self.placed(replace(problem, policy=policy, licence=licence), self._split_of(problem.question))

    def _split_of(self, question: str) -> str:
        place = hash_fraction(normalise(question))
        if place < self.test:
            return "test"
        return "validation" if place < self.test + self.validation or not self._train_gets_some else "train"

    @property
    def _train_gets_some(self) -> bool:
        return self.validation + self.test < 1 - ROUNDING

    @field_validator("policy")
    @classmethod
    def policy_is_known(cls, policy: str) -> str:
        return get_policy(policy).name if policy else ""

    @model_validator(mode="after")
    def shares_sum_to_one(self) -> "RowSource":
        total = self.train + self.validation + self.test
        if total > 1 + ROUNDING or (self.train and total < 1 - ROUNDING):
            raise ValueError(
                f"train = {self.train}, validation = {self.validation} and test = {self.test} sum to {total:g}: they are "
                "shares, and every row goes into one split. Let them sum to 1, or leave out train, which gets the rest."
            )
        return self
