"""`whetstone verify`: a verdict for every row of a file."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from whetstone.commands.options import AnswerFrom
from whetstone.run.visible import write_line


def verify(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Predictions and answers (docs/your_data.md).")],
    prediction_field: Annotated[str, typer.Option(help="The field with a completion or a bare answer.")] = "prediction",
    gold_field: Annotated[str, typer.Option(help="The field with the right answer.")] = "gold",
    answer_from: AnswerFrom = "column",
    policy: Annotated[str, typer.Option(help="How answers are read and compared.")] = "math",
    output: Annotated[Path | None, typer.Option(help="Write rows here instead of to stdout.")] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="A model, as in `generate`: a second opinion on answers that no rule can read."
        ),
    ] = None,
    opinions: Annotated[Path | None, typer.Option(help="Keep the judge's opinions here, JSONL.")] = None,
) -> None:
    """Add `correct` and `reason` to every row, in order; what a row has under these names becomes own_correct, own_reason.

    Exit status 0 even when answers are wrong, 2 if no row can be read.
    """
    from whetstone.verify.table import verify_file

    second = {}
    if judge is not None:
        from whetstone.decode.engine import load_engine
        from whetstone.judge import JudgedVerifier

        engine = load_engine(judge)
        second = {"second": lambda rules: JudgedVerifier(rules, engine, opinions)}
    elif opinions is not None:
        raise ValueError(f"--opinions {opinions}: only a judge gives opinions. Name one with --judge MODEL.")
    summary = verify_file(path, prediction_field, gold_field, policy, output, answer_from=answer_from, **second)
    reasons = ", ".join(f"{name} {count:,}" for name, count in summary.pop("reasons").items())
    write_line("  ".join(f"{name} {count:,}" for name, count in summary.items()) + f"  ({reasons})", sys.stderr)
