"""Kernels that do not work are not used, and the reason is printed."""

import sys
from types import ModuleType

import pytest
import torch

from whetstone.run.kernels import working_kernels

GPU = torch.device("cuda", 0)


@pytest.fixture
def kernels(monkeypatch):
    module = ModuleType("kernels_of_a_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_kernels_that_work_are_used_on_a_gpu_alone(kernels, capsys):
    calls = []
    kernels.wrong = lambda *arguments: calls.append(arguments) or ""
    assert working_kernels(kernels.__name__, "training", GPU, 3) is kernels
    assert working_kernels(kernels.__name__, "training", torch.device("cpu"), 3) is None
    assert calls == [(GPU, 3)] and not capsys.readouterr().out


@pytest.mark.parametrize("fault", ["norm is off", "raises", "missing"])
def test_the_reason_is_printed_if_kernels_do_not_work(kernels, capsys, fault):
    def wrong(device):
        if fault == "raises":
            raise RuntimeError("no compiler")
        return fault

    kernels.wrong = wrong
    name = "no_such_kernels" if fault == "missing" else kernels.__name__
    assert working_kernels(name, "training without", GPU) is None
    output = capsys.readouterr()
    expected = {"raises": "RuntimeError: no compiler", "missing": "ModuleNotFoundError: No module named"}.get(
        fault, fault
    )
    assert f"training without, which is slower: {expected}" in output.out + output.err
