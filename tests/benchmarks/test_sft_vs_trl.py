"""The training benchmarks' fixed work, and loops that take turns in processes of their own."""

import pytest

from benchmarks import _ragged as ragged
from benchmarks._paced import Gate, Paced
from benchmarks.sft_vs_trl import products_per_second


def test_the_work_is_that_of_the_measurements():
    """4.96 million parameters and 29.7 MFLOP a token in matrix products; the rows as they always were."""
    model = ragged.model("sdpa")
    assert sum(p.numel() for p in model.parameters()) == 4_955_904
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    assert ragged.FLOPS_PER_TOKEN == 6 * matrices == 29_687_808
    assert len(ragged.tokenizer()) == ragged.VOCABULARY
    lengths = ragged.lengths(2000)
    assert lengths[:4] == [len(row) for row in ragged.rows(4)]
    assert min(lengths) >= 32 and max(lengths) < 1024
    assert 270 < sum(lengths) / len(lengths) < 300


def counting(gate: Gate, stop: int) -> None:
    for step in range(stop):
        gate.step_done(10 * (step + 1))


def test_a_loop_goes_on_only_when_it_is_told_to_and_counts_the_tokens_of_those_steps():
    loop = Paced(counting, 7)
    try:
        assert loop.startup["cpu_s"] > 0  # the first step, 10 tokens, is in it
        assert loop.steps(2)() == 20 + 30
        assert loop.steps(3)() == 40 + 50 + 60
        assert loop.peak_memory_mb > 10
    finally:
        loop.close()
    assert not loop.process.is_alive()


def test_a_loop_that_fails_or_ends_is_an_error_with_its_reason():
    loop = Paced(counting, 1)
    with pytest.raises(RuntimeError, match="give it more data"):
        loop.steps(1)()
    loop.close()


def test_the_ceiling_is_of_a_machines_size():
    assert 1e8 < products_per_second("float32", tokens=64, seconds=0.05) < 1e13
