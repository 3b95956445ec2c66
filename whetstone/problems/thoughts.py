"""Thinking in completions of other people's sets, whatever marks stand around it."""

import re

MARK = r"<\|(?:begin|end)_of_(?:thought|solution)\|>"  # of Sky-T1, Bespoke-Stratos and OpenThoughts
UNMARKED = rf"((?:(?!{MARK}).)*)"
THOUGHT = re.compile(
    rf"\s*<\|begin_of_thought\|>{UNMARKED}<\|end_of_thought\|>\s*(?:<\|begin_of_solution\|>)?{UNMARKED}"
    r"(?:<\|end_of_solution\|>\s*)?",
    re.DOTALL,
)


def thinking(completion: str, name: str = "a turn") -> str:
    """A completion with its thinking between <think> and </think>, whatever marks the set uses. Raises ValueError for one whose
    marks do not hold all of it, or that has thoughts alone.
    """
    if re.search(MARK, completion):
        match = THOUGHT.fullmatch(completion)
        if not match:
            raise ValueError(
                f"broken thoughts: {name} has marks as <|begin_of_thought|> that do not hold the whole of it"
            )
        completion = f"<think>\n{match[1].strip()}\n</think>\n\n{match[2].strip()}"
    completion = completion.strip()
    if completion.endswith("</think>"):
        raise ValueError(f"empty completion: {name} holds thoughts, and no answer after them")
    return completion
