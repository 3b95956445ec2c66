"""The completions of a step, kept as they come: a call after a kill samples only what is missing.

A completion of a server may have been paid for, and no other call gives the same one again. One that was sampled ahead is of
weights that are gone by the time of a resume. So each is a line of a journal, `sampled/step-000012.jsonl` in the stage's
folder, until a checkpoint has the step.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whetstone.records import Completion, Generator, Prompt, Sampling
from whetstone.run.tables import Journal

FOLDER = "sampled"


class KeptCompletions:
    """A Generator of one step, with its journal. `weights`: the step that began with those which sample now.

    `one_by_one`: each completion is synced as it comes. If not, those of a call are synced together, and a call that was cut
    off is made again as a whole: an engine of this process gives the same ones again, to the bit only in the same company.
    """

    def __init__(self, generator: Generator, folder: Path, step: int, weights: int, one_by_one: bool):
        self.generator, self.weights, self.one_by_one = generator, weights, one_by_one
        self.path = path_of(folder, step)
        self.oldest = weights  # of those that sampled the step's completions

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]:
        prompts = list(prompts)
        with Journal(self.path, keep=_read) as journal:
            rows = {(row["stream"], row["problem_id"], row["index"]): row for row in journal.rows}
            stream = f"{sampling.seed} {sampling.temperature} {sampling.max_tokens}"
            kept = {p: row for p in prompts if (row := rows.get((stream, p.problem_id, p.index)))}
            if not self.one_by_one and len(kept) < len(prompts):
                kept = {}
            for row in kept.values():
                self.oldest = min(self.oldest, row["weights"])
                yield row["completion"]
            arrived = []
            for completion in self.generator.generate([p for p in prompts if p not in kept], sampling):
                row = {"stream": stream, "weights": self.weights} | asdict(completion)
                if self.one_by_one:
                    journal.append([row])
                else:
                    arrived.append(row)
                yield completion
            journal.append(arrived)


def _read(row: dict[str, Any]) -> dict[str, Any]:
    """Raises KeyError or TypeError if it is no row of such a journal."""
    own = {name: row.pop(name) for name in ("stream", "weights")}
    return own | {"completion": Completion(**row), "problem_id": row["problem_id"], "index": row["index"]}


def path_of(folder: Path, step: int) -> Path:
    return folder / FOLDER / f"step-{step:06d}.jsonl"


def forget_before(folder: Path, step: int) -> None:
    """Remove the journals of earlier steps."""
    for path in (folder / FOLDER).glob("step-*.jsonl"):
        if path < path_of(folder, step):
            with suppress(FileNotFoundError):
                path.unlink()
