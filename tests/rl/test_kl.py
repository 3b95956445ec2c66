"""KL to the reference: the estimators' values, and in expectation whose gradient they have."""

import math
from dataclasses import replace

import pytest
import torch

from tests.rl.worlds import group, made, random_groups, setup
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.kl import KLSettings, kl_in_reward
from whetstone.rl.loss import PENALTIES

LOGITS = torch.tensor([0.3, -0.5, 1.1, 0.0], dtype=torch.float64)
REFERENCE = torch.tensor([0.9, 0.2, -0.4, 0.1], dtype=torch.float64).log_softmax(-1)
FORWARD = "KL(pi || pi_ref)"
BACKWARD = "KL(pi_ref || pi)"


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p.exp() * (p - q)).sum()


def expected_gradient(name: str, behaviour: torch.Tensor) -> torch.Tensor:
    """The exact mean over tokens sampled from `behaviour` of the penalty's gradient."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = logits.log_softmax(-1)
    penalty = PENALTIES[name](logprobs, REFERENCE, logprobs - behaviour)
    return torch.autograd.grad((behaviour.exp() * penalty).sum(), logits)[0]


def true_gradient(which: str) -> torch.Tensor:
    logits = LOGITS.clone().requires_grad_()
    policy = logits.log_softmax(-1)
    return torch.autograd.grad(kl(policy, REFERENCE) if which == FORWARD else kl(REFERENCE, policy), logits)[0]


@pytest.mark.parametrize(("name", "which"), [("k2", FORWARD), ("k3", BACKWARD), ("k3_corrected", FORWARD)])
def test_the_gradient_of_each_penalty_on_policy(name, which):
    ours = expected_gradient(name, LOGITS.log_softmax(-1))
    assert (ours - true_gradient(which)).abs().max() < 1e-12
    other = true_gradient(BACKWARD if which == FORWARD else FORWARD)
    assert (ours - other).abs().max() > 1e-2


def test_off_policy_only_the_corrected_estimator_stays_right():
    behaviour = torch.tensor([0.5, 0.5, 0.0, -0.5], dtype=torch.float64).log_softmax(-1)
    wrong = {
        name: (expected_gradient(name, behaviour) - true_gradient(FORWARD)).abs().max().item() for name in PENALTIES
    }
    assert wrong.pop("k3_corrected") < 1e-12
    assert min(wrong.values()) > 1e-2


@pytest.mark.parametrize("name", PENALTIES)
def test_values_by_hand(name):
    """log pi = -1, log pi_ref = -1.5: x = -0.5."""
    expected = 0.125 if name == "k2" else math.exp(-0.5) - 1 + 0.5
    one = torch.tensor([-1.0], dtype=torch.float64)
    assert PENALTIES[name](one, one - 0.5, one * 0).item() == pytest.approx(expected)


def test_a_kl_in_the_reward_is_subtracted_per_token_before_advantages():
    groups = random_groups(0, marks=("+-+",), reference=True)
    credited = []
    plain = grpo(setup())

    def credit(kept, drawn):
        credited.extend(kept)
        return plain.credit(kept, drawn)

    penalised = kl_in_reward(replace(plain, credit=credit), KLSettings(coefficient=0.3, estimator="k1"))
    assert penalised.reference
    rows = penalised.credit(groups, groups)
    (group,) = credited
    for rollout, reference, whole in zip(group.rollouts, group.reference, group.returns, strict=True):
        paid = 0.3 * (sum(rollout.logprobs) - sum(reference))
        assert whole == pytest.approx(rollout.reward - paid)
    assert sum(row.token["advantage"][0] for row in rows[0]) == pytest.approx(0.0, abs=1e-5)
    assert rows[0][0].token["advantage"] != plain.credit(groups, groups)[0][0].token["advantage"]


def test_the_coefficient_follows_the_target_as_in_ziegler_2019():
    """e = clip(KL / target - 1, ±0.2), coefficient · (1 + e · n / horizon), from one step to the next."""
    settings = KLSettings(coefficient=0.1, estimator="k1", target=0.5, horizon=10)
    algorithm = kl_in_reward(replace(made(grpo, setup()), credit=lambda kept, drawn: kept), settings)
    near = replace(group("a", "+-"), reference=[[-1.0] * 3, [-1.0] * 3])  # the sampler's own: a KL of 0
    far = replace(group("a", "+-"), reference=[[-2.0] * 3, [-2.0] * 3])  # 3 nats a rollout
    state: dict = {}
    used = []
    for step, drawn in enumerate([far, far, near]):
        (kept,) = algorithm.credit(algorithm.keep(state, step, [drawn]), [drawn])
        used.append(-kept.penalties[0][0] if drawn is far else 0.0)
    first, second = 0.1, 0.1 * (1 + 0.2 * 2 / 10)
    assert used[:2] == pytest.approx([first, second])
    assert state["kl_coefficient"] == pytest.approx(second * (1 + 0.2 * 2 / 10) * (1 - 0.2 * 2 / 10))


def test_a_target_belongs_to_a_kl_in_the_reward():
    with pytest.raises(ValueError, match='set estimator = "k1"'):
        KLSettings(coefficient=0.1, target=1.0)
