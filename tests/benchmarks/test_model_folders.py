"""Folders of each class with each kind of template: rows, ends, continuations, thinking and export are transformers' own."""

import pytest

from benchmarks.model_folders import RANDOM, compare, printed, write_random

AS_THE_TEMPLATE_WRITES = {
    "r1-distill": "equal, as it stands",  # its template leaves the thinking of an answer out
    "none": "as it stands",
}
OPENED = ("qwen3.5", "r1-distill")


@pytest.mark.parametrize(
    ("kind", "template"), [(kind, template) for template, kinds in RANDOM.items() for kind in kinds]
)
def test_a_folder_is_used_as_transformers_uses_it(kind, template, tmp_path):
    write_random(kind, template, tmp_path / "base")
    row = compare(tmp_path / "base", tmp_path / "exported")
    assert row == {
        "weights": "equal",
        "rows": AS_THE_TEMPLATE_WRITES.get(template, "equal"),
        "ends": "equal",
        "greedy": "equal",
        "thinking": "opened by the prompt" if template in OPENED else "equal",
        "export": "equal",
    }
    assert "| x | equal |" in list(printed([{"folder": "x", **row}]))[2]
