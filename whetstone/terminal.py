"""The tables that commands print."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from whetstone.evaluate.paired import verdict
from whetstone.evaluate.published import beside
from whetstone.learner.cost import ASSUMED_BANDWIDTH, ASSUMED_MFU, bytes_as_text, clock, count_as_text
from whetstone.pipeline.history import last_speeds
from whetstone.recipe import Recipe
from whetstone.records import Score, from_row
from whetstone.run.control import BESIDE, TITLES, caution, conclusion, points
from whetstone.run.folder import MANIFEST, SCORES
from whetstone.run.manifest import read_manifest, read_scores
from whetstone.run.room import Estimate
from whetstone.run.visible import visible, write_line

BOUNDS = {"at most ": "≤ ", "about ": "~ ", "": ""}  # an estimate's bound as a sign


def print_results(recipe: Recipe) -> None:
    """What each finished stage took and scored, and how fast the machine was."""
    rows = list(_results(recipe))
    main = next((score for *_, score in reversed(rows) if score), None)  # the base may have fewer samples
    scored = (f"{main.benchmark} mean@{main.samples} %", "95 %", "flexible %", "boxed %") if main else ()
    beside = _beside_controls(recipe)
    table = _table("stage", "wall s", "CPU s", "peak", *scored, *(["stage - control"] if beside else []))
    for name, usage, score in rows:
        accuracy = (*_mean_cells(score), *_format_cells(score)) if score else ()
        control = recipe.stage(name).control if name in beside else None
        against = [points(beside[name][BESIDE[0]])] if name in beside else []
        _add(table, f"  control: {control.name}" if control else name, *_usage_cells(usage), *accuracy, *against)
    table.add_section()
    _add(table, "all", *_usage_cells(_total([usage for _, usage, _ in rows if usage])))
    write_line(f"\n{recipe.folder}")
    _console(140 if beside else 110).print(table)
    for name, _, score in rows:
        if score and main and score.samples != main.samples:
            write_line(f"{name}: mean@{score.samples}")
    for name, score in beside.items():
        control = recipe.stage(name).control
        for found in (score[key] for key in BESIDE if control and key in score):
            write_line(
                f"{found['stage']}, beside {TITLES[control.name]}: {points(found)} points on {found['problems']:,} problems: "
                f"{conclusion(found)}"
            )
    if speeds := last_speeds(recipe):
        write_line(f"machine speed: {speeds[0]} GFLOP/s before, {speeds[1]} after (fp32 512 x 512)")
    report = recipe.folder / "report.html"
    if report.exists():
        write_line(f"report: {report}")


def _beside_controls(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Control -> its score on the headline problem set, with its stage minus it."""
    path, own = recipe.folder / SCORES, {stage.name for stage in recipe.stages}
    rows = read_scores(path) if path.exists() else []
    return {row["stage"]: row for row in rows if row["main"] and row["stage"] in own and BESIDE[0] in row}


def _results(recipe: Recipe) -> Iterator[tuple[str, Mapping[str, float], Score | None]]:
    """(name, usage, main score) of the finished stages, each with its controls below it, of the base before the first that
    trains, and of all scoring.
    """
    path = recipe.folder / SCORES
    scores = {s["stage"]: from_row(Score, s) for s in read_scores(path) if s["main"]} if path.exists() else {}
    base = scores.get("base")
    for stage in sorted(recipe.stages, key=lambda stage: stage.number):
        manifest = recipe.folder / stage.folder_name / MANIFEST
        if manifest.exists():
            if base and stage.room.trains:
                yield "base", {}, base
                base = None
            yield stage.name, read_manifest(manifest), scores.get(stage.name)
    scoring = [
        recipe.folder / "scores" / name / MANIFEST for name in ("base", *(stage.name for stage in recipe.stages))
    ]
    if usages := [read_manifest(manifest, "scores") for manifest in scoring if manifest.exists()]:
        yield "scoring", _total(usages), None


def _mean_cells(score: Score) -> tuple[str, str]:
    return f"{100 * score.mean:.1f}", f"{100 * score.low:.1f} … {100 * score.high:.1f}"


def _format_cells(score: Score) -> tuple[str, ...]:
    """The mean by flexible extraction, and the share of answers in a box; empty if an older version scored."""
    return tuple("" if share is None else f"{100 * share:.1f}" for share in (score.flexible, score.boxed))


