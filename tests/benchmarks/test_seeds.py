"""The tables over seeds, from run folders made by hand."""

import json
import re
import subprocess
import sys

import pytest

from benchmarks.seeds import as_json, control_table, cost_table, differences, read_run, score_table
from tests.scripted import Grader
from tests.test_measure import marks
from whetstone.measure import paired_bootstrap, summarise
from whetstone.records import to_row
from whetstone.run.folder import write_json
from whetstone.run.tables import write_rows


def run_folder(folder, seed: int, sft: str):
    used = {"wall_seconds": 10.0 + seed, "cpu_seconds": 8.0, "peak_memory": 500_000_000}
    for number, (name, start) in enumerate([("midtrain", None), ("sft", "midtrain"), ("more", "midtrain")], 4):
        inputs = {"model": {"stage": start, "artifact": "model", "hash": "x"}} if start else {}
        write_json(
            folder / f"{number:02d}-{name}" / "manifest.json",
            {"name": name, "kind": name, "inputs": inputs, "outputs": {"model": "x"}, **used},
        )
    scores = []
    for stage, right in {"base": "----", "midtrain": "+---", "sft": sft, "more": "+---"}.items():
        rows = [
            row
            for i in range(6)
            for row in marks(f"p{i}", right, level=1, domain="chain", text="", question="", gold="")
        ]
        write_rows(folder / "scores" / stage / "easy", rows)
        write_json(folder / "scores" / stage / "manifest.json", {**used, "wall_seconds": 1.0})
        scores.append(to_row(summarise(rows, Grader(), stage, "easy", True, 0.6)))
    write_json(folder / "scores.json", {"scores": scores})
    write_json(folder / "run.json", {"history": [{"matmul_gflops": {"before": 80.0, "after": 81.0}}]})
    return read_run(folder, seed)


@pytest.fixture
def runs(tmp_path):
    return [run_folder(tmp_path / "a", 0, "++--"), run_folder(tmp_path / "b", 1, "+++-")]


def test_each_stage_has_its_mean_of_each_seed_and_its_gain(runs):
    lines = list(score_table(runs, "easy"))
    assert lines[0] == "**easy**, the main set: mean@4 of 6 problems, temperature 0.6, %"
    assert "| sft | 50.0 | 75.0 | 62.5 | midtrain |" in lines[6]
    assert "+25.0 [+25.0, +25.0] | +50.0 [+50.0, +50.0] | +37.5" in lines[6]
    assert lines[4].startswith("| base | 0.0 | 0.0 | 0.0 |  |")


def test_all_seeds_are_resampled_as_problems_of_their_own(runs):
    found = differences(runs, "sft", "easy")
    ours = [*marks_of(runs[0], "sft", "0"), *marks_of(runs[1], "sft", "1")]
    theirs = [*marks_of(runs[0], "midtrain", "0"), *marks_of(runs[1], "midtrain", "1")]
    assert found["all seeds"] == paired_bootstrap(ours, theirs)
    assert found["all seeds"][0] == 0.375 and found["all seeds"][1] < 0.375 < found["all seeds"][2]
    assert differences(runs, "base", "easy") == {}
    assert set(differences(runs[:1], "sft", "easy")) == {"0"}


def marks_of(run, stage, prefix):
    return [row | {"problem_id": f"{prefix}/{row['problem_id']}"} for row in run["marks"][stage, "easy"]]


def test_stages_with_one_start_stand_beside_each_other(runs):
    lines = list(control_table(runs, "easy"))
    assert len(lines) == 3 and lines[2].startswith("| sft | more | +25.0 [+25.0, +25.0] | +50.0 [+50.0, +50.0] | +37.5")


def test_costs_are_summed_and_the_highest_peak_is_shown(runs):
    lines = list(cost_table(runs))
    assert lines[2] == "| midtrain | 10.0 | 11.0 | 10.5 | 8.0 | 0.50 |"
    assert lines[-2] == "| scoring | 4.0 | 4.0 | 4.0 | 32.0 | 0.50 |"
    assert lines[-1] == "| all | 34.0 | 37.0 | 35.5 | 56.0 | 0.50 |"


def test_the_numbers_are_kept_as_json(runs):
    kept = json.loads(json.dumps(as_json(runs)))
    assert {"benchmark": "easy", "stage": "sft", "seed": "0", "difference": 0.25, "low": 0.25, "high": 0.25} in kept[
        "gains"
    ]


def test_the_list_of_benchmarks_names_each_with_a_line():
    command = [sys.executable, "-m", "benchmarks"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(re.search(rf"^{name} +Promise:", told, re.MULTILINE) for name in ("kill_and_resume", "seeds"))
    wrong = subprocess.run([*command, "sedes"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and "there is no benchmark 'sedes'" in wrong.stderr
