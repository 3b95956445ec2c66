"""Processes that can be killed, one at a time (`Child`) or a warm pool of them (`Pool`): our end of the pipes.

A child is a fresh interpreter with pipes, not a fork or a `multiprocessing` child: it never imports the caller's main
module and inherits no locks. What it runs, and how it ends with its parent, is its own affair (`algebra.py`, `jail.py`).
"""

import atexit
import contextlib
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from whetstone.verify import wire

START_SECONDS = 120.0  # to import sympy; several at once on a busy machine take long
ROOT = str(Path(__file__).resolve().parents[2])


class Died(Exception):
    """The child ended without an answer."""


class Child:
    """One process. Used by one thread at a time."""

    def __init__(self, call: str, environment: Mapping[str, str], *options: str):
        """`call`: what it runs, the package's folder on its path; `options` are the interpreter's."""
        start = f"import sys; sys.path.insert(0, {ROOT!r}); {call}"
        self.process = subprocess.Popen(
            [sys.executable, *options, "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        self.owner = os.getpid()

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The reply. TimeoutError after `seconds` of wall time, Died when it ends without one, BrokenPipeError when it
        had ended before."""
        try:
            if self.process.poll() is not None:
                raise BrokenPipeError
            wire.send(self.process.stdin.fileno(), question)
        except OSError as error:
            raise BrokenPipeError("the process had ended before it was asked") from error
        return self.receive(seconds)

    def receive(self, seconds: float) -> dict[str, Any]:
        """Its next message. TimeoutError, Died."""
        message = wire.receive(self.process.stdout.fileno(), time.monotonic() + seconds)
        if message is None:
            raise Died
        return message

    def kill(self) -> None:
        """Ends the process at once and reaps it."""
        if self.owner == os.getpid():
            with contextlib.suppress(OSError):
                self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


AnyChild = TypeVar("AnyChild", bound=Child)


class Pool(Generic[AnyChild]):
    """Children, started when first needed and kept warm, `size` at most. Safe from any thread, and in a forked child."""

    def __init__(self, size: int):
        self.size = size
        self.started = 0  # children started so far
        self._reset()
        POOLS.add(self)

    def _reset(self) -> None:
        self.owner = os.getpid()
        self.idle: list[AnyChild] = []
        self.busy: set[AnyChild] = set()
        self.lock = threading.Lock()
        self.slots = threading.Semaphore(self.size)

    def start(self) -> AnyChild:
        """A new child, ready to be asked."""
        raise NotImplementedError

    @contextlib.contextmanager
    def lend(self) -> Iterator[AnyChild]:
        """A warm child, or a new one. One that fails in the hands of the caller, or was killed there, is ended."""
        if self.owner != os.getpid():
            self._reset()  # the parent's children stay the parent's
        with self.slots:
            with self.lock:
                child = self.idle.pop() if self.idle else None
            if child is None:
                child = self.start()
                with self.lock:
                    self.started += 1
            with self.lock:
                self.busy.add(child)
            usable = False
            try:
                yield child
                usable = child.process.poll() is None
            finally:
                with self.lock:
                    self.busy.discard(child)
                    if usable:
                        self.idle.append(child)
                if not usable:
                    child.kill()

    def close(self) -> None:
        """Ends all children. A later question starts new ones."""
        if self.owner != os.getpid():
            return
        with self.lock:
            idle, busy = list(self.idle), list(self.busy)
            self.idle.clear()
        for child in idle:
            child.kill()
        for child in busy:  # whoever is using it sees it end, and closes its pipes
            with contextlib.suppress(OSError):
                child.process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


POOLS: "weakref.WeakSet[Pool[Any]]" = weakref.WeakSet()


@atexit.register
def _close_pools() -> None:
    for pool in list(POOLS):
        pool.close()
