"""When a loss has left its course: a rule that a few bad losses cannot move, as medians cannot."""

from collections.abc import Sequence
from statistics import median

from whetstone.run.settings import SpikeSettings

AS_STANDARD_DEVIATION = 1.4826  # of a normal distribution, from the median absolute deviation
LEAST = 0.01  # of the median: losses that hardly differ have hardly a deviation


def highest_usual(losses: Sequence[float], settings: SpikeSettings) -> float | None:
    """What a loss after those of the last steps may be; None while they are too few to tell.

    >>> highest_usual([1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1], SpikeSettings(window=8, deviations=10))
    2.4826
    """
    if len(losses) < settings.window / 8:
        return None
    middle = median(losses)
    deviation = AS_STANDARD_DEVIATION * median(abs(loss - middle) for loss in losses)
    return middle + settings.deviations * max(deviation, LEAST * abs(middle))
