"""An algorithm is five answers and a state; the loop asks and never says `if algorithm ==`.

draw    what to sample next in this step, having seen the step's groups so far; nothing more: an empty Draw
reward  a number for a graded rollout; None leaves the rollout out (the verifier could not decide)
keep    a group, a thinner group, or None
credit  advantages and weights of the kept groups, among all that were drawn: rows for the learner
loss    (logprobs, entropy, batch) -> loss

The state is JSON, goes into the checkpoint, and is the only thing that answers may remember. A stabiliser takes an
Algorithm and returns one with one answer wrapped (`dataclasses.replace`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whetstone.records import Problem, Rollout

if TYPE_CHECKING:
    from whetstone.batch import Row
    from whetstone.learner.learner import Loss

State = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """The rollouts of one problem in one step, with their rewards. `left_out` more had none (the verifier could not decide)."""

    problem: Problem
    rollouts: list[Rollout]
    left_out: int = 0

    @property
    def sampled(self) -> int:
        return len(self.rollouts) + self.left_out

    @property
    def accuracy(self) -> float:
        return sum(r.correct is True for r in self.rollouts) / max(1, len(self.rollouts))


@dataclass(frozen=True)
class Draw:
    """Sample `counts[i]` more rollouts of `problems[i]`, at one temperature. Empty: the step has enough."""

    problems: list[Problem] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    temperature: float = 1.0


@dataclass(frozen=True)
class Algorithm:
    draw: Callable[[State, int, Sequence[Group]], Draw]
    reward: Callable[[Problem, Rollout], float | None]
    keep: Callable[[State, int, Group], Group | None]
    credit: Callable[[list[Group], Sequence[Group]], "list[list[Row]]"]  # (kept, drawn) -> rows of each kept group
    loss: "Loss"
