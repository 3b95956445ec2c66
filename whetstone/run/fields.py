"""The tables inside tables: which classes of settings the type of a field names."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from whetstone.run.settings import Registered


def tables_in(declared: FieldInfo) -> dict[type[BaseModel], list[str]]:
    """The classes in a field's type: one class, a tuple of it, a union of several, or those of a registry by their names."""
    classes: dict[type[BaseModel], list[str]] = {}
    if registry := registry_in(declared):
        for name, table in registry.classes().items():
            classes.setdefault(table, []).append(name)
        return classes
    return {part: [] for part in _parts(declared) if isinstance(part, type) and issubclass(part, BaseModel)}


def registry_in(declared: FieldInfo) -> Registered | None:
    """The registry that a field's table comes from; None if its type names the classes."""
    return next((part for part in _parts(declared) if isinstance(part, Registered)), None)


def _parts(declared: FieldInfo) -> Iterator[Any]:
    """The types and annotations that a type is made of."""
    waiting = [declared.annotation, *declared.metadata]
    while waiting:
        part = waiting.pop(0)
        yield part
        waiting += get_args(part)
