"""A file of (prediction, gold) rows -> the same rows with a verdict, in order, in constant memory."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from whetstone.problems.chats import completion_of
from whetstone.problems.columns import AnswerFrom, answer_in
from whetstone.problems.files import find_files
from whetstone.problems.row import BrokenRow, Row, as_json, cell, has_cell
from whetstone.problems.table import read_tables, require_columns
from whetstone.records import Verdict, Verifier
from whetstone.run.visible import write_json_line
from whetstone.verify.policy import get_policy
from whetstone.verify.verifier import MathVerifier

BLOCK_ROWS = 512  # checked together; a field that none of the first block's rows has is an error

WRITTEN = ("correct", "reason")  # fields


def verify_file(
    path: Path,
    prediction_field: str,
    gold_field: str,
    policy: str = "math",
    output: Path | None = None,
    workers: int = 1,
    deadline: float = 2.0,
    second: Callable[[Verifier], AbstractContextManager[Verifier]] = nullcontext,
    answer_from: AnswerFrom = "column",
) -> dict[str, Any]:
    """Verify the rows of a file, or of several; returns `{"rows", "correct", "undecided", "reasons"}`.

    `second` may put another verifier before ours, such as one that asks a judge. A dotted field looks into nested fields.
    `answer_from` says where in its field the gold answer is. A prediction may be a chat of one assistant's turn.

    Every row in gives one JSON line out (to `output`, else to standard output) with the row's fields, `correct` (true
    or false; what could not be decided is false and its reason says so) and `reason`; fields of these names that the row
    has become `own_correct` and `own_reason`. A line that is broken gives
    `{"line": N, "correct": false, "reason": "not JSON: …"}` and loses no other. Raises FileNotFoundError, and
    ValueError for an unknown policy or format, a field that no row has, no rows, or, once all are written, no row that
    could be read.
    """
    get_policy(policy)
    try:
        paths = find_files(str(path))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is not a file that verify could read: {error}") from error
    if output is not None and output.exists() and any(output.samefile(path) for path in paths):
        raise ValueError(f"output = {output} is the input itself: its rows would be lost. Name another file.")
    summary = {"rows": 0, "correct": 0, "undecided": 0}
    reasons: Counter[str] = Counter()
    read, examples = 0, dict[str, str]()  # rows with a verdict; one whole reason of each kind
    rows = read_tables(paths)
    block = list(islice(rows, BLOCK_ROWS))
    fields = prediction_field, gold_field
    remedy = "Name the columns with --prediction-field and --gold-field."
    require_columns(path, (row for _, _, row in block), fields, remedy)
    if not block:
        raise ValueError(
            f"{path} holds no row: there is nothing to verify. The first line of a CSV file is its header."
        )
    with (
        output.open("w", encoding="utf-8") if output else nullcontext() as out,
        MathVerifier(workers=workers, deadline=deadline) as rules,
        second(rules) as verifier,
    ):
        while block:
            for row, verdict in _judged(block, fields, answer_from, policy, verifier):
                summary["rows"] += 1
                summary["correct"] += row["correct"]
                summary["undecided"] += verdict is not None and verdict.correct is None
                read += verdict is not None
                kind = row["reason"].split(":", 1)[0]
                reasons[kind] += 1
                examples.setdefault(kind, row["reason"])
                write_json_line(as_json(row), out)
            block = list(islice(rows, BLOCK_ROWS))
    if not read:
        most = "; ".join(f"{examples[kind]} ({count:,})" for kind, count in reasons.most_common(3))
        raise ValueError(
            f"{path}: none of its {summary['rows']:,} rows can be verified: {most}. Mend the rows. {remedy}"
        )
    return {**summary, "reasons": dict(reasons.most_common())}


def _judged(
    block: Sequence[tuple[str, int, Row | BrokenRow]],
    fields: tuple[str, str],
    answer_from: AnswerFrom,
    policy: str,
    verifier: Verifier,
) -> Iterator[tuple[dict[str, Any], Verdict | None]]:
    """(the row's fields with `correct` and `reason`; the verdict, None if the row cannot be read) in order."""
    asked: list[tuple[str, str, str]] = []
    written: list[tuple[dict[str, Any], str]] = []  # fields, and why there is no verdict
    for file, line, row in block:
        own = row.row if isinstance(row, BrokenRow) else row  # text that is not UTF-8 can be compared all the same
        try:
            if own is None:
                raise ValueError(str(row))
            prediction = completion_of(_field(own, fields[0]), repr(fields[0]))
            gold = answer_in(_field(own, fields[1]), repr(fields[1]), answer_from)
        except ValueError as error:
            place = ({"file": file} if file else {}) | {"line": line}
            written.append((place if own is None else own, str(error)))
        else:
            written.append((own, ""))
            asked.append((prediction, gold, policy))
    verdicts = iter(verifier.check_many(asked))
    for own, why in written:
        own = {_own_name(name, own): value for name, value in own.items()}
        if why:
            yield {**own, "correct": False, "reason": why}, None
        else:
            verdict = next(verdicts)
            yield {**own, "correct": verdict.correct is True, "reason": verdict.reason}, verdict


def _own_name(name: str, row: Mapping[str, Any]) -> str:
    """Of a row's field beside ours: one of the same name is called own_…"""
    if name not in WRITTEN:
        return name
    name = f"own_{name}"
    while name in row:
        name = f"own_{name}"
    return name


def _field(row: Row, name: str) -> Any:
    """Raises ValueError for a field that is missing."""
    if not has_cell(row, name) or cell(row, name) is None:
        raise ValueError(f"missing field: {name}")
    return cell(row, name)
