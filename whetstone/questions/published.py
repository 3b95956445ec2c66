"""Published sets, read from a local file or from the Hugging Face Hub by their known layouts (`layouts.py`).

    [[stage.source]]
    kind = "published"
    set = "gsm8k"
    path = "$WHETSTONE_DATA/gsm8k/train.jsonl.gz"     # without a path: from the Hub, by `datasets`

Licence and answer policy are the set's. Worked solutions that it ships become traces, which the rollouts stage verifies
instead of asking a teacher. What was made for scoring is refused as training data unless the recipe says so in words.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from gzip import BadGzipFile
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from whetstone.arithmetic.expression import as_value, render
from whetstone.arithmetic.number_words import mentions
from whetstone.arithmetic.search import only_formula
from whetstone.questions.layouts import LAYOUTS, Layout, Reading, Row
from whetstone.questions.sources import (
    SURROGATE,
    Drop,
    Shares,
    Split,
    excerpt,
    normalise,
    require_benchmark,
    split_by_hash,
    splits_of,
    template,
)
from whetstone.records import Problem
from whetstone.run.settings import Settings
from whetstone.run.tables import find_file, read_table

WORDS = "scores on this set will mean nothing"  # what a recipe must say to train on an evaluation set
NUMBER_ALONE = re.compile(r"\d+(?:\.\d+)?")
INSTALL = 'python -m pip install "whetstone[hub]"'


@dataclass(frozen=True, slots=True)
class Shipped:
    """A problem with the worked solutions that its set ships."""

    problem: Problem
    traces: tuple[str, ...]


class PublishedSource(Settings):
    """A published set with a known layout, from a local file or the Hub."""

    kind: Literal["published"]
    set: str  # which layout: gsm8k, math, openr1_math, chat, …
    path: str = ""  # a local .jsonl, .json, .csv (also .gz) or .parquet; may contain $VARIABLES and ~; empty: the Hub
    hub: str = ""  # name on the Hub; default: where the set is known to be
    configuration: str = ""  # of the set on the Hub; default: the usual one
    part: str = "train"  # the split of the set on the Hub
    name: str = ""  # of the source; default: the set
    traces: bool = True  # keep the worked solutions that the set ships
    policy: str = ""  # the answer policy its problems are verified under; default: the set's
    licence: str = ""  # kept with every problem; default: the set's
    split: Split | Shares = "train"  # where its problems go: one split, or shares
    keep_together: Literal["text", "template"] = "text"  # template: texts that differ in their numbers share a split
    benchmark: str = ""  # name of the problem set that its test problems are scored in
    limit: int = Field(default=0, ge=0)  # read at most so many rows; 0: all
    search_formula: bool = False  # where the set gives none, the only one that makes the answer of the text's numbers
    evaluation_as_training: str = ""  # to train on a set made for scoring, say "scores on this set will mean nothing"

    @property
    def title(self) -> str:
        return self.name or self.set

    @property
    def splits(self) -> frozenset[str]:
        return splits_of(self.split)

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.set]

    @property
    def for_scoring(self) -> bool:
        """Whether the set, or this part of it, was made for scoring."""
        part = Path(self.path).name if self.path else self.part
        return self.layout.evaluation or part.lower().startswith("test")

    @model_validator(mode="after")
    def set_is_known(self) -> "PublishedSource":
        if self.set not in LAYOUTS:
            near = get_close_matches(self.set, LAYOUTS, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"set = {self.set!r}: its columns are not known.{meant} Known are {', '.join(LAYOUTS)}. Read any other with "
                'kind = "file" and columns = { … }.'
            )
        if not self.path and not (self.hub or self.layout.hub):
            raise ValueError(
                f'set = "{self.set}" has no usual place on the Hub: say where its file lies, path = "…", or hub = "…".'
            )
        require_benchmark("test" in self.splits, self.benchmark, self.path or self.set)
        if self.for_scoring and self.splits != {"test"} and self.evaluation_as_training != WORDS:
            raise ValueError(
                f"{self.path or self.set} is made for scoring: a model that has trained on it recalls it. Use it with "
                f'split = "test" and a benchmark, or say evaluation_as_training = "{WORDS}".'
            )
        return self


def read_published(settings: PublishedSource, title: str) -> Iterator[Problem | Shipped | Drop]:
    """Every row as a Problem (with its shipped traces) or a Drop, in order and in constant memory.

    Raises ValueError for a damaged file or a set that the Hub does not give, FileNotFoundError.
    """
    rows = _local_rows(settings) if settings.path else _hub_rows(settings)
    for line, row in islice(rows, settings.limit or None):
        yield _item(row, line, settings, title)


def _local_rows(settings: PublishedSource) -> Iterator[tuple[int, Row | str]]:
    path = find_file(settings.path)
    try:
        yield from read_table(path)
    except (EOFError, BadGzipFile, zlib.error, OSError) as error:
        raise ValueError(f"source file {path} is damaged: {error}. Fetch it again.") from error
    except ValueError as error:  # json's and pyarrow's own errors do not name the file
        if str(path) in str(error):
            raise
        raise ValueError(f"source file {path} cannot be read: {error}. Mend it or fetch it again.") from error


def _hub_rows(settings: PublishedSource) -> Iterator[tuple[int, Row | str]]:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f'set = "{settings.set}" without a path is read from the Hub, which needs `datasets`: {INSTALL}\n'
            'or fetch the file yourself and say path = "…".'
        ) from error
    name = settings.hub or settings.layout.hub
    configuration = settings.configuration or settings.layout.configuration
    try:
        rows = datasets.load_dataset(name, configuration, split=settings.part, streaming=True)
    except Exception as error:  # whatever the Hub, the network or the set's own files hold
        raise ValueError(
            f"{name} ({configuration or 'no configuration'}, {settings.part}) cannot be read from the Hub: {error}. Check the "
            'name, hub = "…", configuration = "…" and part = "…", or fetch the file and say path = "…".'
        ) from error
    yield from enumerate(rows, start=1)


def _item(row: Row | str, line: int, settings: PublishedSource, title: str) -> Problem | Shipped | Drop:
    identity = f"{title}/{line}"
    if isinstance(row, str):
        return Drop(title, line, identity, "broken row", row)
    try:
        reading = settings.layout(row)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        if isinstance(error, ValueError):
            reason, _, detail = str(error).partition(": ")
        else:  # a column of another type than the layout's: the row is the data's fault, whatever it is
            reason, detail = "not as the layout says", f"{type(error).__name__}: {error}"
        return Drop(title, line, identity, reason, detail, excerpt(str(dict(row))))
    whole = "\0".join((reading.question, reading.answer, *reading.traces))
    if SURROGATE.search(whole):
        return Drop(title, line, identity, "not UTF-8", "", excerpt(reading.question))
    traces = tuple(text for text in reading.traces if text) if settings.traces else ()
    if not reading.answer and not traces:
        return Drop(title, line, identity, "empty answer", "", excerpt(reading.question))
    problem = _problem(reading, identity, settings, title)
    return Shipped(problem, traces) if traces else problem


def _problem(reading: Reading, identity: str, settings: PublishedSource, title: str) -> Problem:
    key = template(reading.question) if settings.keep_together == "template" else normalise(reading.question)
    split = settings.split if isinstance(settings.split, str) else split_by_hash(key, settings.split)
    return Problem(
        id=identity,
        question=reading.question,
        answer=reading.answer,
        split=split,
        benchmark=settings.benchmark if split == "test" else "",
        level=reading.level,
        domain=reading.domain,
        source=title,
        licence=settings.licence or reading.licence or settings.layout.licence,
        policy=settings.policy or reading.policy or settings.layout.policy,
        formula=reading.formula or (searched(reading) if settings.search_formula else ""),
    )


def searched(reading: Reading) -> str:
    """The formula that the numbers of the text and the answer leave no choice of, or ""."""
    answer = NUMBER_ALONE.fullmatch(reading.answer.replace(",", ""))
    if not answer:
        return ""
    told = [mention.value for mention in mentions(reading.question) if mention.free]
    formula = only_formula(told, as_value(Fraction(answer[0])))
    return "" if formula is None else render(formula)
