"""The updates of a step: how many, of what size, against whose log-probabilities."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.rl.worlds import random_groups, setup
from whetstone.decode.engine import load_engine
from whetstone.learner.learner import Learner
from whetstone.records import Sampling
from whetstone.rl.algorithm import Group
from whetstone.rl.grpo import grpo
from whetstone.rl.kl import kl_in_loss
from whetstone.rl.loss import observed, with_entropy_bonus
from whetstone.rl.update import divided, parts_of, update, with_reference
from whetstone.run.settings import ParallelSettings


@given(st.integers(1, 30), st.integers(1, 8))
def test_every_group_is_in_one_update(count, updates):
    parts = divided(count, updates, "0")
    assert sorted(i for part in parts for i in part) == list(range(count))
    assert len(parts) == min(count, updates) and max(map(len, parts)) - min(map(len, parts)) <= 1
    assert parts == divided(count, updates, "0")


@pytest.fixture(scope="module")
def sampled(adder):
    """An engine, a learner on the same weights, and three groups that the engine sampled, rewards mixed."""
    from tests.scripted import Grader, problem
    from whetstone.sample import sample_groups

    engine = load_engine(adder, "cpu")
    learner = Learner(engine.model, engine.chat.size, ParallelSettings(device="cpu", replicas=1))
    problems = [problem(f"Compute {a} + 2", str(a + 2)) for a in range(3)]
    groups = sample_groups(engine, problems, 4, Sampling(0.8, 30), Grader())
    with_rewards = [
        Group(p, [replace(r, reward=float(i % 2)) for i, r in enumerate(rollouts)])
        for p, rollouts in zip(problems, groups, strict=True)
    ]
    return learner, with_rewards


class Counted:
    """A learner whose steps change nothing and whose gradients and passes are seen."""

    def __init__(self, learner: Learner):
        self.learner, self.parallel = learner, learner.parallel
        self.gradients: list[torch.Tensor] = []
        self.passes = 0
        self.temperatures: list[float] = []

    def gradient(self, groups, loss, temperature=1.0):
        self.temperatures.append(temperature)
        return self.learner.gradient(groups, loss, temperature)

    def apply(self, loss):
        grads = [p.grad.reshape(-1).clone() for p in self.learner.model.parameters() if p.grad is not None]
        self.gradients.append(torch.cat(grads))
        self.learner.model.zero_grad(set_to_none=True)
        return float(self.gradients[-1].norm())

    def row_logprobs(self, rows, temperature=1.0):
        self.passes += 1
        return self.learner.row_logprobs(rows, temperature)


def updated(sampled, groups=None, **more):
    learner, there = sampled
    groups = groups or there
    counted = Counted(learner)
    algorithm = grpo(setup())
    parts = parts_of(groups, algorithm.credit(groups, groups), 0)
    told = update(counted, observed(algorithm.loss), parts, counted.apply, **more)
    return counted, told


def test_one_update_makes_one_gradient_and_no_other_pass(sampled):
    counted, told = updated(sampled)
    assert len(counted.gradients) == 1 and counted.passes == 0
    assert told["sampler_gap"] < 1e-5 and told["clipped"] == 0 and told["entropy"] > 0


def test_parts_of_a_step_add_up_to_the_whole_and_each_is_of_full_size(sampled):
    (whole,) = updated(sampled)[0].gradients
    thirds = updated(sampled, updates=3)[0].gradients
    assert len(thirds) == 3
    assert torch.allclose(sum(thirds) / 3, whole, atol=1e-6)
    twice = updated(sampled, passes=2)[0].gradients
    assert len(twice) == 2 and torch.allclose(twice[0], twice[1], atol=1e-7)


def test_the_learner_as_the_old_policy_costs_a_pass_only_for_several_updates(sampled):
    single, told = updated(sampled, old_policy="learner")
    assert single.passes == 0 and told["sampler_gap"] < 1e-5
    several, _ = updated(sampled, old_policy="learner", updates=3)
    assert several.passes == 3 and len(several.gradients) == 3
    assert torch.allclose(single.gradients[0], updated(sampled)[0].gradients[0], atol=1e-6)


def test_a_sampler_that_computes_otherwise_shifts_the_ratio_but_not_where_the_learner_is_the_old_policy(sampled):
    _, groups = sampled
    shifted = [
        replace(g, rollouts=[replace(r, logprobs=[x - 0.5 for x in r.logprobs]) for r in g.rollouts]) for g in groups
    ]
    (true,) = updated(sampled)[0].gradients
    plain, told = updated(sampled, shifted)
    assert told["sampler_gap"] == pytest.approx(0.5, abs=1e-4) and told["clipped"] > 0.9
    assert not torch.allclose(plain.gradients[0], true, atol=1e-3)
    mended, told = updated(sampled, shifted, old_policy="learner")
    assert told["sampler_gap"] == pytest.approx(0.5, abs=1e-4) and told["clipped"] == 0
    assert torch.allclose(mended.gradients[0], true, atol=1e-6)


def test_a_gap_is_told_before_anything_is_updated_and_groups_of_older_weights_have_none(sampled):
    learner, groups = sampled

    class Stop(Exception):
        pass

    def check(gap):
        gaps.append(gap)
        raise Stop

    gaps: list[float] = []
    stale = replace(
        groups[0], rollouts=[replace(r, logprobs=[x - 0.5 for x in r.logprobs]) for r in groups[0].rollouts]
    )
    with pytest.raises(Stop):
        updated(sampled, [replace(stale, step=-1), *groups[1:]], check=check)
    assert gaps[0] < 1e-5
    learner.model.zero_grad(set_to_none=True)
    _, told = updated(sampled, [replace(stale, step=-1)])
    assert "sampler_gap" not in told


def test_where_an_update_goes_back_the_step_ends(sampled):
    learner, groups = sampled
    algorithm = grpo(setup())
    parts = parts_of(groups, algorithm.credit(groups, groups), 0)
    losses: list[float] = []
    assert update(learner, observed(algorithm.loss), parts, losses.append, updates=3) is None
    assert len(losses) == 1
    learner.model.zero_grad(set_to_none=True)


def test_rows_are_scored_at_the_temperature_they_were_sampled_with(sampled):
    _, groups = sampled
    warmer = replace(groups[0], rollouts=[replace(r, temperature=1.0) for r in groups[0].rollouts])
    counted, _ = updated(sampled, [warmer, *groups[1:]])
    assert counted.temperatures == [1.0, 0.8] and len(counted.gradients) == 1


def test_the_references_log_probabilities_are_those_of_its_own_pass(sampled):
    learner, groups = sampled
    found = with_reference(learner, groups)
    for group in found:
        for r, values in zip(group.rollouts, group.reference, strict=True):
            assert values == pytest.approx(r.logprobs, abs=1e-4), "the reference is the sampler here"
    algorithm = kl_in_loss(grpo(setup()), 0.1, "k3")
    parts = parts_of(found, algorithm.credit(found, found), 0)
    counted = Counted(learner)
    told = update(counted, observed(algorithm.loss), parts, counted.apply)
    assert told["kl"] == pytest.approx(0.0, abs=1e-5)


def test_random_groups_are_of_the_step_they_say():
    assert {part.fresh for part in parts_of(random_groups(0), [[1], [2], [3]], 0)} == {True}
    assert parts_of(random_groups(0), [[], [2], []], 0)[0].rows == [2]


def test_an_entropy_bonus_reaches_the_weights(sampled):
    learner, groups = sampled
    plain = grpo(setup())
    counted = Counted(learner)
    for bonus in (0.0, 0.5):
        loss = observed(with_entropy_bonus(plain.loss, bonus))
        update(counted, loss, parts_of(groups, plain.credit(groups, groups), 0), counted.apply)
    assert not torch.allclose(*counted.gradients, atol=1e-5)
