"""`whetstone watch`: a run in a terminal, as it goes. In a pipe it prints what changed, a line each."""

import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from whetstone.follow import RunView, StageView, curves, last_groups, read_run
from whetstone.run.folder import DamagedFile
from whetstone.run.progress import clock
from whetstone.run.visible import visible, write_line

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40  # of a small curve
FIRST = ("reward", "accuracy", "loss", "validation_loss", "margin", "response_length", "entropy", "tokens_per_second")
CURVES, ANSWERS, LINES = 6, 3, 4
COLOURS = {"done": "green", "running": "bold", "scoring": "bold", "interrupted": "yellow", "to do": "dim"}


def watch(folder: Path, seconds: float, once: bool, out: TextIO | None = None) -> None:
    """Until the run is complete or nobody works on it any more. Raises FileNotFoundError for a folder without a run."""
    out = out or sys.stdout
    view = read_run(folder)
    if out.isatty() and not once:
        with Live(screen_of(view), console=console(out), auto_refresh=False) as live:
            while _goes_on(view):
                time.sleep(seconds)
                view = _again(folder, view)
                live.update(screen_of(view), refresh=True)
    elif once:
        console(out).print(screen_of(view))
        return
    else:
        view = _print_lines(folder, view, seconds, out)
    write_line(_ending(view), out)


def console(out: TextIO) -> Console:
    return Console(file=out, markup=False, emoji=False, highlight=False, width=None if out.isatty() else 100)


def _goes_on(view: RunView) -> bool:
    return view.running and not view.complete


def _again(folder: Path, view: RunView) -> RunView:
    """As it stands now; what it was if a file is just being replaced."""
    try:
        return read_run(folder)
    except (DamagedFile, FileNotFoundError):
        return view


def _ending(view: RunView) -> str:
    if view.complete:
        return f"{view.name}: all stages are done"
    if view.running:
        return f"{view.name}: still running"
    return f"{view.name}: nobody works on it; whetstone run continues it"


def _print_lines(folder: Path, view: RunView, seconds: float, out: TextIO) -> RunView:
    """Returns how it stands at the end."""
    said = ""
    while True:
        stage = view.current
        line = f"{stage.name}: {described(stage)}" if stage else f"{view.name}: no stage has begun"
        if line != said:
            said = line
            write_line(line, out)
            out.flush()
        if not _goes_on(view):
            return view
        time.sleep(seconds)
        view = _again(folder, view)


def described(stage: StageView) -> str:
    """
    >>> described(StageView("sft", "sft", "running", step=5, steps=20, seconds=90.0, numbers={"loss": 0.5}))
    'running, step 5 of 20, 1:30 left, loss 0.5'
    """
    parts = [stage.status]
    if stage.step:
        parts.append(f"step {stage.step:,}" + (f" of {stage.steps:,}" if stage.steps and not stage.finished else ""))
    if stage.seconds:
        parts.append(clock(stage.seconds) + ("" if stage.finished else " left"))
    if not stage.finished:
        parts += [f"{name} {_short(stage.numbers[name])}" for name in FIRST[:4] if name in stage.numbers]
    return ", ".join(parts)


def screen_of(view: RunView) -> Group:
    """The stages, the curves of the one under way, and its last answers."""
    parts: list[Any] = [_stages(view)]
    stage = view.current
    if stage is not None and stage.folder is not None:
        parts += _curves(stage)
        parts += _answers(stage)
    return Group(*parts)


def _stages(view: RunView) -> Table:
    table = Table(title=visible(view.name, one_line=True), title_justify="left")
    for heading, justify in (
        ("stage", "left"),
        ("", "left"),
        ("step", "right"),
        ("time", "right"),
        ("score %", "right"),
    ):
        table.add_column(heading, justify=justify, overflow="fold")
    scores = {row["stage"]: _percent(row) for row in view.scores if row["main"]}
    for stage in view.stages:
        step = f"{stage.step:,}" if stage.step else ""
        step += f"/{stage.steps:,}" if step and stage.steps and not stage.finished else ""
        left = "" if stage.finished else " left"
        took = f"{clock(stage.seconds)}{left}" if stage.seconds else ""
        cells = stage.name, stage.status, step, took, scores.get(stage.name, "")
        table.add_row(*(visible(cell, one_line=True) for cell in cells), style=COLOURS[stage.status])
    return table


def _percent(score: dict[str, Any]) -> str:
    mean, low, high = (100 * score[name] for name in ("mean", "low", "high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def _curves(stage: StageView) -> list[Text]:
    series = curves(stage.folder)["series"] if stage.folder else {}
    names = sorted(series, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))[:CURVES]
    width = max(map(len, names), default=0)
    lines = []
    for name in names:
        values = [value for value in series[name] if value is not None]
        bounds = f"{_short(min(values))} to {_short(max(values))}, now {_short(values[-1])}"
        lines.append(Text(f"{visible(name, one_line=True):{width}}  {sparkline(values)}  {bounds}"))
    return lines


def sparkline(values: list[float], width: int = WIDTH) -> str:
    """Means of up to `width` equal parts.

    >>> sparkline([0, 1, 2, 3, 4, 5, 6, 7])
    '▁▂▃▄▅▆▇█'
    """
    count = min(width, len(values))
    cuts = [part * len(values) // count for part in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] for mean in means)


def _answers(stage: StageView) -> list[Text]:
    """The last group's first answers, each cut to a few lines."""
    groups = last_groups(stage.folder, 1) if stage.folder else []
    parts = []
    for group in groups:
        question = group.get("question") or group.get("problem_id") or ""
        parts.append(Text(visible(f"\n{question}", one_line=False)[:400], style="bold"))
        for row in group["rollouts"][:ANSWERS]:
            mark = {True: "✓", False: "✗"}.get(row.get("correct"), "?")
            reward = f" reward {_short(row['reward'])}" if "reward" in row else ""
            lines = visible(str(row.get("text", ""))).strip().splitlines()
            text = "\n".join(lines[-LINES:])[-400:]
            parts.append(Text(f"{mark}{reward} {row.get('reason', '')}\n{text}"))
    return parts


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"
