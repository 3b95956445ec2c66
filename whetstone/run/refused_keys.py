"""Keys of a table that are refused whatever its class: those of an earlier version, and lists that name one thing twice."""

from collections.abc import Container, Iterator, Mapping
from typing import Any

from pydantic_core import InitErrorDetails, PydanticCustomError

from whetstone.run.secrets import redacted


def refused_keys(
    values: Mapping[str, Any], moved: Mapping[str, str], arguments: Container[str]
) -> Iterator[InitErrorDetails]:
    """`moved`: key -> what it is called now; `arguments`: keys whose texts may be there several times."""
    for key, value in values.items():
        if key in moved:
            yield _error(key, value, "this key is now {new}", {"new": moved[key]})
        elif key not in arguments and (twice := named_twice(value)):
            yield _error(key, value, "it names {twice} twice. Name it once", {"twice": repr(redacted(twice, key))})


def named_twice(value: Any) -> str:
    """The first text that is in a list of texts before; "" for none, and for any other value."""
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return ""
    return next((name for place, name in enumerate(value) if name in value[:place]), "")


def _error(key: str, value: Any, words: Any, names: dict[str, Any]) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("value_error", words, names), loc=(key,), input=value)
