"""docs/extending.md, your_reward.md, your_algorithm.md: each of their files is short, and the recipe runs with all of them."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from whetstone.evaluate.problem_sets import read_problems
from whetstone.run.folder import read_json
from whetstone.run.tables import read_rows

DOCS = Path(__file__).parent.parent / "docs"
REWARD, ALGORITHM, PAGE = (
    (DOCS / name).read_text(encoding="utf-8") for name in ("your_reward.md", "your_algorithm.md", "extending.md")
)
FILES = dict(
    re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", REWARD + ALGORITHM + PAGE, flags=re.MULTILINE | re.DOTALL)
)
RECIPE = re.search(r"^```toml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)[1]
ROWS = '{"ask": "What is half of 10?", "truth": 5}\n{"ask": "Show it.", "truth": "", "kind": "proof"}\n'


@pytest.mark.parametrize("name", ["my_reward.py", "my_algorithm.py", "my_source.py", "my_set.py", "my_stage.py"])
def test_each_file_has_at_most_forty_lines(name):
    assert len(FILES[name].splitlines()) <= 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The page's files, its recipe and the rows of its problem set, in a folder to run from."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "extended.toml").write_text(RECIPE, encoding="utf-8")
    for path in ("halves.jsonl", "data/halves/test.jsonl"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(ROWS, encoding="utf-8")
    return tmp_path


def test_the_reward_gives_what_the_page_says(folder, monkeypatch):
    monkeypatch.chdir(folder)
    examples = doctest.DocTestParser().get_doctest(REWARD, {}, "your_reward.md", None, 0)
    assert examples.examples and doctest.DocTestRunner().run(examples).failed == 0


@pytest.mark.slow
def test_the_recipe_runs_with_all_of_them(folder):
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "whetstone.cli", "run", "extended.toml"]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run = folder / "runs" / "extended"
    problems = list(read_rows(run / "01-questions" / "problems"))
    assert {row["question"] for row in problems if row["benchmark"] == "halves"} == {"What is half of 10?"}
    assert any(row["question"].startswith("What is twice") and row["split"] == "train" for row in problems)
    assert [row["reason"] for row in read_rows(run / "01-questions" / "dropped")].count("a proof") == 1
    settings = read_json(run / "05-rl" / "manifest.json")["settings"]
    assert settings["algorithm"] == {"name": "my_algorithm.py:raft", "best": 2}
    scores = {(score["stage"], score["benchmark"]) for score in read_json(run / "scores.json")["scores"]}
    assert {("soup", "doubles"), ("soup", "halves"), ("rl", "doubles")} <= scores


def test_the_set_can_be_scored_on_by_name(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WHETSTONE_DATA", "data")
    assert [(p.question, p.answer) for p in read_problems("my_set.py:HALVES")] == [("What is half of 10?", "5")]
