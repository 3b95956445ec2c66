"""Parts of a table are worked on here, in processes or on Ray with the same results, also if a worker is killed."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.corpus.test_corpus import build_stage, small_world
from tests.fanout_work import Square, invert, where
from whetstone.corpus import build
from whetstone.pipeline import checks
from whetstone.recipe import read_recipe
from whetstone.run import fanout
from whetstone.run.fanout import FEW, IN_FLIGHT, fan_out
from whetstone.run.folder import hash_folder
from whetstone.run.settings import ParallelSettings

TWO = ParallelSettings(forks=2)
RAY = ParallelSettings(forks=2, data="ray")
SQUARES = [n * n for n in range(12)]


def test_a_killed_process_costs_its_part_alone_and_the_order_stays(tmp_path, capsys):
    assert list(fan_out(Square(tmp_path, deaths=1), iter(range(12)), TWO)) == SQUARES
    assert len(list(tmp_path.iterdir())) == 1
    assert "its part is done again" in capsys.readouterr().err


def test_processes_that_end_again_and_again_end_the_work_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(fanout, "ATTEMPTS", 1)
    with pytest.raises(ChildProcessError, match=r"ended 1 times .*forks = 1 needs the least"):
        list(fan_out(Square(tmp_path, deaths=99), range(5, 12), TWO))


def test_parts_are_taken_as_they_are_needed_and_what_the_work_raises_is_raised():
    taken = []
    results = fan_out(invert, (taken.append(n) or n for n in range(100)), TWO)
    assert next(results) == -0.2
    assert len(taken) <= IN_FLIGHT * 2 + FEW
    with pytest.raises(ZeroDivisionError):
        list(results)
    own = {os.getpid()}
    assert {*fan_out(where, range(FEW - 1), TWO)} == {*fan_out(where, range(50), ParallelSettings(forks=1))} == own


@pytest.fixture
def parts_of_five(monkeypatch):
    monkeypatch.setattr(build, "PART_ROWS", 5)


def corpus(folder: Path, parallel: ParallelSettings) -> str:
    settings = {"subset": {"problems": 6, "traces": 2}, "validation_problems": 2, "near_traces": 0.9, "reserve": 0.2}
    stage = replace(build_stage(folder, *small_world(), **settings), parallel=parallel)
    build.run(stage)
    return hash_folder(stage.folder)


def test_a_corpus_in_parts_has_the_same_files_from_one_process_and_from_two(tmp_path, parts_of_five):
    assert corpus(tmp_path / "one", ParallelSettings(forks=1)) == corpus(tmp_path / "two", TWO)


def test_parts_make_no_difference_to_the_corpus(tmp_path, monkeypatch):
    whole = corpus(tmp_path / "whole", ParallelSettings(forks=1))
    monkeypatch.setattr(build, "PART_ROWS", 5)
    assert corpus(tmp_path / "parts", ParallelSettings(forks=1)) == whole


def test_on_ray_it_is_the_same_also_if_a_worker_is_killed(tmp_path, parts_of_five, monkeypatch):
    pytest.importorskip("ray", reason="needs the extra ray")
    monkeypatch.setattr(build, "MATCHED", 5)
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    assert list(fan_out(Square(deaths, deaths=1), range(12), RAY)) == SQUARES
    assert len(list(deaths.iterdir())) == 1
    assert corpus(tmp_path / "ray", RAY) == corpus(tmp_path / "one", ParallelSettings(forks=1))


def test_a_recipe_that_needs_ray_is_refused_without_it(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda package: None)
    path = tmp_path / "r.toml"
    path.write_text(
        '[parallel]\ndata = "ray"\n[[stage]]\nkind = "questions"\n[[stage.source]]\nkind = "procedural"\ntrain = 4\n'
    )
    recipe = read_recipe(path)
    with pytest.raises(
        ImportError, match=r'data = "ray" needs the package ray: pip install "whetstone-reasoner\[ray\]"'
    ):
        checks.check_stages(recipe, recipe.stages)
