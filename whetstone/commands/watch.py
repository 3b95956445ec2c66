"""`whetstone watch`: a run as it goes, in a terminal."""

from pathlib import Path
from typing import Annotated

import typer


def watch(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run that has begun, for instance runs/tiny.")
    ],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print how it stands and end.")] = False,
) -> None:
    """Follow a run while another process works on it: stages, curves, rates, the last answers. Ctrl-C stops watching."""
    from whetstone.run import remote
    from whetstone.watch import watch as follow

    try:
        follow(remote.local_run(run), every, once)
    except KeyboardInterrupt:
        from whetstone.commands.exit_status import INTERRUPTED

        raise typer.Exit(INTERRUPTED) from None
