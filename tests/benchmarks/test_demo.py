"""The demo's tables over seeds and process counts, from run folders made by hand, and README's copy of the measured ones."""

import json
from pathlib import Path

import pytest

from benchmarks import demo
from tests.benchmarks.test_seeds import run_folder
from whetstone.recipe import read_recipe
from whetstone.run.folder import read_json, write_json

ROOT = Path(__file__).parent.parent.parent
MEASURED = ROOT / "benchmarks" / "results" / "demo.json"

STEPS = """<think>
10+20-5
10+20:0+0=0,1+2=3 so 30
30-5=25
Check 25+5:5+5=c0,2+0+1=3 so 30
</think>
The answer is \\boxed{25}."""


def test_an_operation_without_its_columns_is_done_in_the_head():
    assert demo.share_in_the_head([STEPS]) == 1 / 2  # neither the formula that is left nor the check is an operation
    assert demo.share_in_the_head([STEPS, "10+20=30"]) == 2 / 3
    assert demo.share_in_the_head([""]) == 0


@pytest.fixture
def folders(tmp_path):
    """Two seeds with two processes, one with one."""
    found = {(2, 0): "++--", (2, 1): "+++-", (1, 0): "+---"}
    for (processes, seed), right in found.items():
        run_folder(tmp_path / f"tiny-s{seed}-p{processes}", seed, right)
    return {key: tmp_path / f"tiny-s{key[1]}-p{key[0]}" for key in found}


def test_each_process_count_has_its_seeds(folders):
    two, one = demo.collect(folders, Path("recipes/tiny.toml"))["cases"]
    assert (two["processes"], two["seeds"], one["processes"], one["seeds"]) == (2, [0, 1], 1, [0])
    assert two["cpu_seconds"] == [56.0, 56.0] and two["wall_seconds"] == [34.0, 37.0]  # worked by hand in test_seeds.py
    sft = next(row for row in two["stages"] if row["stage"] == "sft")
    assert (sft["mean"], sft["lowest"], sft["highest"]) == (0.625, 0.5, 0.75)
    assert [gain["difference"] for gain in sft["gains"]] == [0.25, 0.5, 0.375]


def test_a_stage_that_was_interrupted_has_no_seconds(folders):
    path = folders[2, 1] / "05-sft" / "manifest.json"
    write_json(path, read_json(path) | {"attempts": 2})
    case = demo.collect(folders, Path("recipes/tiny.toml"))["cases"][0]
    assert [row["cpu_seconds"] for row in case["stages"][1:3]] == [[8.0, 8.0], [8.0, None]]
    assert case["cpu_seconds"] == [56.0, None] and case["wall_seconds"] == [34.0, None]
    assert demo.seconds([8.0, None]) == "8" and demo.seconds([None]) == ""


def test_a_run_that_is_not_there_is_not_finished(tmp_path):
    assert not demo.is_finished(read_recipe(demo.RECIPE, [f"run.folder={tmp_path}"]))


def test_the_tables_name_every_stage_and_count_the_seeds_that_gain(folders):
    result = json.loads(json.dumps(demo.collect(folders, Path("recipes/tiny.toml"))))
    lines = demo.tables(result).splitlines()
    assert "| untrained base | 0.0 | 0.0 | 0.0 |  |  |  |  |" in lines
    row = next(line for line in lines if line.startswith("| fine-tuning | 50.0 | 75.0 | 62.5 | +37.5 ["))
    assert row.endswith("] | 2 of 2 | 0.0 | 8 |")
    assert "| fine-tuning | +25.0 [+25.0, +25.0] | +50.0 [+50.0, +50.0] |" in lines
    assert "| fine-tuning | 25.0 | 25.0 | +0.0 [+0.0, +0.0] | 0 of 1 | 0.0 | 8 |" in lines  # one process, one seed


def test_readme_shows_the_measured_tables():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    measured = demo.tables(json.loads(MEASURED.read_text(encoding="utf-8"))).splitlines()
    missing = [line for line in measured if line.startswith("|") and line not in readme]
    assert not missing, "python -m benchmarks demo --show benchmarks/results/demo.json prints the tables for README"
