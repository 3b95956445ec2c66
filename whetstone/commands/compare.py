"""`whetstone compare`: two models or runs, paired."""

from pathlib import Path
from typing import Annotated

import typer

from whetstone.commands.evaluate_options import (
    Batch,
    Benchmarks,
    ColumnNames,
    Device,
    Dtype,
    KeyVariable,
    Limit,
    Output,
    Policy,
    ProtocolName,
    Samples,
    ScoreMaxTokens,
    ScoreTemperature,
    ScoreTopK,
    ScoreTopP,
    Seed,
)
from whetstone.commands.options import AnswerFrom

Side = Annotated[
    str,
    typer.Argument(
        help="A run, a stage, a folder of `evaluate --output`, samples of lm-eval, lighteval or evalchemy; or a model, as in "
        "`evaluate`, which is scored on --benchmark."
    ),
]


def compare(
    a: Side,
    b: Side,
    benchmarks: Benchmarks = None,
    protocol: ProtocolName = None,
    samples: Samples = None,
    temperature: ScoreTemperature = None,
    top_p: ScoreTopP = None,
    top_k: ScoreTopK = None,
    max_tokens: ScoreMaxTokens = None,
    limit: Limit = 0,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch: Batch = 0,
    served: Annotated[
        list[str] | None,
        typer.Option(help="The model's name at a server that lists several; given twice, A's and then B's."),
    ] = None,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    output: Output = None,
    policy: Policy = None,
    columns: ColumnNames = None,
    answer_from: AnswerFrom = "column",
    json: Annotated[Path | None, typer.Option(help="Write the results here.")] = None,
) -> None:
    """Compare two models on the same problems: the difference of their scores (B - A) with its paired 95 % interval.

    Saved generations are used where there are any. Those of another harness are graded by our verifier.
    """
    from dataclasses import replace

    from whetstone.comparing import compare_and_print, served_by
    from whetstone.evaluate.any_model import ModelOptions
    from whetstone.evaluation import Sets

    given = {"samples": samples, "temperature": temperature, "top_p": top_p, "top_k": top_k, "max_tokens": max_tokens}
    sets = Sets(benchmarks or (), protocol, given | {"problems": limit or None}, policy, columns or (), answer_from)
    how = ModelOptions(a, device=device, dtype="" if dtype == "auto" else dtype, batch=batch, key_variable=key_variable)
    sides = served_by([replace(how, name=name) for name in (a, b)], served or ())
    compare_and_print(*sides, sets, seed, output, json)
