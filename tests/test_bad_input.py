"""docs/bad_input.md names a test for each kind of bad input, and the tests exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = [line for line in (ROOT / "docs" / "bad_input.md").read_text().splitlines() if line.startswith("| ")]
ROWS = [row for row in ROWS if not row.startswith(("| what comes in |", "| --- |"))]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)")


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_each_row_names_a_test_that_exists(row):
    named = TEST.findall(row)
    assert named, row
    for file, name in named:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file} has no {name}"


def test_the_table_has_a_row_for_each_part():
    assert len(ROWS) > 100
