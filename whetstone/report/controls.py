"""Each stage beside its controls: what of its gain has another cause."""

from html import escape
from typing import Any

from whetstone.report.numbers import label, n, percent, section, signed, table
from whetstone.report.read import RunRecord, StageRecord
from whetstone.run.control import TITLES, reading


def controls(run: RunRecord) -> str:
    pairs = [(control, of) for control, of in run.controls if of]
    rows = [_row(run, control, of, benchmark) for benchmark in run.benchmarks for control, of in pairs]
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in run.run.get("recipe", {}).get("notes", []))
    if not any(rows):
        return section("controls", "Stages beside their controls", notes) if notes else ""
    why = (
        "A higher score alone proves little. A control starts from the model that the stage starts from, spends as much, and "
        "leaves the idea of the stage out. The difference is paired over the problems that both were scored on, with its 95 % "
        "interval. A stage is outside the interval of its control if the interval of the difference excludes 0; inside "
        "it, the scores do not tell the stage from its control."
    )
    heads = ["stage", "control", "problem set", ">stage", ">control", ">problems", ">stage − control", "reading"]
    return section("controls", "Stages beside their controls", f"<p>{why}</p>{table(heads, rows)}{notes}")


def _row(run: RunRecord, control: StageRecord, of: StageRecord, benchmark: str) -> str:
    ours, theirs = run.score(of.name, benchmark), run.score(control.name, benchmark)
    if not ours or not theirs:
        return ""
    found: dict[str, Any] | None = theirs.get("stage_minus_control") or run.difference(of.name, control.name, benchmark)
    by = signed(found["difference"], found["low"], found["high"]) if found else "–"
    names = (label(of.name, of), label(control.name, control), escape(benchmark))
    cells = "".join(f"<td>{name}</td>" for name in names)
    shared = found.get("problems", theirs["problems"]) if found else theirs["problems"]
    said = reading(found["low"], found["high"]) if found else "not compared"
    numbers = n(percent(ours["mean"]), percent(theirs["mean"]), f"{shared:,}", by)
    return f"<tr>{cells}{numbers}<td>{said}</td></tr>"

