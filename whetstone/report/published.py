"""What others published on the run's problem sets, beside its last score, and how their protocols differ."""

from html import escape
from typing import Any

from whetstone.report.numbers import n, percent, section, table
from whetstone.report.read import RunRecord


def published(run: RunRecord) -> str:
    rows = run.evaluation.get("published", [])
    by_set = {name: [row for row in rows if row["benchmark"] == name] for name in run.benchmarks}
    tables = [_beside_ours(run, name, found) for name, found in by_set.items() if found]
    note = "A number whose protocol differs from this run’s, or is not stated, cannot be compared with it."
    return section("published", "What others published", f'<p class="note">{note}</p>', *tables) if tables else ""


def _beside_ours(run: RunRecord, benchmark: str, rows: list[dict[str, Any]]) -> str:
    scored = [(stage.name, score) for stage in run.pipeline if (score := run.score(stage.name, benchmark))]
    lines = [_ours(*scored[-1])] if scored else []
    lines += [_row(row) for row in rows]
    heads = ["model", ">mean, %", "published in", "differs in, or is measured as"]
    sources = dict.fromkeys(f"{_named(row)}: {escape(row['source'])}." for row in rows)
    return f'<h3>{escape(benchmark)}</h3>{table(heads, lines)}<p class="note">{" ".join(sources)}</p>'


def _ours(stage: str, score: dict[str, Any]) -> str:
    return f'<tr class="final"><td>{escape(stage)}, this run</td>{n(percent(score["mean"]))}<td></td><td></td></tr>'


def _row(row: dict[str, Any]) -> str:
    how = escape("; ".join(row["differs"]) or row["measure"])
    return f"<tr><td>{escape(row['model'])}</td>{n(percent(row['value'], 2))}<td>{_named(row)}</td><td>{how}</td></tr>"


def _named(row: dict[str, Any]) -> str:
    return escape(row["table"]) + " (read in a copy)" * (row["read"] == "secondary")
