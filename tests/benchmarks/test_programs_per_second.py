"""Programs per second: what counts as reaching a target, and a level that the machine does not offer."""

import pytest

from benchmarks.programs_per_second import programs, reached, run
from whetstone.verify.isolation.kernel import LEVELS
from whetstone.verify.program import Outcome, Refused, Sandbox


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


ROWS = [{"code": f"def solution():\n    return {n}", "target": float(n if n else 1)} for n in range(4)]


def test_every_level_that_the_machine_offers_is_measured(capsys):
    with Sandbox() as sandbox:
        if sandbox.level is None:
            pytest.skip("this machine offers no level of isolation")
    measured = {result.pop("level"): result for result in run(ROWS)["levels"]}
    assert tuple(measured) == LEVELS
    assert measured[sandbox.level]["reached_target"] == 0.75 and measured[sandbox.level]["per_second"] > 0
    assert f"\n{sandbox.level}" in capsys.readouterr().out


def test_a_level_that_the_machine_does_not_offer_has_the_reason(capsys, monkeypatch):
    def refuse(self):
        raise Refused("unshare a user namespace: Operation not permitted")

    monkeypatch.setattr(Sandbox, "require", refuse)
    assert [sorted(result) for result in run(ROWS)["levels"]] == [["level", "refused"]] * len(LEVELS)
    assert "not offered by this machine: unshare a user namespace" in capsys.readouterr().out


def test_missing_data_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match=r"gsmhardv2.*WHETSTONE_DATA"):
        programs()
