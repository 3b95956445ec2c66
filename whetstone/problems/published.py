"""A published set, described once: how its rows are read, licence, answer policy, purpose, and where its files are.

The stage `questions` trains and tests on it (`kind = "published"`), and `evaluate --benchmark NAME` scores on it.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from whetstone.problems.reading import Reading
from whetstone.problems.table import Row


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """A published set. It is a `Layout`.

    Column names and licences are those of the set's own page; a licence covers what the set's makers could license.
    """

    read: Callable[[Row], Reading]  # raises ValueError("reason: detail") for a row that gives no problem, or KeyError
    licence: str = "not stated"
    policy: str = "math"  # the answer policy of its problems
    hub: str = ""  # its name on the Hugging Face Hub
    configuration: str | None = None  # of the set there
    for_scoring: bool = False  # made for scoring: refused as training data
    test: str = ""  # file below $WHETSTONE_DATA that scores are of; "": it is no set to score on
    unanswered: int = 0  # rows of that file to which the set itself gives no answer


def test_file(name: str, described: ProblemSet) -> Path:
    """The file that scores on a set are of. Raises ValueError if the set has none or the file is missing."""
    folder = os.environ.get("WHETSTONE_DATA")
    if not described.test:
        raise ValueError(
            f"benchmark {name!r} is a published set without a test file in its description. Name a file of problems, with "
            "--column question=THEIRS --column answer=THEIRS."
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
