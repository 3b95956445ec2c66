"""Named ways of reading an answer, declared as data and never guessed from the answer itself."""

import difflib
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Policy:
    """How an answer is found in a text and what counts as equal.

    >>> get_policy("math").percent
    'fraction'
    """

    name: str
    meaning: str
    kind: Literal["math", "integer", "choice", "word"] = "math"
    percent: Literal["fraction", "unit"] = "fraction"  # fraction: 50% is 1/2; unit: 50% is 50
    thinking_counts: bool = False  # may an answer inside the marks of `thinking.py`, closed or not, be taken?
    low: int | None = None  # smallest and largest answer of kind integer
    high: int | None = None
    choices: str = "ABCDEFGHIJ"  # the letters of kind choice


POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("math", "competition mathematics: exact equality, tuples ordered, sets not, interval ends kept"),
        Policy("math_thinking", "as math, and an answer inside the thinking counts too", thinking_counts=True),
        Policy("number", "as math, and a percent sign is set aside like a unit (50% is 50)", percent="unit"),
        Policy("integer", "one integer, leading zeros and thousands separators allowed", kind="integer"),
        Policy("aime", "one integer from 0 to 999", kind="integer", low=0, high=999),
        Policy("choice", "one letter, A to J", kind="choice"),
        Policy("word", "words, compared without case and outer punctuation", kind="word"),
    )
}


def get_policy(name: str) -> Policy:
    """The policy of that name; an unknown one is a ValueError that suggests the nearest."""
    policy = POLICIES.get(name)
    if policy is None:
        near = difflib.get_close_matches(str(name), POLICIES, n=1)
        suggestion = f' Did you mean "{near[0]}"?' if near else ""
        raise ValueError(
            f"policy = {name!r} is unknown: an answer is only read under a declared policy.{suggestion} "
            f"Use one of {', '.join(POLICIES)}."
        )
    return policy
