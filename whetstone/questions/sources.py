"""The outside world -> `Problem`: files of problems, through a column mapping that the recipe declares.

A source yields a `Problem` or a `Drop` for every row it reads, in order, and holds a few rows at a time (a `.json`
array is read whole: its format leaves no other way). Where the answer stands is said in the recipe, never guessed.
"""

import csv
import gzip
import hashlib
import json
import math
import re
import sys
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from whetstone.arithmetic.number_words import mask_numbers
from whetstone.records import Problem
from whetstone.run.settings import Settings
from whetstone.run.tables import find_file

SPLITS = ("test", "validation", "train")  # in order of priority: a question that is in two is kept in the first
Split: TypeAlias = Literal["train", "validation", "test"]

FORMATS = (".jsonl", ".json", ".csv", ".parquet")
LOOKED_AT = 100  # first rows of a JSON file whose keys together are its columns
EXCERPT = 200  # characters of a dropped row that are kept
LONGEST_FIELD = 16 << 20  # characters of one CSV field


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that did not become a problem, and why."""

    source: str
    line: int | None  # of the file; the row's number in a JSON array or Parquet; None for a problem that was made
    id: str
    reason: str  # one of few, so that reasons can be counted
    detail: str = ""
    text: str = ""


class Shares(Settings):
    """How a source is cut into splits: by the hash of the question's normalised text, so that copies stay together."""

    train: float = Field(default=0.8, ge=0, le=1)  # share
    validation: float = Field(default=0.1, ge=0, le=1)  # share
    test: float = Field(default=0.1, ge=0, le=1)  # share

    @model_validator(mode="after")
    def sum_to_one(self) -> "Shares":
        total = self.train + self.validation + self.test
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(
                f"the shares train {self.train}, validation {self.validation}, test {self.test} sum to {total:g}: "
                "every problem goes into one split. Let them sum to 1."
            )
        return self


class Columns(Settings):
    """Which column of the file is which field of a problem."""

    question: str | tuple[str, ...] = "question"  # a list of columns is joined with spaces
    answer: str = "answer"  # as it stands, or the text that `answer_from` finds it in
    id: str | None = None  # default: the line number
    level: str | None = None  # a number, or text with one in it ("Level 3")
    domain: str | None = None  # subject, by which scores are grouped
    formula: str | None = None  # an arithmetic expression that the procedural teacher can explain

    @property
    def questions(self) -> tuple[str, ...]:
        return (self.question,) if isinstance(self.question, str) else self.question

    @property
    def named(self) -> tuple[str, ...]:
        others = (self.answer, self.id, self.level, self.domain, self.formula)
        return tuple(dict.fromkeys((*self.questions, *(name for name in others if name is not None))))


class FileSource(Settings):
    """A file of problems: .jsonl, .json, .csv (any of them with .gz) or .parquet."""

    kind: Literal["file"]
    path: str  # may contain $VARIABLES and ~
    name: str = ""  # of the source; default: the folder's and the file's name
    columns: Columns = Columns()  # which column is which
    answer_from: Literal["column", "boxed", "after_hashes"] = (
        "column"  # the answer column is the answer, or holds it in …
    )
    policy: str = "math"  # the answer policy it is verified under
    split: Split | Shares = "train"  # where its problems go: one split, or shares
    keep_together: Literal["text", "template"] = "text"  # template: texts that differ in their numbers share a split
    benchmark: str = ""  # name of the problem set that its test problems are scored in
    licence: str = ""  # kept with every problem
    limit: int = Field(default=0, ge=0)  # read at most so many rows; 0: all

    @property
    def title(self) -> str:
        path = Path(self.path)
        return self.name or "/".join(part for part in (path.parent.name, path.name.split(".")[0]) if part)

    @property
    def splits(self) -> frozenset[str]:
        return splits_of(self.split)

    @field_validator("split", mode="before")
    @classmethod
    def split_is_a_name_or_shares(cls, split: Any) -> Any:
        if isinstance(split, dict | Shares) or split in SPLITS:
            return split
        raise ValueError(
            f"it is neither a split ({', '.join(SPLITS)}) nor the shares of all three, as in "
            "split = { train = 0.8, validation = 0.1, test = 0.1 }"
        )

    @model_validator(mode="after")
    def test_problems_have_a_benchmark(self) -> "FileSource":
        require_benchmark("test" in self.splits, self.benchmark, self.path)
        return self


