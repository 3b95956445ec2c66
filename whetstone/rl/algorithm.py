"""An algorithm is five answers and a state; the loop asks and never says `if algorithm ==`.

draw    what to sample next in this step, given the step's groups so far; an empty Draw: nothing more
reward  a number for a graded rollout; None leaves the rollout out (the verifier could not decide)
keep    the groups to train on, of those that were drawn: thinner ones, fewer, or ones carried over from the step before
credit  advantages and weights of the kept groups, among all that were drawn: rows for the learner
loss    (logprobs, entropy, batch) -> loss

The state is JSON, goes into the checkpoint, and is the only memory of the answers. It is passed to `draw`, which is asked
until it has enough, and to `keep`, which is asked once per step.

The function of an algorithm is (setup, settings) -> Algorithm; that of a stabiliser is (algorithm, setup, settings) -> the
algorithm with some answers wrapped (`dataclasses.replace`). rl/registry.py says where they and their settings are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from whetstone.records import Problem, Rollout, from_row, to_row
from whetstone.run.settings import Optimizer, OptimizerSettings, Settings, changed
from whetstone.sample import share_right

if TYPE_CHECKING:
    from whetstone.batch import Row
    from whetstone.learner.learner import Loss

State = dict[str, Any]
Reward = Callable[[Problem, Rollout], float | None]


@dataclass(frozen=True)
class Group:
    """The rollouts of one problem, sampled in one step, with their rewards.

    Lists of lists hold one number per token of each rollout.
    """

    problem: Problem
    rollouts: list[Rollout]
    left_out: int = 0  # rollouts without a reward (the verifier could not decide); they are not among `rollouts`
    step: int = 0  # that drew it
    behind: int = 0  # by how many steps the weights that sampled it are older
    reference: list[list[float]] = field(default_factory=list)  # log-probabilities under the reference, if one is used
    penalties: list[list[float]] = field(default_factory=list)  # rewards of tokens, in addition to the rollouts' own
    values: list[list[float]] = field(
        default_factory=list
    )  # of the states in which tokens were chosen, if there is a critic
    verified: int | None = None  # right rollouts by the verifier, if the verdicts of `rollouts` are drawn at random
    undecided: list[Rollout] = field(default_factory=list)  # what was left out, in the step that sampled it

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
        """Each rollout's reward plus those of its tokens."""
        if not self.penalties:
            return [r.reward for r in self.rollouts]
        return [r.reward + sum(penalty) for r, penalty in zip(self.rollouts, self.penalties, strict=True)]

    def as_row(self) -> dict[str, Any]:
        """JSON for the state; `from_row` is the inverse."""
        rollouts = [to_row(r) for r in self.rollouts]
        own = {"left_out": self.left_out, "step": self.step, "behind": self.behind}
        return {"problem": to_row(self.problem), "rollouts": rollouts, **own}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Group":
        rollouts = [from_row(Rollout, r) for r in row["rollouts"]]
        own = {"left_out": row["left_out"], "step": row["step"], "behind": row.get("behind", 0)}
        return cls(from_row(Problem, row["problem"]), rollouts, **own)

    def fresh(self, step: int) -> bool:
        """Whether the weights that this step begins with have sampled it."""
        return self.step == step and not self.behind


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
    critic: "CriticSettings | None" = None  # kept groups need its values, and it is trained on them
    reference: bool = False  # kept groups need the log-probabilities of the model that the stage began with


@dataclass(frozen=True)
class Setup:
    """What every algorithm and stabiliser is given, beside its own options."""

    problems: Sequence[Problem]
    prompts: int  # groups per step
    samples: int  # rollouts per prompt
    reward: Reward
    max_tokens: int = 512
    temperature: float = 1.0
    seed: int = 0
    steps: int = 1  # of the stage


class Options(Settings):
    """The options of an algorithm or stabiliser: its file has a class `Settings` of this kind, beside its function."""

    name: str = Field("", description="which one: the name of its file, or your own as `file.py:function`")


class AlgorithmSettings(Options):
    stabilisers: ClassVar[tuple[str, ...]] = ()  # those that come with it if a recipe lists none

    def most_rollouts(self, rollouts: int) -> int:
        """How many rollouts a step samples at most, if it asks for so many at first."""
        return rollouts


class ClippedSettings(AlgorithmSettings):
    clip_low: float = Field(0.2, gt=0, le=1, description="how far the ratio may fall below 1")
    clip_high: float = Field(0.2, gt=0, le=1000, description="how far the ratio may rise above 1")


class CriticSettings(Settings):
    """The second model of an algorithm with a critic (rl/critic.py)."""

    trunk: Literal["own", "shared"] = Field(
        "own", description="whether its layers are its own, or the policy's below a second head"
    )
    coefficient: float = Field(0.5, gt=0, le=1000, description="shared trunk: of the value loss beside the policy's")
    start: Literal["policy", "reward_model"] = Field(
        "policy", description="where its layers come from; a reward model brings its head too"
    )
    pretraining: int = Field(0, ge=0, description="first steps in which only the critic learns")
    clip_value: float = Field(0.2, ge=0, description="how far a value may move from that at sampling; 0: not clipped")
    optimizer: Optimizer = OptimizerSettings(learning_rate=1e-4)

    @model_validator(mode="after")
    def _options_fit_the_trunk(self) -> "CriticSettings":
        if self.trunk == "own" and "coefficient" in changed(self):
            raise ValueError(
                f'coefficient = {self.coefficient} belongs to trunk = "shared": an own critic has its own loss'
            )
        own = ("start", "pretraining", "optimizer")
        if self.trunk == "shared" and (unused := [name for name in changed(self) if name in own]):
            raise ValueError(
                f'{unused[0]} belongs to trunk = "own": a shared one starts and moves with the policy, by its optimizer. '
                "Leave it out"
            )
        return self


class StabiliserSettings(Options):
    def most_rollouts(self, rollouts: int, samples: int) -> int:
        """How many rollouts a step samples at most, if it is `rollouts` without the stabiliser, `samples` per prompt."""
        return rollouts

    def unfit(self, rollouts: Sequence[Rollout]) -> str:
        """Why a prompt with these rollouts is dropped before the first step; empty: it is kept."""
        return ""


class HardPromptsSettings(StabiliserSettings):
    """The options of a stabiliser that drops easy prompts."""

    threshold: float = Field(0.5, gt=0, le=1, description="prompts and groups solved more often are dropped")

    def unfit(self, rollouts: Sequence[Rollout]) -> str:
        return "too easy" if share_right(rollouts) > self.threshold else ""
