"""Programs per second: what counts as reaching a target, and a level that cannot be had."""

import pytest

from benchmarks.programs_per_second import programs, reached, run
from whetstone.verify.program import LEVELS, Outcome


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("5", 5.0, True),
        ("0.33333333333333331", 0.3333333333, True),
        ("5.001", 5.0, False),
        (None, 5.0, False),
        ("x", 5.0, False),
    ],
)
def test_targets_are_rounded_to_ten_decimals(answer, target, right):
    assert reached(Outcome(answer, "answered"), target) is right


def test_every_level_is_measured_or_refused_with_the_reason(capsys):
    rows = [{"code": f"def solution():\n    return {n}", "target": float(n if n else 1)} for n in range(4)]
    found = run(rows)
    assert [one["level"] for one in found["levels"]] == list(LEVELS)
    for one in found["levels"]:
        assert one.get("refused") or (one["reached_target"] == 0.75 and one["per_second"] > 0)
    assert "per second" in capsys.readouterr().out


def test_missing_data_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match=r"gsmhardv2.*WHETSTONE_DATA"):
        programs()
