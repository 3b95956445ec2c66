"""AdamW with moments in bf16: a step is the formula's, and training with it loses next to nothing."""

import pytest
import torch

from tests.tiny_models import random_model
from whetstone.batch import Row, collate
from whetstone.learner.adamw import AdamWInBfloat16
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import next_token_loss, token_mean
from whetstone.run.settings import OptimizerSettings, ParallelSettings

V, STEPS = 50, 100


def test_a_step_is_that_of_the_formula_with_rounded_moments():
    """Two steps by hand in float64, with the moments rounded to bf16 between them."""
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = AdamWInBfloat16([p], lr=0.1, betas=(0.9, 0.98), weight_decay=0.5)
    value, first, second = p.detach().double(), torch.zeros(2).double(), torch.zeros(2).double()
    for step, gradient in enumerate((torch.tensor([0.3, -0.7]), torch.tensor([-0.1, 0.2])), 1):
        p.grad = gradient.clone()
        optimizer.step()
        g = gradient.double()
        first, second = 0.9 * first + 0.1 * g, 0.98 * second + 0.02 * g * g
        update = first / (1 - 0.9**step) / ((second / (1 - 0.98**step)).sqrt() + 1e-8)
        value = value * (1 - 0.1 * 0.5) - 0.1 * update
        torch.testing.assert_close(p.detach().double(), value, rtol=1e-6, atol=1e-6)
        first, second = first.bfloat16().double(), second.bfloat16().double()
    state = optimizer.state[p]
    assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.bfloat16
    assert torch.equal(state["exp_avg"].double(), first) and torch.equal(state["exp_avg_sq"].double(), second)


def last_loss(moments: str) -> float:
    """The mean loss of the last ten steps on rows that repeat in another order."""
    learner = Learner(random_model("llama", V), V, ParallelSettings(device="cpu"), OptimizerSettings(moments=moments))
    losses = []
    for step in range(STEPS):
        rows = token_mean([Row([(3 * i + (step + i) % 5 * n) % V for n in range(12)]) for i in range(4)])
        losses.append(learner.forward_backward([collate(rows)], next_token_loss)["loss"])
        learner.step(1e-3)
    assert losses[0] > 3
    return sum(losses[-10:]) / 10


def test_training_with_moments_in_bf16_loses_next_to_nothing():
    assert last_loss("bfloat16") == pytest.approx(last_loss("weights"), rel=0.02)
