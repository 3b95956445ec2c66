r"""Numbers in English words: "two thousand three hundred and five", "five and a half", "half", "a dozen".

number     whole ["and" fraction] | fraction
whole      hundreds {("billion" | "million" | "thousand") hundreds} | digits
hundreds   [tens "hundred" ["and"]] tens
fraction   "half" | ("a" | "one" | tens) ("half" | "thirds" | "quarter" | …)
"""

import re
from fractions import Fraction

from whetstone.verify.answers.units import CARDINALS, multipliers

SCALES = {"billion": 10**9, "million": 10**6, "thousand": 10**3, "hundred": 100}
ONE = ("a", "an", "one")
STARTS = frozenset(CARDINALS) | {"a", "an", "half"}
LONGEST = 100  # characters


def number_of(text: str) -> Fraction | None:
    """The number that the text spells; None for anything else.

    >>> number_of("two and a half"), number_of("twenty-one hundred"), number_of("two three")
    (Fraction(5, 2), Fraction(2100, 1), None)
    """
    words = re.split(r"[\s-]+", text[:LONGEST].casefold().strip())
    if len(text) > LONGEST or (words[0] not in STARTS and not words[0].isdecimal()):
        return None
    if (part := _fraction(words)) is not None:
        return part
    for at in range(1, len(words) - 1):
        if words[at] == "and" and (part := _fraction(words[at + 1 :])) is not None and part < 1:
            whole = _whole(words[:at])
            return None if whole is None else whole + part
    if len(words) == 2 and words[0] in ONE and words[1] == "dozen":
        return Fraction(12)
    whole = _whole(words)
    return None if whole is None or words[0].isdecimal() else Fraction(whole)


def _fraction(words: list[str]) -> Fraction | None:
    if words == ["half"]:
        return Fraction(1, 2)
    part = multipliers().get(words[-1], Fraction(1))
    if len(words) < 2 or part >= 1 or not words[-1].isascii():
        return None
    above = 1 if words[:-1] in ([one] for one in ONE) else _tens(words[:-1])
    return None if above is None else above * part


def _whole(words: list[str]) -> int | None:
    if len(words) == 1 and words[0].isdecimal():
        return int(words[0])
    for name, scale in SCALES.items():
        if name in words:
            at = words.index(name)
            above = 1 if words[:at] in (["a"], ["an"]) else _whole(words[:at])
            rest = words[at + 2 :] if words[at + 1 : at + 2] == ["and"] else words[at + 1 :]
            below = _whole(rest) if rest else 0
            counted = above is not None and below is not None and 0 < above < 1_000 and below < scale
            return above * scale + below if counted else None
    return _tens(words)


def _tens(words: list[str]) -> int | None:
    numbers = [CARDINALS.get(word) for word in words]
    if len(numbers) == 1:
        return numbers[0]
    if len(numbers) == 2 and None not in numbers and numbers[0] >= 20 and 0 < numbers[1] < 10:
        return numbers[0] + numbers[1]
    return None
