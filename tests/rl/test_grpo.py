"""GRPO's five answers: advantages by hand, weights that add up to one, the clipped loss of the paper."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted import problem, rollout
from whetstone.batch import collate
from whetstone.rl.algorithm import Draw, Group
from whetstone.rl.grpo import advantage_rows, clipped_loss, grpo, plus_minus_one, window


def group(name: str, marks: str, tokens=lambda i: 3) -> Group:
    """`+` a right rollout, `-` a wrong one."""
    return Group(
        problem(name),
        [rollout(name, i, mark == "+", tokens(i), reward=1.0 if mark == "+" else -1.0) for i, mark in enumerate(marks)],
    )


def test_advantages_by_hand():
    """Rewards 1, -1, -1, -1: mean -1/2, standard deviation sqrt(3)/2; advantages sqrt(3) and -1/sqrt(3) three times."""
    lonely = group("p", "+---", tokens=lambda i: i + 1)
    rows = advantage_rows(lonely, [lonely], token_mean=False)
    root = 3**0.5
    expected = [[root], [-1 / root] * 2, [-1 / root] * 3, [-1 / root] * 4]
    for row, advantages in zip(rows, expected, strict=True):
        assert row.token["advantage"] == pytest.approx(advantages, rel=1e-5)
    assert [row.weights for row in rows] == [1 / 4, 1 / 8, 1 / 12, 1 / 16]
    assert rows[2].ids == [1, 2, 9, 9, 9] and rows[2].prompt == 2


SIZES = st.lists(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), min_size=1, max_size=9), min_size=1, max_size=6)


@given(SIZES, st.booleans())
def test_weights_add_up_to_one_over_the_step_for_any_group_sizes(sizes, token_mean):
    groups = [
        Group(problem(f"p{g}"), [rollout(f"p{g}", i, c, n, reward=1.0 if c else -1.0) for i, (c, n) in enumerate(made)])
        for g, made in enumerate(sizes)
    ]
    algorithm = grpo([g.problem for g in groups], 1, 1, 0, token_mean=token_mean)
    rows = [row for part in algorithm.credit(groups, groups) for row in part]
    assert sum(row.weights * row.scored for row in rows) == pytest.approx(1.0, abs=1e-9)
    shares = {round(row.weights * (1 if token_mean else row.scored), 12) for row in rows}
    assert len(shares) == 1, "a token of the step (token_mean) or a rollout weighs as much as any other"


@pytest.mark.parametrize("seed", range(5))
def test_the_clipped_loss_and_its_gradient_are_those_of_the_papers_formula(seed):
    rng = torch.Generator().manual_seed(seed)
    groups = [group("p", "+-+--", lambda i: i + 2), group("q", "+--", lambda i: 4)]
    rows = [row for part in grpo([], 1, 1, 0).credit(groups, groups) for row in part]
    batch = collate(rows, torch.float64)
    logprobs = batch.token["old"] + 0.5 * torch.randn(len(batch.targets), generator=rng, dtype=torch.float64)
    logprobs.requires_grad_()
    loss, sums = clipped_loss(logprobs, torch.ones_like(logprobs), batch, 0.2, 0.2)
    (found,) = torch.autograd.grad(loss, logprobs)
    expected, clipped, at = 0.0, 0.0, 0
    for part in groups:
        rewards = torch.tensor([r.reward for r in part.rollouts], dtype=torch.float64)
        advantages = (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-6)
        for r, a in zip(part.rollouts, advantages, strict=True):
            for old in r.logprobs:
                ratio = torch.exp(logprobs[at] - old)
                surrogate = min(ratio * a, torch.clip(ratio, 0.8, 1.2) * a)
                expected = expected - surrogate / (8 * len(r.ids))
                clipped += (not 0.8 <= ratio.item() <= 1.2) / (8 * len(r.ids))
                at += 1
    (gradient,) = torch.autograd.grad(expected, logprobs)
    assert abs(loss.item() - expected.item()) < 1e-10
    assert (found - gradient).abs().max() < 1e-10
    assert sums["clipped"] == pytest.approx(clipped) and clipped > 0
    assert sums["entropy"] == pytest.approx(1.0)


def test_before_an_update_the_gradient_is_the_plain_policy_gradient():
    rows = [row for part in grpo([], 1, 1, 0).credit([group("p", "+-")], [group("p", "+-")]) for row in part]
    batch = collate(rows, torch.float64)
    logprobs = batch.token["old"].clone().requires_grad_()
    loss, sums = clipped_loss(logprobs, torch.zeros_like(logprobs), batch, 0.2, 0.2)
    loss.backward()
    assert logprobs.grad.tolist() == pytest.approx([-1 / 6] * 3 + [1 / 6] * 3, rel=1e-5)
    assert sums["sampler_gap"] == sums["clipped"] == 0


def test_only_groups_whose_rewards_differ_are_kept():
    keep = grpo([], 1, 1, 0).keep
    assert keep({}, 0, group("p", "+-")) is not None
    assert all(keep({}, 0, group("p", marks)) is None for marks in ("++", "--", "+", ""))


def test_right_is_plus_one_wrong_minus_one_undecided_nothing():
    assert [plus_minus_one(problem(), rollout(correct=c)) for c in (True, False, None)] == [1.0, -1.0, None]


def test_a_step_draws_once():
    problems = [problem(f"p{i}") for i in range(6)]
    draw = grpo(problems, 4, 8, 0).draw
    first = draw({}, 0, [])
    assert len(first.problems) == 4 and first.counts == [8] * 4
    assert draw({}, 0, [group("p0", "+-")]) == Draw()


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3), st.integers(0, 5))
def test_an_epoch_of_steps_meets_every_prompt(count, size, seed, epoch):
    steps = [s for s in range((epoch + 1) * count) if epoch * count < (s + 1) * size and s * size < (epoch + 1) * count]
    drawn = [window(count, size, step, seed) for step in steps]
    assert {i for step in drawn for i in step} == set(range(count))
    assert all(len(step) == len(set(step)) == min(size, count) for step in drawn)


@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 3))
def test_where_steps_divide_the_prompts_each_is_drawn_once_an_epoch(steps, size, seed):
    epochs = [[i for s in range(steps) for i in window(steps * size, size, e * steps + s, seed)] for e in range(2)]
    assert all(sorted(epoch) == list(range(steps * size)) for epoch in epochs)


def test_the_draw_is_a_function_of_seed_and_step():
    assert window(50, 8, 3, 1) == window(50, 8, 3, 1)
    assert window(50, 8, 3, 1) != window(50, 8, 3, 2) and window(50, 8, 3, 1) != window(50, 8, 4, 1)
