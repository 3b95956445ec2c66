"""Published sets, read from a local file or from the Hugging Face Hub as `whetstone/problems/sets/` describes them.

Licence and answer policy are the set's. Worked solutions that it ships become traces, which the rollouts stage verifies
instead of asking a teacher. What was made for scoring is refused as training data unless the recipe says so in words.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from glob import has_magic
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from whetstone.problems.files import find_files
from whetstone.problems.formulas import searched_formula
from whetstone.problems.published import ProblemSet
from whetstone.problems.row import BrokenRow, Numbered, Row
from whetstone.problems.sets import find_set
from whetstone.problems.table import read_tables
from whetstone.questions.source import RowSource, installed
from whetstone.records import Problem
from whetstone.run import user_file
from whetstone.run.mistakes import install_hint

WORDS = "scores on this set will mean nothing"  # what a recipe must say to train on an evaluation set
NO_HUB = (
    f'set = "{{set}}" without a path is read from the Hub, which needs `datasets`: {install_hint("hub")}\n'
    'or fetch the file yourself and say path = "…".'
)


class PublishedSource(RowSource):
    """A published set whose layout is known, from a local file or the Hub."""

    set: str = Field(description='which set: gsm8k, math, openr1_math, chat, …; or one of your own as "file.py:MY_SET"')
    part: str = Field("train", description='of the set on the Hub: "test", or "geometry/test" with a configuration')
    hub: str = Field("", description="name on the Hub; default: where the set is known to be")
    traces: bool = Field(True, description="keep the worked solutions that the set ships")
    search_formula: bool = Field(
        False, description="if there is none: the only one that gives the answer of the numbers"
    )
    evaluation_as_training: str = Field("", description=f'to train on a set made for scoring, say "{WORDS}"')

    MOVED: ClassVar[Mapping[str, str]] = {
        **RowSource.MOVED,
        "configuration": 'in front of part, as in part = "geometry/train"',
    }

    @property
    def title(self) -> str:
        return self.name or self.set.rpartition(":")[2]

    @property
    def layout(self) -> ProblemSet:
        described = find_set(self.set)
        described = replace(described, hub=self.hub) if self.hub else described
        return (
            described if self.traces else replace(described, read=lambda row: replace(described.read(row), traces=()))
        )

    @property
    def files(self) -> tuple[str, ...]:
        own = user_file.file_of(self.set)
        return (*super().files, *([str(own)] if own else []))

    def check(self) -> None:
        super().check()
        if not self.path and not installed("datasets"):
            raise ValueError(NO_HUB.format(set=self.set))

    @property
    def for_scoring(self) -> bool:
        """Whether the set, or this part of it, was made for scoring."""
        part = Path(self.path or self.part)
        name = part.parent.name if has_magic(part.name) else part.name
        return self.layout.for_scoring or name.lower().startswith("test") or part.name.lower().startswith("test")

    @property
    def ships_solutions(self) -> bool:
        return self.traces

    def placed_rows(self) -> Iterator[tuple[str, int, Row | BrokenRow]]:
        return read_tables(find_files(self.path)) if self.path else super().placed_rows()

    def rows(self) -> Iterator[Numbered]:
        """Those of the Hub."""
        try:
            import datasets
        except ImportError as error:
            raise ValueError(NO_HUB.format(set=self.set)) from error
        name = self.layout.hub
        configuration, _, part = self.part.rpartition("/")
        configuration = configuration or self.layout.configuration
        try:
            yield from enumerate(datasets.load_dataset(name, configuration, split=part, streaming=True), start=1)
        except Exception as error:  # whatever the Hub, the network or the set's own files hold
            raise ValueError(
                f"{name} ({configuration or 'no configuration'}, {part}) cannot be read from the Hub: {error}. Check "
                f'part = "{self.part}", or fetch the file and say path = "…".'
            ) from error

    def _finished(self, problem: Problem) -> Problem:
        if self.search_formula and not problem.formula:
            problem = replace(problem, formula=searched_formula(problem.question, problem.answer))
        return super()._finished(problem)

    @model_validator(mode="after")
    def set_is_known_and_fits_its_use(self) -> "PublishedSource":
        if not self.path and not self.layout.hub:
            raise ValueError(
                f'set = "{self.set}" is not described with a place on the Hub: name its file, path = "…", or hub = "…".'
            )
        if self.for_scoring and self.splits != {"test"} and self.evaluation_as_training != WORDS:
            raise ValueError(
                f"{self.path or self.set} is made for scoring: a model that has trained on it recalls it. Use it with "
                f'test = 1 and a benchmark, or say evaluation_as_training = "{WORDS}".'
            )
        return self


SOURCE = PublishedSource
