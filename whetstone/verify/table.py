"""A file of (prediction, gold) rows -> the same rows with a verdict, in order, in constant memory."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from whetstone.problems.reading import answer_of
from whetstone.problems.table import BrokenRow, Numbered, cell, has_cell, read_table, require_columns
from whetstone.records import Verifier
from whetstone.run.visible import write_json_line
from whetstone.verify.policy import get_policy
from whetstone.verify.verifier import MathVerifier

BLOCK_ROWS = 512  # checked together; a field that none of the first block's rows has is an error


def verify_file(
    path: Path,
    prediction_field: str,
    gold_field: str,
    policy: str = "math",
    output: Path | None = None,
    workers: int = 1,
    deadline: float = 2.0,
    second: Callable[[Verifier], AbstractContextManager[Verifier]] = nullcontext,
) -> dict[str, Any]:
    """Verify the rows of a file that `read_table` reads; returns `{"rows", "correct", "undecided", "reasons"}`.

    `second` may put another verifier before ours, such as one that asks a judge. A dotted field looks into nested fields.

    Every row in gives one JSON line out (to `output`, else to standard output) with the row's fields, `correct` (true
    or false; what could not be decided is false and its reason says so) and `reason`. A line that is broken gives
    `{"line": N, "correct": false, "reason": "not JSON: …"}` and loses no other. Raises FileNotFoundError, and
    ValueError for an unknown policy or format, or a field that no row has.
    """
    get_policy(policy)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file: verify reads a JSONL file, one row per line. Check the path.")
    if output is not None and output.exists() and output.samefile(path):
        raise ValueError(f"output = {output} is the input itself: its rows would be lost. Name another file.")
    summary = {"rows": 0, "correct": 0, "undecided": 0}
    reasons: Counter[str] = Counter()
    rows = read_table(path)
    block = list(islice(rows, BLOCK_ROWS))
    fields = prediction_field, gold_field
    require_columns(path, block, fields, "Name the columns with --prediction-field and --gold-field.")
    with (
        output.open("w", encoding="utf-8") if output else nullcontext() as out,
        MathVerifier(workers=workers, deadline=deadline) as rules,
        second(rules) as verifier,
    ):
        while block:
            for row, correct in _judged(block, fields, policy, verifier):
                summary["rows"] += 1
                summary["correct"] += correct is True
                summary["undecided"] += correct is None
                reasons[row["reason"].split(":", 1)[0]] += 1
                write_json_line(row, out)
            block = list(islice(rows, BLOCK_ROWS))
    return {**summary, "reasons": dict(reasons.most_common())}


def _judged(
    block: Sequence[Numbered], fields: tuple[str, str], policy: str, verifier: Verifier
) -> Iterator[tuple[dict[str, Any], bool | None]]:
    """(the row's fields with `correct` and `reason`, the verdict) of each row, in order."""
    asked: list[tuple[str, str, str]] = []
    written: list[tuple[dict[str, Any], str]] = []  # fields, and why there is no verdict
    for number, row in block:
        own = row.row if isinstance(row, BrokenRow) else row  # text that is not UTF-8 can be compared all the same
        try:
            if own is None:
                raise ValueError(str(row))
            prediction, gold = (_field(own, name) for name in fields)
        except ValueError as error:
            written.append(({"line": number} if own is None else own, str(error)))
        else:
            written.append((own, ""))
            asked.append((prediction, gold, policy))
    verdicts = iter(verifier.check_many(asked))
    for own, why in written:
        if why:
            yield {**own, "correct": False, "reason": why}, False
        else:
            verdict = next(verdicts)
            yield {**own, "correct": verdict.correct is True, "reason": verdict.reason}, verdict.correct


def _field(row: dict[str, Any], name: str) -> str:
    """Raises ValueError for a field that is missing or no text, number or list of them."""
    if not has_cell(row, name) or cell(row, name) is None:
        raise ValueError(f"missing field: {name}")
    return answer_of(cell(row, name), repr(name))
