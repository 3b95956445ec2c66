"""Signs of life of processes on one or several machines, so that one that vanishes is named, and not only waited for.

Each process writes `alive-RANK` again and again, in a folder that all machines see: its node, host and process id, and a
count. It writes none if it was stopped, if its machine is gone or cut off, or if it holds the interpreter's lock. The
controller compares texts, not times, because clocks of machines differ.
"""

import os
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import count as numbers
from pathlib import Path

from whetstone.run.folder import read_json, write_json
from whetstone.run.progress import say

HOW = "alive.json"
MOST = 10.0  # seconds between two signs, at most
SIGNS = 20  # of a process in the time after which it is named


class Signs:
    """What the controller sees of its processes. With `silence` = 0 seconds it only learns where each is."""

    def __init__(self, folder: Path, count: int, silence: float, end: bool):
        self.folder, self.count, self.silence, self.end = folder, count, silence, end
        self.every = min(MOST, silence / SIGNS)
        self._last: dict[int, tuple[str, float]] = {}  # rank -> its last sign, and when it was seen
        self._named: set[int] = set()
        for old in folder.glob("alive-*"):
            old.unlink()
        write_json(folder / HOW, {"every": self.every})

    def look(self) -> None:
        """Name the processes that have given no sign for too long, once. With `end`, raises ChildProcessError for them."""
        now = time.monotonic()
        for rank in range(self.count if self.silence else 0):
            sign = self._sign(rank)
            if sign and sign != self._last.get(rank, ("", 0.0))[0]:
                self._last[rank] = sign, now
                self._named.discard(rank)
        silent = [
            rank
            for rank, (_, since) in self._last.items()
            if now - since > self.silence and not (self.folder / f"rank-{rank}.json").exists()  # it has not ended
        ]
        new = [rank for rank in silent if rank not in self._named]
        if not new:
            return
        self._named |= set(new)
        told = (
            f"{self.named(new)}: no sign of life for {self.silence:.0f} s. It was stopped, or its machine or network is gone. "
            "The others wait for it"
        )
        if self.end:
            raise ChildProcessError(f"{told}, and are ended. Run again: it continues from what was saved last.")
        say(f"warning: {told}.")

    def named(self, ranks: Iterable[int]) -> str:
        """Processes in words, with where they are."""
        which = sorted(ranks)
        places = dict.fromkeys(filter(None, (self._place(rank) for rank in which)))
        many = f"processes {', '.join(map(str, which))}" if len(which) > 1 else f"process {which[0]}"
        return f"{many} of {self.count}" + (f" ({'; '.join(places)})" if places else "")

    def _sign(self, rank: int) -> str:
        with suppress(OSError):
            return (self.folder / f"alive-{rank}").read_text(errors="replace")
        return ""

    def _place(self, rank: int) -> str:
        return self._sign(rank).partition("\n")[0]


def give_signs(folder: Path, rank: int) -> None:
    """Give signs of this process until it ends, as often as the controller asked for."""
    with suppress(OSError, ValueError):  # started by hand, without a controller
        every = read_json(folder / HOW, needed=["every"])["every"]
        place = f"node {os.environ.get('GROUP_RANK', '0')}, {socket.gethostname()}, process id {os.getpid()}"
        path = folder / f"alive-{rank}"
        _write(path, place, 0)  # before it does anything else: who never gave a sign is not missed
        if every:
            threading.Thread(target=_give, args=(path, place, every), daemon=True).start()


def _give(path: Path, place: str, every: float) -> None:
    for number in numbers(1):
        time.sleep(every)
        with suppress(OSError):  # a full disk, or a file system that is away for a while
            _write(path, place, number)


def _write(path: Path, place: str, number: int) -> None:
    """A sign, whole or not at all: a process that is stopped meanwhile leaves the one before. Unlike `folder.write_text` it is
    not synced, because nobody needs it after a crash.
    """
    part = path.with_name(f".{path.name}")
    part.write_text(f"{place}\n{number}\n")
    os.replace(part, path)
