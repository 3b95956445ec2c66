"""Signs of life of processes on one or several machines, so that one that vanishes is named, and not only waited for.

Each process writes `alive-RANK` again and again, in a folder that all machines see: its node, host and process id, and a
count. It writes none if it was stopped, if its machine is gone or cut off, or if it holds the interpreter's lock. The
controller compares texts, not times, because clocks of machines differ.

The controller's own file says how often, and whether to stop. A process that finds it gone, or another controller's, ends: what
started it may not have told it that its controller is gone, and the next one begins where this one was.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count as numbers
from pathlib import Path
from typing import Any

from whetstone.run.folder import read_json, write_json
from whetstone.run.progress import say

HOW = "alive.json"  # the controller's
MOST = 10.0  # seconds between two signs, at most
SIGNS = 20  # of a process in the time after which it is named


class Signs:
    """What the controller sees of its processes. With `silence` = 0 seconds it only learns where each is."""

    def __init__(self, folder: Path, count: int, silence: float, end: bool):
        self.folder, self.count, self.silence, self.end = folder, count, silence, end
        self.every = min(MOST, silence / SIGNS) or MOST
        self._last: dict[int, tuple[str, float]] = {}  # rank -> its last sign, and when it was seen
        self._named: set[int] = set()
        for old in folder.glob("alive-*"):
            old.unlink()
        self._said = {"every": self.every, "controller": secrets.token_hex(8), "stop": False}
        write_json(folder / HOW, self._said)

    def ask_to_stop(self) -> None:
        with suppress(OSError):  # a full disk: those that have the controller's pipe hear of it all the same
            write_json(self.folder / HOW, self._said | {"stop": True})

    def close(self) -> None:
        """The controller waits no longer: processes that are left end."""
        with suppress(OSError):
            (self.folder / HOW).unlink()

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


def give_signs(folder: Path, rank: int, stop: Callable[[], None]) -> None:
    """Give signs of this process until it ends, as often as the controller says; call `stop` at each while it says so."""
    with suppress(OSError, ValueError):  # started by hand, without a controller
        said = read_json(folder / HOW, needed=["every", "controller"])
        place = f"node {os.environ.get('GROUP_RANK', '0')}, {socket.gethostname()}, process id {os.getpid()}"
        path = folder / f"alive-{rank}"
        _write(path, place, 0)  # before it does anything else: who never gave a sign is not missed
        threading.Thread(target=_give, args=(path, place, said, stop), daemon=True).start()


def _give(path: Path, place: str, said: dict[str, Any], stop: Callable[[], None]) -> None:
    gone = 0
    for number in numbers(1):
        time.sleep(said["every"])
        with suppress(OSError, ValueError):  # a full disk, or a file system that is away for a while
            _write(path, place, number)
            now = read_json(path.with_name(HOW)) if path.with_name(HOW).exists() else {}
            gone = gone + 1 if now.get("controller") != said["controller"] else 0
            if gone == 2:  # a file system of several machines may err once
                say("the run that this process belongs to has ended, or begun again: it ends too")
                os._exit(1)
            if now.get("stop") and not gone:
                stop()


def _write(path: Path, place: str, number: int) -> None:
    """A sign, whole or not at all: a process that is stopped meanwhile leaves the one before. Unlike `folder.write_text` it is
    not synced, because nobody needs it after a crash.
    """
    part = path.with_name(f".{path.name}")
    part.write_text(f"{place}\n{number}\n")
    os.replace(part, path)
