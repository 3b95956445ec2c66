"""Rows from JSON: one object a line, or one document that is a list of objects or holds one.

Numbers keep their value: what a float cannot hold is a Decimal. A key that is there twice with two values breaks its row.
"""

import json
from collections.abc import Iterator
from decimal import Context, Decimal
from itertools import chain, islice
from math import isfinite
from pathlib import Path
from typing import Any

from whetstone.problems.row import BrokenRow, Numbered, Row, as_json, excerpt, lone_surrogate
from whetstone.problems.text import LONGEST_LINE, bounded_lines, open_text

LONGEST_DOCUMENT = 1 << 30  # characters of a document, which is read whole
DEEPEST = 100  # objects and lists inside each other
SURE_DIGITS = 15  # a float holds every number of so many characters
MOST_DIGITS = 4000  # of an int; Python's limit is 4300
WRAPPERS = ("data", "rows")  # the list that is meant if a document holds several


class DuplicateKey(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        for key, value in pairs:
            if row[key] != value:
                raise DuplicateKey(f"the key {key!r} is there twice, with two values")
    return row


def _number(literal: str) -> float | Decimal:
    """The float if the literal is a way to write it (5186630.5999999996 is 5186630.6 with 17 digits), else a Decimal."""
    value = float(literal)
    if value and len(literal) <= SURE_DIGITS and isfinite(value):
        return value
    exact = Decimal(literal)
    if not isfinite(value):
        return exact
    as_many_digits = Context(prec=len(exact.as_tuple().digits)).create_decimal(Decimal(value))
    return value if as_many_digits == exact else exact


def _whole_number(literal: str) -> int | Decimal:
    """A Decimal where Python refuses to make an int of so many digits."""
    return int(literal) if len(literal) <= MOST_DIGITS else Decimal(literal)


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_int=_whole_number)


def json_rows(path: Path, suffix: str) -> Iterator[Numbered]:
    """The rows of a file, whose first line tells whether it is one document. Raises ValueError for a broken document."""
    with open_text(path) as content:
        lines = (line for line in bounded_lines(content) if line.strip())
        first, second = islice(chain(lines, ("", "")), 2)
    row = json_row(first) if first else {}
    if isinstance(row, dict):
        document = suffix == ".json" and not second and bool(_lists_of(row) or _is_table(row))
    else:
        document = suffix == ".json" or (first.lstrip().startswith("[") and not second)
    yield from _document_rows(path) if document else _line_rows(path)


def _line_rows(path: Path) -> Iterator[Numbered]:
    with open_text(path) as content:
        for number, line in enumerate(bounded_lines(content), 1):
            if line.strip():
                yield number, json_row(line)


def json_row(text: str) -> Row | BrokenRow:
    if len(text) >= LONGEST_LINE:
        return BrokenRow("line too long", f"{LONGEST_LINE:,} characters or more", excerpt(text[:1000]))
    text = text.removeprefix("\ufeff")  # of a file that was appended to another
    try:
        return _checked(DECODER.decode(text), text)
    except DuplicateKey as error:
        return BrokenRow("duplicate key", str(error), excerpt(text))
    except RecursionError:
        return BrokenRow("nested too deep", f"more than {DEEPEST} levels", excerpt(text))
    except ValueError as error:
        bad = lone_surrogate(text)
        return BrokenRow("not UTF-8" if bad else "not JSON", bad or excerpt(str(error)), excerpt(text))


def _checked(value: Any, text: str) -> Row | BrokenRow:
    """The value if it is an object of valid text; `text` is its JSON, which is faster to search."""
    if not isinstance(value, dict):
        return BrokenRow("not an object", f"{type(value).__name__}, not {{…}}", excerpt(text))
    if text.count("[") + text.count("{") > DEEPEST and _is_deeper(value, DEEPEST):
        raise RecursionError
    if text.isascii() and "\\ud" not in text and "\\uD" not in text:
        return value
    bad = lone_surrogate(json.dumps(value, ensure_ascii=False, default=str))
    return BrokenRow("not UTF-8", bad, excerpt(text), value) if bad else value


def _is_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        inside = chain.from_iterable(item.values() if isinstance(item, dict) else item for item in level)
        level = [item for item in inside if isinstance(item, dict | list)]
    return bool(level)


def _document_rows(path: Path) -> Iterator[Numbered]:
    with open_text(path) as content:
        text = content.read(LONGEST_DOCUMENT)
    try:
        if len(text) == LONGEST_DOCUMENT:
            raise ValueError(f"it has {LONGEST_DOCUMENT:,} characters or more, and a document is read whole")
        items = _items(DECODER.decode(text.strip()))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"source file {path} is not one JSON document with a list of rows: {error}. Mend it, or write one object per "
            "line as .jsonl, where a broken line costs only itself."
        ) from error
    yield from ((number, _item(item)) for number, item in enumerate(items, 1))


def _item(item: Any) -> Row | BrokenRow:
    if isinstance(item, BrokenRow):
        return item
    try:
        if isinstance(item, dict) and _is_deeper(item, DEEPEST):
            raise RecursionError
        return _checked(item, as_json(item))
    except RecursionError:
        return BrokenRow("nested too deep", f"more than {DEEPEST} levels")


def _items(document: Any) -> list[Any]:
    """The rows of a document: itself a list, or an object with one list of objects, such as {"data": [...]}; or one row."""
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        raise ValueError(f"it is {type(document).__name__}, neither a list nor an object")
    names = _lists_of(document)
    if _is_table(document):
        raise ValueError(
            f"it is one object of rows or columns ({excerpt(', '.join(document))}), and wanted is a list of rows, "
            '[{…}, {…}], which pandas writes with orient="records"'
        )
    if not names:
        return [document]
    wanted = [name for name in WRAPPERS if name in names] or names
    if len(wanted) > 1:
        raise ValueError(f"it holds {len(names)} lists of objects ({', '.join(names)}), and one is wanted")
    rows = document[wanted[0]]
    return list(map(_viewed, rows)) if all(row.keys() >= {"row_idx", "row"} for row in rows) else rows


def _viewed(item: Row) -> Any:
    """The row in an item of the Hub's viewer, which cuts long cells."""
    if item.get("truncated_cells"):
        return BrokenRow("cut by the Hub's viewer", "fetch the set's own files", excerpt(as_json(item)))
    return item["row"]


def _is_table(document: Row) -> bool:
    """Whether its values are objects with the same keys, or lists of as many texts or numbers: rows by name, or columns."""
    values = list(document.values())
    if len(values) > 1 and all(isinstance(value, dict) and value for value in values):
        return all(value.keys() == values[0].keys() for value in values)
    return (
        len(values) > 1
        and all(isinstance(value, list) and len(value) > 1 for value in values)
        and len(set(map(len, values))) == 1
        and not any(isinstance(item, dict | list) for value in values for item in value)
    )


def _lists_of(document: Row) -> list[str]:
    """The names of the lists of objects that are not chats."""
    return [
        name
        for name, value in document.items()
        if isinstance(value, list)
        and value
        and all(isinstance(item, dict) for item in value)
        and not all(item.keys() & {"role", "from"} for item in value)
    ]
