"""`whetstone run`: the stages of a recipe, in order."""

import shlex
import sys
from typing import Annotated

import typer

from whetstone.commands.exit_status import INTERRUPTED, TERMINATED
from whetstone.commands.options import RecipeFile, Sets
from whetstone.run.visible import write_line


def run(
    recipe: RecipeFile,
    first: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Begin at this stage.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="STAGE", help="End after this stage.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Only this stage. Repeatable.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Redo stale stages. Old work stays until the new is complete.")
    ] = False,
    sets: Sets = None,
) -> None:
    """Run the stages of a recipe in order. Finished stages are skipped, interrupted ones continued.

    Ctrl-C and SIGTERM finish the current training step, write a checkpoint and stop (exit status 130 and 143). A second
    signal stops at once.
    """
    from whetstone.pipeline.running import run_recipe
    from whetstone.recipe import read_recipe
    from whetstone.run.processes import Terminated, terminate_as_interrupt
    from whetstone.run.secrets import redacted
    from whetstone.shipped_recipes import recipe_file
    from whetstone.terminal import print_results, say_published

    checked = read_recipe(recipe_file(recipe), sets or ())
    try:
        with terminate_as_interrupt():
            run_recipe(checked, first, last, only or (), force)
    except KeyboardInterrupt as stop:
        command = shlex.join(["whetstone", *redacted(sys.argv[1:])])
        write_line(f"\nstopped; finished work is kept in {checked.folder}. Continue with\n    {command}", sys.stderr)
        raise typer.Exit(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED) from None
    print_results(checked)
    say_published(checked)
