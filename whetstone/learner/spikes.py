"""When a loss counts as a spike. The rule uses medians, which a few bad losses cannot move."""

from collections.abc import Sequence
from statistics import median

AS_STANDARD_DEVIATION = 1.4826  # times the median absolute deviation is the standard deviation of a normal distribution
LEAST = 0.01  # smallest deviation, as a share of the median
DEVIATIONS = 10.0  # above the median, from which a loss is a spike


def highest_usual(losses: Sequence[float], window: int) -> float | None:
    """The highest loss that is no spike after the last `window` steps' losses; None while these are fewer than an eighth of it.

    >>> highest_usual([1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1], window=8)
    2.4826
    """
    if len(losses) < window / 8:
        return None
    middle = median(losses)
    deviation = AS_STANDARD_DEVIATION * median(abs(loss - middle) for loss in losses)
    return middle + DEVIATIONS * max(deviation, LEAST * abs(middle))