def _total(usages: Sequence[Mapping[str, float]]) -> dict[str, float]:
    times = {name: sum(usage[name] for usage in usages) for name in ("wall_seconds", "cpu_seconds")}
    return times | {"peak_memory": max((usage["peak_memory"] for usage in usages), default=0)}


def _usage_cells(usage: Mapping[str, float]) -> tuple[str, ...]:
    if not usage:
        return "", "", ""
    return f"{usage['wall_seconds']:,.1f}", f"{usage['cpu_seconds']:,.1f}", bytes_as_text(usage["peak_memory"])


def print_estimates(recipe: Recipe, estimates: Mapping[str, Estimate]) -> None:
    """What the stages that are to do will take, by stage and in all."""
    table = _table("to do", "tokens", "steps", "memory", "disk", "time")
    for name, estimate in estimates.items():
        bound = BOUNDS[estimate.bound]
        _add(
            table,
            name,
            "" if estimate.tokens is None else bound + count_as_text(estimate.tokens),
            "" if estimate.steps is None else BOUNDS[estimate.steps_bound] + count_as_text(estimate.steps),
            "" if estimate.memory is None else bytes_as_text(estimate.memory),
            "" if estimate.disk is None else bytes_as_text(estimate.disk),
            "" if estimate.seconds is None else bound + clock(estimate.seconds),
        )
    every = estimates.values()
    seconds = sum(estimate.seconds or 0 for estimate in every)
    table.add_section()
    _add(
        table,
        "all",
        count_as_text(sum(estimate.tokens or 0 for estimate in every)),
        count_as_text(sum(estimate.steps or 0 for estimate in every)),
        bytes_as_text(max(estimate.memory or 0 for estimate in every)),
        bytes_as_text(sum(estimate.disk or 0 for estimate in every)),
        clock(seconds) if seconds else "",
    )
    console = _console(110)
    console.print(table)
    unknown = any(estimate.tokens is None for estimate in every if estimate.memory)
    console.print(_notes(recipe, unknown, bool(seconds)))


def _notes(recipe: Recipe, unknown: bool, timed: bool) -> str:
    notes = ["Memory is the peak of each device; disk is what models and checkpoints take."]
    left_out = "It leaves out a teacher's answers and the scores after each stage."
    if recipe.parallel.accelerator:
        notes.append(
            f"Time is for {recipe.parallel.processes} x {recipe.parallel.accelerator}, if training reaches {ASSUMED_MFU:.0%} "
            f"of their peak and sampling {ASSUMED_BANDWIDTH:.0%} of the bandwidth of one. {left_out}"
        )
    elif timed:
        notes.append(f"Time is for this CPU without other work beside, from a short probe. {left_out}")
    else:
        notes.append('[parallel] accelerator = "H200", for instance, adds the time.')
    if unknown:
        notes.append("A missing number depends on data that does not exist yet.")
    return " ".join(notes)


def print_scores(scores: Sequence[Score]) -> None:
    table = _table(
        "problem set", "problems", "mean@n %", "95 %", "n", "pass@k %", "majority %", "truncated %", "tokens", "temp."
    )
    for score in scores:
        _add(
            table,
            score.benchmark,
            f"{score.problems}",
            *_mean_cells(score),
            f"{score.samples}",
            "  ".join(f"@{k} {100 * value:.1f}" for k, value in score.pass_at_k.items()),
            f"{100 * score.majority:.1f}",
            f"{100 * score.truncated:.1f}",
            f"{score.mean_tokens:.0f}",
            f"{score.temperature:g}",
        )
    _console(150).print(table)
    for score in scores:
        if score.flexible is not None:
            write_line(
                f"{score.benchmark}: {100 * score.boxed:.1f} % of the answers in a box, {100 * score.stated:.1f} % stated. "
                "If the last number or expression of the others is taken as their answer (flexible extraction): "
                f"{100 * score.flexible:.1f} % [{100 * score.flexible_low:.1f}, {100 * score.flexible_high:.1f}]"
            )


