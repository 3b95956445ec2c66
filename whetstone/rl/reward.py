"""A number for a graded rollout; None where the verifier could not decide and the number would need that.

A recipe names one, `reward = "plus_minus_one"`, or several with weights,

    reward = { plus_minus_one = 1.0, format = 0.2, "my_rewards.py:brevity" = 0.1 }

and the rollout's reward is their weighted sum. A function of the user's own takes (problem, completion), or (problem,
completion, rollout) where it wants more than the text, and gives a number, or None to leave the rollout out:

    def brevity(problem, completion):
        return 1 / (1 + len(completion))
"""

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from whetstone.records import Problem, Rollout
from whetstone.rl.algorithm import Reward


def plus_minus_one(problem: Problem, rollout: Rollout) -> float | None:
    """+1 for a right final answer, -1 for a wrong one."""
    return None if rollout.correct is None else 1.0 if rollout.correct else -1.0


def zero_one(problem: Problem, rollout: Rollout) -> float | None:
    return None if rollout.correct is None else float(rollout.correct)


def well_formed(problem: Problem, rollout: Rollout) -> float:
    """1 for one closed `<think>…</think>` at the start and a box after it, in a rollout that ended by itself; else 0."""
    thought, _, answer = rollout.text.partition("</think>")
    opened = thought.lstrip().startswith("<think>") and rollout.text.count("<think>") == 1
    return float(rollout.stop == "end" and opened and "</think>" not in answer and "\\boxed{" in answer)


BUILT_IN: dict[str, Reward] = {"plus_minus_one": plus_minus_one, "zero_one": zero_one, "format": well_formed}


def build_reward(named: str | Mapping[str, float]) -> Reward:
    """The reward of a recipe. Raises ValueError or FileNotFoundError where a name leads nowhere."""
    if isinstance(named, str):
        return BUILT_IN.get(named) or user_reward(named)
    parts = [(weight, BUILT_IN.get(name) or user_reward(name)) for name, weight in named.items()]

    def total(problem: Problem, rollout: Rollout) -> float | None:
        values = [reward(problem, rollout) for _, reward in parts]
        if any(value is None for value in values):
            return None
        return sum(weight * value for (weight, _), value in zip(parts, values, strict=True))

    return total


def file_of(named: str) -> Path | None:
    """The user's file in a reward's name; None for one that is built in.

    Raises ValueError for a name that is neither.
    """
    if named in BUILT_IN:
        return None
    path, colon, function = named.rpartition(":")
    if not colon or not path.endswith(".py") or not function.isidentifier():
        raise ValueError(
            f"reward {named!r} is unknown: there are {', '.join(BUILT_IN)}, and functions of your own as "
            '"my_rewards.py:function"'
        )
    return Path(path).expanduser()


def user_reward(named: str) -> Reward:
    """The function of `file.py:function`. What it gives is checked each time."""
    path = file_of(named)
    assert path is not None
    function = _load(path, named.rpartition(":")[2])
    wanted = len(inspect.signature(function).parameters)
    if wanted not in (2, 3):
        raise ValueError(
            f"reward {named!r} takes {wanted} arguments: write it as function(problem, completion) or "
            "function(problem, completion, rollout)."
        )

    def reward(problem: Problem, rollout: Rollout) -> float | None:
        value = function(*(problem, rollout.text, rollout)[:wanted])
        if value is None:
            return None
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(
                f"reward {named!r} gave {value!r} for rollout {rollout.index} of {problem.id}: a reward is a finite number, or "
                "None to leave the rollout out."
            )
        return float(value)

    return reward


def _load(path: Path, function: str) -> Callable[..., Any]:
    from importlib.util import module_from_spec, spec_from_file_location

    if not path.is_file():
        raise FileNotFoundError(
            f"reward {str(path)!r}: there is no such file. Relative paths start at {Path.cwd()}: run from the folder it is "
            "in, or write the whole path."
        )
    spec = spec_from_file_location(f"rewards_{path.stem}", path)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, function, None)
    if not callable(found):
        there = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        raise ValueError(f"{path} has no function {function!r}: it has {', '.join(there) or 'none at all'}.")
    return found
