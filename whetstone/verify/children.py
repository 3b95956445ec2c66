"""Child processes that can be killed at any time: one (`Child`), or a pool of them (`Pool`). This is the parent's side.

A child is a fresh interpreter with pipes, neither a fork nor a `multiprocessing` child: it never imports the caller's main
module and inherits no locks. `algebra.py` and `isolation/host.py` are what children run.
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

from whetstone.verify.wire import receive, send

START_SECONDS = 120.0  # to import sympy; several children at once on a busy machine take long
PATIENCE_SECONDS = 300.0  # how long a child that is killed while it starts is started again
RETRY_SECONDS = 0.1  # between two starts
FROM_OUTSIDE = frozenset((signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))  # signals that others send
ROOT = str(Path(__file__).resolve().parents[2])


class Died(Exception):
    """The child ended without an answer."""


class NotStarted(RuntimeError):
    """A child did not become ready; the text says why and what to do."""


class Killed(NotStarted):
    """A signal from outside ended the child before it was ready, so the next one may well start."""


class Child:
    """One process. Used by one thread at a time."""

    def __init__(self, name: str, call: str, environment: Mapping[str, str], *options: str):
        """`call` is the Python it runs, with this package's folder on the path; `options` are the interpreter's."""
        start = f"import sys; sys.path.insert(0, {ROOT!r}); {call}"
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, *options, "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent only
        )
        self.owner = os.getpid()

    def until_ready(self, remedy: str) -> dict[str, Any]:
        """Its first message. Raises NotStarted with the remedy, or Killed."""
        try:
            return self.receive(START_SECONDS)
        except TimeoutError:
            self.kill()
            raise NotStarted(f"a {self.name} process was not ready after {START_SECONDS:.0f} s. {remedy}") from None
        except Died:
            self.kill()
            kind = Killed if self.was_killed else NotStarted
            status = self.process.returncode
            raise kind(f"a {self.name} process ended with status {status} while it started. {remedy}") from None

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The reply. Raises TimeoutError after `seconds` of wall time, Died if the child ends without a reply, and
        BrokenPipeError if it had ended before."""
        try:
            send(self.process.stdin.fileno(), question)
        except OSError as error:
            raise BrokenPipeError("the process had ended before it was asked") from error
        return self.receive(seconds)

    def receive(self, seconds: float) -> dict[str, Any]:
        """Its next message. Raises TimeoutError or Died."""
        message = receive(self.process.stdout.fileno(), time.monotonic() + seconds)
        if message is None:
            raise Died
        return message

    @property
    def was_killed(self) -> bool:
        """Whether a signal from outside ended it; known once it has been reaped."""
        return self.process.returncode is not None and -self.process.returncode in FROM_OUTSIDE

    def kill(self) -> None:
        """Ends the process and those that it forked, and reaps it."""
        if self.owner == os.getpid():
            self.signal_end()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def signal_end(self) -> None:
        """Ends the process and those that it forked. A thread that waits for its reply gets Died."""
        with contextlib.suppress(OSError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)  # it leads a session of its own


AnyChild = TypeVar("AnyChild", bound=Child)


class Pool(Generic[AnyChild]):
    """At most `size` children, started when first needed and then kept. Safe from any thread, and in a forked child."""

    def __init__(self, size: int):
        self.size = size
        self.reset()
        POOLS.add(self)

    def reset(self) -> None:
        """Without children, as at first. In a forked child: the parent's children stay the parent's."""
        self.started = 0  # children started so far
        self.closings = 0  # calls of `close` so far
        self.idle: list[AnyChild] = []
        self.busy: set[AnyChild] = set()
        self.lock = threading.Lock()
        self.slots = threading.Semaphore(self.size)

    def start(self) -> AnyChild:
        """A new child that is ready. Raises NotStarted or Killed."""
        raise NotImplementedError

    @contextlib.contextmanager
    def lend(self) -> Iterator[AnyChild]:
        """An idle child, or a new one. It is ended if the caller's block raises or the child is dead afterwards."""
        with self.slots:
            child = self._idle_child() or self._new_child()
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

    def _idle_child(self) -> AnyChild | None:
        """A living one. Those that were killed meanwhile are reaped."""
        while True:
            with self.lock:
                if not self.idle:
                    return None
                child = self.idle.pop()
            if child.process.poll() is None:
                return child
            child.kill()

    def _new_child(self) -> AnyChild:
        """Starts a child. One that is killed from outside while it starts is started again, for PATIENCE_SECONDS or until
        the pool is closed."""
        deadline, closings = time.monotonic() + PATIENCE_SECONDS, self.closings
        while True:
            try:
                child = self.start()
                break
            except Killed as error:
                if self.closings != closings:
                    raise
                if time.monotonic() > deadline:
                    raise NotStarted(
                        f"{error} This went on for {PATIENCE_SECONDS:.0f} s. The kernel does so when memory runs out: "
                        "free some, or find what kills the processes."
                    ) from None
                time.sleep(RETRY_SECONDS)
        with self.lock:
            self.started += 1
        return child

    def close(self) -> None:
        """Ends all children. A later question starts new ones."""
        with self.lock:
            self.closings += 1
            idle, busy = list(self.idle), list(self.busy)
            self.idle.clear()
        for child in idle:
            child.kill()
        for child in busy:  # the thread that uses it sees it end and closes its pipes
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
