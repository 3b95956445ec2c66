"""The updates of a step: how many, of what size, against whose log-probabilities."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.rl.worlds import group, random_groups, setup
from whetstone.decode.engine import load_engine
from whetstone.learner.learner import Learner
from whetstone.records import Sampling
from whetstone.rl.algorithm import Group
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.kl import kl_in_loss
from whetstone.rl.loss import observed, with_entropy_bonus
from whetstone.rl.update import (
    batches_of,
    credited,
    divided,
    gradient,
    mean_of,
    with_old_policy,
    with_reference,
)
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
    learner = Learner(engine.model, engine.chat.size, ParallelSettings(device="cpu", forks=1))
    problems = [problem(f"Compute {a} + 2", str(a + 2)) for a in range(3)]
    groups = sample_groups(engine, problems, 4, Sampling(0.8, 30), Grader())
    with_rewards = [
        Group(p, [replace(r, reward=float(i % 2)) for i, r in enumerate(rollouts)])
        for p, rollouts in zip(problems, groups, strict=True)
    ]
    return learner, with_rewards


class Counted:
    """A learner that keeps its weights, and counts its gradients and passes."""

    def __init__(self, learner: Learner):
        self.learner, self.parallel = learner, learner.parallel
        self.gradients: list[torch.Tensor] = []
        self.passes = 0
        self.temperatures: list[float] = []

    def gradient(self, groups, loss, temperature=1.0):
        self.temperatures.append(temperature)
        return self.learner.gradient(groups, loss, temperature)

    def step(self) -> float:
        grads = [p.grad.reshape(-1).clone() for p in self.learner.model.parameters() if p.grad is not None]
        self.gradients.append(torch.cat(grads))
        self.learner.model.zero_grad(set_to_none=True)
        return float(self.gradients[-1].norm())

    def row_logprobs(self, rows, temperature=1.0):
        self.passes += 1
        return self.learner.row_logprobs(rows, temperature)


def updated(sampled, groups=None, algorithm=None, updates=1, passes=1, old_policy="sampler"):
    """(the learner, the step's metrics) after the updates of step 0, as the loop makes them."""
    learner, fresh = sampled
    groups = groups or fresh
    counted = Counted(learner)
    algorithm = algorithm or grpo(setup())
    trained = credited(algorithm, groups, groups)
    if old_policy == "learner":
        trained = with_old_policy(counted, trained, 0, updates * passes)
    loss, done = observed(algorithm.loss), []
    for batch in batches_of(trained, 0, updates, passes, "0"):
        sums = gradient(counted, loss, batch)
        done.append(sums | {"gradient_norm": counted.step()})
    return counted, mean_of(done)


def test_one_update_makes_one_gradient_and_no_other_pass(sampled):
    counted, metrics = updated(sampled)
    assert len(counted.gradients) == 1 and counted.passes == 0
    assert metrics["sampler_gap"] < 1e-5 and metrics["clipped"] == 0 and metrics["entropy"] > 0


def test_updates_of_a_step_add_up_to_the_whole_and_each_has_full_size(sampled):
    (whole,) = updated(sampled)[0].gradients
    thirds = updated(sampled, updates=3)[0].gradients
    assert len(thirds) == 3
    assert torch.allclose(sum(thirds) / 3, whole, atol=1e-6)
    twice = updated(sampled, passes=2)[0].gradients
    assert len(twice) == 2 and torch.allclose(twice[0], twice[1], atol=1e-7)


def test_the_learner_as_the_old_policy_costs_a_pass_only_for_several_updates(sampled):
    single, metrics = updated(sampled, old_policy="learner")
    assert single.passes == 0 and metrics["sampler_gap"] < 1e-5
    several, _ = updated(sampled, old_policy="learner", updates=3)
    assert several.passes == 3 and len(several.gradients) == 3
    assert torch.allclose(single.gradients[0], updated(sampled)[0].gradients[0], atol=1e-6)


def test_a_sampler_that_differs_shifts_the_ratio_unless_the_learner_is_the_old_policy(sampled):
    _, groups = sampled
    shifted = [
        replace(g, rollouts=[replace(r, logprobs=[x - 0.5 for x in r.logprobs]) for r in g.rollouts]) for g in groups
    ]
    (true,) = updated(sampled)[0].gradients
    plain, metrics = updated(sampled, shifted)
    assert metrics["sampler_gap"] == pytest.approx(0.5, abs=1e-4) and metrics["clipped"] > 0.9
    assert not torch.allclose(plain.gradients[0], true, atol=1e-3)
    mended, metrics = updated(sampled, shifted, old_policy="learner")
    assert metrics["sampler_gap"] == pytest.approx(0.5, abs=1e-4) and metrics["clipped"] == 0
    assert torch.allclose(mended.gradients[0], true, atol=1e-6)


def test_groups_of_older_weights_have_no_part_in_the_gap(sampled):
    _, groups = sampled
    stale = replace(
        groups[0], rollouts=[replace(r, logprobs=[x - 0.5 for x in r.logprobs]) for r in groups[0].rollouts]
    )
    _, metrics = updated(sampled, [replace(stale, step=-1), *groups[1:]])
    assert metrics["sampler_gap"] < 1e-5
    _, metrics = updated(sampled, [replace(stale, step=-1)])
    assert "sampler_gap" not in metrics


def test_rows_are_scored_at_the_temperature_they_were_sampled_with(sampled):
    _, groups = sampled
    warmer = replace(groups[0], rollouts=[replace(r, temperature=1.0) for r in groups[0].rollouts])
    counted, _ = updated(sampled, [warmer, *groups[1:]])
    assert counted.temperatures == [1.0, 0.8] and len(counted.gradients) == 1


def test_the_references_log_probabilities_are_those_of_its_own_pass(sampled):
    learner, groups = sampled
    scored = with_reference(learner, groups)
    for whole in scored:
        for r, values in zip(whole.rollouts, whole.reference, strict=True):
            assert values == pytest.approx(r.logprobs, abs=1e-4), "the reference is the sampler here"
    _, metrics = updated(sampled, scored, kl_in_loss(grpo(setup()), 0.1, "k3"))
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-5)


