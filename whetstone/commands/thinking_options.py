"""The options of commands that show a model's thinking."""

from typing import Annotated

import typer

BeamCount = Annotated[int, typer.Option("--beams", min=1, help="Width of beam search; 1: sampling.")]
Thinking = Annotated[str, typer.Option(help="show the model's thinking, fold it into one line, or hide it.")]
ThinkMost = Annotated[int | None, typer.Option(help="End the thinking after this many tokens, and answer.")]
ThinkLeast = Annotated[int, typer.Option(min=0, help='Continue the thinking ("Wait") until this many tokens.')]
