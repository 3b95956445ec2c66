"""Algorithms and stabilisers by name. Each is a file in `rl/algorithms` or `rl/stabilisers`, or a file of the user's own.

A recipe names one with its options, or without: `"dapo"`, `{ name = "dapo", clip_high = 0.28 }`,
`{ name = "my_algorithm.py:mine", width = 3 }`. Its file holds the function of that name and, unless it has no options, a class
`Settings` that declares them. Nothing lists the files: a new file is a new algorithm.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from whetstone.rl.algorithm import AlgorithmSettings, Options, StabiliserSettings
from whetstone.run import user_file
from whetstone.run.mistakes import suggestion
from whetstone.run.settings import Registered


@dataclass(frozen=True)
class Folder:
    """The files of one package of `rl`."""

    package: str
    noun: str  # for messages
    parent: type[Options]
    arguments: tuple[str, ...]  # of its functions

    @property
    def names(self) -> list[str]:
        folder = Path(__file__).with_name(self.package)
        return sorted(path.stem for path in folder.glob("[a-z]*.py"))

    def options(self) -> dict[str, type[Options]]:
        """Name -> the class of its options, of all that are built in."""
        return {name: self.options_of(name) for name in self.names}

    def options_of(self, name: str) -> type[Options]:
        """Raises ValueError for a name that is neither a file's nor the user's own."""
        own = getattr(self._module(name), "Settings", self.parent)
        return own if issubclass(own, self.parent) else self.parent

    def function_of(self, name: str) -> Callable[..., Any]:
        if user_file.file_of(name) is None:
            return getattr(self._module(name), name)
        return user_file.called_with(name, *self.arguments)

    def read(self, value: Any) -> Any:
        """A name, or a table with a name and options, as the options of that name.

        Raises ValueError for a name or an option that is unknown. What is no table is left to pydantic.
        """
        table = {"name": value} if isinstance(value, str) else value
        if not isinstance(table, Mapping):
            return value
        if not isinstance(table.get("name"), str):
            raise ValueError(
                f"this {self.noun} has no name: {dict(table)}. Add name = …, one of {', '.join(self.names)}"
            )
        options = self.options_of(table["name"])
        for key in table:
            if key not in options.model_fields and key not in options.MOVED:
                raise ValueError(self._unknown_option(table["name"], options, key, table[key]))
        return options.model_validate(dict(table))

    def _module(self, name: str) -> ModuleType:
        if name in self.names:
            return import_module(f"whetstone.rl.{self.package}.{name}")
        if user_file.file_of(name) is not None:
            return user_file.module_of(name)
        raise ValueError(
            f"{self.noun} {name!r} is unknown{suggestion(name, self.names)} There are {', '.join(self.names)}, and your own "
            f'as "my_{self.noun}.py:function"'
        )

    def _unknown_option(self, name: str, options: type[Options], key: str, value: Any) -> str:
        own = [option for option in options.model_fields if option != "name"]
        others = ", ".join(other for other, its in self.options().items() if key in its.model_fields)
        why = f"is an option of {others}." if others else f"is unknown{suggestion(key, own)}"
        has = f"The {self.noun} {name!r} has {', '.join(own) or 'no options'}"
        return f"{key} = {value!r} {why} {has}. Leave it out, or choose another {self.noun}"


ALGORITHMS = Folder("algorithms", "algorithm", AlgorithmSettings, ("setup", "settings"))
STABILISERS = Folder("stabilisers", "stabiliser", StabiliserSettings, ("algorithm", "setup", "settings"))

# The types of a recipe's settings. A value is written in full: with the options of its own class
AnyAlgorithm = Annotated[
    SerializeAsAny[AlgorithmSettings], BeforeValidator(ALGORITHMS.read), Registered("name", ALGORITHMS.options)
]
AnyStabiliser = Annotated[
    SerializeAsAny[StabiliserSettings], BeforeValidator(STABILISERS.read), Registered("name", STABILISERS.options)
]
