"""Each algorithm's loss and gradient are those of its paper's formula, written out once more in float64."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from tests.rl.worlds import LONGEST, batch_of, made, moved, random_groups, setup
from whetstone.rl.algorithm import Group
from whetstone.rl.algorithms.cispo import cispo
from whetstone.rl.algorithms.dapo import dapo
from whetstone.rl.algorithms.dr_grpo import dr_grpo
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.algorithms.gspo import gspo
from whetstone.rl.algorithms.reinforce_pp import reinforce_pp
from whetstone.rl.algorithms.rloo import rloo
from whetstone.rl.algorithms.srpo import srpo
from whetstone.rl.kl import KLSettings, kl_in_loss, kl_in_reward
from whetstone.rl.loss import with_entropy_bonus

K1 = KLSettings(coefficient=0.1, estimator="k1")
exp, clip, tensor = torch.exp, torch.clip, lambda x: torch.tensor(x, dtype=torch.float64)
# Of each group: the new log-probabilities of each rollout, beside the group
Step = list[tuple[Group, list[torch.Tensor]]]


def rewards(group: Group) -> torch.Tensor:
    return tensor([r.reward for r in group.rollouts])


def z(group: Group) -> torch.Tensor:
    return (rewards(group) - rewards(group).mean()) / (rewards(group).std(correction=0) + 1e-6)


def surrogate(new, old, a, low, high):
    ratio = exp(new - tensor(old))
    return torch.minimum(ratio * a, clip(ratio, 1 - low, 1 + high) * a)


def tokens(step: Step) -> int:
    return sum(len(r.ids) for group, _ in step for r in group.rollouts)


def rollouts(step: Step):
    """(group, its number, rollout, new log-probabilities)"""
    for group, news in step:
        for i, (r, new) in enumerate(zip(group.rollouts, news, strict=True)):
            yield group, i, r, new


def grpo_paper(step: Step):
    """2402.03300, eq. 3, its mean over questions: 1/P 1/G sum 1/|o| sum min(…)"""
    total = 0.0
    for group, news in step:
        parts = [
            surrogate(new, r.logprobs, z(group)[i], 0.2, 0.2).mean()
            for i, (r, new) in enumerate(zip(group.rollouts, news, strict=True))
        ]
        total = total + sum(parts) / len(parts)
    return -total / len(step)


def grpo_with_kl(step: Step):
    """The same with - 0.04 D_KL, eq. 4: pi_ref/pi - log(pi_ref/pi) - 1"""
    total = 0.0
    for group, i, r, new in rollouts(step):
        x = tensor(group.reference[i]) - new
        kl = exp(x) - x - 1
        total = total + (surrogate(new, r.logprobs, z(group)[i], 0.2, 0.2) - 0.04 * kl).mean() / len(group.rollouts)
    return -total / len(step)


def dr_grpo_paper(step: Step):
    """2503.20783: 1/(L G) sum sum min(…) with A = R - mean, L the longest generation"""
    total, count = 0.0, 0
    for group, i, r, new in rollouts(step):
        advantage = rewards(group)[i] - rewards(group).mean()
        total, count = total + surrogate(new, r.logprobs, advantage, 0.2, 0.2).sum(), count + 1
    return -total / (LONGEST * count)


def dapo_paper(step: Step):
    """2503.14476, eq. 8: 1/sum|o_i| sum sum min(r A, clip(r, 1 - 0.2, 1 + 0.28) A)"""
    total = sum(surrogate(new, r.logprobs, z(group)[i], 0.2, 0.28).sum() for group, i, r, new in rollouts(step))
    return -total / tokens(step)


def srpo_paper(step: Step):
    """2504.14286: token mean, no KL, advantage 0 where the response is over the longest length"""
    total = 0.0
    for group, i, r, new in rollouts(step):
        if r.stop != "length":
            total = total + surrogate(new, r.logprobs, z(group)[i], 0.2, 0.2).sum()
    return -total / tokens(step)


def gspo_paper(step: Step):
    """2507.18071, eq. 5 and 7: 1/G sum min(s A, clip(s) A), s = (pi(y)/pi_old(y))^(1/|y|)"""
    each = []
    for group, i, r, new in rollouts(step):
        s = (exp(new.sum()) / exp(tensor(r.logprobs).sum())) ** (1 / len(r.ids))
        each.append(torch.minimum(s * z(group)[i], clip(s, 1 - 3e-4, 1 + 4e-4) * z(group)[i]))
    return -sum(each) / len(each)


def cispo_paper(step: Step):
    """2506.13585, eq. 4: 1/sum|o_i| sum sum sg(clip(r)) A log pi, clipped from above alone"""
    total = 0.0
    for group, i, r, new in rollouts(step):
        weight = clip(exp(new - tensor(r.logprobs)), max=5.0).detach()
        total = total + (weight * z(group)[i] * new).sum()
    return -total / tokens(step)


def rloo_paper(step: Step):
    """2402.14740, with PPO's clip of a whole sequence's ratio: 1/N sum min(s A, clip(s) A), A = R_i - mean of the others"""
    each = []
    for group, i, r, new in rollouts(step):
        others = torch.cat([rewards(group)[:i], rewards(group)[i + 1 :]])
        a = rewards(group)[i] - others.mean()
        s = exp(new.sum() - tensor(r.logprobs).sum())
        each.append(torch.minimum(s * a, clip(s, 0.8, 1.2) * a))
    return -sum(each) / len(each)


def reinforce_pp_paper(step: Step, of_group: bool = False, beta: float = 0.1):
    """2501.03262: A_t = R - beta sum_{i >= t} log(pi_old/pi_ref)(i), normalised over the batch's tokens; PPO's loss"""
    everything = []
    for group, i, r, _ in rollouts(step):
        kl = tensor(r.logprobs) - tensor(group.reference[i])
        everything.append(r.reward - beta * torch.stack([kl[t:].sum() for t in range(len(kl))]))
        if of_group:
            whole = [
                q.reward - beta * (tensor(q.logprobs) - tensor(ref)).sum()
                for q, ref in zip(group.rollouts, group.reference, strict=True)
            ]
            everything[-1] = everything[-1] - sum(whole) / len(whole)
    flat = torch.cat(everything)
    mean, spread = flat.mean(), flat.std(correction=0) + 1e-6
    total = 0.0
    for (_, _, r, new), a in zip(rollouts(step), everything, strict=True):
        total = total + surrogate(new, r.logprobs, (a - mean) / spread, 0.2, 0.2).sum()
    return -total / tokens(step)


PAPERS: dict[str, tuple[Callable, Callable]] = {
    "grpo": (grpo, grpo_paper),
    "grpo, KL in the loss": (lambda s: kl_in_loss(grpo(s), 0.04, "k3"), grpo_with_kl),
    "dr_grpo": (partial(made, dr_grpo), dr_grpo_paper),
    "dapo": (partial(made, dapo), dapo_paper),
    "srpo": (partial(made, srpo), srpo_paper),
    "gspo": (partial(made, gspo), gspo_paper),
    "cispo": (partial(made, cispo), cispo_paper),
    "rloo": (partial(made, rloo), rloo_paper),
    "reinforce_pp": (lambda s: kl_in_reward(made(reinforce_pp, s), K1), reinforce_pp_paper),
    "reinforce_pp, group": (
        lambda s: kl_in_reward(made(reinforce_pp, s, baseline="group"), K1),
        lambda step: reinforce_pp_paper(step, of_group=True),
    ),
}


@pytest.mark.parametrize("by", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_are_those_of_the_papers_formula(name, seed, by):
    build, formula = PAPERS[name]
    groups = random_groups(seed, reference=True)
    algorithm = build(setup(count=3, prompts=3))
    batch = batch_of(algorithm, groups)
    logprobs = moved(batch, seed, by)
    loss, _ = algorithm.loss(logprobs, logprobs, batch)
    (ours,) = torch.autograd.grad(loss, logprobs)

    parts = iter(logprobs.split([len(r.ids) for g in groups for r in g.rollouts]))
    expected = formula([(g, [next(parts) for _ in g.rollouts]) for g in groups])
    (gradient,) = torch.autograd.grad(expected, logprobs)
    assert abs(loss.item() - expected.item()) < 1e-10
    assert (ours - gradient).abs().max() < 1e-10
    assert gradient.abs().max() > 1e-4


def test_before_an_update_grpos_gradient_is_the_plain_policy_gradient():
    from tests.rl.worlds import group

    batch = batch_of(grpo(setup()), [group("p", "+-")])
    logprobs = moved(batch, 0, by=0.0)
    loss, sums = grpo(setup()).loss(logprobs, torch.zeros_like(logprobs), batch)
    loss.backward()
    assert logprobs.grad.tolist() == pytest.approx([-1 / 6] * 3 + [1 / 6] * 3, rel=1e-5)
    assert sums["clipped"] == 0


def test_the_entropy_bonus_pays_for_entropy_with_the_tokens_weights():
    batch = batch_of(grpo(setup()), random_groups(0))
    entropy = torch.rand(len(batch.targets), dtype=torch.float64, requires_grad=True)
    logprobs = moved(batch, 0)
    plain = grpo(setup()).loss
    paid, _ = with_entropy_bonus(plain, 0.3)(logprobs, entropy, batch)
    assert paid.item() == pytest.approx(
        plain(logprobs, entropy, batch)[0].item() - 0.3 * (batch.weights @ entropy).item()
    )
    (gradient,) = torch.autograd.grad(paid, entropy)
    assert torch.equal(gradient, -0.3 * batch.weights)
