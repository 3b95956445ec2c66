"""`whetstone published`: what others published, beside a run's scores."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from whetstone.run.visible import write_line


def published(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A run; default: all published scores.")] = None,
) -> None:
    """Print published scores with their sources; beside a RUN's, those on its problem sets, with how their protocols differ."""
    from whetstone.evaluate.evaluate import read_scores
    from whetstone.evaluate.published import beside, tables
    from whetstone.terminal import print_published

    known = dict.fromkeys(name for table in tables() for values in table.scores.values() for name in values)
    if run is None:
        print_published(beside({"benchmark": name} for name in known))
        return
    if not run.is_dir():
        raise FileNotFoundError(
            f"There is no folder {run}: name a run, or a folder that whetstone evaluate --output wrote."
        )
    scores = read_scores(run)
    found = beside(scores)
    if not found:
        names = ", ".join(dict.fromkeys(score["benchmark"] for score in scores))
        write_line(
            f"no score on {names} was published, as far as is known here. There are some on {', '.join(known)}.",
            sys.stderr,
        )
    print_published(found, ours=scores)