def splits_of(split: Split | Shares) -> frozenset[str]:
    if isinstance(split, str):
        return frozenset({split})
    return frozenset(name for name in SPLITS if getattr(split, name) > 0)


def require_benchmark(has_test: bool, benchmark: str, what: str) -> None:
    if has_test and not benchmark:
        raise ValueError(
            f"{what} gives test problems but no benchmark: scores are listed under the name of a problem set. Add "
            'benchmark = "a_name".'
        )


# --- text ---

SUPERSCRIPTS = re.compile("[⁰¹²³⁴-⁹]+")
LATEX_SPACE = re.compile(r"\\(?:[,;:!> ]|quad\b|qquad\b|left\b|right\b|displaystyle\b)|~|\$\$|\\[()\[\]]")
AROUND_MARKS = re.compile(r"\s*([^\w\s])\s*")


def normalise(text: str) -> str:
    """The same string for texts that differ only in case, spacing, Unicode form or LaTeX spacing and delimiters.

    >>> normalise("What  is $3\\\\,x^2$ ?") == normalise("what is \\\\(3x²\\\\)?")
    True
    """
    text = SUPERSCRIPTS.sub(lambda found: "^" + found[0], text)  # NFKC alone would make 3² the number 32
    text = LATEX_SPACE.sub(lambda found: "$" if found[0] in ("$$", r"\(", r"\)", r"\[", r"\]") else " ", text)
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(?<=\d)\s+(?=[a-z]\b)", "", text)
    return " ".join(AROUND_MARKS.sub(r"\1", text).split())


def template(text: str) -> str:
    """The normalised text without its numbers: equal for problems that are one problem with other numbers."""
    return normalise(mask_numbers(text))


