"""Processes that can be killed, one at a time (`Child`) or a warm pool of them (`Pool`): our end of the pipes.

A child is a fresh interpreter with pipes, not a fork or a `multiprocessing` child: it never imports the caller's main
module and inherits no locks. What it runs, and how it ends with its parent, is its own affair (`algebra.py`, `jail.py`).
"""

import atexit
import contextlib
import os
import signal
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
        """Ends the process, with those it forked, and reaps it."""
        if self.owner == os.getpid():
            self.signal_end()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def signal_end(self) -> None:
        """Ends the process, with those it forked; whoever waits for its reply sees that it died."""
        with contextlib.suppress(OSError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)  # it leads a session of its own


AnyChild = TypeVar("AnyChild", bound=Child)


class Pool(Generic[AnyChild]):
    """Children, started when first needed and kept warm, `size` at most. Safe from any thread, and in a forked child."""

    def __init__(self, size: int):
        self.size = size
        self.reset()
        POOLS.add(self)

    def reset(self) -> None:
        """Without children, as at first; in a forked child, where the parent's children stay the parent's."""
        self.started = 0  # children started so far
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
        with self.lock:
            idle, busy = list(self.idle), list(self.busy)
            self.idle.clear()
        for child in idle:
            child.kill()
        for child in busy:  # whoever is using it sees it end, and closes its pipes
            child.signal_end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


POOLS: "weakref.WeakSet[Pool[Any]]" = weakref.WeakSet()


@atexit.register
def _close_pools() -> None:
    for pool in list(POOLS):
        pool.close()


def _reset_pools() -> None:
    for pool in list(POOLS):
        pool.reset()


os.register_at_fork(after_in_child=_reset_pools)
