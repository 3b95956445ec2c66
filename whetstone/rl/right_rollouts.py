"""The right rollouts of all steps, kept if a control is to be fine-tuned on them, and only then.

They are journalled step by step. A step that is done again, after a kill or a roll-back, replaces what it left before.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from whetstone.rl.algorithm import Group
from whetstone.run.folder import Stage
from whetstone.run.tables import Journal, write_rows
from whetstone.sample import RIGHT_ROLLOUTS, right_rows

if TYPE_CHECKING:
    from whetstone.learner.parallel import ProcessGroup


class RightRollouts:
    def __init__(self, stage: Stage, process_group: "ProcessGroup"):
        self.stage, self.path = stage, stage.folder / f"{RIGHT_ROLLOUTS}.jsonl"
        self.kept = RIGHT_ROLLOUTS in stage.wanted and process_group.main

    def __enter__(self) -> "RightRollouts":
        self._stack = ExitStack()
        if self.kept:
            self._journal = self._stack.enter_context(Journal(self.path, keep=lambda row: row.get("step")))
            self._steps = set(self._journal.rows)
        return self

    def add(self, step: int, groups: Sequence[Group]) -> None:
        """Keep those of a step. Raises ValueError if those of the steps before it were not kept."""
        if self.kept:
            if step and step - 1 not in self._steps:
                raise ValueError(
                    f"{self.stage.name} was begun without keeping its right rollouts, which a control is to be fine-tuned on: "
                    f"those of its first {step} steps are not there. Leave the control out ([controls] rejection), or begin "
                    f"the stage anew: move {self.stage.folder} away."
                )
            self._steps.add(step)
            self._journal.append([{"step": step}, *right_rows(r for group in groups for r in group.rollouts)])

    def finish(self) -> None:
        """Write the table, after the last step."""
        if self.kept:
            begins = {row["step"]: number for number, row in self._lines() if "step" in row}  # where each step is last
            write_rows(self.stage.output(RIGHT_ROLLOUTS), self._last(set(begins.values())))

    def _last(self, begins: set[int]) -> Iterator[dict[str, Any]]:
        """The rollouts that follow one of these lines, each up to the next step's line."""
        wanted = False
        for number, row in self._lines():
            if "step" in row:
                wanted = number in begins
            elif wanted:
                yield row

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with self.path.open("rb") as lines:
            yield from enumerate(map(json.loads, lines))

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
