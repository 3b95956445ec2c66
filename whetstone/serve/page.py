"""The page of `serve --page`: its files, and the run's state that it asks for. It loads nothing from elsewhere."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response

from whetstone.browser import asset, shown
from whetstone.follow import as_json, curves, last_groups, read_run
from whetstone.serve.requests import BadRequest

HERE = Path(__file__).parent
OWN = ("page.css", "page.js", "run.js")
LIBRARIES = ("uPlot.iife.min.js", "uPlot.min.css", "temml.min.js", "text.js")
GROUPS = 8  # whose answers are shown
HEADERS = {
    # styles of single elements are Temml's and uPlot's
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI, runs: tuple[str, ...]) -> None:
    """`runs`: folders, which may be worked on meanwhile. FastAPI runs these functions in threads: they read files."""

    @app.get("/")
    def page() -> Response:
        return Response((HERE / "page.html").read_text(encoding="utf-8"), media_type="text/html", headers=HEADERS)

    @app.get("/files/{name}")
    def file(name: str) -> Response:
        if name not in (*OWN, *LIBRARIES):
            raise BadRequest(f"there is no file {name[:100]!r} here.", status=404)
        text = (HERE / name).read_text(encoding="utf-8") if name in OWN else asset(name)
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        return Response(text, media_type=kind, headers=HEADERS)

    @app.get("/run")
    def every() -> list[Any]:
        return [_state(Path(run)) for run in runs]

    @app.get("/run/{place}/{stage}/curves")
    def numbers(place: int, stage: str) -> Any:
        return shown(curves(_stage(place, stage)))

    @app.get("/run/{place}/{stage}/answers")
    def answers(place: int, stage: str) -> Any:
        return shown(last_groups(_stage(place, stage), GROUPS))

    def _stage(place: int, name: str) -> Path:
        """Found among the stages that are there, so that no other path can be named. Raises BadRequest."""
        stages = read_run(Path(runs[place])).stages if 0 <= place < len(runs) else []
        found = next((stage.folder for stage in stages if stage.name == name and stage.folder), None)
        if found is None:
            raise BadRequest(f"there is no stage {name[:100]!r} that has begun.", status=404)
        return found


def _state(run: Path) -> dict[str, Any]:
    """With `error` in place of what cannot be read."""
    try:
        return shown(as_json(read_run(run)))
    except (OSError, ValueError) as error:
        return {"name": run.name, "running": True, "error": str(error), "stages": [], "scores": [], "current": ""}
