"""What counts as a spike, worked out by hand."""

import pytest

from whetstone.learner.spikes import highest_usual

EIGHT = 64  # steps, of which an eighth must be known


def test_by_hand():
    """The median is 1.0; the distances are 0 0 0 .1 .1 .1 .2 .2, their median .1: 1 + 10 x 1.4826 x .1."""
    losses = [1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1]
    assert highest_usual(losses, EIGHT) == pytest.approx(2.4826)


def test_an_earlier_spike_hardly_moves_the_bound():
    losses = [1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1, 0.95]
    assert highest_usual([*losses[:-1], 1e6], EIGHT) == pytest.approx(highest_usual(losses, EIGHT), rel=0.7)


def test_with_equal_losses_the_deviation_is_a_hundredth_of_the_median():
    assert highest_usual([2.0] * 20, EIGHT) == pytest.approx(2.0 + 10 * 0.02)
    assert highest_usual([-2.0] * 20, EIGHT) == pytest.approx(-2.0 + 10 * 0.02)


def test_too_few_losses_give_no_bound():
    assert highest_usual([1.0] * 7, EIGHT) is None
    assert highest_usual([1.0] * 8, EIGHT) is not None
