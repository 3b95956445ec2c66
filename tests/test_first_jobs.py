"""The files of docs/first_jobs.md are those that its jobs were timed with, and can be used."""

from benchmarks.first_jobs import jobs
from whetstone.recipe import read_recipe
from whetstone.rl.reward import build_reward


def test_the_four_jobs_have_whole_recipes_and_commands_for_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = jobs()
    assert [job.name for job in found] == ["Own problems", "Own model", "Own reward", "Own algorithm"]
    for job in found:
        for name, text in job.files.items():
            (tmp_path / name).write_text(text)
        recipe = next(name for name in job.files if name.endswith(".toml"))
        assert any(f"run {recipe}" in command for command in job.commands)
        assert [stage.kind for stage in read_recipe(tmp_path / recipe).stages][-2:] == ["rl", "report"]
    assert callable(build_reward("my_reward.py:right_and_short"))
