"""One of the processes that do a training stage together: `torchrun … --module whetstone.worker STAGE.json`.

`whetstone run` starts them and waits; `[parallel] launch` starts them on several machines. Each runs the room's `run`. The
first writes the summary to `summary.json` beside the stage.
"""

import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from whetstone.recipe import load_room
from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.secrets import literal_secrets
from whetstone.run.torchrun import process, run_processes
from whetstone.run.usage import peak_memory
from whetstone.run.visible import guard_libraries

STAGE, SUMMARY = "stage.json", "summary.json"


def run_in_processes(stage: Stage) -> dict[str, Any]:
    """The room's `summary`, and the `peak_memory` of the first process in bytes. Raises as `run_processes` does."""
    folder = stage.folder / "processes"
    write_json(folder / STAGE, to_json(stage))
    (folder / SUMMARY).unlink(missing_ok=True)
    parallel, run = stage.parallel, stage.run
    # A process that is gone is named before those that wait for it are reported as hanging
    watched = run.watchdog / 2, run.on_hang == "end"
    run_processes("whetstone.worker", folder / STAGE, parallel.processes, folder, parallel.launch, *watched)
    return read_json(folder / SUMMARY)


def to_json(stage: Stage) -> dict[str, Any]:
    """The stage for another process; `read_stage` is the inverse. Raises ValueError for a secret, which no file may hold."""
    if secret := next(literal_secrets(stage.settings.model_dump()), None):
        raise ValueError(
            f"{stage.name}.{secret} is a secret, which would have to be written for the other processes. Let the stage read "
            "it from an environment variable."
        )
    return TypeAdapter(Stage).dump_python(stage, mode="json", serialize_as_any=True)


def read_stage(path: Path) -> Stage:
    row = read_json(path)
    row["settings"] = load_room(row["kind"]).settings.model_validate(row["settings"])
    return TypeAdapter(Stage).validate_python(row)


def main() -> None:
    guard_libraries()
    path = Path(sys.argv[1])
    with process(path.parent) as rank:
        from whetstone.learner import parallel

        stage = read_stage(path)
        parallel.settle(stage.run.threads)
        summary = load_room(stage.kind).run(stage)
        if rank == 0:
            write_json(path.with_name(SUMMARY), {"summary": summary, "peak_memory": peak_memory()})
        parallel.leave()


if __name__ == "__main__":
    main()
