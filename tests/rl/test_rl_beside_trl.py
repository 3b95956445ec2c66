"""TRL's own GRPO and RLOO losses on the same rollouts, advantages and log-probabilities.

Advantages are ours: TRL divides by a standard deviation with n - 1, plus 1e-4, and ours is that of the papers' formula.
"""

from functools import partial
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from tests.rl.worlds import LONGEST, batch_of, made, moved, random_groups, setup
from whetstone.rl.algorithms.cispo import cispo
from whetstone.rl.algorithms.dapo import dapo
from whetstone.rl.algorithms.dr_grpo import dr_grpo
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.algorithms.gspo import gspo
from whetstone.rl.algorithms.rloo import rloo
from whetstone.rl.credit import centred, leave_one_out, normalised
from whetstone.rl.kl import kl_in_loss

pytest.importorskip("trl", reason="TRL is a peer, not a dependency: make bench-env")


def padded(parts) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.as_tensor(p, dtype=torch.float64) for p in parts], batch_first=True)


def trl_loss(kind, level, groups, logprobs, advantages, low, high, beta=0.0, corrected=False, importance=None):
    """`GRPOTrainer._compute_loss` of a model that gives these log-probabilities, in one batch."""
    from trl import GRPOTrainer

    rollouts = [r for g in groups for r in g.rollouts]
    mask = padded([torch.ones(len(r.ids)) for r in rollouts])
    ours = padded(logprobs.split([len(r.ids) for r in rollouts]))
    trainer = MagicMock()
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (ours, torch.zeros_like(ours), None)
    trainer.accelerator.reduce = lambda x, **_: x
    trainer.accelerator.gather = lambda x: x
    trainer.accelerator.num_processes, trainer.model.training = 1, True
    trainer.configure_mock(
        loss_type=kind, importance_sampling_level=level, epsilon_low=low, epsilon_high=high, beta=beta,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=importance is not None, aux_loss_enabled=False,
        current_gradient_accumulation_steps=1, max_completion_length=LONGEST, _entropy_bonus_enabled=False,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=corrected, steps_per_generation=1),
    )  # fmt: skip
    inputs = {
        "prompt_ids": torch.zeros(len(rollouts), 1), "prompt_mask": torch.ones(len(rollouts), 1),
        "completion_ids": mask, "completion_mask": mask, "advantages": advantages, "num_items_in_batch": mask.sum(),
        "old_per_token_logps": padded([r.logprobs for r in rollouts]),
        "ref_per_token_logps": padded([values for g in groups for values in g.reference]),
    }  # fmt: skip
    if importance is not None:
        inputs["importance_sampling_ratio"] = importance
    return GRPOTrainer._compute_loss(trainer, None, inputs)


SAME = {
    "grpo": (grpo, normalised, ("grpo", "token", 0.2, 0.2)),
    "dr_grpo": (partial(made, dr_grpo), centred, ("dr_grpo", "token", 0.2, 0.2)),
    "dapo": (partial(made, dapo, soft_tokens=0), normalised, ("dapo", "token", 0.2, 0.28)),
    "gspo": (partial(made, gspo), normalised, ("grpo", "sequence", 3e-4, 4e-4)),
    "cispo": (partial(made, cispo), normalised, ("cispo", "token", 0.2, 5.0)),
    "grpo, KL": (lambda s: kl_in_loss(grpo(s), 0.04, "k3"), normalised, ("grpo", "token", 0.2, 0.2, 0.04)),
    "grpo, corrected KL": (
        lambda s: kl_in_loss(grpo(s), 0.04, "k3_corrected"), normalised, ("grpo", "token", 0.2, 0.2, 0.04, True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("by", [0.0, 0.3])
@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("seed", range(2))
def test_loss_and_gradient_are_trls(name, seed, by):
    build, advantage, (kind, level, *numbers) = SAME[name]
    groups = random_groups(seed, reference=True)
    algorithm = build(setup(count=3, prompts=3))
    batch = batch_of(algorithm, groups)
    logprobs = moved(batch, seed, by)
    loss, _ = algorithm.loss(logprobs, logprobs, batch)
    advantages = torch.tensor([a for g in groups for a in advantage(g)], dtype=torch.float64)
    theirs = trl_loss(kind, level, groups, logprobs, advantages, *numbers)
    gradients = [torch.autograd.grad(value, logprobs)[0] for value in (loss, theirs)]
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-10)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-10


@pytest.mark.parametrize("seed", range(3))
def test_rloo_is_that_of_trls_rloo_trainer(seed):
    from trl import RLOOTrainer

    groups = random_groups(seed)
    algorithm = made(rloo, setup(count=3, prompts=3))
    batch = batch_of(algorithm, groups)
    logprobs = moved(batch, seed, 0.1)
    loss, _ = algorithm.loss(logprobs, logprobs, batch)
    rollouts = [r for g in groups for r in g.rollouts]
    mask = padded([torch.ones(len(r.ids)) for r in rollouts])
    ours = padded(logprobs.split([len(r.ids) for r in rollouts]))
    trainer = MagicMock(epsilon_low=0.2, epsilon_high=0.2, aux_loss_enabled=False)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (ours, torch.zeros_like(ours), None)
    trainer.accelerator.reduce = lambda x, **_: x
    trainer.accelerator.gather = lambda x: x
    inputs = {
        "prompt_ids": torch.zeros(len(rollouts), 1), "prompt_mask": torch.ones(len(rollouts), 1),
        "completion_ids": mask, "completion_mask": mask,
        "old_logps": torch.tensor([sum(r.logprobs) for r in rollouts], dtype=torch.float64),
        "advantages": torch.tensor([a for g in groups for a in leave_one_out(g)], dtype=torch.float64),
    }  # fmt: skip
    theirs = RLOOTrainer._compute_loss(trainer, None, inputs)
    gradients = [torch.autograd.grad(value, logprobs)[0] for value in (loss, theirs)]
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-10)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-10
