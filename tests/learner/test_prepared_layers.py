"""Activation checkpointing and compiling change nothing but time and memory."""

from functools import partial

import pytest
import torch

from tests.learner.test_learner import V, rows
from tests.tiny_models import CLASSES, random_model
from whetstone.batch import collate
from whetstone.learner.layers import decoder_layers
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import next_token_loss
from whetstone.run.settings import ParallelSettings


def gradient(kind: str, learner_settings: ParallelSettings, dtype=torch.float32, steps: int = 1):
    model = random_model(kind, V, dtype)
    learner = Learner(model, V, learner_settings)
    for step in range(steps):
        model.zero_grad()
        batch = collate(rows(6, seed=step))
        loss = learner.forward_backward([batch], next_token_loss)["loss"]
    return loss, torch.cat([p.grad.flatten() for p in model.parameters()]), learner


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("kind", CLASSES)
def test_the_gradient_with_activation_checkpointing_is_the_same_to_the_bit(kind, every):
    plain_loss, plain, _ = gradient(kind, ParallelSettings())
    loss, prepared, _ = gradient(kind, ParallelSettings(activation_checkpointing=every))
    assert loss == plain_loss and torch.equal(prepared, plain)


@pytest.mark.parametrize("weights, compute", [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_computing_in_bfloat16_gives_the_gradient_up_to_rounding(weights, compute):
    """fp32 master weights under autocast, and weights that are bf16 themselves; a bf16 number has 8 bits."""
    _, plain, _ = gradient("phi3", ParallelSettings())
    settings = ParallelSettings(compute=compute, activation_checkpointing=1)
    _, prepared, _ = gradient("phi3", settings, getattr(torch, weights))
    assert prepared.dtype == getattr(torch, weights)
    assert torch.cosine_similarity(prepared.float(), plain, dim=0) > 0.995
    assert prepared.float().norm() == pytest.approx(plain.norm().item(), rel=0.05)


def kept_numbers(every: int) -> int:
    """How many numbers a forward pass keeps for the backward pass."""
    model = random_model("phi3", V)
    learner = Learner(model, V, ParallelSettings(activation_checkpointing=every))
    parameters = {p.data_ptr() for p in model.parameters()}
    count = 0

    def note(tensor):
        nonlocal count
        count += tensor.numel() if tensor.data_ptr() not in parameters else 0
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        learner.root(collate(rows(6)))
    return count


def test_activation_checkpointing_keeps_less():
    none, second, every = (kept_numbers(n) for n in (0, 2, 1))
    assert every < 0.2 * none and every < second < 0.7 * none


def test_a_layer_that_decodes_runs_its_plain_forward():
    _, _, learner = gradient("phi3", ParallelSettings(activation_checkpointing=1))
    (logprobs,) = learner.row_logprobs(rows(1))
    (plain,) = Learner(learner.model, V, ParallelSettings()).row_logprobs(rows(1))
    assert torch.equal(logprobs, plain)


def test_layers_are_found_in_order():
    model = random_model("qwen2", V)
    assert decoder_layers(model) == list(model.model.layers)


@pytest.mark.slow
def test_compiled_layers_give_the_same_gradient_and_are_compiled_once_for_all_lengths(monkeypatch):
    """With the eager backend: inductor takes a minute."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    counters.clear()
    settings = ParallelSettings(compile=True, activation_checkpointing=2)
    gradient("phi3", settings)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    loss, prepared, _ = gradient("phi3", settings, steps=3)  # rows of other lengths each time
    assert counters["stats"]["unique_graphs"] == graphs
    plain_loss, plain, _ = gradient("phi3", ParallelSettings(), steps=3)
    assert loss == pytest.approx(plain_loss, rel=1e-6)
    assert (prepared - plain).abs().max() <= 1e-5 * plain.abs().max()
