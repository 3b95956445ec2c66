"""The benchmark of hostile answers: rows that depend on their number only, and targets that can be missed."""

import json
import subprocess
import sys

import pytest

from benchmarks import verify_hostile
from benchmarks.verify_hostile import CONTEXTS, FAMILIES, Call, row, summary, targets
from whetstone.verify.wire import PATIENCE


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_depends_on_seed_and_number_only(family):
    index = list(FAMILIES).index(family)
    assert row(0, index) == row(0, index)
    assert row(0, index).family == family
    texts = {row(seed, index + n * len(FAMILIES)).text for seed in (0, 1) for n in range(6)}
    assert len(texts) > 3


def context(calls, **more):
    return {"wall_seconds": 1.0, "growth_bytes": 0, "healthy": True, "largest_worker_bytes": 1, "calls": calls} | more


def test_each_target_can_be_missed():
    fine = [Call(0, 0.001, False, "different")] * 19 + [Call(1, 2.1, None, "timeout")]
    assert all(met for met, _ in targets({"a": context(fine)}, 2.0, sprung=False).values())
    late = targets({"a": context([Call(0, 1 + PATIENCE * 2.0, None, "timeout")])}, 2.0, sprung=True)
    assert [met for met, _ in late.values()] == [False, False, True, True, True, True, False]
    bad = context(fine, wall_seconds=601.0, growth_bytes=1 << 40, largest_worker_bytes=1 << 40, healthy=False)
    assert [met for met, _ in targets({"a": bad}, 2.0, False).values()] == [
        True,
        True,
        False,
        False,
        False,
        False,
        True,
    ]


def test_a_timeout_is_not_prompt_however_fast():
    s = summary([Call(0, 0.001, None, "timeout"), Call(1, 0.001, None, "too large to evaluate: x")])
    assert (s["prompt"], s["timeout"], s["undecided"]) == (0.5, 1, 1)


def test_it_runs_from_every_context_and_says_what_it_found(tmp_path):
    file = tmp_path / "found.json"
    words = ["--answers", str(4 * len(FAMILIES)), "--json", str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "verify_hostile", *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 1), done.stderr  # a busy machine may miss a target
    found = json.loads(file.read_text())
    assert set(found["contexts"]) == set(CONTEXTS)
    assert all(one["healthy"] for one in found["contexts"].values()), done.stdout
    assert sum(one["answers"] for one in found["families"].values()) == 4 * len(FAMILIES)
    assert found["targets"]["nothing in a text was run"]["met"]
    memory = [
        target for name, target in found["targets"].items() if name.startswith(("workers within", "growth below"))
    ]
    assert len(memory) == 2 and all(target["met"] for target in memory), done.stdout
    assert "asked from" in done.stdout


def test_it_says_which_family_it_does_not_know(capsys):
    with pytest.raises(SystemExit):
        verify_hostile.main(["--family", "tower"])
    assert "tower" in capsys.readouterr().err
