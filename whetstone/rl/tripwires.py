"""Tripwires: what RL looks like when it goes wrong, watched in every step.

A wire trips when its number is beyond its limit for `patience` steps on end. Then training warns and goes on, or, where the
recipe lists the wire under `pause` or `rollback`,

pause     stops; the next `whetstone run` goes on from there
rollback  goes back to the last checkpoint from before the first bad step, and takes another way: other random streams, and
          `rollback_rate` times the learning rate

What tripped is kept in `tripwires.json` of the stage's folder, so that a resumed run does not stop twice for one reason.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from whetstone.records import Rollout
from whetstone.rl.algorithm import State
from whetstone.run.folder import read_json, write_json
from whetstone.run.progress import say
from whetstone.run.settings import Settings

if TYPE_CHECKING:
    from whetstone.learner.parallel import ProcessGroup

Wire = Literal["entropy", "kl", "repetition", "truncated", "zero_advantage", "length_drift", "sampler_gap"]
WINDOW = 16  # tokens that come again as they were, for a rollout to repeat itself
FILE_NAME = "tripwires.json"


class Tripwires(Settings):
    """Limits, and what happens beyond them. A limit of 0 takes the wire away."""

    entropy: float = Field(default=0.1, ge=0, lt=1)  # of the first step's: less than this share, or more than 1 / it
    kl: float = Field(default=0.0, ge=0)  # to the model the stage began with, nats a token; costs a pass of that model
    repetition: float = Field(default=0.3, ge=0, le=1)  # share of rollouts that repeat themselves
    truncated: float = Field(default=0.5, ge=0, le=1)  # share of rollouts that were cut off
    zero_advantage: float = Field(default=0.95, ge=0, le=1)  # share of groups in which all rewards are equal
    length_drift: float = Field(
        default=3.0, ge=0
    )  # factor by which rollouts are longer, or shorter, than in the first step
    sampler_gap: float = Field(default=0.02, ge=0)  # mean |log-prob gap| sampler-learner, nats a token
    patience: int = Field(default=3, gt=0)  # steps on end
    pause: tuple[Wire, ...] = ()  # wires that stop the run; the next run goes on
    rollback: tuple[Wire, ...] = ()  # wires that go back to a good checkpoint
    rollback_rate: float = Field(default=0.5, gt=0, le=1)  # the learning rate's factor after each roll-back
    rollbacks: int = Field(default=3, ge=0)  # at most; after that the wire stops the run


class Paused(KeyboardInterrupt):
    """A wire stopped the run: what is done is kept, and running again goes on."""


class RolledBack(Exception):
    """The stage begins again from a checkpoint of at most `step` finished steps."""

    def __init__(self, step: int):
        super().__init__(f"back to step {step}")
        self.step = step


class Watch:
    """The tripwires of one stage. What it counts lies in the stage's state, what tripped in a file that no roll-back undoes.

    Several processes see the same numbers and decide alike; the first one writes.
    """

    def __init__(self, folder: Path, settings: Tripwires, process_group: "ProcessGroup"):
        self.path, self.settings, self.process_group = folder / FILE_NAME, settings, process_group
        self.tripped: list[dict[str, Any]] = process_group.first(read_json(self.path) if self.path.exists() else [])

    @property
    def rollbacks(self) -> int:
        return sum(trip["action"] == "rollback" for trip in self.tripped)

    @property
    def rate(self) -> float:
        """What the learning rate is multiplied with."""
        return self.settings.rollback_rate**self.rollbacks

    def stream(self, seed: int) -> int:
        """The seed to sample with: another one after each roll-back."""
        return seed + (self.rollbacks << 40)

    def check(self, state: State, step: int, values: Mapping[str, float]) -> None:
        """After a step. Raises Paused or RolledBack where the recipe says so."""
        bad = state.setdefault("tripwires", {"first": {}, "since": {}})
        for name in ("entropy", "response_length"):
            if name in values:
                bad["first"].setdefault(name, values[name])
        for wire, (value, beyond) in beyond_limits(self.settings, values, bad["first"]).items():
            if not beyond:
                bad["since"].pop(wire, None)
            elif step + 1 - bad["since"].setdefault(wire, step) >= self.settings.patience:
                onset = bad["since"].pop(wire)
                self._trip(wire, value, step, onset)

    def _trip(self, wire: str, value: float, step: int, onset: int) -> None:
        action = "rollback" if wire in self.settings.rollback else "pause" if wire in self.settings.pause else "warn"
        if action == "rollback" and self.rollbacks >= self.settings.rollbacks:
            action = "pause"
        trip = {"wire": wire, "step": step, "rollbacks": self.rollbacks}
        if any(trip.items() <= old.items() for old in self.tripped):
            return  # the run was resumed from before it
        limit = getattr(self.settings, wire)
        say(
            f"tripwire {wire}: {value:.3g} in step {step + 1}, beyond its limit ({limit:g}) since step {onset + 1}: {action}. "
            f"{ADVICE[wire]}"
        )
        self.tripped.append({**trip, "value": value, "limit": limit, "onset": onset, "action": action})
        if self.process_group.main:
            if action == "rollback":
                drop_checkpoints_after(
                    self.path.parent / "checkpoints", onset
                )  # first: a kill after it only trips again
            write_json(self.path, self.tripped)
        self.process_group.wait()  # the others go back to what is left
        if action == "pause":
            raise Paused
        if action == "rollback":
            raise RolledBack(onset)


ADVICE: dict[str, str] = {
    "entropy": "Lower optimizer.learning_rate, raise clip_high or entropy_bonus, or add the stabiliser clip_cov.",
    "kl": "Lower optimizer.learning_rate, or set kl_coefficient.",
    "repetition": "Look at the rollouts: lower optimizer.learning_rate, or reward the format.",
    "truncated": "Raise max_tokens, or punish length (dapo's soft_tokens).",
    "zero_advantage": "The prompts are too easy or too hard: choose other candidate_levels, or algorithm = dapo.",
    "length_drift": "Look at the rollouts: average = token or algorithm = dr_grpo do not pay for length.",
    "sampler_gap": "Use the same dtype for sampling and training.",
}


def beyond_limits(
    settings: Tripwires, values: Mapping[str, float], first: Mapping[str, float]
) -> dict[str, tuple[float, bool]]:
    """Wire -> (its number, is it beyond the limit), of those that have a limit and a number in this step."""
    found: dict[str, tuple[float, bool]] = {}
    for wire in ("kl", "repetition", "truncated", "zero_advantage", "sampler_gap"):
        if (limit := getattr(settings, wire)) and wire in values:
            found[wire] = values[wire], values[wire] > limit
    if settings.entropy and "entropy" in values and first["entropy"] > 0:
        share = values["entropy"] / first["entropy"]
        found["entropy"] = share, not settings.entropy <= share <= 1 / settings.entropy
    if settings.length_drift and values.get("response_length") and first["response_length"] > 0:
        factor = values["response_length"] / first["response_length"]
        found["length_drift"] = factor, max(factor, 1 / factor) > settings.length_drift
    return found


def repeats_itself(rollout: Rollout) -> bool:
    """Whether more than half of its windows of 16 tokens stand earlier in it too."""
    windows = len(rollout.ids) - WINDOW + 1
    if windows <= 0:
        return False
    return len(set(zip(*(rollout.ids[i : windows + i] for i in range(WINDOW)), strict=True))) < windows / 2


def drop_checkpoints_after(folder: Path, step: int) -> None:
    """Checkpoints of more than `step` finished steps are bad: the stage then goes on from the newest one left."""
    from shutil import rmtree

    for checkpoint in folder.glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > step:
            rmtree(checkpoint)
