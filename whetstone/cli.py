"""The command line: one file per command in `commands/`, each a function that typer reads.

What a command needs is imported inside its function, so that `--help` answers at once.
"""

import io
import os
import sys
from typing import Annotated

import typer

from whetstone.commands.chat import chat
from whetstone.commands.compare import compare
from whetstone.commands.evaluate import evaluate
from whetstone.commands.exit_status import USER_ERROR
from whetstone.commands.export import export
from whetstone.commands.generate import generate
from whetstone.commands.plan import plan
from whetstone.commands.published import published
from whetstone.commands.regrade import regrade
from whetstone.commands.report import report
from whetstone.commands.run import run
from whetstone.commands.schema import schema
from whetstone.commands.serve import serve
from whetstone.commands.show import show
from whetstone.commands.verify import verify
from whetstone.commands.watch import watch
from whetstone.run.visible import guard_libraries, write_line

COMMANDS = (
    run, plan, schema, show, verify, evaluate, compare, regrade, published, generate, chat, serve, watch, report, export
)  # fmt: skip

app = typer.Typer(
    help="Whetstone sharpens a small language model into a maths reasoner.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """A user's mistake is one `error:` line and exit status 2; `--debug`, anywhere on the line, shows the traceback."""
    # Idle OpenMP threads that spin take the cores from other processes. Torch reads this once, when it loads
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one for every small model
    guard_libraries()
    for stream in (sys.stdout, sys.stderr):  # a character that the terminal's encoding lacks costs no result
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except BrokenPipeError:  # `whetstone show … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if debug:
            raise
        write_line(f"error: {error}", sys.stderr)
        sys.exit(USER_ERROR)


def _version(wanted: bool) -> None:
    if wanted:
        from whetstone import __version__

        write_line(f"whetstone {__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


if __name__ == "__main__":
    main()
