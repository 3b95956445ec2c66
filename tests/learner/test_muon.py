"""Muon equals torch's, in the weights' own precision; it updates hidden matrices, and AdamW the rest."""

import pytest
import torch

from tests.tiny_models import random_model
from whetstone.learner.learner import Learner
from whetstone.learner.muon import Muon, orthogonalise
from whetstone.run.settings import OptimizerSettings, ParallelSettings


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_orthogonalising_brings_singular_values_near_one_and_keeps_directions(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64) @ torch.diag(torch.logspace(0, -1, shape[1], dtype=torch.float64))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    between = u.T @ orthogonalise(matrix) @ v.T
    values = between.diagonal()
    assert values.min() > 0.6 and values.max() < 1.3
    assert (between - values.diag()).abs().max() < 1e-9


def test_its_step_equals_torchs_up_to_bfloat16():
    torch.manual_seed(1)
    start = [torch.randn(32, 48), torch.randn(48, 32)]
    ours, theirs = ([torch.nn.Parameter(w.clone()) for w in start] for _ in range(2))
    a = Muon([{"params": ours}], lr=0.02, weight_decay=0.1)
    b = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q, w in zip(ours, theirs, start, strict=True):
        assert (p - q).norm() < 0.02 * (p - w).norm(), "bfloat16 keeps two to three digits"


def test_its_updates_are_as_large_as_those_of_adamw():
    torch.manual_seed(2)
    weight = torch.nn.Parameter(torch.zeros(64, 96))
    weight.grad = torch.randn(64, 96)
    Muon([weight], lr=1.0).step()
    assert weight.pow(2).mean().sqrt().item() == pytest.approx(0.2, rel=0.25)


def test_every_parameter_has_one_optimizer_and_only_hidden_matrices_have_muon():
    model = random_model("phi3", 50)
    adamw, muon = Learner(model, 50, ParallelSettings(), OptimizerSettings(name="muon")).optimizers
    taken = [p for group in muon.param_groups for p in group["params"]]
    left = [p for group in adamw.param_groups for p in group["params"]]
    assert sorted(map(id, [*taken, *left])) == sorted(id(p) for p in model.parameters())
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(".layers." in names[id(p)] and p.dim() == 2 for p in taken) and len(taken) >= 4
    assert any("embed" in names[id(p)] for p in left)
