"""The published sets that are known: the entries of `SETS` in the files of this folder. A new file needs no registration."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from whetstone.problems.files import FETCH, HUB_NAME
from whetstone.problems.published import ProblemSet
from whetstone.run import user_file
from whetstone.run.mistakes import suggestion


@cache
def known_sets() -> Mapping[str, ProblemSet]:
    """Every published set by its name."""
    files = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return {name: described for file in files for name, described in file.SETS.items()}


def find_set(name: str) -> ProblemSet:
    """The set of that name, or a user's own, "my_sets.py:MINE". Raises ValueError, FileNotFoundError."""
    if user_file.file_of(name) is not None:
        described = user_file.load(name)
        if not isinstance(described, ProblemSet):
            raise ValueError(f"{name} is a {type(described).__name__}, not a whetstone.problems.published.ProblemSet.")
        return described
    known = known_sets()
    if name not in known:
        on_hub = next((ours for ours, described in known.items() if described.hub and described.hub == name), None)
        if on_hub:
            raise ValueError(f"{name!r} is a name on the Hub. Here the set is called {on_hub!r}: use that.")
        fetch = f" It looks like a name on the Hub: {FETCH.format(name)}." if HUB_NAME.fullmatch(name) else ""
        raise ValueError(
            f"the published set {name!r} is not known{suggestion(name, known)} Known are {', '.join(known)}.{fetch}"
        )
    return known[name]
