"""What RL samples, kept to be read: `rollouts/` in the stage's folder, a table with one shard per step.

A step that is done again, after a kill or a roll-back, replaces its shard. The right ones are an artifact of their own if a
control is to be fine-tuned on them; only then the table has their ids.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from whetstone.rl.algorithm import Group
from whetstone.run.folder import Stage
from whetstone.run.tables import read_rows, read_shard, remove_shards, write_rows, write_shard
from whetstone.sample import RIGHT_ROLLOUTS, ended_right, shown_row

if TYPE_CHECKING:
    from whetstone.learner.parallel import ProcessGroup

ROLLOUTS = "rollouts"
NEEDED = ("problem_id", "index", "text", "prompt_ids", "ids")  # for fine-tuning


class KeptRollouts:
    """`keep` is the stage's setting; the main process writes."""

    def __init__(self, stage: Stage, process_group: "ProcessGroup", keep: bool = True):
        self.stage, self.folder = stage, stage.folder / ROLLOUTS
        self.wanted = RIGHT_ROLLOUTS in stage.wanted
        self.writes = process_group.main and (keep or self.wanted)

    def add(self, step: int, groups: Sequence[Group], kept: Sequence[Group]) -> None:
        """The rollouts of a step, of which those in `kept` are trained on. Raises ValueError if a control needs those of the
        steps before it, which were not kept.
        """
        if not self.writes:
            return
        if self.wanted and step and "ids" not in next(read_shard(self.folder, step - 1), {}):
            raise ValueError(
                f"{self.stage.name} was begun without keeping its right rollouts, which a control is to be fine-tuned on: "
                f"those of its first {step} steps are not there. Leave the control out ([controls] rejection), or begin "
                f"the stage anew: move {self.stage.folder} away."
            )
        trained = {(r.problem_id, r.index) for group in kept if group.step == step for r in group.rollouts}
        write_shard(self.folder, step, list(self._rows(step, groups, trained)))

    def _rows(self, step: int, groups: Sequence[Group], trained: set[tuple[str, int]]) -> Iterator[dict[str, Any]]:
        for group in groups:
            for r in (*group.rollouts, *group.undecided):
                row = {
                    "step": step + 1,
                    **shown_row(group.problem, r),
                    "temperature": r.temperature,
                    "reward": r.reward,
                }
                row |= {"trained": (r.problem_id, r.index) in trained}
                if self.wanted:
                    right = ended_right(r)
                    row |= {"prompt_ids": r.prompt_ids if right else [], "ids": r.ids if right else []}
                yield row

    def finish(self, steps: int) -> None:
        """After the last step. An earlier attempt may have gone further, if training went back to a checkpoint."""
        if self.writes:
            remove_shards(self.folder, steps)
        if self.writes and self.wanted:
            rows = read_rows(self.folder) if steps else iter(())
            write_rows(
                self.stage.output(RIGHT_ROLLOUTS), ({name: row[name] for name in NEEDED} for row in rows if row["ids"])
            )
