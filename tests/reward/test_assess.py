"""What is said of a reward model, worked by hand."""

import math

import pytest

from whetstone.measure import wilson
from whetstone.reward.assess import Judged, assess, correlation, longer_is_better


def test_pairs_are_right_if_the_chosen_side_is_ahead_and_a_tie_counts_half():
    judged = [Judged("a", (2.0, 1.0), (3, 5)), Judged("b", (0.0, 1.0), (5, 3)), Judged("c", (1.0, 1.0), (4, 4))]
    figures = assess(judged, prefer_longer=False)
    assert figures["accuracy"]["mean"] == pytest.approx(0.5) and figures["accuracy"]["problems"] == 3
    assert figures["shorter"]["mean"] == 1.0 and figures["longer"]["mean"] == 0.0
    assert figures["length_only"]["mean"] == pytest.approx(0.5)  # right, wrong, tie


def test_pairs_of_one_problem_are_no_independent_trials():
    one = assess([Judged("a", (1.0, 0.0), (3, 5))] * 50)["accuracy"]
    assert one["problems"] == 1 and (one["low"], one["high"]) == pytest.approx(wilson(1.0, 1))


def test_a_calibrated_model_has_no_calibration_error():
    ahead = math.log(3.0)  # a probability of 3/4
    judged = [Judged(str(i), (ahead if i % 4 else -ahead, 0.0), (3, 3)) for i in range(100)]
    figures = assess(judged)
    assert figures["calibration_error"] == pytest.approx(0.0, abs=1e-12)
    (only,) = figures["calibration"]
    assert only == {"count": 100, "probability": pytest.approx(0.75), "accuracy": 0.75}
    sure = assess([Judged(one.problem_id, (100 * one.rewards[0], 0.0), (3, 3)) for one in judged])
    assert sure["calibration_error"] == pytest.approx(0.25)


def test_single_answers_are_right_by_the_sign():
    judged = [Judged("a", (2.0,), (3,), right=True), Judged("b", (1.0,), (4,), right=False)]
    assert assess(judged)["accuracy"]["mean"] == 0.5 and "length_only" not in assess(judged)


def test_the_length_baseline_takes_the_direction_of_the_training_pairs():
    assert longer_is_better([(5, 3), (6, 3), (1, 9)]) and not longer_is_better([(3, 5), (2, 2)])


def test_correlation_is_pearsons():
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert correlation([1, 1, 1], [1, 2, 3]) == 0.0
    assert assess([]) == {}
