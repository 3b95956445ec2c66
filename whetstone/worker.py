"""One of the processes that do a training stage together: `torchrun … --module whetstone.worker STAGE.json`.

`whetstone run` starts them and waits; by hand, on several machines, the same line does it. The room's own `run` is called
in each; the first writes what it returns to `summary.json` beside the stage.
"""

import os
import sys
from pathlib import Path
from typing import Any

from whetstone.recipe import load_room
from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.processes import cores
from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings
from whetstone.run.torchrun import process, run_processes
from whetstone.run.usage import peak_memory

STAGE, SUMMARY = "stage.json", "summary.json"


def run_in_processes(stage: Stage) -> dict[str, Any]:
    """The room's summary, with the peak memory of the first process (`peak_memory`, bytes)."""
    folder = stage.folder / "processes"
    write_json(folder / STAGE, written(stage))
    (folder / SUMMARY).unlink(missing_ok=True)
    run_processes("whetstone.worker", folder / STAGE, stage.parallel.processes, folder)
    return read_json(folder / SUMMARY)


def written(stage: Stage) -> dict[str, Any]:
    tables = ("settings", "run", "model", "parallel", "scores")
    return {
        "name": stage.name,
        "kind": stage.kind,
        "folder": str(stage.folder),
        "inputs": {name: str(path) for name, path in stage.inputs.items()},
        "longest": stage.longest,
        **{table: getattr(stage, table).model_dump(mode="json") for table in tables},
    }


def read(path: Path) -> Stage:
    told = read_json(path)
    return Stage(
        name=told["name"],
        kind=told["kind"],
        folder=Path(told["folder"]),
        inputs={name: Path(folder) for name, folder in told["inputs"].items()},
        settings=load_room(told["kind"]).settings.model_validate(told["settings"]),
        run=RunSettings.model_validate(told["run"]),
        model=ModelSettings.model_validate(told["model"]),
        parallel=ParallelSettings.model_validate(told["parallel"]),
        scores=ScoreSettings.model_validate(told["scores"]),
        longest=told["longest"],
    )


def main() -> None:
    path = Path(sys.argv[1])
    with process(path.parent) as rank:
        import torch

        from whetstone.learner import parallel

        stage = read(path)
        torch.set_num_threads(stage.run.threads or max(1, cores() // int(os.environ["LOCAL_WORLD_SIZE"])))
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        summary = load_room(stage.kind).run(stage)
        if rank == 0:
            write_json(path.with_name(SUMMARY), {"summary": summary, "peak_memory": peak_memory()})
        parallel.leave()


if __name__ == "__main__":
    main()
