"""The options of commands that replace parts of a model's prompt."""

from typing import Annotated

import typer

KEPT = "Default: as the model was trained (prompt.json in its folder)."

System = Annotated[str | None, typer.Option(help=f"A system message. {KEPT}")]
Before = Annotated[str | None, typer.Option(metavar="TEXT", help=f"Text before each question. {KEPT}")]
After = Annotated[str | None, typer.Option(metavar="TEXT", help=f"Text after each question. {KEPT}")]
Examples = Annotated[
    str | None,
    typer.Option(metavar="FILE[:COUNT]", help=f"Few-shot examples, rows with question and answer. {KEPT}"),
]
SWITCH = f"Set the chat template's own switch for thinking. {KEPT}"
Think = Annotated[bool | None, typer.Option("--thinking/--no-thinking", "--think/--no-think", help=SWITCH)]
ThinkAtAll = Annotated[bool | None, typer.Option("--think/--no-think", " /--no-thinking", help=SWITCH)]
