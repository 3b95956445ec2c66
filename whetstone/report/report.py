"""One self-contained page about a run: `runs/NAME/report.html`.

It is made from the files of the stages alone (manifests, metrics, scores and the generations behind them, RL's rollouts,
comparisons, the data card). Stages know nothing of the report. The page loads nothing from the network; without its scripts
it shows the same numbers, drawn, and a few problems to read.
"""

import shutil
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from whetstone.browser import LIBRARIES, asset, packed, policy, shown
from whetstone.report import browse, curves
from whetstone.report.beside import beside
from whetstone.report.controls import controls
from whetstone.report.head import head
from whetstone.report.provenance import data, reproduce
from whetstone.report.published import published
from whetstone.report.read import RunRecord, read_run
from whetstone.report.reward_models import reward_models
from whetstone.report.rollouts import rollouts
from whetstone.report.stages import groups, ladder, scores
from whetstone.run.folder import Stage, write_text
from whetstone.run.room import Room
from whetstone.run.settings import StageSettings
from whetstone.run.visible import visible

STYLE = Path(__file__).with_name("style.css")
SCRIPTS = (*LIBRARIES, "curves.js", "rollouts.js")
SECTIONS = (
    ("stages", "Stages", ladder),
    ("beside", "Two runs", beside),
    ("scores", "Scores", scores),
    ("published", "Published", published),
    ("controls", "Controls", controls),
    ("curves", "Curves", curves.curves),
    ("reward_models", "Reward models", reward_models),
    ("levels", "Levels and domains", groups),
    ("browser", "Browse", browse.browser),
    ("rollouts", "Examples", rollouts),
    ("data", "Data", data),
    ("reproduce", "Repeat it", reproduce),
)


class Settings(StageSettings):
    """The report has no settings: it shows what the run folder holds."""


def run(stage: Stage) -> dict[str, Any]:
    path = write_report(stage.folder.parent)
    shutil.copyfile(path, stage.output("report") / path.name)
    return {"report": str(path), "bytes": path.stat().st_size}


def write_report(run_folder: Path, beside: Path | None = None, output: Path | None = None) -> Path:
    """Write `report.html` into the run folder, or `output`, and return its path. With another run beside it, the default is
    `report_beside_OTHER.html`. Raises ValueError if no stage of a run is complete, or if `output` is a folder.
    """
    if output is not None and output.is_dir():
        raise ValueError(f"--output {output} is a folder: name the file that the page is written to.")
    record = read_run(Path(run_folder))
    name = "report.html"
    if beside is not None:
        other = read_run(Path(beside))
        if other.folder.resolve() == record.folder.resolve():
            raise ValueError(f"{beside} is the run itself: name another one to stand beside it.")
        record = replace(record, beside=_distinct(other, record.name))
        name = f"report_beside_{other.name}.html"
    path = output or Path(run_folder) / name
    write_text(path, render(record))
    return path


def _distinct(other: RunRecord, name: str) -> RunRecord:
    """Runs in two folders may have one name."""
    return replace(other, name=f"{other.folder.resolve().parent.name}/{name}") if other.name == name else other


def render(record: RunRecord) -> str:
    sections = [(anchor, title, html) for anchor, title, section in SECTIONS if (html := section(record))]
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    scripts = [asset(name) for name in SCRIPTS]
    style = asset("uPlot.min.css") + STYLE.read_text(encoding="utf-8")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(scripts)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(record.name)} · Whetstone</title><style>\n{style}</style></head><body><main>"
        f"{head(record)}<nav>{links}</nav>{''.join(html for *_, html in sections)}</main>"
    )
    stores = {"curves-data": curves.as_json(record), "rollouts-data": browse.as_json(record)}
    data = "".join(
        f'<script type="text/plain" id="{name}">{packed(shown(value))}</script>' for name, value in stores.items()
    )
    return visible(page) + data + "".join(f"<script>{script}</script>" for script in scripts) + "</body></html>\n"


ROOM = Room(settings=Settings, run=run, gives=("report",), uses=(), reads_run=True)
