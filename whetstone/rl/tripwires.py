"""Tripwires: the signs of RL going wrong, watched in every step.

A wire trips if its number is beyond its limit for `patience` consecutive steps. Its action is one of

warn      said once in a stage; training goes on
pause     stops; the next `whetstone run` goes on from there
rollback  goes back to the last checkpoint from before the first bad step, with other random streams and half the learning
          rate; after three roll-backs the wire pauses instead

`tripwires.json` in the stage's folder records what tripped, so that a resumed run does not stop twice for one reason.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from pydantic import Field

from whetstone.records import Rollout
from whetstone.rl.algorithm import State
from whetstone.run.folder import read_json, write_json
from whetstone.run.progress import say
from whetstone.run.settings import Settings

if TYPE_CHECKING:
    from whetstone.learner.parallel import ProcessGroup

Wire = Literal[
    "entropy",
    "kl",
    "repetition",
    "truncated",
    "unanswered",
    "zero_advantage",
    "length_drift",
    "sampler_gap",
    "reward_hacking",
]
MOST_ROLLBACKS = 3
ROLLBACK_RATE = 0.5  # factor of the learning rate after each roll-back
WINDOW = 16  # tokens; a rollout repeats itself if many windows of this length occur again
FILE_NAME = "tripwires.json"


class Tripwires(Settings):
    """Limits, and what happens beyond them. A limit of 0 switches the wire off."""

    entropy: float = Field(
        0.1, ge=0, lt=1, description="smallest share of the first step's entropy; the largest is 1 / it"
    )
    kl: float = Field(0.0, ge=0, description="to the model the stage began with, in nats per token; costs a pass of it")
    repetition: float = Field(0.3, ge=0, le=1, description="share of rollouts that repeat themselves")
    truncated: float = Field(0.5, ge=0, le=1, description="share of rollouts that were cut off")
    unanswered: float = Field(0.5, ge=0, le=1, description="share of rollouts that end without an answer")
    zero_advantage: float = Field(0.95, ge=0, le=1, description="share of groups in which all rewards are equal")
    length_drift: float = Field(3.0, ge=0, description="factor by which rollouts became longer or shorter")
    sampler_gap: float = Field(
        0.02, ge=0, description="mean |log-probability gap| of sampler and learner, nats per token"
    )
    reward_hacking: float = Field(
        0.1,
        ge=0,
        le=1,
        description="fall of the share of right rollouts while the mean reward rises, since the first step",
    )
    patience: int = Field(3, gt=0, description="consecutive steps beyond a limit before a wire trips")
    actions: dict[Wire, Literal["warn", "pause", "rollback"]] = Field(
        {}, description="what a wire does, by its name; after a pause the next run goes on; left out: warn"
    )

    def only(self, wire: Wire) -> "Tripwires":
        """The same with all other wires switched off."""
        return self.model_copy(update={name: 0.0 for name in get_args(Wire) if name != wire})

    MOVED: ClassVar[Mapping[str, str]] = {
        "pause": 'actions = { WIRE = "pause" }',
        "rollback": 'actions = { WIRE = "rollback" }',
        "rollbacks": "gone: it is 3",
        "rollback_rate": "gone: it is 0.5",
    }


class Paused(KeyboardInterrupt):
    """A wire stopped the run. Finished steps are kept, and running again goes on."""


class RolledBack(Exception):
    """The stage starts again from a checkpoint of at most `step` finished steps."""

    def __init__(self, step: int):
        super().__init__(f"back to step {step}")
        self.step = step


class Watch:
    """The tripwires of one stage. Its counts are part of the stage's state; what tripped is in a file that no roll-back undoes.

    Several processes get the same numbers and decide alike; the first one writes.
    """

    def __init__(
        self, folder: Path, settings: Tripwires, process_group: "ProcessGroup", said: Collection[str] = ()
    ):  # fmt: skip
        self.path, self.settings, self.process_group = folder / FILE_NAME, settings, process_group
        self.said = set(said)  # wires whose number was warned of in other words
        self.tripped: list[dict[str, Any]] = process_group.first(
            read_json(self.path, list) if self.path.exists() else []
        )

    @property
    def rollbacks(self) -> int:
        return sum(trip["action"] == "rollback" for trip in self.tripped)

    @property
    def rate(self) -> float:
        """Factor of the learning rate."""
        return ROLLBACK_RATE**self.rollbacks

    @property
    def summary(self) -> list[dict[str, Any]]:
        """What tripped, for the manifest."""
        return [{key: trip[key] for key in ("wire", "step", "action")} for trip in self.tripped]

    def stream(self, seed: int) -> int:
        """The seed of sampling: another one after each roll-back."""
        return seed + (self.rollbacks << 40)

    def check(self, state: State, step: int, values: Mapping[str, float]) -> None:
        """After each step. Raises Paused or RolledBack if the recipe says so."""
        watched = state.setdefault("tripwires", {"first": {}, "since": {}})
        if state.get("steps_without_signal"):  # the loop has said it
            self.said.add("zero_advantage")
        for name in ("entropy", "response_length", "reward", "accuracy"):
            if name in values:
                watched["first"].setdefault(name, values[name])
        for wire, (value, beyond) in beyond_limits(self.settings, values, watched["first"]).items():
            if not beyond:
                watched["since"].pop(wire, None)
            elif step + 1 - watched["since"].setdefault(wire, step) >= self.settings.patience:
                self._trip(wire, value, step, onset=watched["since"].pop(wire))

    def _trip(self, wire: str, value: float, step: int, onset: int) -> None:
        action = self.settings.actions.get(wire, "warn")
        if action == "rollback" and self.rollbacks >= MOST_ROLLBACKS:
            action = "pause"
        trip = {"wire": wire, "step": step, "rollbacks": self.rollbacks}
        if any(trip.items() <= old.items() for old in self.tripped):
            return  # the run was resumed from before it
        if action == "warn" and (wire in self.said or any(old["wire"] == wire for old in self.tripped)):
            return  # it is said already
        limit = getattr(self.settings, wire)
        say(
            f"tripwire {wire}: {value:.3g} in step {step + 1}, beyond its limit ({limit:g}) since step {onset + 1}: {action}. "
            f"{ADVICE[wire]}"
        )
        self.tripped.append({**trip, "value": value, "limit": limit, "onset": onset, "action": action})
        if self.process_group.main:
            if action == "rollback":  # before the file is written: after a kill in between, the wire only trips again
                drop_checkpoints_after(self.path.parent / "checkpoints", onset)
            write_json(self.path, self.tripped)
        self.process_group.wait()  # before others look for checkpoints
        if action == "pause":
            raise Paused
        if action == "rollback":
            raise RolledBack(onset)


ADVICE: dict[str, str] = {
    "entropy": "Lower optimizer.learning_rate, raise clip_high or entropy_bonus, or add the stabiliser clip_cov.",
    "kl": "Lower optimizer.learning_rate, or set kl.coefficient.",
    "repetition": "Look at the rollouts: lower optimizer.learning_rate, or reward the format.",
    "truncated": "Raise max_tokens, or punish length (dapo's soft_tokens).",
    "unanswered": "Fine-tune first (sft), lower the temperature, or reward the format (reward).",
    "zero_advantage": "The prompts are too easy or too hard: choose other pool.levels, or algorithm = dapo.",
    "length_drift": "Look at the rollouts: algorithm = dr_grpo does not reward length.",
    "sampler_gap": "Use the same dtype for sampling and training.",
    "reward_hacking": "The reward is no longer what you want: stop earlier, set kl.coefficient, or add a verifiable reward.",
}


def beyond_limits(
    settings: Tripwires, values: Mapping[str, float], first: Mapping[str, float]
) -> dict[str, tuple[float, bool]]:
    """Wire -> (its number, whether it is beyond the limit), for wires that have a limit and a number in this step."""
    numbers: dict[str, tuple[float, bool]] = {}
    for wire in ("kl", "repetition", "truncated", "unanswered", "zero_advantage", "sampler_gap"):
        if (limit := getattr(settings, wire)) and wire in values:
            numbers[wire] = values[wire], values[wire] > limit
    if settings.entropy and "entropy" in values and first["entropy"] > 0:
        share = values["entropy"] / first["entropy"]
        numbers["entropy"] = share, not settings.entropy <= share <= 1 / settings.entropy
    if settings.length_drift and values.get("response_length") and first["response_length"] > 0:
        factor = values["response_length"] / first["response_length"]
        numbers["length_drift"] = factor, max(factor, 1 / factor) > settings.length_drift
    if settings.reward_hacking and {"reward", "accuracy"} <= values.keys() & first.keys():
        fall = first["accuracy"] - values["accuracy"] if values["reward"] > first["reward"] else 0.0
        numbers["reward_hacking"] = fall, fall > settings.reward_hacking
    return numbers


def repeats_itself(rollout: Rollout) -> bool:
    """Whether more than half of its windows of 16 tokens also occur earlier in it."""
    windows = len(rollout.ids) - WINDOW + 1
    if windows <= 0:
        return False
    return len(set(zip(*(rollout.ids[i : windows + i] for i in range(WINDOW)), strict=True))) < windows / 2


def drop_checkpoints_after(folder: Path, step: int) -> None:
    """Delete checkpoints of more than `step` finished steps: the stage then goes on from the newest one left."""
    for checkpoint in folder.glob("step-*"):
        number = checkpoint.name.removeprefix("step-")
        if number.isdecimal() and int(number) > step:
            rmtree(checkpoint)
