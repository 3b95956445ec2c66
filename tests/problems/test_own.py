"""What must be touched to add a source or a problem set: one file, the user's own or one in the package's folder."""

from itertools import islice
from pathlib import Path

import pytest

from tests.scripted import stage
from whetstone.evaluate.problem_sets import read_problems
from whetstone.problems import sets
from whetstone.questions import source, sources
from whetstone.questions.gather import Settings, reads, run
from whetstone.records import Problem
from whetstone.run.tables import read_records

OWN_SOURCE = '''
import random
from collections.abc import Iterator

from pydantic import Field

from whetstone.questions.source import MadeSource
from whetstone.records import Problem


class Doubles(MadeSource):
    """What is twice a number?"""

    largest: int = Field(99, ge=1, description="largest number to double")

    def draw(self, seed: int) -> Iterator[Problem]:
        rng = random.Random(seed)
        while True:
            number = rng.randint(1, self.largest)
            yield Problem("", f"What is twice {number}?", str(2 * number), formula=f"{number}+{number}")


SOURCE = Doubles
'''
OWN_SET = """
from whetstone.problems.published import ProblemSet
from whetstone.problems.reading import Reading, gold, optional, text
from whetstone.problems.table import Row


def read(row: Row) -> Reading:
    if optional(row, "kind") == "proof":
        raise ValueError("a proof: there is no answer to compare")
    return Reading(text(row, "ask"), gold(row, "truth"), domain="own")


OWN = ProblemSet(read, "CC0", "integer", test="own/test.jsonl")
SETS = {"own": OWN}
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data with the set "own": two problems."""
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path / "data"))
    path = tmp_path / "data" / "own" / "test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"ask": "1 + 1?", "truth": 2}\n{"ask": "2 + 2?", "truth": 4}\n')
    return path


def gathered(folder: Path, table: dict) -> list[Problem]:
    made = stage(folder, Settings(kind="questions", source=[table]))
    run(made)
    return list(read_records(Problem, made.folder / "problems"))


def test_a_source_of_the_users_own_is_one_file(tmp_path):
    file = tmp_path / "my_source.py"
    file.write_text(OWN_SOURCE)
    table = {"kind": f"{file}:Doubles", "train": 5, "largest": 1000}
    problems = gathered(tmp_path / "s", table)
    assert [p.id for p in problems] == [f"Doubles/train-{n}" for n in range(1, 6)]
    assert all(int(p.answer) == 2 * int(p.formula.split("+")[0]) for p in problems)
    settings = Settings(kind="questions", source=[table])
    assert reads(settings) == [file], "the stage is made again when the file changes"
    assert settings.model_dump()["source"][0]["largest"] == 1000
    with pytest.raises(ValueError, match="largest"):
        Settings(kind="questions", source=[table | {"largest": 0}])
    with pytest.raises(ValueError, match="no class below"):
        Settings(kind="questions", source=[table | {"kind": f"{file}:random"}])


def test_a_source_in_the_folder_is_found_by_its_file_name(tmp_path, monkeypatch):
    (tmp_path / "doubles.py").write_text(OWN_SOURCE)
    with monkeypatch.context() as patched:
        patched.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])
        source.source_kinds.cache_clear()
        assert len(gathered(tmp_path / "s", {"kind": "doubles", "train": 3})) == 3
    source.source_kinds.cache_clear()
    with pytest.raises(ValueError, match=r"'doubles' is no source of problems.*procedural.*file\.py:MySource"):
        Settings(kind="questions", source=[{"kind": "doubles", "train": 3}])


def test_a_set_of_the_users_own_is_one_file_to_train_and_to_score_on(tmp_path, data):
    file = tmp_path / "my_sets.py"
    file.write_text(OWN_SET)
    scored = read_problems(f"{file}:OWN")
    assert [(p.id, p.question, p.answer, p.policy, p.split, p.benchmark) for p in scored] == [
        ("OWN-1", "1 + 1?", "2", "integer", "test", "OWN"),
        ("OWN-2", "2 + 2?", "4", "integer", "test", "OWN"),
    ]
    trained = gathered(tmp_path / "s", {"kind": "published", "set": f"{file}:OWN", "path": str(written_train(data))})
    assert [(p.id, p.answer, p.licence, p.domain) for p in trained] == [("OWN/2", "7", "CC0", "own")]


def written_train(data: Path) -> Path:
    path = data.with_name("train.jsonl")
    path.write_text('{"ask": "Show it.", "truth": "", "kind": "proof"}\n{"ask": "3 + 4?", "truth": 7}\n')
    return path


def test_a_set_in_the_folder_is_found_by_itself(tmp_path, monkeypatch, data):
    (tmp_path / "new_sets.py").write_text(OWN_SET)
    monkeypatch.setattr(sets, "__path__", [*sets.__path__, str(tmp_path)])
    sets.known_sets.cache_clear()
    try:
        assert [p.id for p in read_problems("own")] == ["own-1", "own-2"]
    finally:
        sets.known_sets.cache_clear()


def test_made_problems_depend_on_the_seed_and_on_nothing_else():
    kind = source.source_kinds()["procedural"]
    made = kind(kind="procedural", train=5)
    first, again, other = ([p.question for p in islice(made.problems("t", "train", seed), 5)] for seed in (0, 0, 1))
    assert first == again != other
