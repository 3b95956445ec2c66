"""Advantages and weights, by hand and for any sizes; batches may be divided in any way."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.rl.test_papers import PAPERS
from tests.rl.worlds import LONGEST, batch_of, group, moved, random_groups, setup
from tests.scripted import problem, rollout
from whetstone.batch import collate
from whetstone.rl.algorithm import Group
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.algorithms.reinforce_pp import whitened
from whetstone.rl.credit import centred, constant, leave_one_out, normalised, rollout_mean, token_mean
from whetstone.rl.keep import each, partly_right, rewards_differ, there_are_any
from whetstone.rl.loss import observed


def test_advantages_by_hand():
    """Rewards 1, -1, -1, -1: mean -1/2, standard deviation sqrt(3)/2."""
    one_of_four = group("p", "+---")
    root = 3**0.5
    assert normalised(one_of_four) == pytest.approx([root, -1 / root, -1 / root, -1 / root], rel=1e-5)
    assert centred(one_of_four) == pytest.approx([1.5, -0.5, -0.5, -0.5])
    assert leave_one_out(one_of_four) == pytest.approx([2.0, -2 / 3, -2 / 3, -2 / 3])
    assert leave_one_out(group("p", "+")) == [0.0]


def test_rows_by_hand():
    lonely = group("p", "+---", tokens=lambda i: i + 1)
    (rows,) = grpo(setup()).credit([lonely], [lonely])
    assert [row.weights for row in rows] == [1 / 4, 1 / 8, 1 / 12, 1 / 16]
    assert rows[2].ids == [1, 2, 9, 9, 9] and rows[2].prompt == 2
    assert [len(row.token["advantage"]) for row in rows] == [1, 2, 3, 4]


SIZES = st.lists(st.lists(st.tuples(st.booleans(), st.integers(1, LONGEST)), max_size=9), min_size=1, max_size=6)


def made_groups(sizes) -> list[Group]:
    return [
        Group(
            problem(f"p{g}"), [rollout(f"p{g}", i, c, n, reward=1.0 if c else -1.0) for i, (c, n) in enumerate(marks)]
        )
        for g, marks in enumerate(sizes)
    ]


@given(SIZES, st.sampled_from(["rollout", "token", "constant"]))
def test_weights_are_a_mean_over_the_step_for_any_group_sizes(sizes, name):
    groups = made_groups(sizes)
    drawn = [r for g in groups for r in g.rollouts]
    if not drawn:
        return
    weight = {"rollout": rollout_mean, "token": token_mean, "constant": constant(LONGEST)}[name](groups)
    total = sum(weight(r) * len(r.ids) for r in drawn)
    filled = sum(len(r.ids) for r in drawn) / (LONGEST * len(drawn))
    assert total == pytest.approx(filled if name == "constant" else 1.0, abs=1e-9)
    shares = {round(weight(r) * (len(r.ids) if name == "rollout" else 1), 12) for r in drawn}
    assert len(shares) == 1, "a rollout, or a token, weighs as much as any other"


def test_groups_that_are_not_kept_are_zeros_in_the_mean():
    useful, useless = group("p", "+-"), group("q", "--")
    (rows,) = grpo(setup()).credit([useful], [useful, useless])
    assert sum(row.weights * row.scored for row in rows) == pytest.approx(1 / 2)


@given(SIZES)
def test_kept_groups_are_whole_and_their_rollouts_of_one_problem(sizes):
    groups = [*made_groups(sizes), Group(problem("empty"), [], left_out=3)]
    for rule in (rewards_differ, partly_right):
        kept = each(rule)({}, 0, groups)
        assert [g.problem.id for g in kept] == [
            g.problem.id for g in groups if {r.correct for r in g.rollouts} == {True, False}
        ]
        assert all(k is g for k in kept for g in groups if g.problem.id == k.problem.id)
        rows = grpo(setup()).credit(kept, groups)
        for kept_group, part in zip(kept, rows, strict=True):
            assert [row.ids[row.prompt :] for row in part] == [r.ids for r in kept_group.rollouts]
    assert [g.problem.id for g in each(there_are_any)({}, 0, groups)] == [g.problem.id for g in groups if g.rollouts]


@given(SIZES)
def test_advantages_of_a_group_add_up_to_0_and_are_0_for_equal_rewards(sizes):
    for g in made_groups(sizes):
        for advantage in (normalised, centred, leave_one_out) if g.rollouts else ():
            values = advantage(g)
            assert sum(values) == pytest.approx(0.0, abs=1e-6)
            if not rewards_differ(g):
                assert values == pytest.approx([0.0] * len(values), abs=1e-9)


def test_whitening_is_over_all_tokens():
    values = whitened([[[1.0, 1.0], [1.0]], [[-1.0]]])
    flat = torch.tensor([x for g in values for r in g for x in r])
    assert flat.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert flat.std(correction=0).item() == pytest.approx(1.0, abs=1e-5)
    assert whitened([]) == []


@pytest.mark.parametrize("name", PAPERS)
@hypothesis_settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), cuts=st.sets(st.integers(1, 11), max_size=4))
def test_any_division_into_micro_batches_has_the_loss_gradient_and_sums_of_the_whole(name, seed, cuts):
    algorithm = PAPERS[name][0](setup(count=3, prompts=3))
    groups = random_groups(seed, reference=True)
    loss = observed(algorithm.loss)
    whole = batch_of(algorithm, groups)
    logprobs = moved(whole, seed)
    entropy = torch.rand(len(logprobs), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    value, sums = loss(logprobs, entropy, whole)
    (gradient,) = torch.autograd.grad(value, logprobs)

    rows = [row for part in algorithm.credit(groups, groups) for row in part]
    for row in rows:
        row.segment["fresh"] = 1.0
    edges = [0, *sorted(cuts), len(rows)]
    total, at = 0.0, 0
    for first, last in pairwise(edges):
        part = collate(rows[first:last], torch.float64)
        n = len(part.targets)
        one, some = loss(logprobs[at : at + n], entropy[at : at + n], part)
        total, at = total + one, at + n
        sums = {key: sums[key] - some[key] for key in sums}
    (ours,) = torch.autograd.grad(total, logprobs)
    assert total.item() == pytest.approx(value.item(), abs=1e-12)
    assert (ours - gradient).abs().max() < 1e-12
    assert all(abs(rest) < 1e-10 for rest in sums.values()), sums
