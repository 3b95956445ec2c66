"""The work of dpo_vs_trl and grpo_vs_trl, and what they refuse to compare. Their loops are run in tests/peers."""

import statistics
import time
from types import SimpleNamespace

import pytest

from benchmarks import _grpo_loops as grpo
from benchmarks import _ragged as ragged
from benchmarks._paced import must_agree
from benchmarks._scripted import Script
from benchmarks.grpo_vs_trl import by_phase


def test_the_work_is_that_of_the_measurements():
    pairs = ragged.pairs(2000)
    for side, (least, most, mean) in enumerate([(32, 256, 107), (32, 768, 231), (32, 768, 231)]):
        lengths = [len(pair[side]) for pair in pairs]
        assert least <= min(lengths) and max(lengths) < most
        assert statistics.fmean(lengths) == pytest.approx(mean, rel=0.05)
    assert ragged.pairs(8) == pairs[:8]
    answers = [n for step in range(20) for n in grpo.STEP.lengths(step)]
    assert len(answers) == 20 * 16 * 8 and min(answers) >= 16 and max(answers) < 256
    assert statistics.fmean(answers) == pytest.approx(86.6, rel=0.05)  # 240 / ln 16
    assert grpo.STEP.lengths(0) != grpo.STEP.lengths(1)


def test_gradients_that_differ_are_not_compared():
    def one(norm: float) -> SimpleNamespace:
        return SimpleNamespace(seen=[{"gradient_norm": norm}])

    must_agree(one(2.0), one(2.001), "peer", 1e-3)
    with pytest.raises(ValueError, match=r"peer: its first step's gradient has the norm 2\.1 and ours 2"):
        must_agree(one(2.0), one(2.1), "peer", 1e-3)
    with pytest.raises(ValueError, match="nan"):
        must_agree(one(2.0), one(float("nan")), "peer", 1e-3)


def test_a_script_ends_an_answer_at_its_length_and_lets_no_token_end_it_before():
    script = Script(3, "end")
    assert [script([7] * n).ends for n in (1, 2, 3)] == ["", "", "end"]


def test_phases_add_up_and_leave_out_what_the_gate_takes():
    told = []

    class Gate:
        def step_done(self, done, **seen):
            told.append((done, seen))
            time.sleep(0.2)

    phases = grpo.Phases()
    for _ in range(2):
        phases.begin("generate")
        time.sleep(0.02)
        phases.add("grade_cpu", 0.25)
        phases.begin("update")
        phases.step_done(Gate(), 10, 0.5)
    (done, first), (_, second) = told
    assert done == 10 and first["gradient_norm"] == 0.5 and first["grade_cpu"] == 0.25
    assert first["generate_wall"] >= 0.02 and sum(v for k, v in second.items() if k.endswith("_wall")) < 0.2
    phase = by_phase(
        SimpleNamespace(seen=[{"generate_cpu": 9.0}, {"generate_cpu": 1.0, "loss": 1.0}, {"generate_cpu": 2.0}])
    )
    assert phase == {"generate_cpu": 1.5}
