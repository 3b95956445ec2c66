"""The options of commands that score models."""

from pathlib import Path
from typing import Annotated, Literal

import typer

PROTOCOL = "Default: as --protocol says, else"

Benchmarks = Annotated[
    list[str] | None,
    typer.Option(
        "--benchmark", "-b", help="A file of problems or a known name. Repeatable; default: all of --protocol."
    ),
]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        "--protocol", help="Sample as published scores were measured: phi4-mini-reasoning, deepseek-r1, dapo, limo."
    ),
]
Samples = Annotated[int | None, typer.Option(min=1, help=f"Answers per problem. {PROTOCOL} 8.")]
ScoreTemperature = Annotated[float | None, typer.Option("--temperature", min=0.0, help=f"0 is greedy. {PROTOCOL} 0.6.")]
ScoreTopP = Annotated[
    float | None, typer.Option("--top-p", help=f"Sample from this share of the probability. {PROTOCOL} 1.")
]
ScoreTopK = Annotated[
    int | None, typer.Option("--top-k", min=0, help="Sample from this many of the likeliest tokens; 0: from all.")
]
ScoreMaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", min=1, help=f"Longest answer; longer ones count as truncated. {PROTOCOL} 512."),
]
Limit = Annotated[int, typer.Option(min=0, help="Only the first problems of each set; 0: all.")]
Seed = Annotated[int, typer.Option(help="Of the random numbers that answers are sampled with.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU if there is one.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Of the weights and matrix products; auto: float32."),
]
Batch = Annotated[
    int, typer.Option(min=0, help="Answers sampled at once, or requests in flight at a server; 0: 256, or 32.")
]
Processes = Annotated[int, typer.Option(min=1, help="Processes that sample together, each on its own GPU or cores.")]
Launch = Annotated[
    str,
    typer.Option(
        help="Command that starts the processes on several machines, as [parallel] launch. Needs --output, which all see."
    ),
]
Served = Annotated[str, typer.Option(help="The model's name at the server; default: the only one that it lists.")]
KeyVariable = Annotated[str, typer.Option(help="Environment variable with the server's key.")]
Output = Annotated[
    Path | None,
    typer.Option(
        help="Folder for scores and the generations behind them. The same command again goes on where it stopped."
    ),
]
Policy = Annotated[str | None, typer.Option(help="How answers are compared; default: as the problems say.")]
ColumnNames = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="OURS=THEIRS", help="A column by another name: question=prompt. Repeatable."),
]
