"""What the report says of a reward model, from the figures that its stage leaves."""

from pathlib import Path

import pytest

from whetstone.report.read import RunRecord, StageRecord
from whetstone.report.reward_models import reward_models
from whetstone.reward.assess import Judged, assess
from whetstone.run.folder import DamagedFile, write_json


def page(folder: Path, before: dict, after: dict) -> str:
    stage = StageRecord("reward", "reward", folder / "06-reward", {})
    write_json(stage.folder / "assessment.json", {"before": before, "after": after})
    return reward_models(RunRecord(folder, "r", [stage], []))


def test_accuracy_length_and_calibration_stand_before_and_after_training(tmp_path):
    """Of four pairs three are right after training; the better one is shorter in the first two."""
    lengths = [(3, 5), (3, 5), (6, 2), (6, 2)]
    judged = [Judged(str(i), (1.0 if i else -1.0, 0.0), pair) for i, pair in enumerate(lengths)]
    html = page(tmp_path, assess([Judged("a", (0.0, 0.0), (3, 5))], False), assess(judged, prefer_longer=False))
    before, after = (row for row in html.split("<tr>") if row.startswith(("<td>before", "<td>after")))
    assert '<td class="n">50.0<br>' in before and "before" in before
    assert [cell.partition("<br>")[0] for cell in after.split('<td class="n">')[2:6]] == [
        "75.0",
        "50.0",
        "50.0",
        "100.0",
    ]
    assert '<td class="n">73.1</td><td class="n">75.0</td><td class="n">4</td>' in html, (
        "σ(1), of which three are right"
    )


def test_of_single_answers_there_is_no_length_baseline_and_without_any_it_is_said(tmp_path):
    html = page(tmp_path, {}, assess([Judged("a", (2.0,), (3,), right=True)]))
    assert "before</td>" not in html and html.count('<td class="n">–</td>') == 3
    assert "Nothing is held out" in page(tmp_path, {}, {})
    assert reward_models(RunRecord(tmp_path, "r", [], [])) == ""


def test_an_edited_file_is_an_error_with_its_name(tmp_path):
    with pytest.raises(DamagedFile, match=r"assessment\.json"):
        page(tmp_path, {}, {"judged": 3})
