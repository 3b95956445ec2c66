"""An algorithm is five answers and a state; the loop asks and never says `if algorithm ==`.

draw    what to sample next in this step, having seen the step's groups so far; nothing more: an empty Draw
reward  a number for a graded rollout; None leaves the rollout out (the verifier could not decide)
keep    the groups to train on, of those that were drawn: thinner ones, fewer, or ones carried over from the step before
credit  advantages and weights of the kept groups, among all that were drawn: rows for the learner
loss    (logprobs, entropy, batch) -> loss

The state is JSON, goes into the checkpoint, and is the only thing that answers may remember; `draw` and `keep` are asked
once they have been given it, `keep` once a step. A stabiliser takes an Algorithm and returns one with an answer wrapped
(`dataclasses.replace`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from whetstone.records import Problem, Rollout, from_row, to_row

if TYPE_CHECKING:
    from whetstone.batch import Row
    from whetstone.learner.learner import Loss

State = dict[str, Any]
Reward = Callable[[Problem, Rollout], float | None]


@dataclass(frozen=True)
class Group:
    """The rollouts of one problem, sampled in one step, with their rewards.

    `left_out` more had no reward (the verifier could not decide). Lists in lists are one number a token of each rollout.
    """

    problem: Problem
    rollouts: list[Rollout]
    left_out: int = 0
    step: int = 0  # whose weights sampled it
    reference: list[list[float]] = field(default_factory=list)  # log-probabilities under the reference, where asked for
    penalties: list[list[float]] = field(default_factory=list)  # rewards of tokens, beside the rollouts' own

    @property
    def sampled(self) -> int:
        return len(self.rollouts) + self.left_out

    @property
    def accuracy(self) -> float:
        return sum(r.correct is True for r in self.rollouts) / max(1, len(self.rollouts))

    @property
    def temperature(self) -> float:
        return self.rollouts[0].temperature

    @property
    def returns(self) -> list[float]:
        """Each rollout's reward with those of its tokens."""
        if not self.penalties:
            return [r.reward for r in self.rollouts]
        return [r.reward + sum(penalty) for r, penalty in zip(self.rollouts, self.penalties, strict=True)]

    def as_row(self) -> dict[str, Any]:
        """For the state: JSON, from which `from_row` makes the same group again."""
        rollouts = [to_row(r) for r in self.rollouts]
        return {"problem": to_row(self.problem), "rollouts": rollouts, "left_out": self.left_out, "step": self.step}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Group":
        rollouts = [from_row(Rollout, r) for r in row["rollouts"]]
        return cls(from_row(Problem, row["problem"]), rollouts, row["left_out"], row["step"])


@dataclass(frozen=True)
class Draw:
    """Sample `counts[i]` more rollouts of `problems[i]`, at one temperature. Empty: the step has enough."""

    problems: list[Problem] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    temperature: float = 1.0


@dataclass(frozen=True)
class Algorithm:
    draw: Callable[[State, int, Sequence[Group]], Draw]
    reward: Reward
    keep: Callable[[State, int, Sequence[Group]], list[Group]]
    credit: Callable[[Sequence[Group], Sequence[Group]], "list[list[Row]]"]  # (kept, drawn) -> rows of each kept group
    loss: "Loss"
    reference: bool = False  # kept groups need the log-probabilities of the model that the stage began with


@dataclass(frozen=True)
class Setup:
    """What every algorithm is told: the problems, how many of them a step, how many rollouts of each, and their reward."""

    problems: Sequence[Problem]
    prompts: int
    samples: int
    reward: Reward
    max_tokens: int = 512
    temperature: float = 1.0
    seed: int = 0
