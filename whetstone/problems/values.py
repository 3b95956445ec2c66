"""Values of a row as text: text, numbers and, for an answer, lists of them. Anything else is refused by its column's name."""

import re
from collections.abc import Mapping
from decimal import Decimal
from math import isnan
from typing import Any

from whetstone.problems.row import Unreadable, cell, has_cell
from whetstone.problems.written import MISSING, as_text, kind_written, list_written

MOST_DIGITS = 400  # before or after the point, more than a float has
MOST_LEVEL = 9  # digits


def text_of(value: Any, name: str = "") -> str:
    """A value as stripped text: "" for None, 43 for 43.0. Raises ValueError for what is neither text nor a finite number.

    >>> text_of(" a "), text_of(None), text_of(0), text_of(43.0), text_of(6.5), text_of(1e23)
    ('a', '', '0', '43', '6.5', '100000000000000000000000')
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"not text: {name or 'a column'} holds {in_words(value)}, not text or a number")
    return str(value) if isinstance(value, int) else _decimal_text(value, name or "a column")


def _decimal_text(value: float | Decimal, name: str) -> str:
    number = value if isinstance(value, Decimal) else Decimal(repr(value))
    if not number.is_finite():
        raise ValueError(f"not text: {name} holds {value}, which is no number")
    if abs(number.adjusted()) > MOST_DIGITS:
        raise ValueError(f"not text: {name} holds {value:.3e}, which has more than {MOST_DIGITS} digits")
    written = f"{number:f}"
    written = written.rstrip("0").rstrip(".") if "." in written else written
    return "0" if number == 0 else written


def in_words(value: Any) -> str:
    if isinstance(value, Unreadable):
        return f"what cannot be read ({value.why})"
    names = {
        bool: "true or false",
        list: "a list",
        dict: "an object",
        bytes: "bytes",
        str: "a text",
        type(None): "nothing",
    }
    return next((words for kind, words in names.items() if isinstance(value, kind)), f"a {type(value).__name__}")


def plain_text_of(value: Any, name: str = "") -> str:
    """`text_of` a question or an answer. Raises ValueError for what a program wrote as text, as a CSV file has it."""
    text = text_of(value, name)
    if kind := kind_written(text):
        raise ValueError(f"not text: {name or 'a column'} holds {as_text(kind)}, and name a part of it")
    return text


def answer_of(value: Any, name: str = "") -> str:
    """The text of an answer, which may be a list of texts and numbers: all of them together are the answer. Raises ValueError,
    also for a text that means that there is none.

    >>> answer_of(["3"]), answer_of([1, 2.0]), answer_of("x"), answer_of([]), answer_of("['1', '2']")
    ('3', '1, 2', 'x', '', '1, 2')
    """
    if isinstance(value, str):
        value = list_written(value.strip()) or value
    answer = joined(value, name) if isinstance(value, list) else plain_text_of(value, name)
    if answer in MISSING:
        raise ValueError(
            f"empty answer: {name or 'a column'} holds {answer!r}, by which programs write that there is none"
        )
    return answer


def joined(values: list[Any], name: str = "") -> str:
    """Texts and numbers with commas between them. Raises ValueError."""
    texts = [text_of(item, name) for item in values]
    if len(texts) > 1 and not all(texts):
        raise ValueError(f"not text: {name or 'a column'} holds a list with an empty element")
    return ", ".join(texts)


def items(value: Any) -> list[Any]:
    """The elements of a list, a value that is none as the only one, and nothing for None."""
    return value if isinstance(value, list) else [] if value is None else [value]


def text(row: Mapping[str, Any], column: str) -> str:
    """`text_of` a column. Raises KeyError if the row has none, ValueError with the column's name."""
    return text_of(cell(row, column), repr(column))


def gold(row: Mapping[str, Any], column: str) -> str:
    """`answer_of` a column. Raises KeyError if the row has none, ValueError with the column's name."""
    return answer_of(cell(row, column), repr(column))


def optional(row: Mapping[str, Any], column: str | None) -> str:
    """`text_of` a column, "" if the row has none."""
    return text_of(cell(row, column), repr(column)) if column is not None and has_value(row, column) else ""


def optional_gold(row: Mapping[str, Any], column: str) -> str:
    """`gold`, "" if the row has none."""
    return gold(row, column) if has_value(row, column) else ""


def has_value(row: Mapping[str, Any], column: str) -> bool:
    """Whether a column is there and holds something: NaN is how tables of pandas say that it does not."""
    value = cell(row, column) if has_cell(row, column) else None
    return value is not None and not (isinstance(value, float) and isnan(value))


def level_of(value: Any, name: str = "'level'") -> int | None:
    """The number of a level: 3 for "Level 3". None for -1, by which sets say that they do not know it. Raises ValueError for
    3.5 and for several numbers.
    """
    text = text_of(value, name)
    numbers = re.findall(r"\d+(?:\.\d+)*", text)
    if not numbers or text.startswith("-") or len(numbers[0]) > MOST_LEVEL:
        return None
    level, _, rest = numbers[0].partition(".")
    if len(numbers) > 1 or rest.strip("0"):
        raise ValueError(f"no level: {name} holds {text!r:.80}, and one whole number is wanted")
    return int(level)
