"""The learning rate as a function of the step: warm-up, then constant, linear or cosine decay to a floor."""

import math


def learning_rate(peak: float, step: int, steps: int, warmup: float, shape: str, floor: float = 0.0) -> float:
    """`step` counts from 0 of `steps`; `warmup` and `floor` are fractions of the steps and of the peak."""
    rising = warmup * steps
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    if shape == "constant":
        return peak
    gone = (step - rising) / max(1.0, steps - rising)
    if shape == "linear":
        kept = 1 - gone
    elif shape == "cosine":
        kept = 0.5 * (1 + math.cos(math.pi * gone))
    else:
        raise ValueError(f"schedule {shape!r} is unknown: constant, linear or cosine.")
    return peak * (floor + (1 - floor) * kept)
