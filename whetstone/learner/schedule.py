"""The learning rate of a step: linear warm-up, then constant, or linear or cosine decay to a floor."""

import math

from whetstone.run.settings import OptimizerSettings


def learning_rate(optimizer: OptimizerSettings, step: int, steps: int) -> float:
    """The learning rate of `step`, which counts from 0 to `steps` - 1."""
    rising = optimizer.warmup * steps
    if step < rising:
        return optimizer.learning_rate * (step + 1) / (rising + 1)
    if optimizer.schedule == "constant":
        return optimizer.learning_rate
    progress = (step - rising) / max(1.0, steps - rising)
    kept = 1 - progress if optimizer.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return optimizer.learning_rate * (optimizer.floor + (1 - optimizer.floor) * kept)
