"""Training in bf16 on a CPU: fp32 weights, products in bf16. Those of the layers are emulated where there are none."""

import random

import pytest
import torch

from tests.tiny_models import random_model
from whetstone.batch import Row
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import next_token_loss, token_mean
from whetstone.learner.roots import head_products
from whetstone.run.settings import ParallelSettings

V, STEPS = 50, 100


def last_losses(compute: str) -> float:
    """The mean loss of steps 91 to 100 on sums whose digits are ids, which the model learns in part."""
    model = random_model("llama", V)
    learner = Learner(model, V, ParallelSettings(device="cpu", compute=compute, forks=1))
    rng, losses = random.Random(0), []
    for _ in range(STEPS):
        pairs = [(rng.randrange(100), rng.randrange(100)) for _ in range(8)]
        rows = [Row([*map(int, f"{a:02}{b:02}{a + b:03}"), 10 + a % 7]) for a, b in pairs]
        losses.append(learner.gradient([[row] for row in token_mean(rows)], next_token_loss)["loss"])
        learner.step(2e-3)
    assert losses[0] > 3.5 and sum(losses[-10:]) < 30, "it learns"
    return sum(losses[-10:]) / 10


def test_the_loss_after_100_steps_is_that_of_fp32(monkeypatch):
    """With a head in blocks of ids, although the vocabulary is small."""
    monkeypatch.setattr("whetstone.learner.head.FROM", 1)
    for module in ("wide_head", "paired_head"):
        monkeypatch.setattr(f"whetstone.learner.{module}.BLOCK", 0)
        monkeypatch.setattr(f"whetstone.learner.{module}.LEAST", 32)
    assert last_losses("bfloat16") == pytest.approx(last_losses("float32"), rel=1e-3)


@pytest.mark.parametrize("there", [True, False])
def test_the_heads_products_are_in_bf16_only_where_the_processor_has_them(there, monkeypatch):
    monkeypatch.setattr("whetstone.learner.roots.has_bf16_vectors", lambda: there)
    hidden = torch.ones(1)
    assert head_products(hidden) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert head_products(hidden) is (torch.bfloat16 if there else None)
