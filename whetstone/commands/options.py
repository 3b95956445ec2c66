"""The options that several commands have."""

from pathlib import Path
from typing import Annotated, Literal

import typer

RecipeFile = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A TOML file, or the name of an installed recipe: tiny.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME.KEY=VALUE", help="Change a setting of a stage or shared table. Repeatable."),
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model", "-m",
        help="A Hugging Face folder, a GGUF file, a run (its last trained model), a stage, or OWNER/NAME on the Hub (or "
        "OWNER/NAME@REVISION), which is downloaded.",
    ),
]  # fmt: skip
ChatTemplate = Annotated[
    str | None,
    typer.Option(help="For a base model without one, or instead of its own: chatml, plain, … or a .jinja file."),
]
AnswerFrom = Annotated[
    Literal["column", "boxed", "after_hashes"],
    typer.Option(help="Where the right answer is: its column as it stands, the last box in it, or what follows ####."),
]
Weights = Annotated[
    Literal["stored", "int8"],
    typer.Option(help="int8: sample with weights rounded to 8 bits, for speed on a CPU."),
]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer.")]
TopP = Annotated[float, typer.Option(help="Sample from the likeliest tokens that hold this share of the mass.")]
TopK = Annotated[int, typer.Option(min=0, help="Sample from this many of the likeliest tokens; 0: from all.")]
MinP = Annotated[float, typer.Option(help="Sample from tokens at least this many times as likely as the likeliest.")]
