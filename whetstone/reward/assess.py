"""How well a reward model tells held-out answers apart: accuracy with its interval, calibration, and what length explains.

accuracy             of pairs: the share in which the chosen side gets the larger number, a tie counts half. Of single answers:
                     the share in which the sign of the number is right
length_only          the accuracy of always preferring the longer answer, or the shorter one, whichever is right more often in
                     training
shorter, longer      the accuracy where the better answer is the shorter, or the longer one: they are equal without a bias
length_correlation   Pearson's, of number and length over all answers
calibration          answers or pairs by the probability that the model gives to its own choice, in bins; `calibration_error` is
                     the mean difference of probability and accuracy over them (ECE; Guo et al. 2017, arXiv 1706.04599)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from whetstone.measure import mean_interval

BINS = 5  # between the probabilities 1/2 and 1


@dataclass(frozen=True)
class Judged:
    """A pair (chosen, rejected), or one answer: the numbers that it got, and lengths in tokens without the prompt."""

    problem_id: str
    rewards: tuple[float, ...]
    lengths: tuple[int, ...]
    right: bool = True  # of one answer

    @property
    def evidence(self) -> float:
        """What the model says for the truth: above 0, it is right."""
        return (
            self.rewards[0] - self.rewards[1] if len(self.rewards) == 2 else self.rewards[0] * (1 if self.right else -1)
        )

    @property
    def correct(self) -> float:
        return 0.5 if self.evidence == 0 else float(self.evidence > 0)


def assess(judged: Sequence[Judged], prefer_longer: bool | None = None) -> dict[str, Any]:
    """The figures above; {} for nothing judged. `prefer_longer` comes from `longer_is_better` of the training pairs."""
    if not judged:
        return {}
    rewards = [reward for one in judged for reward in one.rewards]
    lengths = [length for one in judged for length in one.lengths]
    bins = _bins(judged)
    figures = {
        "judged": len(judged),
        "accuracy": accuracy(judged),
        "length_correlation": correlation(rewards, lengths),
        "calibration": bins,
        "calibration_error": sum(b["count"] * abs(b["probability"] - b["accuracy"]) for b in bins) / len(judged),
    }
    if len(judged[0].rewards) == 2:
        pairs = {
            "shorter": [one for one in judged if one.lengths[0] < one.lengths[1]],
            "longer": [one for one in judged if one.lengths[0] > one.lengths[1]],
        }
        figures |= {name: accuracy(part) for name, part in pairs.items() if part}
        if prefer_longer is not None:
            figures["length_only"] = accuracy([by_length(one, prefer_longer) for one in judged])
    return figures


def accuracy(judged: Sequence[Judged]) -> dict[str, float]:
    mean, low, high, problems = mean_interval({"problem_id": one.problem_id, "correct": one.correct} for one in judged)
    return {"mean": mean, "low": low, "high": high, "problems": problems}


def longer_is_better(lengths: Sequence[tuple[int, int]]) -> bool:
    """Whether the chosen answer is the longer one more often than the shorter one, of (chosen, rejected) lengths."""
    return sum(chosen > rejected for chosen, rejected in lengths) >= sum(c < r for c, r in lengths)


def by_length(one: Judged, prefer_longer: bool) -> Judged:
    sign = 1.0 if prefer_longer else -1.0
    return Judged(one.problem_id, tuple(sign * length for length in one.lengths), one.lengths)


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Pearson's; 0 if one of the two does not vary."""
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))
    return covariance / spread if spread else 0.0


def _bins(judged: Sequence[Judged]) -> list[dict[str, float]]:
    bins: dict[int, list[tuple[float, float]]] = {}
    for one in judged:
        probability = sigmoid(abs(one.evidence))
        bins.setdefault(min(int((probability - 0.5) * 2 * BINS), BINS - 1), []).append((probability, one.correct))
    return [
        {
            "count": len(members),
            "probability": sum(p for p, _ in members) / len(members),
            "accuracy": sum(correct for _, correct in members) / len(members),
        }
        for _, members in sorted(bins.items())
    ]


def sigmoid(x: float) -> float:
    """For x of 0 or more."""
    return 1 / (1 + math.exp(-x))
