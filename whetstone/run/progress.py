"""Progress on stderr: a live bar on a terminal, elsewhere a plain line every ten seconds.

with progress(len(problems), "sampling", unit="rollouts") as bar:
    bar.advance(3, correct="41 %")

sampling  1,204/5,000 rollouts  24 %  38.1/s  1:39 left  correct 41 %
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from whetstone.run.visible import visible, write_line

PLAIN_SECONDS = 10.0  # between two plain lines


class Bar:
    """What a loop is given. The rate does not count what a resumed stage had done before."""

    def __init__(self, total: float | None, label: str, unit: str, done: float, stream: TextIO, live: bool):
        self.total, self.label, self.unit, self.stream = total, label, unit, stream
        self.done = self.before = done
        self.started = self.printed = time.monotonic()
        self.notes: dict[str, object] = {}
        self.rich: Any = self._rich_bar() if live else None

    def _rich_bar(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = BarColumn(bar_width=24), TextColumn("{task.description}", markup=False)
        rich = Progress(*columns, console=Console(file=self.stream, markup=False, emoji=False, highlight=False))
        rich.add_task(self.line(), total=self.total, completed=self.done)
        rich.start()
        return rich

    def advance(self, count: float = 1, **notes: object) -> None:
        """`count` more are done; `notes` are shown beside the bar."""
        self.done += count
        self.notes |= notes
        if self.rich:
            self.rich.update(self.rich.task_ids[0], completed=self.done, description=self.line())
        elif time.monotonic() - self.printed >= PLAIN_SECONDS:
            self.printed = time.monotonic()
            self.write(self.line())

    def within(self, share: float, **notes: object) -> None:
        """`share` of the next one is done; `notes` are shown until more are."""
        line = self.line(share, **notes)
        if self.rich:
            self.rich.update(self.rich.task_ids[0], completed=self.done + share, description=line)
        elif time.monotonic() - self.printed >= PLAIN_SECONDS:
            self.printed = time.monotonic()
            self.write(line)

    def write(self, line: str) -> None:
        if self.rich:
            self.rich.console.print(visible(line), soft_wrap=True)
        elif _open and _open[0] is not self and _open[0].stream is self.stream:
            _open[0].write(line)
        else:
            write_line(line, self.stream)

    def line(self, share: float = 0.0, **notes: object) -> str:
        seconds = max(time.monotonic() - self.started, 1e-9)
        done = self.done + share
        rate = (done - self.before) / seconds
        of_total = f"{_number(self.done)}/{_number(self.total)}" if self.total else _number(self.done)
        parts = [f"{self.label}  {of_total} {self.unit}".rstrip()]
        if self.total:
            parts.append(f"{100 * done / self.total:.0f} %")
        parts.append(f"{_number(rate)}/s")
        if self.total and 0 < done < self.total and rate > 0:
            parts.append(f"{clock((self.total - done) / rate)} left")
        else:
            parts.append(f"{clock(seconds)} so far")
        line = "  ".join(parts + [f"{name} {value}" for name, value in (self.notes | notes).items()])
        return visible(line, one_line=True)

    def close(self) -> None:
        if self.rich:
            self.rich.stop()
        else:
            self.write(self.line().replace(" so far", ""))


_open: list[Bar] = []  # the innermost last; rich allows one live display at a time


@contextmanager
def progress(
    total: float | None, label: str, unit: str = "", done: float = 0, stream: TextIO | None = None
) -> Iterator[Bar]:
    """A bar for `total` things (None: unknown), of which `done` were done before a stage was resumed.

    Bars may nest: inner ones print lines, above the outer one if that is live.
    """
    stream = stream or sys.stderr
    bar = Bar(total, label, unit, done, stream, live=stream.isatty() and not _open)
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
        write_line(line, sys.stderr)


def clock(seconds: float) -> str:
    """95 -> `1:35`, 4000 -> `1:06:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: Any) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"
