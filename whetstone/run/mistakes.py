"""Mistakes in a recipe's tables, in words: where (file and line), what (with the value), why, and the remedy."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from whetstone.run.fields import tables_in
from whetstone.run.toml import Table


def validated(settings_class: type[Any], table: Table, known: Sequence[str] = ()) -> Any:
    """The table as settings. `known` are the keys to name in the error about an unknown one.

    Raises ValueError with a line for each mistake.
    """
    try:
        return settings_class.model_validate(table.values)
    except ValidationError as error:
        mistakes = [mistake for mistake in error.errors() if not _is_of_another_form(mistake)] or error.errors()
        words = [_in_words(settings_class, table, mistake, known) for mistake in mistakes]
        raise ValueError("\n".join(words)) from error


def suggestion(word: str, known: Iterable[str]) -> str:
    """`: did you mean 'sft'?` if a known word is similar, else a full stop."""
    similar = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f": did you mean {similar[0]!r}?" if similar else "."


def _is_of_another_form(error: Mapping[str, Any]) -> bool:
    """Whether it is the error of a union's string for a value that is a table, or of its table for one that is none."""
    if isinstance(error["input"], dict):
        return error["type"] == "string_type" and error["loc"][-1] == "str"
    return error["type"] == "model_type" and str(error["loc"][-1])[:1].isupper()  # a class's name, not a key


def _in_words(settings_class: type[BaseModel], table: Table, error: Mapping[str, Any], known: Sequence[str]) -> str:
    """One of pydantic's errors."""
    path, value = error["loc"], error["input"]
    place, key = table.place(*path), _as_written(path, table.values, missing=error["type"] == "missing")
    if error["type"] == "extra_forbidden":
        fields = _fields_at(settings_class, path[:-1], table.values)
        names = list(dict.fromkeys(known if len(path) == 1 and known else fields))
        return f"{place} unknown key {key!r}{suggestion(str(path[-1]), names)} Known keys are {', '.join(names)}."
    if error["type"] == "missing":
        return f"{place} {key} is missing: it has no default. Add {path[-1]} = …"
    why = str(error["msg"]).removeprefix("Value error, ").removesuffix(".")
    what = f"{key} = {value!r}: " if key and not isinstance(value, dict) else f"{key}: " if key else ""
    if error["type"] == "value_error":  # raised by a validator of ours, which names the remedy
        return f"{place} {what}{why}."
    return f"{place} {what}{why[:1].lower()}{why[1:]}.{_default(settings_class, path, table.values)}"


def _default(settings_class: type[BaseModel], path: Sequence[str | int], values: Any) -> str:
    """A sentence about the default of the setting at `path`, as this kind of stage has it; empty if there is none."""
    default: Any = settings_class.model_construct()
    for part in path:
        default = getattr(default, str(part), None) if isinstance(default, BaseModel) else None
    if default is None:
        declared = _fields_at(settings_class, path[:-1], values).get(path[-1])
        if declared is not None and not declared.is_required():
            default = declared.get_default(call_default_factory=True)
    return "" if default is None else f" The default is {default!r}: leave the line out or give a value like it."


def _as_written(path: Sequence[str | int], values: Any, missing: bool) -> str:
    """The path as the user wrote it: `source[0].digits`. Parts that are no key of theirs (the tag of a union) are left out."""
    words = ""
    for position, part in enumerate(path):
        if isinstance(part, int) and isinstance(values, list | tuple) and part < len(values):
            words += f"[{part}]"
            values = values[part]
        elif isinstance(values, dict) and (part in values or (missing and position == len(path) - 1)):
            words += f".{part}"
            values = values.get(part)
    return words.removeprefix(".")


def _fields_at(settings_class: type[BaseModel], path: Sequence[str | int], values: Any) -> Mapping[str, FieldInfo]:
    """The fields of the table at `path` below the settings; empty if its class is not certain."""
    classes = _classes_at(settings_class, path, values)
    return classes[0].model_fields if len(classes) == 1 else {}


def _classes_at(settings_class: type[BaseModel], path: Sequence[str | int], values: Any) -> list[type[BaseModel]]:
    """The settings classes that the table at `path` may be of. A class may choose one below it by the table: `of(values)`."""
    classes = [settings_class]
    for part in path:
        if isinstance(values, list) and isinstance(part, int):
            values = values[part]
            chosen = (c.of(values) if hasattr(c, "of") and isinstance(values, dict) else c for c in classes)
            classes = list(dict.fromkeys(chosen))
            continue
        values = values.get(part) if isinstance(values, dict) else None
        tagged = [
            c for c in classes if "kind" in c.model_fields and part in get_args(c.model_fields["kind"].annotation)
        ]
        inner = [t for c in classes if part in c.model_fields for t in tables_in(c.model_fields[part])]
        classes = tagged or [c for c in classes if c.__name__ == part] or inner
    return classes
