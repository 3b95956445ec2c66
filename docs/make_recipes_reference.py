"""Writes the settings part of docs/recipes.md from the settings classes: a test checks that the page is up to date.

    python docs/make_recipes_reference.py

Meanings are the descriptions of the fields, defaults those of the classes. Tables within tables are found by their types.
"""

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from whetstone.recipe import KINDS, SHARED, load_room
from whetstone.run.fields import registry_in, tables_in
from whetstone.run.room import Room

PAGE = Path(__file__).with_name("recipes.md")
BEGIN, END = "<!-- settings: written by make_recipes_reference.py -->", "<!-- end of settings -->"


@dataclass
class Inner:
    """A table inside a stage's."""

    headings: list[str] = field(default_factory=list)  # `[stage.metamath]`
    left_out: set[str] = field(default_factory=set)  # keys that the heading tells


Tables = dict[type[BaseModel], Inner]


def reference() -> str:
    rooms = {kind: load_room(kind) for kind in KINDS}
    inner = {kind: tables_below(room.settings, "stage") for kind, room in rooms.items()}
    count = Counter(table for tables in inner.values() for table in tables)
    several = {table: facts for tables in inner.values() for table, facts in tables.items() if count[table] > 1}
    parts = ["## Shared tables"]
    for name, settings in SHARED.items():
        parts += [f"### `[{name}]`", _first_paragraph(settings), _rows(settings)]
        parts += _sections(tables_below(settings, name), "####")
    parts += ["## Stages", "Every stage has a `kind`, and a `name` for itself and its folder (default: the kind)."]
    for kind, room in rooms.items():
        parts += [f'### `kind = "{kind}"`', _first_paragraph(import_module(KINDS[kind])), _inputs(room)]
        parts += [_rows(room.settings, ("kind", "name"))]
        parts += _sections({table: facts for table, facts in inner[kind].items() if count[table] == 1}, "####")
    parts += ["## Tables that several kinds of stage have", *_sections(several, "###")]
    return "\n\n".join(part for part in parts if part) + "\n"


def tables_below(settings: type[BaseModel], path: str) -> Tables:
    """The tables inside a table, at any depth, in the order of its fields."""
    tables: Tables = {}
    for name, declared in settings.model_fields.items():
        registry, inner_path = registry_in(declared), f"{path}.{name}"
        for table, names in tables_in(declared).items():
            types = (declared.annotation, *get_args(declared.annotation))
            several = any(get_origin(part) is tuple for part in types) and table not in types
            heading = f"`[[{inner_path}]]`" if several else f"`[{inner_path}]`"
            inner = tables.setdefault(table, Inner())
            if registry:
                heading += f" with `{registry.by} = " + ", ".join(f'"{name}"' for name in names) + "`"
                inner.left_out.add(registry.by)
            inner.headings.append(heading)
            for deeper, facts in tables_below(table, inner_path).items():
                known = tables.setdefault(deeper, Inner(left_out=facts.left_out))
                known.headings += [heading for heading in facts.headings if heading not in known.headings]
    return tables


def _sections(tables: Tables, mark: str) -> list[str]:
    parts: list[str] = []
    for table, inner in tables.items():
        if table.model_fields.keys() - inner.left_out:
            headings = f"{mark} {' and '.join(dict.fromkeys(inner.headings))}"
            parts += [headings, _first_paragraph(table), _rows(table, tuple(inner.left_out))]
    return parts


def _first_paragraph(documented: Any) -> str:
    """Of a docstring of the class's or module's own."""
    text = inspect.cleandoc(documented.__dict__.get("__doc__") or "")
    return " ".join(text.partition("\n\n")[0].split()).removesuffix(":")


def _inputs(room: Room) -> str:
    inputs = []
    for name, wanted in room.inputs.items():
        facts = [" or ".join(wanted.accepts), wanted.description, "only if named" * wanted.only_named]
        facts += ["or `[model] path`" * wanted.or_path, "optional" * (wanted.optional and not wanted.only_named)]
        inputs.append(f"`{name}` ({'; '.join(filter(None, facts))})")
    lines = [f"Inputs: {', '.join(inputs)}."] if inputs else []
    if room.reads_run:
        lines.append("Reads everything above it and the scores; made again whenever they change.")
    return " ".join([*lines, f"Gives: {', '.join(room.gives)}."])


def _rows(settings: type[BaseModel], left_out: Sequence[str] = ()) -> str:
    rows = []
    for name, declared in settings.model_fields.items():
        if name not in left_out:
            default = "(needed)" if declared.is_required() else _toml(declared.get_default(call_default_factory=True))
            meaning = (declared.description or "").replace("|", "\\|").replace("None:", "left out:")
            choices = _choices(declared.annotation)
            rows.append(f"| `{name}` | {default} | {'; '.join(part for part in (meaning, choices) if part)} |")
    if not rows:
        return "No settings of its own."
    return "\n".join(["| key | default | meaning |", "| --- | --- | --- |", *rows])


def _choices(annotation: Any) -> str:
    """The values that a setting can take, if they are few."""
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(f"`{_plain(value)}`" for value in get_args(annotation))
    if get_origin(annotation) is dict:
        keys, values = map(_choices, get_args(annotation))
        return f"a key is {keys}; a value is {values}" if keys and values else ""
    choices = next(filter(None, map(_choices, get_args(annotation))), "")
    return choices.replace("one of", "any of") if get_origin(annotation) is tuple else choices


def _toml(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, BaseModel) and not _changed(value):
        return "see below"
    return f"`{_plain(value)}`"


def _changed(table: BaseModel) -> dict[str, Any]:
    """What differs from the defaults of the table's class."""
    return {name: value for name, value in table if value != type(table).model_fields[name].default}


def _plain(value: Any) -> str:
    if isinstance(value, BaseModel):
        return f"{{ {', '.join(f'{name} = {_plain(inner)}' for name, inner in _changed(value).items())} }}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return f'"{value}"' if isinstance(value, str | Path) else f"{value:g}" if isinstance(value, float) else str(value)


def with_reference(page: str) -> str:
    """The page with its settings part made anew; the text around it stays."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{PAGE} has lost its marks {BEGIN} and {END}"
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
