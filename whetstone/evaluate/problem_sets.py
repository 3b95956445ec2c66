"""The problems that a model is scored on: of a file, of several, of a known set, or of a user's own set."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from glob import has_magic
from itertools import islice
from os.path import commonpath
from pathlib import Path
from typing import Any

from whetstone.problems.columns import OPTIONAL, AnswerFrom, Columns
from whetstone.problems.files import find_files
from whetstone.problems.published import test_file
from whetstone.problems.reading import Drop, ProblemSet, read_problem
from whetstone.problems.row import Row
from whetstone.problems.sets import find_set
from whetstone.problems.table import FORMATS, HEAD, read_tables, require_columns
from whetstone.problems.text import suffix_of
from whetstone.problems.values import has_value, level_of
from whetstone.records import Problem
from whetstone.run.names import fitting_name
from whetstone.run.remote import address
from whetstone.verify.policy import get_policy

SHOWN = 3  # unusable rows named in an error


def read_problems(
    benchmark: str,
    policy: str | None = None,
    columns: Mapping[str, Any] | None = None,
    answer_from: AnswerFrom = "column",
) -> list[Problem]:
    """The test problems of a file or files, a known set, or a user's own set, "my_sets.py:MINE".

    Raises ValueError for rows that cannot be used: a score on fewer problems would be another problem set's.
    """
    unknown = [name for name in columns or {} if name not in Columns.model_fields]
    if unknown:
        raise ValueError(f"column {unknown[0]!r} is not one that problems have. Use {', '.join(Columns.model_fields)}.")
    if policy:
        get_policy(policy)
    paths, name, layout = _find_problems(benchmark, columns or {}, answer_from)
    items = [
        read_problem(row, line, layout, name, False, file, lambda own, place: own or f"{name}-{place}")
        for file, line, row in read_tables(paths)
    ]
    where = benchmark if len(paths) > 1 else paths[0]
    unusable = [item for item in items if isinstance(item, Drop)]
    if len(unusable) != layout.unanswered:
        raise ValueError(f"{where}: {_unusable(unusable, len(items))}")
    problems = [
        replace(item, split="test", benchmark=name, policy=policy or item.policy)
        for item in items
        if isinstance(item, Problem)
    ]
    if not problems:
        raise ValueError(f"{where} holds no problem: there is nothing to score. Name a file with one problem per row.")
    repeated = next((id for id, count in Counter(problem.id for problem in problems).items() if count > 1), None)
    if repeated is not None:
        raise ValueError(
            f"{where}: two rows have the id {repeated!r}, and samples are told apart by it. Make ids differ, or leave the id "
            "column out: rows are then numbered."
        )
    return problems


def _unusable(drops: list[Drop], rows: int) -> str:
    """What is wrong with the rows that give no problem, and the remedy."""
    alike = Counter((drop.reason, drop.detail) for drop in drops)
    first = {(drop.reason, drop.detail): drop for drop in reversed(drops)}
    shown = [
        f"{first[why].file and first[why].file + ', '}line {first[why].line}: {': '.join(filter(None, why))}"
        + (f" (as in {count - 1:,} more)" if count > 1 else "")
        for why, count in list(alike.items())[:SHOWN]
    ]
    rest = sum(list(alike.values())[SHOWN:])
    more = f" (and {rest:,} more)" if rest else ""
    return (
        f"{len(drops)} of {rows} rows cannot be used: {'; '.join(shown)}{more}. A score on fewer problems would be another "
        "problem set's: mend or remove the rows, or name the right columns with --column question=THEIRS --column "
        "answer=THEIRS."
    )


def _find_problems(
    benchmark: str, columns: Mapping[str, Any], answer_from: AnswerFrom
) -> tuple[list[Path], str, ProblemSet]:
    """The files, the name and the description of a problem set. A file may have columns under our own names.

    Raises ValueError for a column of `columns` that no row has.
    """
    if _names_files(benchmark):
        paths = find_files(benchmark)  # raises if there is no such file
        head = [row for _, _, row in islice(read_tables(paths), HEAD) if isinstance(row, dict)]
        own = {key: key for key in OPTIONAL if any(key in row for row in head) and _is_ours(key, head)}
        layout = Columns(**own | columns).layout(answer_from)
        require_columns(benchmark, head, Columns(**columns).named if columns else (), "Mend --column.")
        return paths, fitting_name(_name_of(Path(benchmark), paths)), layout
    if columns or answer_from != "column":
        raise ValueError(f"benchmark {benchmark!r} is no file here, and columns and answer_from are for files.")
    try:
        described = find_set(benchmark)
    except ValueError as error:
        raise ValueError(f"benchmark {benchmark!r} is neither a file nor a published set: {error}") from error
    return [test_file(benchmark, described)], benchmark.rpartition(":")[2], described


def set_name(benchmark: str) -> str:
    """The name that `read_problems` gives a problem set. Raises FileNotFoundError for a pattern that fits nothing."""
    if not _names_files(benchmark):
        return benchmark.rpartition(":")[2]
    path = Path(benchmark)
    here = not address(benchmark) and (path.exists() or has_magic(benchmark))
    return fitting_name(_name_of(path, find_files(benchmark) if here else [path]))


def _names_files(benchmark: str) -> bool:
    """Whether it is a path, a pattern or an address, which need not be there, and not a published set."""
    path = Path(benchmark)
    return path.exists() or bool(address(benchmark)) or has_magic(benchmark) or suffix_of(path) in FORMATS


def _is_ours(key: str, rows: Sequence[Row]) -> bool:
    """Whether a column of that name, which nobody has named, may be meant: a list of domains is something else.

    A system message is part of the question and never left aside.
    """
    values = [row[key] for row in rows if has_value(row, key)]
    if key == "level" and not all(map(_is_level, values)):
        return False
    return key == "system" or all(type(value) in (str, int, float) for value in values)


def _is_level(value: Any) -> bool:
    try:
        level_of(value)
    except ValueError:
        return False
    return True


def _name_of(path: Path, paths: Sequence[Path]) -> str:
    """The name of a file, or of the folder that several are in."""
    if address(path):
        return (path.parent if has_magic(path.name) else path).name.split(".")[0] or "problems"
    shared = Path(commonpath([path.resolve().parent for path in paths]))
    named = path.resolve() if path.is_dir() else paths[0] if len(paths) == 1 else shared
    return named.name.split(".")[0] or "problems"
