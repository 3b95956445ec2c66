"""`python -m tests.peers.small_loops dpo|grpo FOLDER`: the two loops of the benchmark on a smaller model, two steps of each.

What the loops tell of their steps is printed last, as JSON. A process of its own: the loops change classes to their use.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import _dpo_loops as dpo
from benchmarks import _grpo_loops as grpo
from benchmarks import _ragged as ragged

STEPS = 2


class Enough(BaseException):
    """Passes all that catches exceptions."""


class Gate:
    """Lets the first steps pass."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def step_done(self, done: int, **seen: float) -> None:
        self.seen.append({"done": done, **seen})
        if len(self.seen) == STEPS:
            raise Enough


def steps_of(loop: Callable[..., None], folder: Path, *rest: Any) -> list[dict[str, float]]:
    folder.mkdir()
    gate = Gate()
    with suppress(Enough):
        loop(gate, folder, *rest)
    return gate.seen


def main(which: str, folder: Path) -> None:
    ragged.LAYERS, ragged.HIDDEN, ragged.HEADS, ragged.MLP = 1, 32, 2, 32
    plain = {"gradient_checkpointing": False, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    if which == "dpo":
        found = {
            "ours": steps_of(dpo.ours, folder / "ours", "float32", 1024, True),
            "peer": steps_of(dpo.trl, folder / "peer", "float32", True, plain),
        }
    else:
        size = grpo.Step(longest=40)
        many = {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 2, "cache_implementation": "static"}
        found = {
            "ours": steps_of(grpo.ours, folder / "ours", "float32", 1024, ragged, size),
            "peer": steps_of(grpo.trl, folder / "peer", "float32", folder / "ours" / "first.json", many, ragged, size),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
