"""Work for the processes of tests/test_fanout.py, in a module that they import quickly."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Square:
    """Kills its process at 5 until there are `deaths` files in the folder."""

    folder: Path
    deaths: int = 0

    def __call__(self, number: int) -> int:
        if number == 5 and len(list(self.folder.iterdir())) < self.deaths:
            (self.folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number


def invert(number: int) -> float:
    return 1 / (number - 5)


def where(number: int) -> int:
    return os.getpid()
