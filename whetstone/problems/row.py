"""A row of a table from outside: its fields, or why they cannot be used."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any, TypeAlias

from whetstone.problems.written import as_text, kind_written

LISTED = 40  # columns that an error names
EXCERPT = 200  # characters of a broken row that are kept
SURROGATE = re.compile("[\ud800-\udfff]")

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that cannot be used, and why."""

    reason: str  # one of few, so that reasons can be counted
    detail: str
    text: str = ""  # an excerpt
    row: Row | None = None  # its fields, if they could be read

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A value that Python cannot hold."""

    why: str

    def __str__(self) -> str:
        return f"unreadable: {self.why}"


Numbered: TypeAlias = tuple[int, Row | BrokenRow]


def cell(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column. A dotted name looks into objects and lists. Raises KeyError.

    >>> row = {"reward_model": {"ground_truth": "34"}, "prompt": [{"content": "Find n."}]}
    >>> cell(row, "reward_model.ground_truth"), cell(row, "prompt.0.content")
    ('34', 'Find n.')
    """
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise KeyError(column)
    return value


def has_cell(row: Mapping[str, Any], column: str) -> bool:
    try:
        cell(row, column)
    except KeyError:
        return False
    return True


def hidden(row: Mapping[str, Any], column: str) -> str:
    """Why a dotted name finds nothing in a column that holds an object as text; "" if it does not."""
    top = column.partition(".")[0]
    value = row.get(top)
    kind = kind_written(value.strip()) if top != column and isinstance(value, str) else ""
    return f" {top!r} holds {as_text(kind)}." if kind else ""


def columns_of(row: Row) -> Iterator[str]:
    """The names of its columns and, dotted, of what these hold."""
    for name, value in row.items():
        yield name
        if isinstance(value, dict):
            yield from (f"{name}.{inner}" for inner in value)


def listed(columns: Iterable[str]) -> str:
    """Names of columns, the first of them if there are many."""
    names = list(dict.fromkeys(columns))
    return ", ".join(repr(_cut(name)) for name in names[:LISTED]) + (", …" if len(names) > LISTED else "")


def excerpt(text: str) -> str:
    """A short printable piece of a row."""
    return _cut(text.strip())


def _cut(text: str) -> str:
    text = SURROGATE.sub("\ufffd", text)
    return text if len(text) <= EXCERPT else text[:EXCERPT] + "…"


def lone_surrogate(text: str) -> str:
    """What is not UTF-8 in a text, in words; "" for nothing."""
    match = SURROGATE.search(text)
    if not match:
        return ""
    code = ord(match[0])
    return f"byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"lone surrogate U+{code:04X}"


def as_json(value: Any) -> str:
    """Any value of a row as JSON on one line: what JSON has no word for is text, and NaN and infinity are null.

    >>> as_json({"a": float("nan"), "b": b"caf\\xe9", "c": Decimal("6.50")})
    '{"a": null, "b": "caf\\\\\\\\xe9", "c": 6.5}'
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_in_json)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, default=_in_json)


def _in_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    return float(value) if isinstance(value, Decimal) and isfinite(value) and isfinite(float(value)) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
