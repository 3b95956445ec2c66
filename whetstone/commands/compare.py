"""`whetstone compare`: two models or runs, paired."""

from pathlib import Path
from typing import Annotated

import typer

from whetstone.commands.evaluate_options import (
    Batch,
    Benchmarks,
    Device,
    Dtype,
    Limit,
    Output,
    ProtocolName,
    Samples,
    ScoreMaxTokens,
    ScoreTemperature,
    ScoreTopP,
    Seed,
)

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
    max_tokens: ScoreMaxTokens = None,
    limit: Limit = 0,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch: Batch = 0,
    output: Output = None,
    json: Annotated[Path | None, typer.Option(help="Write the results here.")] = None,
) -> None:
    """Compare two models on the same problems: the difference of their scores (B - A) with its paired 95 % interval.

    Saved generations are used where there are any. Those of another harness are graded by our verifier.
    """
    from whetstone.comparing import compare_and_print
    from whetstone.evaluate.any_model import ModelOptions
    from whetstone.evaluation import Sets

    given = {
        "samples": samples,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "problems": limit,
    }
    sides = [ModelOptions(name, device=device, dtype="" if dtype == "auto" else dtype, batch=batch) for name in (a, b)]
    compare_and_print(*sides, Sets(benchmarks or (), protocol, given), seed, output, json)