def print_published(rows: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]] = ()) -> None:
    """Published scores (`evaluate/published.py`) by problem set, after `ours`; then their tables, with how they differ."""
    if not rows:
        return
    table = _table("problem set", "model", "%", "published in", "measured as, or differs from ours in")
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        for row in (row for row in ours if row["benchmark"] == benchmark):
            _add(table, benchmark, f"{row['stage']} (ours)", f"{100 * row['mean']:.1f}", "", "")
        for row in (row for row in rows if row["benchmark"] == benchmark):
            copied = " (from a copy)" * (row["read"] == "secondary")
            cells = (
                row["model"],
                f"{100 * row['value']:.2f}",
                f"{row['table']}{copied}",
                "; ".join(row["differs"]) or row["measure"],
            )
            _add(table, benchmark, *cells)
    _console(150).print(table)
    for name, source in dict.fromkeys((row["table"], row["source"]) for row in rows):
        write_line(f"{name}: {source}")
    if any(row["differs"] for row in rows):
        write_line(
            "warning: where a protocol differs or is not stated, the published number and ours cannot be compared."
        )


def say_published(recipe: Recipe) -> None:
    """Names the command that prints published scores, if there are any on the run's problem sets."""
    path = recipe.folder / SCORES
    found = dict.fromkeys(row["benchmark"] for row in beside(read_scores(path))) if path.exists() else {}
    if found:
        write_line(f"published scores on {', '.join(found)} beside these: whetstone published {recipe.folder}")


def print_comparison(a: str, b: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """What `evaluate/paired.py` found."""
    table = _table("problem set", "problems", "A %", "B %", "B - A [95 %]", "only A", "only B", "")
    for row in rows:
        means = (f"{100 * row[side][0]:.1f} [{100 * row[side][1]:.1f}, {100 * row[side][2]:.1f}]" for side in "ab")
        solved = f"{row['only_a']}", f"{row['only_b']}"
        _add(table, row["benchmark"], f"{row['problems']:,}", *means, points(row), *solved, verdict(row, "A", "B"))
    write_line(f"A: {a}\nB: {b}")
    _console(150).print(table)
    for row in rows:
        if few := caution(row["problems"]):
            write_line(f"warning: {row['benchmark']}: {few}")
        if any(row["left_out"]):
            only = " and ".join(
                f"{count:,} of {side}" for count, side in zip(row["left_out"], "AB", strict=True) if count
            )
            write_line(f"{row['benchmark']}: {only} are not in the other and are left out")
        if row["asked_differently"]:
            write_line(f"warning: {row['benchmark']}: asked differently: {'; '.join(row['asked_differently'])}")


def print_regraded(results: Sequence[Mapping[str, Any]]) -> None:
    """What `evaluate/regrade.py` found."""
    table = _table(
        "problem set", "problems", "samples", "% now [95 %]", "before", "% before", "alike", "only before", "only now"
    )
    for row in results:
        now = "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * row[name] for name in ("mean", "low", "high")))
        first = row["benchmark"], f"{row['problems']:,}", f"{row['samples']:,}", now
        for name, found in row["compared"].items():
            share = f"{100 * found['right'] / max(1, found['verdicts']):.1f}"
            counts = (f"{found[key]:,}" for key in ("alike", "only_theirs", "only_ours"))
            _add(table, *first, name, share, *counts)
        if not row["compared"]:
            _add(table, *first, "no verdicts", "", "", "", "")
    _console(150).print(table)
    for row in results:
        for name, found in row["compared"].items():
            if found["reasons"]:
                reasons = ", ".join(f"{reason} {count:,}" for reason, count in found["reasons"].items())
                write_line(f"{row['benchmark']}, where {name} differs, ours says: {reasons}")
        if row["undecided"]:
            write_line(f"{row['benchmark']}: {row['undecided']:,} undecided, which count as wrong")


def _table(first: str, *headings: str) -> Table:
    """Text in the first column, numbers in the others. In a narrow terminal cells take several lines, and nothing is cut."""
    table = Table()
    table.add_column(first, overflow="fold")
    for heading in headings:
        table.add_column(visible(heading, one_line=True), justify="right", overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(visible(cell, one_line=True) for cell in cells))


def _console(width: int) -> Console:
    """As wide as the terminal; elsewhere `width`. Names stand as they are: `[red]` and `:eyes:` are text."""
    return Console(width=None if sys.stdout.isatty() else width, markup=False, emoji=False, highlight=False)
