"""A file of (prediction, gold) rows -> the same rows with a verdict, in order, in constant memory."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from whetstone.records import Verifier
from whetstone.verify import MathVerifier
from whetstone.verify.policy import get_policy

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
    """Verify a JSONL (or .csv, .parquet) file; returns `{"rows", "correct", "undecided", "reasons"}`.

    `second` may put another verifier before ours, such as one that asks a judge.

    Every line in gives one JSON line out (to `output`, else to standard output) with the row's fields, `correct` (true
    or false; what could not be decided is false and its reason says so) and `reason`. A line that is broken gives
    `{"line": N, "correct": false, "reason": "not JSON: …"}` and loses no other. Raises FileNotFoundError, and
    ValueError for an unknown policy or a field that no row has.
    """
    get_policy(policy)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file: verify reads a JSONL file, one row a line. Check the path.")
    if output is not None and output.exists() and output.samefile(path):
        raise ValueError(f"output = {output} is the input itself: its rows would be lost. Name another file.")
    summary = {"rows": 0, "correct": 0, "undecided": 0}
    reasons: Counter[str] = Counter()
    lines = _lines(path)
    block = list(islice(lines, BLOCK_ROWS))
    _require_fields(path, block, (prediction_field, gold_field))
    out = None if output is None else output.open("w", encoding="utf-8")
    try:
        with MathVerifier(workers=workers, deadline=deadline) as rules, second(rules) as verifier:
            while block:
                for row, correct in _judged(block, prediction_field, gold_field, policy, verifier):
                    summary["rows"] += 1
                    summary["correct"] += correct is True
                    summary["undecided"] += correct is None
                    reasons[row["reason"].split(":", 1)[0]] += 1
                    _print_row(row, out)
                block = list(islice(lines, BLOCK_ROWS))
    finally:
        if out is not None:
            out.close()
    return {**summary, "reasons": dict(reasons.most_common())}


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """(row number, row, "") or (row number, None, what is wrong), by the file's ending; empty lines are no rows."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as table:
            rows = (row for batch in table.iter_batches(batch_size=BLOCK_ROWS) for row in batch.to_pylist())
            yield from ((number, row, "") for number, row in enumerate(rows, start=1))
    elif path.suffix == ".csv":
        # a byte that is not UTF-8 is shown as \\x.. and loses no row
        with path.open(encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
            yield from ((number, row, "") for number, row in enumerate(csv.DictReader(file, restkey="more"), start=1))
    else:
        with path.open("rb") as file:
            yield from _json_lines(file)


def _json_lines(file: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    for number, raw in enumerate(file, start=1):
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if not raw.strip():
            continue
        try:
            row = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield number, None, f"not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}"
        except (ValueError, RecursionError) as error:
            yield number, None, f"not JSON: {error}"
        else:
            if isinstance(row, dict):
                yield number, row, ""
            else:
                yield number, None, f"not a JSON object: {type(row).__name__}"


def _require_fields(path: Path, block: list[tuple[int, dict[str, Any] | None, str]], wanted: tuple[str, str]) -> None:
    rows = [row for _, row, _ in block if row is not None]
    for name in wanted:
        if rows and not any(name in row for row in rows):
            present = ", ".join(sorted({key for row in rows for key in row}))
            raise ValueError(
                f"{path}: none of the first {len(rows)} rows has the field {name!r}, so nothing can be compared. "
                f"Fields present: {present or 'none'}. Name them with --prediction-field and --gold-field."
            )


def _judged(
    block: list[tuple[int, dict[str, Any] | None, str]],
    prediction_field: str,
    gold_field: str,
    policy: str,
    verifier: Verifier,
) -> Iterator[tuple[dict[str, Any], bool | None]]:
    asked, problems = [], []
    for _, row, problem in block:
        if row is not None:
            missing = [name for name in (prediction_field, gold_field) if row.get(name) is None]
            problem = f"missing field: {missing[0]}" if missing else ""
        problems.append(problem)
        if not problem:
            asked.append((_as_text(row[prediction_field]), _as_text(row[gold_field]), policy))
    verdicts = iter(verifier.check_many(asked))
    for (number, row, _), problem in zip(block, problems, strict=True):
        if problem:
            yield {**(row if row is not None else {"line": number}), "correct": False, "reason": problem}, False
        else:
            verdict = next(verdicts)
            yield {**row, "correct": verdict.correct is True, "reason": verdict.reason}, verdict.correct


def _as_text(value: Any) -> str:
    """A field's text: numbers as JSON writes them, a list of one as its item."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _print_row(row: dict[str, Any], out: TextIO | None) -> None:
    try:
        print(json.dumps(row, ensure_ascii=False, default=str), file=out)
    except UnicodeEncodeError:
        print(json.dumps(row, default=str), file=out)  # a lone surrogate, which UTF-8 cannot hold
