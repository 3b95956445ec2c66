"""`whetstone published`: what others published, beside a run's scores."""

from pathlib import Path
from typing import Annotated

import typer


def published(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A run; default: all published scores.")] = None,
) -> None:
    """Print published scores with their sources; beside a RUN's, those on its problem sets, with how their protocols differ."""
    from whetstone.evaluate.evaluate import read_scores
    from whetstone.evaluate.published import beside, tables
    from whetstone.terminal import print_published

    if run is None:
        names = dict.fromkeys(name for table in tables() for values in table.scores.values() for name in values)
        print_published(beside({"benchmark": name} for name in names))
        return
    print_published(beside(read_scores(run)), ours=read_scores(run))
