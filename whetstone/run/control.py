"""How controls are named and read: for the pipeline that makes them, and for the terminal and the report that show them."""

from collections.abc import Mapping
from typing import Any

MARK = "-control-"  # in the names of control stages, and of no other stage

CHOICE = "choice.json"  # of the prompts that the control `prompt` tried
FEW = 30  # problems, below which a bootstrap over them is not trusted
BESIDE = ("stage_minus_control", "last_minus_control")  # keys of a control's score (pipeline/beside.py)

# Control -> what it does instead of its stage
TITLES = {
    "prompt": "a better prompt, no training",
    "midtraining": "as many tokens of mid-training",
    "rejection": "fine-tuning on the right rollouts",
    "random_reward": "RL with random rewards",
}


def control_name(stage: str, control: str) -> str:
    """
    >>> control_name("sft", "midtraining")
    'sft-control-midtraining'
    """
    return f"{stage}{MARK}{control}"


def is_control(name: str) -> bool:
    """Of a stage or its folder."""
    return MARK in name


def points(found: Mapping[str, Any], how: str = "") -> str:
    """
    >>> points({"difference": 0.0918, "low": 0.07, "high": 0.115})
    '+9.2 [+7.0, +11.5]'
    """
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * found[f"{how}{name}"] for name in ("difference", "low", "high")))


def conclusion(found: Mapping[str, Any]) -> str:
    """What a difference says; also by flexible extraction if that says another thing, as if only the format was learnt.

    >>> found = {"low": 0.01, "high": 0.05}
    >>> granted = {"flexible_difference": 0.01, "flexible_low": -0.02, "flexible_high": 0.04}
    >>> conclusion(found)
    'outside the interval of its control'
    >>> conclusion(found | granted)
    'outside the interval of its control; by flexible extraction +1.0 [-2.0, +4.0], inside the interval of its control'
    """
    said = reading(found["low"], found["high"])
    if found.get("flexible_difference") is not None:
        granted = reading(found["flexible_low"], found["flexible_high"])
        said += f"; by flexible extraction {points(found, 'flexible_')}, {granted}" if granted != said else ""
    return "; ".join(filter(None, (said, caution(found.get("problems", FEW)))))


def caution(problems: int) -> str:
    """About a paired interval over so many problems; "" if they are enough.

    >>> caution(12)
    'of 12 problems a bootstrap interval is too narrow'
    """
    return f"of {problems} problems a bootstrap interval is too narrow" if 0 < problems < FEW else ""


def reading(low: float, high: float) -> str:
    """What the 95 % interval of stage minus control says.

    >>> reading(0.01, 0.05), reading(-0.01, 0.05), reading(-0.05, -0.01)
    ('outside the interval of its control', 'inside the interval of its control', 'below its control, outside the interval')
    """
    if low > 0:
        return "outside the interval of its control"
    return "below its control, outside the interval" if high < 0 else "inside the interval of its control"
