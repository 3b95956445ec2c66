"""Text that a program wrote for a value that is no text, as a CSV file has it: lists, arrays, objects, missing values."""

import re

ITEM = r"""'(?:[^'\\]|\\[\\'])*'|"(?:[^"\\]|\\[\\"])*\""""  # a quoted text; with other escapes (\n, \f, \u) it is none
LIST = re.compile(rf"[\[(]\s*(?:{ITEM})(?:\s*,\s*(?:{ITEM}))*\s*,?\s*[\])]")
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?"
OTHERS = {  # what else begins and ends so, in words
    "an object": re.compile(r"""(\[\s*)?\{\s*(['"])[\w-]+\2\s*:.*\}\s*(?(1)\])""", re.DOTALL),
    "a list": re.compile(
        r"""[\[({]\s*b?['"].*[\])}]|\[.*,\s*(['"])[^'"]*\1\s*\]""", re.DOTALL
    ),  # ['1' '2'], {'1', '2'}
    "an array": re.compile(rf"\[[\[\s]*{NUMBER}(?:[\]\[\s]+{NUMBER})+[\]\s]*\]"),  # [1 2]
    "bytes": re.compile(rf"""b(['"]){NUMBER}\1"""),
    "a value of a program": re.compile(
        r"[\[(]*(?:[a-z]+\.)?(?:array|tensor|Decimal|Fraction|Timestamp|datetime|u?int\d+|float\d+|str_|bool_)"
        r"\(.*\)[\])]*",
        re.DOTALL,
    ),
}
MISSING = frozenset(
    ("nan", "NaN", "NAN", "None", "null", "Null", "NULL", "N/A", "n/a", "NA", "<NA>", "#N/A", "NaT", "[]")
)


def kind_written(text: str) -> str:
    """What a program wrote as this text, in words; "" for plain text.

    >>> kind_written("['1' '2']"), kind_written("[1 2]"), kind_written("array([3])"), kind_written("[1, 2)")
    ('a list', 'an array', 'a value of a program', '')
    """
    return next((words for words, pattern in OTHERS.items() if pattern.fullmatch(text)), "")


def as_text(kind: str) -> str:
    """What `kind_written` says, with the remedy."""
    return f"{kind} written as text. Save the table in a format that has lists and objects (.jsonl, .parquet)"


def list_written(text: str) -> list[str] | None:
    r"""The quoted texts of a list as Python or JSON writes it; None for any other text.

    >>> list_written(r"['\\pi', '2']"), list_written('["3"]'), list_written("['1' '2']"), list_written("[1, 2]")
    (['\\pi', '2'], ['3'], None, None)
    """
    if not LIST.fullmatch(text):
        return None
    return [re.sub(r"\\(.)", r"\1", quoted[1:-1]) for quoted in re.findall(ITEM, text)]
