"""The two loops of dpo_vs_trl and grpo_vs_trl do the same work: the same tokens, and the same gradient in the first step."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("trl", reason="TRL is not installed here: `make test-peers` runs this where it is")


@pytest.mark.parametrize("which", ["dpo", "grpo"])
def test_both_loops_do_the_same_work(which, tmp_path):
    command = [sys.executable, "-m", "tests.peers.small_loops", which, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    ours, peer = json.loads(done.stdout.splitlines()[-1]).values()
    assert [step["done"] for step in ours] == [step["done"] for step in peer]
    assert ours[0]["gradient_norm"] == pytest.approx(peer[0]["gradient_norm"], rel=1e-4)
    if which == "dpo":
        assert ours[1]["gradient_norm"] == pytest.approx(peer[1]["gradient_norm"], rel=1e-3)
        assert ours[1]["loss"] == pytest.approx(peer[1]["loss"], rel=1e-4) != pytest.approx(0.693147, rel=1e-6)
    else:
        phases = {"draw_cpu", "generate_cpu", "grade_cpu", "wait_cpu", "credit_cpu", "update_cpu", "log_cpu"}
        assert phases <= ours[1].keys() and {"generate_cpu", "grade_cpu", "update_cpu"} <= peer[1].keys()
