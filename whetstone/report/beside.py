"""Two runs on one page: their scores, the paired difference on the problems that both were scored on, and the settings in which
they differ.
"""

from collections.abc import Iterator
from html import escape
from typing import Any

from whetstone.measure import paired_bootstrap
from whetstone.report.numbers import label, n, percent, places, section, signed, table
from whetstone.report.read import RunRecord
from whetstone.run.secrets import redacted
from whetstone.run.tables import read_rows

MARKS = ("problem_id", "correct", "question")


def beside(run: RunRecord) -> str:
    other = run.beside
    if other is None:
        return ""
    heads = ["after", "problem set", f">{escape(run.name)}, %", f">{escape(other.name)}, %", ">problems", ">difference"]
    rows = [row for benchmark in run.benchmarks for row in _scores(run, other, benchmark)]
    why = (
        f"Stages with the same name. The difference is {escape(run.name)} − {escape(other.name)}, paired over the problems "
        "that both were scored on, with its 95 % interval. In the curves below both runs share the axes."
    )
    scored = table(heads, rows) if rows else "<p>No stage of the two has scores on the same problems.</p>"
    return section(
        "beside", f"{escape(run.name)} beside {escape(other.name)}", f"<p>{why}</p>", scored, _settings(run, other)
    )


def _scores(run: RunRecord, other: RunRecord, benchmark: str) -> Iterator[str]:
    for name, stage, kind in places(run):
        ours, theirs = run.score(name, benchmark), other.score(name, benchmark)
        if ours and theirs:
            cells = n(_with_interval(ours), _with_interval(theirs), *_difference(run, other, name, benchmark))
            yield f'<tr class="{kind}"><td>{label(name, stage, kind)}</td><td>{escape(benchmark)}</td>{cells}</tr>'


def _with_interval(score: dict[str, Any]) -> str:
    return f"{percent(score['mean'])}<br><small>{percent(score['low'])}–{percent(score['high'])}</small>"


def _difference(run: RunRecord, other: RunRecord, stage: str, benchmark: str) -> tuple[str, str]:
    """(problems in common, the difference). The same id with another question is another problem."""
    ours, theirs = (_marks(one, stage, benchmark) for one in (run, other))
    shared = {(row["problem_id"], row["question"]) for row in ours} & {(r["problem_id"], r["question"]) for r in theirs}
    if not shared:
        return "0", "–"
    alike = [[row for row in rows if (row["problem_id"], row["question"]) in shared] for rows in (ours, theirs)]
    return f"{len(shared):,}", signed(*paired_bootstrap(*alike), problems=len(shared))


def _marks(run: RunRecord, stage: str, benchmark: str) -> list[dict[str, Any]]:
    folder = run.folder / "scores" / stage / benchmark
    return [{name: row[name] for name in MARKS} for row in read_rows(folder)] if folder.is_dir() else []


def _settings(run: RunRecord, other: RunRecord) -> str:
    ours, theirs = (dict(_flat(one.run.get("recipe", {}))) | _of_stages(one) for one in (run, other))
    keys = [key for key in dict.fromkeys((*ours, *theirs)) if ours.get(key) != theirs.get(key) and key != "run.name"]
    rows = [
        f"<tr><td>{escape(key)}</td><td>{_value(ours, key)}</td><td>{_value(theirs, key)}</td></tr>" for key in keys
    ]
    heads = ["setting", escape(run.name), escape(other.name)]
    return "<h3>What was set differently</h3>" + (table(heads, rows) if rows else "<p>Nothing.</p>")


def _value(settings: dict[str, Any], key: str) -> str:
    return f"<code>{escape(repr(settings[key]))}</code>" if key in settings else '<span class="quiet">–</span>'


def _of_stages(run: RunRecord) -> dict[str, Any]:
    """Settings of the stages, by the name of the stage."""
    return {
        key: value
        for stage in run.stages
        for key, value in _flat(redacted(stage.manifest.get("settings", {})), f"{stage.name}.")
    }


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Tables of tables as names with points; lists of stages are left out, which the manifests tell."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        elif key not in ("stage", "stages", "notes"):
            yield f"{before}{key}", value
