"""The critic: a second model that learns what a state is worth, for algorithms whose credit needs values (PPO).

loss    ½ max((V - R)², (clip(V, V_old ± c) - R)²), R the return of the token and V_old the value at sampling: the clipped value
        loss of PPO's own code (Schulman et al. 2017; Engstrom et al. 2020, arXiv 2005.12729, section 3)

Its layers are its own, so that neither learner disturbs the other. They start as the policy's, below a new scalar head, or as a
reward model's, with its head. With `trunk = "shared"` they are the policy's own below a second head, and both losses make one
gradient (Schulman et al. 2017, eq. 9): half the memory, one forward pass, and two aims that pull at the same layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whetstone.learner.schedule import learning_rate
from whetstone.rl.algorithm import CriticSettings, Group
from whetstone.rl.update import gradient
from whetstone.run.folder import Stage

if TYPE_CHECKING:
    import torch

    from whetstone.batch import Batch
    from whetstone.learner.learner import Learner, Loss
    from whetstone.learner.student import Student
    from whetstone.rl.update import Credited


@dataclass(frozen=True)
class Critic:
    learner: "Learner"
    settings: CriticSettings
    steps: int  # of the stage

    @property
    def own(self) -> "Learner | None":
        """The learner beside the policy's, if there is one."""
        return self.learner

    def valued(self, groups: Sequence[Group]) -> list[Group]:
        """The groups, with the values of the states in which their tokens were chosen."""
        from whetstone.batch import answer_row

        rows = [answer_row(r.prompt_ids, r.ids) for group in groups for r in group.rollouts]
        values = iter(self.learner.state_values(rows))
        return [replace(group, values=[next(values).tolist() for _ in group.rollouts]) for group in groups]

    def update(self, batch: "Sequence[Credited]", step: int) -> dict[str, float]:
        """One update on these rows. Returns its sums. Raises FloatingPointError if the gradient is not finite."""
        sums = gradient(self.learner, self.loss, batch)
        norm = self.learner.step(learning_rate(self.settings.optimizer, step, self.steps))
        return {"value_loss": sums["loss"], "value_norm": norm, **described(sums)}

    def loss(self, values: "torch.Tensor", batch: "Batch") -> "tuple[torch.Tensor, dict[str, float]]":
        """(loss, sums) of values (T,)."""
        return value_loss(values[batch.scored], batch, self.settings.clip_value)


@dataclass(frozen=True)
class SharedCritic(Critic):
    """The policy's own learner gives the values too, and is updated by the sum of both losses."""

    @property
    def own(self) -> None:
        return None

    def joined(self, loss: "Loss") -> "Loss":
        """The policy's loss with the values'. Sums of the values begin with "value_"."""

        def both(
            logprobs: "torch.Tensor", entropy: "torch.Tensor", values: "torch.Tensor", batch: "Batch"
        ) -> "tuple[torch.Tensor, dict[str, float]]":
            total, sums = loss(logprobs, entropy, batch)
            of_values, more = value_loss(values, batch, self.settings.clip_value)
            more["loss"] = float(of_values.detach())
            total = total + self.settings.coefficient * of_values
            return total, sums | {f"value_{name}": amount for name, amount in more.items()}

        return both


def value_loss(now: "torch.Tensor", batch: "Batch", clip_value: float) -> "tuple[torch.Tensor, dict[str, float]]":
    """(loss, sums) of values (N,). `batch.token` holds `value` and `return`, (N,) each."""
    import torch

    before, wanted = batch.token["value"], batch.token["return"]  # (N,)
    errors = (now - wanted) ** 2
    if clip_value:
        near = before + (now - before).clamp(-clip_value, clip_value)
        errors = torch.maximum(errors, (near - wanted) ** 2)
    loss = 0.5 * (batch.weights * errors).sum()
    with torch.no_grad():
        error = wanted - now
        terms = {
            "weight": torch.ones_like(now),
            "return": wanted,
            "return_squares": wanted**2,
            "error": error,
            "error_squares": error**2,
            "clipped": (errors > (now - wanted) ** 2).to(now.dtype),
        }
        return loss, {name: float((batch.weights * term).sum()) for name, term in terms.items()}


def described(sums: "Mapping[str, float]", prefix: str = "") -> dict[str, float]:
    """Of the sums of `value_loss`: the share of clipped values, and 1 - Var(R - V) / Var(R), which is 0 for a constant."""
    weight = sums[f"{prefix}weight"] or 1.0
    returns, error = sums[f"{prefix}return"] / weight, sums[f"{prefix}error"] / weight
    spread = sums[f"{prefix}return_squares"] / weight - returns**2
    left = sums[f"{prefix}error_squares"] / weight - error**2
    explained = 1 - left / spread if spread > 1e-12 else 0.0
    return {"value_clipped": sums[f"{prefix}clipped"] / weight, "explained_variance": explained}


def described_shared(sums: "Mapping[str, float]") -> dict[str, float]:
    return {"value_loss": sums["value_loss"], **described(sums, "value_")}


def build_critic(stage: Stage, student: "Student", learner: "Learner", settings: CriticSettings) -> Critic:
    """Raises ValueError or FileNotFoundError if it is to start as a reward model and that does not fit."""
    from whetstone.learner.learner import Learner

    if settings.trunk == "shared":
        if learner.process_group.sharded:
            raise ValueError(
                f'{stage.name}: critic.trunk = "shared" has not been tried with [parallel] shard = "fsdp". Set "own".'
            )
        return SharedCritic(learner, settings, stage.settings.steps)
    model = _from_reward_model(stage, student) if settings.start == "reward_model" else _from_policy(stage, student)
    learner = Learner(model, student.chat.size, stage.parallel, settings.optimizer)
    return Critic(learner, settings, stage.settings.steps)


def _from_policy(stage: Stage, student: "Student") -> Any:
    from whetstone.reward_model import with_scalar_head

    return _trained(stage, with_scalar_head(student.again("critic"), student.chat, stage.seed))


def _trained(stage: Stage, model: Any) -> Any:
    """The model with what of it is trained: all of it, or the head and an adapter of its own."""
    from whetstone.learner.adapter import add_adapter

    if not stage.adapter.rank:
        return model.requires_grad_(True)
    add_adapter(model, stage.adapter, stage.seed + 1)
    model.score.requires_grad_(True)
    return model


def _from_reward_model(stage: Stage, student: "Student") -> Any:
    from whetstone.reward_model import RewardModel

    folder: Path = stage.inputs["reward_model"]
    model = RewardModel.load(folder, stage.parallel, stage.model.dtype)
    if not model.fits(student.chat):
        raise ValueError(
            f"{stage.name}: the critic cannot start as {folder}: its tokenizer or template is another than the policy's, and a "
            'critic reads the ids that the policy sampled. Set algorithm = { name = "ppo", critic = { start = "policy" } }.'
        )
    return _trained(stage, model.learner.model)
