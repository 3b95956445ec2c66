"""`"file.py:name"`: what it names, and what is said of a name that leads nowhere."""

import pytest

from whetstone.run import user_file

TEXT = """
from dataclasses import dataclass

limit = 3

@dataclass(frozen=True)
class Options:
    width: "int" = 2

def double(x):
    return 2 * x
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(TEXT)
    return path


def test_functions_classes_and_values_are_loaded(mine):
    assert user_file.load(f"{mine}:double")(4) == 8 and user_file.load(f"{mine}:limit") == 3
    assert user_file.load(f"{mine}:Options")().width == 2


def test_a_relative_path_starts_at_the_working_directory_or_where_the_caller_says(mine, monkeypatch):
    assert user_file.load("mine.py:limit", relative_to=mine.parent) == 3
    monkeypatch.chdir(mine.parent)
    assert user_file.load("mine.py:limit") == 3


def test_a_file_runs_once_until_it_is_edited(mine):
    first = user_file.load(f"{mine}:Options")
    assert user_file.load(f"{mine}:Options") is first
    mine.write_text(TEXT.replace("2", "5"))
    assert user_file.load(f"{mine}:Options")().width == 5 and first().width == 2


def test_a_file_that_fails_is_run_again_the_next_time(mine):
    mine.write_text("import json\njson.loads('{')")
    for _ in range(2):
        with pytest.raises(ValueError, match="Expecting property name"):
            user_file.load(f"{mine}:limit")


def test_what_is_missing_is_said(mine):
    with pytest.raises(ValueError, match=r"mine\.py has no 'treble': it has Options, double\. Name one of these"):
        user_file.load(f"{mine}:treble")
    with pytest.raises(FileNotFoundError, match=r"no such file\. Relative paths start at"):
        user_file.load("nowhere.py:f")
    with pytest.raises(ValueError, match=r'write "file\.py:name"'):
        user_file.load("nowhere.txt:f")