def test_groups_without_rows_are_left_out():
    groups = random_groups(0)
    some = replace(grpo(setup()), credit=lambda kept, drawn: [[], [1], []])
    assert credited(some, groups, groups) == [(groups[1], [1])]
    assert credited(some, [], groups) == []


def weights(groups, updates, passes=1) -> list[list[float]]:
    """The summed weight of each group in each update."""
    trained = credited(grpo(setup()), groups, groups)
    return [
        [sum(row.weights * row.scored for row in rows) for _, rows in batch]
        for batch in batches_of(trained, 0, updates, passes, "0")
    ]


@pytest.mark.parametrize("updates", [1, 2, 4, 9])
def test_the_weights_of_each_update_add_up_to_those_of_the_step(updates):
    groups = [group(f"p{i}", "+-+-") for i in range(4)]
    assert [sum(update) for update in weights(groups, updates)] == pytest.approx([1.0] * min(updates, 4))


def test_a_step_of_fewer_groups_than_updates_is_not_weighted_more():
    assert weights([group("p", "+-")], updates=3) == weights([group("p", "+-")], updates=1)


def test_weights_of_single_tokens_are_scaled_and_rows_stay_as_they_were():
    trained = credited(grpo(setup()), random_groups(0), random_groups(0))
    listed = [(g, [replace(row, weights=[row.weights] * row.scored) for row in rows]) for g, rows in trained]
    before = [replace(row) for _, rows in listed for row in rows]
    batches = list(batches_of(listed, 0, 3, 1, "0"))
    for batch, plain in zip(batches, batches_of(trained, 0, 3, 1, "0"), strict=True):
        rows, others = ([row for _, part in which for row in part] for which in (batch, plain))
        assert [row.weights for row in rows] == [[row.weights] * row.scored for row in others]
    assert [row for _, rows in listed for row in rows] == before


def test_rows_are_fresh_in_the_first_update_of_the_step_that_sampled_them():
    groups = [group("a", "+-", step=3), group("b", "+-", step=2), group("c", "+-", step=3)]
    trained = credited(grpo(setup()), groups, groups)
    fresh = [
        [rows[0].segment["fresh"] == (g.step == 3) for g, rows in batch] for batch in batches_of(trained, 3, 1, 2, "0")
    ]
    assert fresh == [[True, True, True], [False, True, False]]


def test_an_entropy_bonus_reaches_the_weights(sampled):
    plain = grpo(setup())
    gradients = [
        updated(sampled, algorithm=replace(plain, loss=with_entropy_bonus(plain.loss, bonus)))[0].gradients[0]
        for bonus in (0.0, 0.5)
    ]
    assert not torch.allclose(*gradients, atol=1e-5)
