"""A whole recipe on a GPU, if there is one: every stage trains, samples and resumes there."""

from pathlib import Path

import pytest
import torch

from benchmarks.kill_and_resume import finish
from whetstone.run.folder import read_json
from whetstone.run.metrics import read_metrics

SMOKE = Path(__file__).parent.parent / "recipes" / "smoke_rl.toml"


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("setting", ["compute=float32", "compute=bfloat16", "compile=true"])
def test_on_a_gpu_the_smoke_recipe_runs_to_its_end(tmp_path, setting):
    finish(SMOKE, tmp_path, "--set", f"parallel.{setting}")
    stages = sorted((tmp_path / "smoke").glob("[0-9]*-*"))
    assert {path.name.partition("-")[2] for path in stages} >= {"midtrain", "sft", "dpo", "dpo-student", "grpo", "dapo"}
    for stage in stages:
        assert read_json(stage / "manifest.json")["summary"]
        losses = [row["loss"] for row in read_metrics(stage) if "loss" in row]
        assert losses or not (stage / "model").exists(), f"{stage.name} has a model and no losses"
        assert all(abs(loss) < 100 for loss in losses)
