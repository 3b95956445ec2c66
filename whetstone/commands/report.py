"""`whetstone report`: the page of a run."""

from pathlib import Path
from typing import Annotated

import typer

from whetstone.run.visible import write_line


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, for instance runs/tiny.")],
) -> None:
    """Write the report of a run again, from the files of its stages."""
    from whetstone.pipeline.staleness import refuse_links
    from whetstone.report.report import write_report

    if not folder.is_dir():
        raise FileNotFoundError(f"There is no run folder {folder}: make one with whetstone run RECIPE.")
    refuse_links(folder)
    write_line(str(write_report(folder)))
