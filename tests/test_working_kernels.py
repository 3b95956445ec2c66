"""Kernels that do not work are not used, and it is said why."""

import sys
from types import ModuleType

import pytest
import torch

from whetstone.run.kernels import working_kernels

GPU = torch.device("cuda", 0)


@pytest.fixture
def kernels(monkeypatch):
    made = ModuleType("kernels_of_a_test")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def test_kernels_that_work_are_used_on_a_gpu_alone(kernels, capsys):
    asked = []
    kernels.wrong = lambda *given: asked.append(given) or ""
    assert working_kernels(kernels.__name__, "training", GPU, 3) is kernels
    assert working_kernels(kernels.__name__, "training", torch.device("cpu"), 3) is None
    assert asked == [(GPU, 3)] and not capsys.readouterr().out


@pytest.mark.parametrize("fault", ["norm is off", "raises", "missing"])
def test_what_does_not_work_is_said(kernels, capsys, fault):
    def wrong(device):
        if fault == "raises":
            raise RuntimeError("no compiler")
        return fault

    kernels.wrong = wrong
    name = "no_such_kernels" if fault == "missing" else kernels.__name__
    assert working_kernels(name, "training without", GPU) is None
    told = capsys.readouterr()
    expected = {"raises": "RuntimeError: no compiler", "missing": "ModuleNotFoundError: No module named"}.get(
        fault, fault
    )
    assert f"training without, which is slower: {expected}" in told.out + told.err
