"""A number for a graded rollout; None if it depends on a verdict and the verifier could not decide.

A recipe names one, `reward = "plus_minus_one"`, or several with weights,

    reward = { plus_minus_one = 1.0, format = 0.2, "my_rewards.py:brevity" = 0.1 }

and the rollout's reward is their weighted sum. A function of the user's own takes (problem, completion), or (problem,
completion, rollout) if it needs more than the text, and gives a number, or None to leave the rollout out:

    def brevity(problem, completion):
        return 1 / (1 + len(completion))

`reward_model` is the number that the model of a `reward` stage gives. A completion's text begins with the `<think>` that its
prompt opened, if the chat template does that.
"""

import inspect
import math
from collections.abc import Mapping
from pathlib import Path

from whetstone.records import Problem, Rollout
from whetstone.rl.algorithm import Reward
from whetstone.run import user_file


def plus_minus_one(problem: Problem, rollout: Rollout) -> float | None:
    """+1 for a right final answer, -1 for a wrong one."""
    return None if rollout.correct is None else 1.0 if rollout.correct else -1.0


def zero_one(problem: Problem, rollout: Rollout) -> float | None:
    return None if rollout.correct is None else float(rollout.correct)


def well_formed(problem: Problem, rollout: Rollout) -> float:
    """1 for one closed `<think>…</think>` at the start and a box after it, in a rollout that was not cut off; else 0."""
    thought, _, answer = rollout.text.partition("</think>")
    opened = thought.lstrip().startswith("<think>") and rollout.text.count("<think>") == 1
    return float(rollout.stop == "end" and opened and "</think>" not in answer and "\\boxed{" in answer)


REWARD_MODEL = "reward_model"
BUILT_IN: dict[str, Reward] = {"plus_minus_one": plus_minus_one, "zero_one": zero_one, "format": well_formed}


def build_reward(named: str | Mapping[str, float], model: Reward | None = None) -> Reward:
    """The reward of a recipe. `model` is that of the name `reward_model`.

    Raises ValueError or FileNotFoundError for a name that leads nowhere.
    """
    if isinstance(named, str):
        return _one(named, model)
    parts = [(weight, _one(name, model)) for name, weight in named.items()]

    def total(problem: Problem, rollout: Rollout) -> float | None:
        values = [reward(problem, rollout) for _, reward in parts]
        if any(value is None for value in values):
            return None
        return sum(weight * value for (weight, _), value in zip(parts, values, strict=True))

    return total


def _one(named: str, model: Reward | None) -> Reward:
    if named == REWARD_MODEL:
        return model or _not_loaded
    return BUILT_IN.get(named) or user_reward(named)


def _not_loaded(problem: Problem, rollout: Rollout) -> float:
    raise ValueError(f"reward {REWARD_MODEL!r}: no reward model is loaded. Give one to build_reward.")


def file_of(named: str) -> Path | None:
    """The user's file in a reward's name; None for one that is built in.

    Raises ValueError for a name that is neither.
    """
    path = user_file.file_of(named)
    if named not in (*BUILT_IN, REWARD_MODEL) and path is None:
        raise ValueError(
            f"reward {named!r} is unknown: there are {', '.join((*BUILT_IN, REWARD_MODEL))}, and functions of your own as "
            '"my_rewards.py:function"'
        )
    return path


def user_reward(named: str) -> Reward:
    """The function of `file.py:function`. Its value is checked each time.

    Raises ValueError or FileNotFoundError if it is not there, or is no reward.
    """
    function = user_file.load(named)
    if not callable(function):
        raise ValueError(f"reward {named!r} is {function!r}: write it as function(problem, completion).")
    arguments = len(inspect.signature(function).parameters)
    if arguments not in (2, 3):
        raise ValueError(
            f"reward {named!r} takes {arguments} argument{'s' * (arguments != 1)}: write it as function(problem, completion) "
            "or function(problem, completion, rollout)."
        )

    def reward(problem: Problem, rollout: Rollout) -> float | None:
        value = function(*(problem, rollout.text, rollout)[:arguments])
        if value is None:
            return None
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(
                f"reward {named!r} gave {value!r} for rollout {rollout.index} of {problem.id}: a reward is a finite number, or "
                "None to leave the rollout out."
            )
        return float(value)

    return reward
