"""One self-contained page about a run: `runs/NAME/report.html`.

It is made from the files of the stages alone (manifests, metrics, scores and the generations behind them, comparisons, the data
card). Stages know nothing of the report, and the page loads nothing from the network.
"""

import shutil
from html import escape
from pathlib import Path
from typing import Any

from whetstone.report.controls import controls
from whetstone.report.curves import curves
from whetstone.report.head import head
from whetstone.report.provenance import data, reproduce
from whetstone.report.read import RunRecord, read_run
from whetstone.report.reward_models import reward_models
from whetstone.report.rollouts import rollouts
from whetstone.report.stages import groups, ladder, scores
from whetstone.run.folder import Stage, write_text
from whetstone.run.room import Room
from whetstone.run.settings import StageSettings
from whetstone.run.visible import visible

STYLE = Path(__file__).with_name("style.css")
SECTIONS = (
    ("stages", "Stages", ladder),
    ("scores", "Scores", scores),
    ("controls", "Controls", controls),
    ("curves", "Curves", curves),
    ("reward_models", "Reward models", reward_models),
    ("levels", "Levels and domains", groups),
    ("rollouts", "Rollouts", rollouts),
    ("data", "Data", data),
    ("reproduce", "Repeat it", reproduce),
)


class Settings(StageSettings):
    """The report has no settings: it shows what the run folder holds."""


def run(stage: Stage) -> dict[str, Any]:
    path = write_report(stage.folder.parent)
    shutil.copyfile(path, stage.output("report") / path.name)
    return {"report": str(path), "bytes": path.stat().st_size}


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into the run folder and return its path. Raises ValueError if no stage is complete."""
    path = Path(run_folder) / "report.html"
    write_text(path, visible(render(read_run(Path(run_folder)))))
    return path


def render(record: RunRecord) -> str:
    sections = [(anchor, title, html) for anchor, title, section in SECTIONS if (html := section(record))]
    style = STYLE.read_text(encoding="utf-8")
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(record.name)} · Whetstone</title><style>\n{style}</style></head><body><main>"
        f"{head(record)}<nav>{links}</nav>{''.join(html for *_, html in sections)}</main></body></html>\n"
    )


ROOM = Room(settings=Settings, run=run, gives=("report",), uses=(), reads_run=True)
