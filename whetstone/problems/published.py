"""A published set, described once: how its rows are read, under which licence and answer policy, what for, where it is found.

The stage `questions` trains and tests on it (`kind = "published"`), `evaluate --benchmark NAME` scores on it, both from the same
description. A set is an entry of `SETS` in a file of `whetstone/problems/sets/`, or of a user's own file: "my_sets.py:MINE".
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from whetstone.problems import sets
from whetstone.problems.reading import Reading
from whetstone.problems.table import Row
from whetstone.run import user_file


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """A published set.

    Column names and licences are those of the set's own page; a licence covers what the set's makers could license.
    """

    read: Callable[[Row], Reading]  # raises ValueError("reason: detail") for a row that gives no problem
    columns: tuple[str, ...] = ()  # that every row must have
    licence: str = "not stated"
    policy: str = "math"  # the answer policy of its problems
    hub: str = ""  # its name on the Hugging Face Hub
    configuration: str | None = None  # of the set there
    for_scoring: bool = False  # made for scoring: refused as training data
    test: str = ""  # file below $WHETSTONE_DATA that scores are of; "": it is no problem set to score on
    unanswered: int = 0  # rows of that file to which the set itself gives no answer


@cache
def known_sets() -> Mapping[str, ProblemSet]:
    """Every published set by its name: the entries of `SETS` of all files in `problems/sets/`."""
    names = sorted(module.name for module in iter_modules(sets.__path__))
    return {
        name: described
        for file in names
        for name, described in import_module(f"{sets.__name__}.{file}").SETS.items()
    }


def find_set(name: str) -> ProblemSet:
    """The set of that name, or of a user's own file. Raises ValueError with the known names."""
    own = user_file.file_of(name)
    if own is not None:
        described = user_file.load(name)
        if not isinstance(described, ProblemSet):
            raise ValueError(f"{name} is a {type(described).__name__}, not a whetstone.problems.published.ProblemSet.")
        return described
    if name not in known_sets():
        near = get_close_matches(name, known_sets(), n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"the published set {name!r} is not known.{meant} Known are {', '.join(known_sets())}.")
    return known_sets()[name]


def test_file(name: str, described: ProblemSet) -> Path:
    """The file that scores on a set are of. Raises ValueError if the set has none or the file is missing."""
    folder = os.environ.get("WHETSTONE_DATA")
    if not described.test:
        raise ValueError(
            f"the published set {name!r} is none to score on: its description names no test file. Name a file of its "
            "problems, with --column question=THEIRS --column answer=THEIRS."
        )
    if not folder:
        raise ValueError(
            f"benchmark {name!r} is read from the folder named by WHETSTONE_DATA, which is not set. Set it to a folder "
            f"that holds {described.test}."
        )
    path = Path(folder) / described.test
    if not path.is_file():
        raise ValueError(
            f"benchmark {name!r}: {path} is missing. Put the file there, or set WHETSTONE_DATA to the folder that has it."
        )
    return path


def is_non_commercial(licence: str) -> bool:
    """Whether a licence forbids commercial use by its name.

    >>> is_non_commercial("CC BY-NC 4.0"), is_non_commercial("CC BY 4.0")
    (True, False)
    """
    return bool(re.search(r"\bNC\b|non-?commercial", licence, re.IGNORECASE))
