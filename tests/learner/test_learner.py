"""The learner against hand-worked numbers and transformers; steps, schedule, and gradients that are not finite."""

import random

import pytest
import torch
import torch.nn.functional as F

from tests.tiny_models import CLASSES, random_model
from whetstone.batch import Row, collate, micro_batches, pack
from whetstone.learner.head import chunked_logprobs
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import next_token_loss, token_mean
from whetstone.learner.order import plan_steps
from whetstone.learner.schedule import learning_rate
from whetstone.run.settings import OptimizerSettings, ParallelSettings

V = 50


def rows(count: int, seed: int = 0) -> list[Row]:
    rng = random.Random(seed)
    rows = [Row([rng.randrange(V) for _ in range(rng.randint(4, 40))], prompt=rng.randint(1, 3)) for _ in range(count)]
    return token_mean(rows)


def gradient(model, batches) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    learner = Learner(model, V, ParallelSettings())
    loss = learner.forward_backward(batches, next_token_loss)["loss"]
    return loss, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("budget", [1, 60, 150])
def test_any_split_into_micro_batches_gives_the_same_gradient(kind, budget):
    model = random_model(kind, V, torch.float64)
    data = rows(12)
    whole_loss, unsplit = gradient(model, [collate(data, torch.float64)])
    split = list(micro_batches([[row] for row in data], budget, torch.float64))
    assert len(split) > 1
    loss, parts = gradient(model, split)
    assert loss == pytest.approx(whole_loss, abs=1e-12)
    assert (parts - unsplit).abs().max() <= 1e-10 * unsplit.abs().max()


@pytest.mark.parametrize("kind", CLASSES)
def test_the_loss_equals_that_of_transformers_on_each_sequence(kind):
    model = random_model(kind, V, torch.float64)
    data = rows(5)
    loss, _ = gradient(model, [collate(data, torch.float64)])
    total = count = 0
    for row in data:
        ids = torch.tensor([row.ids])
        logits = model(input_ids=ids, use_cache=False).logits[0, row.prompt - 1 : -1]
        total += F.cross_entropy(logits, ids[0, row.prompt :], reduction="sum").item()
        count += row.scored
    assert loss == pytest.approx(total / count, abs=1e-10)


def test_three_tokens_by_hand():
    """Two classes, hidden 0: each has probability 1/2, so every scored token costs ln 2; weights 1/2 + 1/2 give ln 2."""
    logprobs, entropy = chunked_logprobs(torch.zeros(2, 4), torch.randn(2, 4), torch.tensor([0, 1]), torch.ones(2))
    batch = collate([Row([0, 0, 1], prompt=1, weights=0.5)])
    loss, sums = next_token_loss(logprobs, entropy, batch)
    assert loss.item() == pytest.approx(0.6931472)
    assert sums["entropy"] == pytest.approx(0.6931472)


def test_a_pair_stays_in_one_micro_batch_and_long_groups_get_their_own():
    groups = [[Row([1] * 10), Row([2] * 10)], [Row([3] * 90), Row([4] * 90)], [Row([5] * 8), Row([6] * 8)]]
    batches = list(micro_batches(groups, 50))
    assert sorted(b.size for b in batches) == [36, 180]
    assert all(len(b.lengths) % 2 == 0 for b in batches)


def test_packing_cuts_no_sequence_and_fills_rows():
    rng = random.Random(0)
    lengths = [rng.randint(1, 100) for _ in range(500)]
    packed = pack(lengths, 128)
    assert sorted(i for row in packed for i in row) == list(range(500))
    assert all(sum(lengths[i] for i in row) <= 128 for row in packed)
    assert sum(lengths) / (128 * len(packed)) > 0.97
    assert list(pack([5, 200, 6], 128)) == [[2, 0]]


def test_the_plan_of_steps_is_a_function_of_the_seed_and_covers_each_epoch():
    sizes = [3, 5, 7, 2, 9]
    plan, again, other = (list(plan_steps(sizes, 8, seed, epochs=2)) for seed in (1, 1, 2))
    assert plan == again != other
    assert sorted(i for step in plan for i in step) == sorted([0, 1, 2, 3, 4] * 2)
    assert all(sum(sizes[i] for i in step) >= 8 for step in plan[:-1])
    assert sum(sizes[i] for step in plan_steps(sizes, 8, 1, 9.0, tokens=30) for i in step) in range(30, 39)


def test_the_learning_rate_rises_then_falls_to_its_floor():
    optimizer = OptimizerSettings(learning_rate=1.0, warmup=0.1, schedule="linear", floor=0.2)
    rates = [learning_rate(optimizer, step, 100) for step in range(100)]
    assert rates[:2] == pytest.approx([1 / 11, 2 / 11])
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] == pytest.approx(0.2 + 0.8 / 90)


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_gradient_that_is_not_finite_stops_and_changes_nothing():
    learner = Learner(random_model("phi3", V), V, ParallelSettings())
    before = weights(learner.model)
    data = rows(2)
    for row in data:
        row.weights = float("inf")
    learner.forward_backward([collate(data)], next_token_loss)
    with pytest.raises(FloatingPointError, match=r"norm is (inf|nan)"):
        learner.step(1e-3)
    assert torch.equal(weights(learner.model), before)


def test_unused_slots_of_the_embedding_are_not_counted():
    model = random_model("qwen2", V)
    logprobs = Learner(model, V - 10, ParallelSettings()).row_logprobs([Row([1, 2, 3], prompt=1)])[0]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False).logits[0, :2, : V - 10]
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[[0, 1], [2, 3]], rtol=0, atol=1e-5)
