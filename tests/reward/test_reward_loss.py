"""Losses of reward models against numbers worked by hand, and their gradients against float64 differences."""

import math

import pytest
import torch

from whetstone.batch import Row, collate, collate_groups
from whetstone.reward.loss import BradleyTerry, Logistic, weighted


def batch_of_pairs(pairs: int):
    groups = [[Row([5, 6, 7, 8 + i], 2), Row([5, 6, 9, 10, 11], 2)] for i in range(pairs)]
    return collate_groups(weighted(groups), torch.float64)


def at_ends(batch, rewards):
    """Values (T,) that are the rewards at the rows' ends and something else elsewhere."""
    values = torch.full((batch.size,), 100.0, dtype=torch.float64)
    values[batch.ends] = torch.tensor(rewards, dtype=torch.float64)
    return values.requires_grad_()


def test_bradley_terry_with_margin_and_centring_is_the_formula():
    batch = batch_of_pairs(2)
    values = at_ends(batch, [1.5, 0.5, -0.25, 0.75])
    loss, sums = BradleyTerry(margin=0.5, centring=0.01)(values, batch)
    by_hand = [-math.log(1 / (1 + math.exp(-(1.0 - 0.5)))) + 0.01 * 2.0**2]
    by_hand += [-math.log(1 / (1 + math.exp(-(-1.0 - 0.5)))) + 0.01 * 0.5**2]
    assert loss.item() == pytest.approx(sum(by_hand) / 2, abs=1e-12)
    assert sums == pytest.approx(
        {"accuracy": 0.5, "margin": 0.0, "chosen_reward": 0.625, "rejected_reward": 0.625}, abs=1e-12
    )


def test_logistic_is_the_binary_cross_entropy_of_each_answer():
    groups = weighted([[Row([5, 6, 7], 1, segment={"right": right})] for right in (1.0, 0.0, 0.0)])
    batch = collate([row for group in groups for row in group], torch.float64)
    loss, sums = Logistic()(at_ends(batch, [2.0, 1.0, -3.0]), batch)
    by_hand = [math.log(1 + math.exp(-2.0)), math.log(1 + math.exp(1.0)), math.log(1 + math.exp(-3.0))]
    assert loss.item() == pytest.approx(sum(by_hand) / 3, abs=1e-12)
    assert sums["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("loss", [BradleyTerry(0.3, 0.05), Logistic()])
def test_the_gradient_is_that_of_differences_and_reaches_ends_only(loss):
    batch = batch_of_pairs(2)
    batch.segment["right"] = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    values = at_ends(batch, [0.4, -0.2, 0.1, 0.9])
    assert torch.autograd.gradcheck(lambda v: loss(v, batch)[0], values)
    loss(values, batch)[0].backward()
    elsewhere = torch.ones(batch.size, dtype=torch.bool)
    elsewhere[batch.ends] = False
    assert not values.grad[elsewhere].any() and values.grad[batch.ends].all()
