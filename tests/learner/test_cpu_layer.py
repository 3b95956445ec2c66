"""Fused layers in bf16 training on a CPU: loss and gradients against float64, beside what the modules give under autocast."""

import os
import random
import subprocess
import sys

import pytest
import torch

from tests.tiny_models import WINDOWED, random_model, windowed_model
from whetstone.batch import Row
from whetstone.learner import layers
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import next_token_loss
from whetstone.run.cpu import has_bf16_vectors
from whetstone.run.settings import ParallelSettings

V = 50
FUSED = "llama", "qwen2", "phi3"
pytestmark = pytest.mark.skipif(not has_bf16_vectors(), reason="needs a CPU with AVX512-BF16")


def groups(shared: bool) -> list[list[Row]]:
    """Sequences of 14 to 110 tokens, alone or two that share a prompt."""
    rng = random.Random(0)
    made = []
    for _ in range(6):
        prompt = [rng.randrange(V) for _ in range(9)]
        answers = [[rng.randrange(V) for _ in range(rng.randrange(5, 101))] for _ in range(2 if shared else 1)]
        made.append([Row(prompt + answer, prompt=9, weights=0.01) for answer in answers])
    return made


def learnt(model: torch.nn.Module, compute: str, shared: bool, **parallel) -> tuple[float, dict[str, torch.Tensor]]:
    learner = Learner(model, V, ParallelSettings(device="cpu", compute=compute, forks=1, **parallel))
    loss = learner.gradient(groups(shared), next_token_loss)["loss"]
    return loss, {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}


def errors(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> list[float]:
    assert found.keys() == exact.keys()
    return [float((found[name] - x).norm() / x.norm()) for name, x in exact.items()]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("make", "kind"),
    [(random_model, kind) for kind in FUSED] + [(windowed_model, kind) for kind in FUSED if kind in WINDOWED],
)
def test_the_gradient_is_as_near_to_float64_as_that_of_the_modules(make, kind, shared, monkeypatch):
    loss, exact = learnt(make(kind, V, torch.float64), "float32", shared)
    fused_loss, fused = learnt(make(kind, V), "bfloat16", shared)
    monkeypatch.setattr(layers, "trains_faster", lambda *_: False)
    plain_loss, plain = learnt(make(kind, V), "bfloat16", shared)
    assert fused_loss != plain_loss, "both ran"
    assert abs(fused_loss / loss - 1) < 3e-4
    assert max(errors(fused, exact)) < 1.3 * max(errors(plain, exact)) < 0.03


def test_recomputed_layers_give_the_same_gradient_to_the_bit():
    loss, gradient = learnt(random_model("llama", V), "bfloat16", True)
    again, recomputed = learnt(random_model("llama", V), "bfloat16", True, activation_checkpointing=1)
    assert again == loss and all(map(torch.equal, gradient.values(), recomputed.values()))


def test_frozen_weights_get_no_gradient():
    model, whole = random_model("llama", V), random_model("llama", V)
    frozen = model.model.layers[0].self_attn.k_proj.weight, model.model.layers[1].input_layernorm.weight
    for parameter in frozen:
        parameter.requires_grad_(False)
    gradient = learnt(model, "bfloat16", False)[1]
    assert all(parameter.grad is None for parameter in frozen)
    expected = learnt(whole, "bfloat16", False)[1]
    assert len(gradient) == len(expected) - 2
    assert all(torch.equal(x, expected[name]) for name, x in gradient.items())


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_only_layers_that_train_in_bf16_and_hold_nothing_foreign_are_fused(compute):
    model = random_model("llama", V)
    plain = type(model.model.layers[0]).forward
    Learner(model, V, ParallelSettings(device="cpu", compute=compute, forks=1))
    fused = getattr(model.model.layers[0].forward, "__func__", None) is not plain
    assert fused == (compute == "bfloat16")
    other = random_model("llama", V)
    other.model.layers[1].self_attn.q_proj.register_forward_hook(lambda *_: None)
    Learner(other, V, ParallelSettings(device="cpu", compute=compute, forks=1))
    assert other.model.layers[0].forward.__func__ is plain


PRINT_GRADIENT = """
import hashlib
from tests.learner.test_cpu_layer import V, learnt, random_model
gradient = learnt(random_model("llama", V), "bfloat16", True)[1]
print(hashlib.sha256(b"".join(x.numpy().tobytes() for x in gradient.values())).hexdigest())
"""


def test_the_gradient_is_the_same_to_the_bit_when_the_kernels_were_just_compiled_and_when_they_come_from_the_cache(
    tmp_path,
):
    """Else a run that is continued in a new process would not be the run that was never stopped."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", PRINT_GRADIENT]
    printed = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout for _ in range(2)
    ]
    assert len(printed[0]) == 65 and printed[0] == printed[1]