def hash_fraction(key: str) -> float:
    """A number in [0, 1) that depends on the text alone: never on the seed, the machine or the other rows."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big") / (1 << 56)


def split_by_hash(key: str, shares: Shares) -> str:
    place = hash_fraction(key)
    if place < shares.test:
        return "test"
    return "validation" if place < shares.test + shares.validation or shares.train == 0 else "train"


# --- rows ---


def open_bytes(path: Path) -> BinaryIO:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


Row: TypeAlias = dict[str, Any]
Numbered: TypeAlias = tuple[int, Row | Drop]
SURROGATE = re.compile("[\ud800-\udfff]")


def read_file(settings: FileSource, title: str) -> Iterator[Problem | Drop]:
    """Every row as a Problem (with its split) or a Drop.

    Raises ValueError for an unknown format, a missing column or a damaged file; FileNotFoundError.
    """
    path = find_file(settings.path)
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    readers: dict[str, Callable[[Path, FileSource, str], Iterator[Numbered]]] = {
        ".jsonl": _jsonl_rows,
        ".json": _json_rows,
        ".csv": _csv_rows,
        ".parquet": _parquet_rows,
    }
    suffix = suffixes[-1] if suffixes else ""
    if suffix not in readers or (suffix == ".parquet" and path.name.lower().endswith(".gz")):
        raise ValueError(
            f"source file {path}: the format is told by the file's suffix, and {''.join(path.suffixes) or 'none'!r} "
            f"is not known. Use one of {', '.join(FORMATS)} (the first three also with .gz)."
        )
    rows = readers[suffix](path, settings, title)
    try:
        for line, row in islice(rows, settings.limit or None):
            yield row if isinstance(row, Drop) else _problem(row, line, settings, title)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"source file {path} is damaged: {error}. Fetch it again.") from error


def _undecodable(line: int, content: Any, title: str) -> Drop | None:
    """A Drop when the text holds bytes that are not UTF-8 (they read as lone surrogates), which no table can hold."""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
    found = SURROGATE.search(text)
    if not found:
        return None
    code = ord(found[0])
    detail = f"byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"lone surrogate U+{code:04X}"
    return Drop(title, line, "", "not UTF-8", detail, excerpt(text))


def _json_value(text: str, line: int, title: str) -> Row | Drop:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Drop(title, line, "", "broken JSON", str(error)[:EXCERPT], excerpt(text))
    if not isinstance(row, dict):
        return Drop(title, line, "", "not an object", f"{type(row).__name__}, not {{…}}", excerpt(text))
    return _undecodable(line, row, title) or row


def _jsonl_rows(path: Path, settings: FileSource, title: str) -> Iterator[Numbered]:
    with open_bytes(path) as lines:
        yield from _checked_columns(_json_lines(lines, title), path, settings)


def _json_lines(lines: BinaryIO, title: str) -> Iterator[Numbered]:
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        text = line.decode("utf-8", errors="surrogateescape")
        yield number, _undecodable(number, text, title) or _json_value(text, number, title)


def _json_rows(path: Path, settings: FileSource, title: str) -> Iterator[Numbered]:
    with open_bytes(path) as content:
        first = content.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first != b"[":
        yield from _jsonl_rows(path, settings, title)  # one object a line under the other suffix
        return
    with open_bytes(path) as content:
        text = content.read().removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"source file {path} is not one JSON array: {error}. Mend it there, or write one object a line as .jsonl, "
            "where a broken line costs only itself."
        ) from error
    rows = (
        (n, _undecodable(n, item, title) or item)
        if isinstance(item, dict)
        else (n, Drop(title, n, "", "not an object", f"{type(item).__name__}, not {{…}}", excerpt(str(item))))
        for n, item in enumerate(items, 1)
    )
    yield from _checked_columns(rows, path, settings)


def _checked_columns(rows: Iterator[Numbered], path: Path, settings: FileSource) -> Iterator[Numbered]:
    head = list(islice(rows, LOOKED_AT))
    keys = dict.fromkeys(key for _, row in head if isinstance(row, dict) for key in row)
    if keys:
        check_columns(list(keys), path, settings.columns)
    yield from chain(head, rows)


def check_columns(present: Sequence[str], path: Path, columns: Columns) -> None:
    """Raises ValueError naming the columns that are there, and the likely one, for a column that is not."""
    for name in columns.named:
        if name not in present:
            near = get_close_matches(name, present, n=1, cutoff=0.5)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"source file {path} has no column {name!r}: it has {', '.join(map(repr, present))}.{meant} Say which "
                'column is which in the recipe, for instance columns = { question = "problem", answer = "solution" }.'
            )


def _csv_rows(path: Path, settings: FileSource, title: str) -> Iterator[Numbered]:
    csv.field_size_limit(min(LONGEST_FIELD, sys.maxsize))
    with open_bytes(path) as content:
        text = (line.decode("utf-8", errors="surrogateescape") for line in content)
        first = next(text, "").removeprefix("\ufeff")
        rows = csv.reader(chain([first], text), strict=True)
        try:
            header = next(rows, [])
        except csv.Error as error:
            raise ValueError(
                f"source file {path}: the header line cannot be read ({error}). Mend its quotes."
            ) from error
        check_columns(header, path, settings.columns)
        while True:
            start = rows.line_num + 1
            try:
                fields = next(rows, None)
            except csv.Error as error:
                yield start, Drop(title, start, "", "broken CSV", f"{error} (lines {start} to {rows.line_num})")
                continue
            if fields is None:
                return
            if not fields:
                continue
            bad = _undecodable(start, ",".join(fields), title)
            if not bad and len(fields) != len(header):
                detail = f"{len(fields)} fields, the header has {len(header)} (lines {start} to {rows.line_num})"
                bad = Drop(title, start, "", "broken CSV", detail, excerpt(",".join(fields)))
            yield start, bad or dict(zip(header, fields, strict=True))


def _parquet_rows(path: Path, settings: FileSource, title: str) -> Iterator[Numbered]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"source file {path} is not a Parquet file: {error}. Fetch it again.") from error
    with table:
        check_columns(table.schema_arrow.names, path, settings.columns)
        number = 0
        for group in table.iter_batches(batch_size=1024, columns=list(settings.columns.named)):
            for row in group.to_pylist():
                number += 1
                yield number, _undecodable(number, row, title) or row


# --- one row ---


def _problem(row: Row, line: int, settings: FileSource, title: str) -> Problem | Drop:
    columns = settings.columns
    own_id = _as_text(row.get(columns.id)) if columns.id else ""
    identity = f"{title}/{own_id or line}"

    def drop(reason: str, detail: str = "") -> Drop:
        return Drop(
            title, line, identity, reason, detail, excerpt(" ".join(str(row.get(q, "")) for q in columns.questions))
        )

    absent = [name for name in (*columns.questions, columns.answer) if name not in row]
    if absent:
        return drop("missing column", f"this row has no {', '.join(map(repr, absent))}")
    parts = [_as_text(row[name]) for name in columns.questions]
    if None in parts:
        return drop("question is not text")
    question = " ".join(part for part in parts if part)
    if not question:
        return drop("empty question")
    raw = _as_text(row[columns.answer])
    if raw is None:
        return drop("answer is not text", f"{type(row[columns.answer]).__name__}, not text or a number")
    if not raw:
        return drop("empty answer")
    answer = find_answer(raw, settings.answer_from)
    if answer is None:
        return drop("no answer found", f'answer_from = "{settings.answer_from}": ' + excerpt(raw[-EXCERPT:]))
    key = template(question) if settings.keep_together == "template" else normalise(question)
    split = settings.split if isinstance(settings.split, str) else split_by_hash(key, settings.split)
    level = re.search(r"\d+", _as_text(row.get(columns.level)) or "") if columns.level else None
    return Problem(
        id=identity,
        question=question,
        answer=answer,
        split=split,
        benchmark=settings.benchmark if split == "test" else "",
        level=int(level[0]) if level else None,
        domain=(_as_text(row.get(columns.domain)) or "") if columns.domain else "",
        source=title,
        licence=settings.licence,
        policy=settings.policy,
        formula=(_as_text(row.get(columns.formula)) or "") if columns.formula else "",
    )


def _as_text(value: Any) -> str | None:
    """Stripped text of a cell; "" for an empty one; None for what is neither text nor a finite number."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return str(value) if math.isfinite(value) else None


THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def find_answer(text: str, where: str) -> str | None:
    r"""The answer in the answer column: all of it, its last \boxed{}, or what follows its last #### (GSM8K)."""
    if where == "boxed":
        return last_box(text)
    if where == "after_hashes":
        _, hashes, answer = text.rpartition("####")
        answer = answer.strip()
        if THOUSANDS.fullmatch(answer):
            answer = answer.replace(",", "")
        return answer if hashes and answer else None
    return text


def last_box(text: str) -> str | None:
    r"""What the last complete \boxed{…} holds (MATH also writes \fbox{…} and \boxed 5); None where there is none.

    >>> last_box(r"so \boxed{1} and \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    """
    for found in reversed(list(re.finditer(r"\\(?:boxed|fbox)\s*", text))):
        rest = text[found.end() :]
        if not rest.startswith("{"):
            bare = re.match(r"[^\s${}\\.,]+", rest)
            if bare:
                return bare[0]
            continue
        depth = 0
        for place, character in enumerate(rest):
            if rest[place - 1 : place] == "\\" and rest[place - 2 : place - 1] != "\\":
                continue  # an escaped brace is text
            depth += (character == "{") - (character == "}")
            if depth == 0:
                return rest[1:place].strip() or None
    return None


def excerpt(text: str) -> str:
    """A short printable piece of a dropped row."""
    text = SURROGATE.sub("\ufffd", text).strip()
    return text if len(text) <= EXCERPT else text[:EXCERPT] + "…"
