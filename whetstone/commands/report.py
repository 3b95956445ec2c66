"""`whetstone report`: the page of a run."""

from pathlib import Path
from typing import Annotated

import typer

from whetstone.run.visible import write_line


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, for instance runs/tiny.")],
    beside: Annotated[Path | None, typer.Option(metavar="RUN", help="Another run, on the same page.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the page here instead of into the run's folder. Of an address: ./NAME.html."),
    ] = None,
) -> None:
    """Write the report of a run again, from the files of its stages; or of two runs, on one page."""
    from whetstone.pipeline.staleness import refuse_links
    from whetstone.report.report import write_report
    from whetstone.run import remote

    output = output or (Path(f"{folder.name}.html") if remote.address(folder) else None)
    folder, beside = remote.local_run(folder), beside and remote.local_run(beside)
    for run_folder in filter(None, (folder, beside)):
        if not run_folder.is_dir():
            raise FileNotFoundError(f"There is no run folder {run_folder}: make one with whetstone run RECIPE.")
        refuse_links(run_folder)
    write_line(str(write_report(folder, beside, output)))
