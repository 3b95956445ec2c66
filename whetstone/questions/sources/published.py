"""Published sets, read from a local file or from the Hugging Face Hub as `whetstone/problems/sets/` describes them.

    [[stage.source]]
    kind = "published"
    set = "gsm8k"
    path = "$WHETSTONE_DATA/gsm8k/train.jsonl.gz"     # without a path: from the Hub, by `datasets`

Licence and answer policy are the set's. Worked solutions that it ships become traces, which the rollouts stage verifies
instead of asking a teacher. What was made for scoring is refused as training data unless the recipe says so in words.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import Field, model_validator

from whetstone.problems.files import find_file
from whetstone.problems.formulas import searched_formula
from whetstone.problems.published import ProblemSet
from whetstone.problems.sets import find_set
from whetstone.problems.table import Numbered, read_table
from whetstone.questions.source import RowSource
from whetstone.records import Problem
from whetstone.run import user_file

WORDS = "scores on this set will mean nothing"  # what a recipe must say to train on an evaluation set
INSTALL = 'python -m pip install "whetstone[hub]"'


class PublishedSource(RowSource):
    """A published set whose layout is known, from a local file or the Hub."""

    set: str = Field(description='which set: gsm8k, math, openr1_math, chat, …; or one of your own as "file.py:MY_SET"')
    hub: str = Field("", description="its name on the Hub, if there is no path; default: where it is known to be")
    configuration: str = Field("", description="of the set on the Hub; default: the usual one")
    part: str = Field("train", description="the split of the set on the Hub")
    traces: bool = Field(True, description="keep the worked solutions that the set ships")
    search_formula: bool = Field(
        False, description="if the set gives none: the only formula that makes the answer of the text's numbers"
    )
    evaluation_as_training: str = Field("", description=f'to train on a set made for scoring, say "{WORDS}"')

    @property
    def title(self) -> str:
        return self.name or self.set.rpartition(":")[2]

    @property
    def layout(self) -> ProblemSet:
        return find_set(self.set)

    @property
    def keeps_traces(self) -> bool:
        return self.traces

    @property
    def files(self) -> tuple[str, ...]:
        own = user_file.file_of(self.set)
        return (*super().files, *([str(own)] if own else []))

    @property
    def for_scoring(self) -> bool:
        """Whether the set, or this part of it, was made for scoring."""
        part = Path(self.path).name if self.path else self.part
        return self.layout.for_scoring or part.lower().startswith("test")

    def rows(self) -> Iterator[Numbered]:
        return read_table(find_file(self.path)) if self.path else self._hub_rows()

    def _hub_rows(self) -> Iterator[Numbered]:
        try:
            import datasets
        except ImportError as error:
            raise ValueError(
                f'set = "{self.set}" without a path is read from the Hub, which needs `datasets`: {INSTALL}\n'
                'or fetch the file yourself and say path = "…".'
            ) from error
        name = self.hub or self.layout.hub
        configuration = self.configuration or self.layout.configuration
        try:
            rows = datasets.load_dataset(name, configuration, split=self.part, streaming=True)
        except Exception as error:  # whatever the Hub, the network or the set's own files hold
            raise ValueError(
                f"{name} ({configuration or 'no configuration'}, {self.part}) cannot be read from the Hub: {error}. Check the "
                'name, hub = "…", configuration = "…" and part = "…", or fetch the file and say path = "…".'
            ) from error
        yield from enumerate(rows, start=1)

    def _placed(self, problem: Problem) -> Problem:
        if self.search_formula and not problem.formula:
            problem = replace(problem, formula=searched_formula(problem.question, problem.answer))
        return super()._placed(problem)

    @model_validator(mode="after")
    def set_is_known_and_fits_its_use(self) -> "PublishedSource":
        if not self.path and not (self.hub or self.layout.hub):
            raise ValueError(
                f'set = "{self.set}" has no usual place on the Hub: name its file, path = "…", or hub = "…".'
            )
        if self.for_scoring and self.splits != {"test"} and self.evaluation_as_training != WORDS:
            raise ValueError(
                f"{self.path or self.set} is made for scoring: a model that has trained on it recalls it. Use it with "
                f'split = "test" and a benchmark, or say evaluation_as_training = "{WORDS}".'
            )
        return self


SOURCE = PublishedSource
