"""Mistakes in a recipe's tables, in words: where (file and line), what (with the value), why, and the remedy."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from whetstone.run.fields import tables_in
from whetstone.run.secrets import REDACTED, redacted
from whetstone.run.toml import Table

DISTRIBUTION = "whetstone-reasoner"  # this package's name on the package index, where `whetstone` is another project
SHOWN = 200  # characters of a wrong value


def validated(settings_class: type[Any], table: Table, known: Sequence[str] = ()) -> Any:
    """The table as settings. `known` are the keys to name in the error about an unknown one.

    Raises ValueError with a line for each mistake.
    """
    try:
        return settings_class.model_validate(table.values)
    except ValidationError as error:
        mistakes = [mistake for mistake in error.errors() if not _is_of_another_form(mistake)] or error.errors()
        words = [_in_words(settings_class, table, mistake, known) for mistake in mistakes]
        raise ValueError("\n".join(dict.fromkeys(words))) from error


def first_few(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first items, and how many more there are.

    >>> first_few(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def shown(value: object) -> str:
    """A value for a message, without secrets: its beginning, if it is long.

    >>> shown("sft"), len(shown("x" * 5000))
    ("'sft'", 200)
    """
    text = repr(redacted(value))
    return text if len(text) <= SHOWN else text[: SHOWN - 2] + " …"


def suggestion(word: str, known: Iterable[str]) -> str:
    """`: did you mean 'sft'?` if a known word is similar, else a full stop."""
    names = {name.lower(): name for name in known}
    similar = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f": did you mean {names[similar[0]]!r}?" if similar else "."


def install_hint(extra: str) -> str:
    """The command that installs an optional part of this package."""
    return f'pip install "{DISTRIBUTION}[{extra}]"'


def _is_of_another_form(error: Mapping[str, Any]) -> bool:
    """Whether it is the error of a union's member that the value was not meant for.

    These are: the string or the list for a table, a table for what is none, and the integer of a union that takes any number.
    """
    if error["loc"][-1:] == ("constrained-int",):
        return True
    if isinstance(error["input"], dict):
        return error["type"] == "tuple_type" or (error["type"] == "string_type" and error["loc"][-1] == "str")
    return error["type"] == "model_type" and str(error["loc"][-1])[:1].isupper()  # a class's name, not a key


def _in_words(settings_class: type[BaseModel], table: Table, error: Mapping[str, Any], known: Sequence[str]) -> str:
    """One of pydantic's errors."""
    path = error["loc"]
    value = redacted(error["input"], str(path[-1]) if path else "")
    if path and path[-1] == "key_variable":  # perhaps a key, where a name belongs
        value = REDACTED
    place, key = table.place(*path), _as_written(path, table.values, missing=error["type"] == "missing")
    if error["type"] == "extra_forbidden":
        above = _table_at(settings_class, path[:-1], table.values)
        names = list(known if len(path) == 1 and known else type(above).model_fields if above else ())
        return f"{place} unknown key {key!r}{suggestion(str(path[-1]), names)} Known keys are {', '.join(names)}."
    if error["type"] == "missing":
        return f"{place} {key} is missing: it has no default. Add {path[-1]} = …"
    why = _in_terms_of_toml(str(error["msg"])).removeprefix("Value error, ").removesuffix(".")
    what = f"{key} = {shown(value)}: " if key and not isinstance(value, dict) else f"{key}: " if key else ""
    if error["type"] == "value_error":  # raised by a validator of ours, which names the remedy
        return f"{place} {what}{why}."
    return f"{place} {what}{why[:1].lower()}{why[1:]}.{_default(settings_class, path, table.values)}"


def _in_terms_of_toml(message: str) -> str:
    """
    >>> _in_terms_of_toml("Input should be a valid dictionary or instance of PoolSettings")
    'Input should be a table'
    """
    message = re.sub(r"a valid dictionary( or instance of \w+)?", "a table", message)
    return (
        message.replace("a valid tuple", "a list")
        .replace("Tuple should", "list should")
        .replace("a valid path for <class 'pathlib.Path'>", "a path")
    )


def _default(settings_class: type[BaseModel], path: Sequence[str | int], values: Any) -> str:
    """A sentence about the default of the setting at `path`, as this kind of stage has it; empty if there is none."""
    default = getattr(_table_at(settings_class, path[:-1], values), str(path[-1]), None) if path else None
    default = str(default) if isinstance(default, Path) else default
    return "" if default is None else f" The default is {default!r}: leave the line out or give a value like it."


def _as_written(path: Sequence[str | int], values: Any, missing: bool) -> str:
    """The path as the user wrote it: `source[0].digits`. Parts that are no key (the member of a union) are left out."""
    words = ""
    for position, part in enumerate(path):
        if isinstance(part, int) and isinstance(values, list | tuple) and part < len(values):
            words += f"[{part}]"
            values = values[part]
        elif isinstance(values, dict) and (part in values or (missing and position == len(path) - 1)):
            words += f".{part}"
            values = values.get(part)
    return words.removeprefix(".")


def _table_at(settings_class: type[BaseModel], path: Sequence[str | int], values: Any) -> BaseModel | None:
    """The table at `path` below the settings, with its defaults; None if its class is not certain.

    A class may choose one below it by what the user wrote: `of(values)`.
    """
    classes: list[type[BaseModel]] = []
    table: BaseModel | None = settings_class.model_construct()
    for part in path:
        if isinstance(part, int):
            values, table = values[part] if isinstance(values, list) else None, None
        elif table is not None and part in type(table).model_fields:
            classes = list(tables_in(type(table).model_fields[part]))
            values, table = values.get(part) if isinstance(values, dict) else None, getattr(table, part, None)
        else:  # pydantic names the member of a union
            classes = [c for c in classes if c.__name__ in re.findall(r"\w+", part)]  # or a tuple of it
        if not isinstance(table, BaseModel):
            chosen = {c.of(values) if hasattr(c, "of") and isinstance(values, dict) else c for c in classes}
            table = chosen.pop().model_construct() if len(chosen) == 1 else None
    return table
