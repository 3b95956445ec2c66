"""What a `[[stage.source]]` is. Each kind is one file in `questions/sources/`, which ends with `SOURCE = ItsClass`.

    class EvenNumbers(MadeSource):
        \"\"\"Which number is even?\"\"\"

        def draw(self, seed: int) -> Iterator[Problem]:
            ...                                          # endless: the stage takes as many as the recipe asks for

    [[stage.source]]
    kind = "my_source.py:EvenNumbers"                    # a user's own, from a file of the user's
    train = 100

`MadeSource` is the parent of sources that make problems, `RowSource` of those that read rows.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from itertools import islice
from pkgutil import iter_modules
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from whetstone.problems.reading import Drop, Layout, Shipped, read_problem
from whetstone.problems.table import Numbered
from whetstone.questions.splits import SPLITS, Shares, Split, normalise, split_by_hash, splits_of, template
from whetstone.records import Problem
from whetstone.run import user_file
from whetstone.run.mistakes import suggestion
from whetstone.run.settings import Settings

Item: TypeAlias = Problem | Shipped | Drop
DRAWS = 5  # problems drawn for each one wanted, before the source is taken to have no more


class Source(Settings):
    """Where problems come from."""

    kind: str = Field(description='which source, or a class of your own as "file.py:MySource"')
    name: str = Field("", description="of the source; default: by its kind")
    benchmark: str = Field("", description="name of the problem set that its test problems are scored in")

    own_formulas: ClassVar[bool] = False  # whether two splits may not share a formula either

    @property
    def title(self) -> str:
        return self.name or self.kind.rpartition(":")[2]

    @property
    def splits(self) -> frozenset[str]:
        """The splits that it gives problems of."""
        raise NotImplementedError

    @property
    def files(self) -> tuple[str, ...]:
        """The local files that it reads, as the recipe writes them."""
        return ()

    def wanted(self, split: str) -> int:
        """How many problems of a split are asked for; 0: as many as there are."""
        return 0

    @property
    def supply(self) -> str:
        """What may give too few problems, in words: "level 1 has"."""
        return f"{self.title} has"

    def problems(self, title: str, split: str, seed: int) -> Iterator[Item]:
        """Problems, some of which may be of another split, and rows that gave none.

        Raises ValueError or FileNotFoundError for what cannot be read.
        """
        raise NotImplementedError

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


class MadeSource(Source):
    """Problems that a generator makes: the recipe says how many."""

    train: int = Field(0, ge=0, description="training problems")
    validation: int = Field(0, ge=0, description="validation problems")
    test: int = Field(0, ge=0, description="test problems")
    test_seed: int = Field(0, description="the test problems are the same in every run, whatever its seed")

    def draw(self, seed: int) -> Iterator[Problem]:
        """Problems without a split, a function of the seed; may be endless."""
        raise NotImplementedError

    @property
    def splits(self) -> frozenset[str]:
        return frozenset(split for split in SPLITS if getattr(self, split) > 0)

    def wanted(self, split: str) -> int:
        return getattr(self, split)

    def problems(self, title: str, split: str, seed: int) -> Iterator[Problem]:
        """More problems of a split than are wanted, as another split may hold some of them."""
        stream = f"test/{self.benchmark}/{self.test_seed}" if split == "test" else f"{split}/{title}/{seed}"
        number_seed = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=16).digest()[:4], "big")
        for number, problem in enumerate(islice(self.draw(number_seed), DRAWS * self.wanted(split)), 1):
            benchmark = self.benchmark if split == "test" else ""
            yield replace(problem, id=f"{title}/{split}-{number}", split=split, benchmark=benchmark, source=title)

    @model_validator(mode="after")
    def makes_something(self) -> "MadeSource":
        if not self.splits:
            raise ValueError(f'kind = "{self.kind}" makes nothing: say how many problems, as in train = 2000.')
        return self


class RowSource(Source):
    """Problems that are rows of a file or of a set: each goes into a split as the recipe says."""

    path: str = Field(
        "", description="a .jsonl, .json, .csv, .tsv (also .gz) or .parquet file; may contain $VARIABLES and ~"
    )
    limit: int = Field(0, ge=0, description="read at most so many rows; 0: all")
    split: Split | Shares = Field("train", description="where its problems go: one split, or shares")
    keep_together: Literal["text", "template"] = Field(
        "text", description="template: texts that differ only in their numbers share a split"
    )
    policy: str = Field("", description="the answer policy of its problems; default: the set's, or math")
    licence: str = Field("", description="kept with every problem; default: the set's")

    @property
    def layout(self) -> Layout:
        raise NotImplementedError

    def rows(self) -> Iterator[Numbered]:
        raise NotImplementedError

    @property
    def keeps_traces(self) -> bool:
        return False

    @property
    def splits(self) -> frozenset[str]:
        return splits_of(self.split)

    @property
    def files(self) -> tuple[str, ...]:
        return (self.path,) if self.path else ()

    def problems(self, title: str, split: str, seed: int) -> Iterator[Item]:
        """Every row, whatever its split; rows are read one after the other."""
        layout = self.layout
        for line, row in islice(self.rows(), self.limit or None):
            item = read_problem(row, line, layout, title, self.keeps_traces)
            if isinstance(item, Shipped):
                yield replace(item, problem=self._placed(item.problem))
            else:
                yield item if isinstance(item, Drop) else self._placed(item)

    def _placed(self, problem: Problem) -> Problem:
        key = template(problem.question) if self.keep_together == "template" else normalise(problem.question)
        split = self.split if isinstance(self.split, str) else split_by_hash(key, self.split)
        return replace(
            problem,
            split=split,
            benchmark=self.benchmark if split == "test" else "",
            licence=self.licence or problem.licence,
            policy=self.policy or problem.policy,
        )

    @field_validator("split", mode="before")
    @classmethod
    def split_is_a_name_or_shares(cls, split: Any) -> Any:
        if isinstance(split, dict | Shares) or split in SPLITS:
            return split
        raise ValueError(
            f"it is neither a split ({', '.join(SPLITS)}) nor the shares of all three, as in "
            "split = { train = 0.8, validation = 0.1, test = 0.1 }"
        )
