"""Each stage beside its controls: what of its gain has another cause."""

from collections.abc import Iterator
from html import escape
from typing import Any

from whetstone.report.numbers import label, n, percent, section, signed, table
from whetstone.report.read import RunRecord, StageRecord
from whetstone.report.shapes import Choice
from whetstone.run.control import BESIDE, CHOICE, conclusion
from whetstone.run.folder import read_json
from whetstone.run.manifest import check_shape


def controls(run: RunRecord) -> str:
    pairs = [(control, of) for control, of in run.controls if of]
    rows = [row for benchmark in run.benchmarks for control, of in pairs for row in _rows(run, control, of, benchmark)]
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in run.run.get("recipe", {}).get("notes", []))
    if not rows:
        return section("controls", "Stages beside their controls", notes) if notes else ""
    why = (
        "A higher score alone proves little. A control starts from the model that the stage starts from, spends as much, and "
        "leaves the idea of the stage out. The difference is paired over the problems that both were scored on, with its 95 % "
        "interval. A stage is outside the interval of its control if the interval of the difference excludes 0; inside "
        "it, the scores do not tell the stage from its control."
    )
    heads = ["stage", "control", "problem set", ">stage", ">control", ">problems", ">stage − control", "reading"]
    prompts = "".join(_prompts(control) for control, _ in pairs)
    return section("controls", "Stages beside their controls", f"<p>{why}</p>{table(heads, rows)}{prompts}{notes}")


def _prompts(control: StageRecord) -> str:
    """The prompts that were tried on held-out problems, if the control chose one."""
    path = control.folder / "prompt" / CHOICE
    if not path.exists():
        return ""
    found = check_shape(path, Choice, read_json(path))
    chosen = control.manifest["summary"].get("chosen")
    rows = [
        f"<tr><td>{escape(_in_words(tried['prompt']))}</td>"
        f"{n(percent(tried['mean']), '–'.join(percent(tried[end]) for end in ('low', 'high')))}"
        f"<td>{'chosen' if number == chosen else ''}</td></tr>"
        for number, tried in enumerate(found["candidates"])
    ]
    count = found["candidates"][0]["problems"] if found["candidates"] else 0
    heading = f"<h3>Prompts of {escape(control.name)}, on {count:,} held-out problems</h3>"
    return heading + table(["prompt", ">mean, %", ">95 % interval", ""], rows)


def _in_words(prompt: dict[str, Any]) -> str:
    """What the prompt gives; examples by their number."""
    shots = prompt.get("examples")
    words = [f"{name} {value!r}" for name, value in prompt.items() if name != "examples"]
    if shots is not None:
        words.append(f"{len(shots)} examples" if isinstance(shots, list) else f"examples of {shots.get('file')}")
    return "; ".join(words) or "the recipe’s own"


def _rows(run: RunRecord, control: StageRecord, of: StageRecord, benchmark: str) -> Iterator[str]:
    """Its stage beside a control; a better prompt is beside the last stage that trains, too."""
    theirs = run.score(control.name, benchmark)
    stages = {stage.name: stage for stage in run.training}
    compared = [theirs[key] for key in BESIDE if key in theirs] if theirs else []
    if theirs and not compared and (found := run.difference(of.name, control.name, benchmark)):
        compared = [found]  # the recipe's user wrote the control
    for found in compared:
        stage = stages.get(found["stage"])
        ours = run.score(found["stage"], benchmark)
        if stage and ours:
            names = (label(stage.name, stage), label(control.name, control), escape(benchmark))
            by = signed(found["difference"], found["low"], found["high"])
            numbers = n(percent(ours["mean"]), percent(theirs["mean"]), f"{found['problems']:,}", by)
            said = conclusion(found)
            yield f"<tr>{''.join(f'<td>{name}</td>' for name in names)}{numbers}<td>{said}</td></tr>"
