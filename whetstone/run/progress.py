"""Progress on stderr: a live bar on a terminal, elsewhere a plain line every ten seconds.

with progress(len(problems), "sampling", unit="rollouts") as bar:
    bar.advance(3, correct="41 %")

sampling  1,204/5,000 rollouts  24 %  38.1/s  1:39 left  correct 41 %
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

PLAIN_SECONDS = 10.0  # between two plain lines


class Bar(Protocol):
    """What a loop is given: it says that `count` more are done, and what to show beside the bar."""

    def advance(self, count: float = 1, **notes: object) -> None: ...


class _PlainBar:
    """Lines for logs and pipes. The rate does not count what a resumed stage had done before."""

    def __init__(self, total: float | None, label: str, unit: str, done: float, stream: TextIO):
        self.total, self.label, self.unit, self.stream = total, label, unit, stream
        self.done = self.before = done
        self.started = self.printed = time.monotonic()
        self.notes: dict[str, object] = {}

    def advance(self, count: float = 1, **notes: object) -> None:
        self.done += count
        self.notes |= notes
        now = time.monotonic()
        if now - self.printed >= PLAIN_SECONDS:
            self.printed = now
            self.write(self.line(now))

    def write(self, line: str) -> None:
        if _open and _open[0] is not self and _open[0].stream is self.stream:
            _open[0].write(line)
        else:
            print(line, file=self.stream, flush=True)

    def line(self, now: float) -> str:
        seconds = max(now - self.started, 1e-9)
        rate = (self.done - self.before) / seconds
        of_total = f"{_number(self.done)}/{_number(self.total)}" if self.total else _number(self.done)
        parts = [f"{self.label}  {of_total} {self.unit}".rstrip()]
        if self.total:
            parts.append(f"{100 * self.done / self.total:.0f} %")
        parts.append(f"{_number(rate)}/s")
        if self.total and 0 < self.done < self.total and rate > 0:
            parts.append(f"{clock((self.total - self.done) / rate)} left")
        else:
            parts.append(f"{clock(seconds)} so far")
        return "  ".join(parts + [f"{name} {value}" for name, value in self.notes.items()])

    def close(self) -> None:
        self.write(self.line(time.monotonic()).replace(" so far", ""))


class _LiveBar:
    """A rich bar, with rate, elapsed and remaining time, and notes."""

    def __init__(self, total: float | None, label: str, unit: str, done: float, stream: TextIO):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.unit, self.stream, self.before, self.started = unit, stream, done, time.monotonic()
        self.notes: dict[str, object] = {}
        self.rich = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[notes]}", markup=False),
            console=Console(file=stream),
        )
        self.total, self.done = total, done
        of_total = f"{_number(done)}/{_number(total)}" if total else ""
        self.task = self.rich.add_task(label, total=total, completed=done, count=f"{of_total} {unit}", notes="")
        self.rich.start()

    def advance(self, count: float = 1, **notes: object) -> None:
        self.done += count
        self.notes |= notes
        rate = (self.done - self.before) / max(time.monotonic() - self.started, 1e-9)
        of_total = f"{_number(self.done)}/{_number(self.total)}" if self.total else _number(self.done)
        self.rich.update(
            self.task,
            completed=self.done,
            count=f"{of_total} {self.unit}  {_number(rate)}/s",
            notes="  ".join(f"{name} {value}" for name, value in self.notes.items()),
        )

    def write(self, line: str) -> None:
        self.rich.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self.rich.stop()


_open: list[_PlainBar | _LiveBar] = []  # the innermost last; rich allows one live display at a time


@contextmanager
def progress(
    total: float | None, label: str, unit: str = "", done: float = 0, stream: TextIO | None = None
) -> Iterator[Bar]:
    """A bar for `total` things (None: unknown), of which `done` were done before a stage was resumed.

    Bars may nest: inner ones print lines, above the outer one if that is live.
    """
    stream = stream or sys.stderr
    kind = _LiveBar if stream.isatty() and not _open else _PlainBar
    bar = kind(total, label, unit, done, stream)
    _open.append(bar)
    try:
        yield bar
    finally:
        _open.remove(bar)
        bar.close()


def say(line: str) -> None:
    """One status line on stderr, above the live bar if there is one."""
    if _open:
        _open[0].write(line)
    else:
        print(line, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """95 -> `1:35`, 4000 -> `1:06:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: Any) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"
