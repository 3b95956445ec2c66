"""examples/first_steps.ipynb: its cells run from top to bottom, and say what the text around them says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CELLS = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    (tmp_path / "cells.py").write_text("\n\n".join(CODE), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "cells.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [line.split()[0] for line in said[:3]] == ["True", "False", "True"], "the verifier's three verdicts"
    assert said[3].startswith("base ") and " 0.0 %" in said[3] and said[4].startswith("midtrain ")
    taught = next(line for line in said if line.startswith("train "))
    assert int(taught.split("right: ")[1].split()[0]) >= 3, "it knows some of what it was taught"
    assert "</think>" in done.stdout and "verdict: " in done.stdout


def test_its_outputs_are_kept_and_name_no_folder_of_a_machine():
    outputs = [output for cell in CELLS for output in cell.get("outputs", ())]
    assert len(outputs) >= 6 and not any(output["output_type"] == "error" for output in outputs)
    assert not re.search(r"(?<!\w)/[A-Za-z][\w.-]*/", json.dumps(CELLS)), "a path from the root of some machine"
