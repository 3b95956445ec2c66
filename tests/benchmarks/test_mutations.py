"""Mutants of recipes, rows, run folders and server answers end in a clear error or a right result."""

import json
import subprocess
import sys

import pytest

from benchmarks._judged_mutants import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutant_gives_a_clear_error_or_a_right_result(kind, tmp_path):
    """In a process of its own, which forks without threads."""
    file = tmp_path / "found.json"
    words = ["--kind", kind, "--examples", "25", "--seed", "11", "--json", str(file)]
    done = subprocess.run([sys.executable, "-m", "benchmarks", "mutations", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = json.loads(file.read_text())["kinds"][kind]
    assert outcomes.get("right", 0) + outcomes.get("error", 0) == 25
