"""`whetstone show`: the rows of a table."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from whetstone.run.visible import visible, write_line


def show(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE|FOLDER", help="A table (docs/your_data.md), or the folder of a stage or run."),
    ],
    grep: Annotated[str, typer.Option(help="Only rows with a field that contains this text.")] = "",
    where: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help="Only rows whose field has this value. Repeatable.")
    ] = None,
    count: Annotated[int, typer.Option("--n", min=0, help="Rows to show, at most; 0: all.")] = 3,
    index: Annotated[int, typer.Option(min=0, help="Begin at this row.")] = 0,
) -> None:
    """Show the rows of a table, or list the tables in the folder of a stage or run."""
    from whetstone.run import remote
    from whetstone.show import chosen, render, rows_of, tables_below

    if (url := remote.in_store(path)) and remote.is_folder(url):
        path = remote.local_run(url)
    if path.is_dir() and not any(path.glob("part-*.parquet")):
        tables = tables_below(path)
        for table, rows, columns in tables:
            line = f"{table}  {rows:,} rows{': ' if columns else ''}{', '.join(columns)}"
            write_line(visible(line, one_line=True))
        if tables:
            return
    shown = 0
    for number, row in chosen(rows_of(path), grep, where or (), index, count):
        sys.stdout.write(render(number, row, colour=sys.stdout.isatty()) + "\n")
        shown += 1
    if not shown:
        write_line("no row matches", sys.stderr)
