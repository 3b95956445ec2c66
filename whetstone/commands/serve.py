"""`whetstone serve`: models behind HTTP, for OpenAI's clients and for a browser."""

import os
from typing import Annotated

import typer

from whetstone.commands.options import ChatTemplate, Weights

Models = Annotated[
    list[str],
    typer.Option(
        "--model", "-m",
        help="A run (each of its stages, by name), a Hugging Face folder, a GGUF file, or a name on the Hub. Repeatable.",
    ),
]  # fmt: skip


def serve(
    model: Models,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Where to listen. Beyond this machine only with WHETSTONE_API_KEY in the environment.")
    ] = "127.0.0.1",
    page: Annotated[
        bool, typer.Option("--page", help="With a page to talk with the models and to follow the run.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Answers that are decoded at once.")] = 32,
    queue: Annotated[int, typer.Option(min=0, help="Answers that may wait; further requests get status 429.")] = 256,
    kept: Annotated[int, typer.Option(min=1, help="Models in memory at once; the one not asked for longest goes.")] = 2,
    cache: Annotated[
        float | None,
        typer.Option(min=0.001, help="GiB of keys and values per model; default: 1 on a CPU, what is free on a GPU."),
    ] = None,
    think: Annotated[
        bool | None, typer.Option("--think/--no-think", help="The chat template's switch for thinking.")
    ] = None,
    chat_template: ChatTemplate = None,
    weights: Weights = "stored",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
) -> None:
    """Answer OpenAI's chat completions and completions. Ctrl-C stops; with WHETSTONE_API_KEY set, clients need that key."""
    from whetstone.serve.server import KEY, Serving
    from whetstone.serve.server import serve as run

    serving = Serving(
        model, host, port, batch, queue, kept, cache, think, chat_template, weights == "int8", page, device
    )
    try:
        run(serving, os.environ.get(KEY, ""))
    except KeyboardInterrupt:
        from whetstone.commands.exit_status import INTERRUPTED

        raise typer.Exit(INTERRUPTED) from None
