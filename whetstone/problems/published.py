"""Where the test rows of a published set are, and what its licence forbids. The sets are described in `sets/`."""

import os
import re
from functools import partial
from pathlib import Path

from whetstone.problems.reading import ProblemSet

scoring_set = partial(ProblemSet, for_scoring=True)


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
