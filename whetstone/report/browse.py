"""The rollouts that the page's browser shows: the generations behind the scores, and what RL sampled while it trained.

If there are more than fit, those of some problems are shown, chosen by a hash of their ids, so that a problem is there in all
stages.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from whetstone.report.numbers import places, section
from whetstone.report.read import RunRecord
from whetstone.report.rollouts import split_thinking
from whetstone.run.tables import opened, read_rows

MOST = 20_000  # rollouts on a page
MOST_CHARACTERS = 60_000_000  # of their texts
TRAINING = "training problems"
OF_PROBLEM = ("problem_id", "question", "gold", "level", "domain")
COLUMNS = (
    "where", "problem", "reason", "correct", "stop", "thinking", "final", "index", "answer", "tokens", "step", "reward",
    "trained",
)  # fmt: skip


class Table(NamedTuple):
    run: str
    stage: str
    problem_set: str
    folder: Path

    def rows(self) -> Iterator[dict[str, Any]]:
        return read_rows(self.folder)


def tables(run: RunRecord) -> list[Table]:
    """Of the run, and of the one beside it."""
    found = []
    for name in (place[0] for place in places(run)):
        for benchmark in run.benchmarks:
            found.append(Table(run.name, name, benchmark, run.folder / "scores" / name / benchmark))
    found += [
        Table(run.name, stage.name, TRAINING, stage.folder / "rollouts") for stage in run.training if stage.kind == "rl"
    ]
    found = [table for table in found if any(table.folder.glob("part-*.parquet"))]
    return found + (tables(run.beside) if run.beside else [])


def share_shown(found: list[Table]) -> tuple[float, int]:
    """(the share of problems that fit on a page, the number of all rollouts)."""
    import pyarrow.compute as pc

    rows = characters = 0
    for table in found:
        for shard in table.folder.glob("part-*.parquet"):
            with opened(shard) as part:
                if part.metadata.num_rows and "text" in part.schema_arrow.names:
                    rows += part.metadata.num_rows
                    characters += pc.sum(pc.utf8_length(part.read(["text"])["text"])).as_py() or 0
    return min(1.0, MOST / max(rows, 1), MOST_CHARACTERS / max(characters, 1)), rows


def chosen(row: dict[str, Any], share: float) -> bool:
    return zlib.crc32(str(row["problem_id"]).encode(errors="replace")) < share * 2**32


def as_json(run: RunRecord) -> dict[str, Any]:
    """Columns: what many rows have in common is numbered."""
    found = tables(run)
    share, total = share_shown(found)
    numbered: dict[str, dict[Any, int]] = {name: {} for name in ("where", "problems", "reasons")}

    def number(of: str, value: Any) -> int:
        return numbered[of].setdefault(value, len(numbered[of]))

    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for table in found:
        where = number("where", (table.run, table.stage, table.problem_set))
        for row in table.rows():
            if not chosen(row, share):
                continue
            problem = (
                table.problem_set,
                *(str(row.get(name, "") or "") for name in OF_PROBLEM),
            )
            thinking, final = split_thinking(str(row["text"]))
            values = {
                "where": where,
                "problem": number("problems", problem),
                "reason": number("reasons", str(row.get("reason") or "")),
                "correct": {True: 1, False: 0, None: 2}[row["correct"]],
                "stop": row.get("stop") or "",
                "thinking": thinking,
                "final": final,
            }
            for name, column in columns.items():
                column.append(values[name] if name in values else row.get(name))
    begin = run.pipeline[-1].name if run.pipeline else ""
    return {
        "total": total,
        "begin": [run.name, begin],
        **{name: list(values) for name, values in numbered.items()},
        "rows": columns,
    }


def browser(run: RunRecord) -> str:
    """The section that the page's script fills."""
    if not tables(run):
        return ""
    intro = (
        "<p>All answers behind the scores, and what RL sampled while it trained. "
        '<span class="note">Keys: <kbd>j</kbd> <kbd>k</kbd> next and previous, <kbd>[</kbd> <kbd>]</kbd> the same problem in '
        "the stage before and after, <kbd>/</kbd> search.</span></p>"
    )
    nothing = "<noscript>The browser needs JavaScript; the problems below do not.</noscript>"
    return section("browser", "Browse the rollouts", intro, f'<div id="rollout-browser">{nothing}</div>')
