"""Finds, spells and masks numbers in English text. "forty-five" and "$3.50" are numbers, "3rd" and "7:30" are not."""

import re
from dataclasses import dataclass
from fractions import Fraction

from whetstone.arithmetic.expression import Value, as_value

UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORD_VALUES = {word: value for value, word in enumerate(UNITS + TEENS)} | {
    word: 10 * value for value, word in enumerate(TENS, 2)
}
WORD_VALUES["fourty"] = 40  # frequent in worksheets
LARGEST_SPELLED = 999_999

_unit = "|".join(UNITS[1:])
_below_hundred = rf"(?:(?:{'|'.join(TENS)}|fourty)(?:(?:-|\s)(?:{_unit})\b)?|{'|'.join(TEENS)}|{_unit}|zero)"
_hundreds = rf"(?:(?:{_below_hundred}|an?)\s+hundred(?:(?:\s+and)?\s+{_below_hundred})?)"
_below_thousand = rf"(?:{_hundreds}|{_below_hundred})"
_thousands = rf"(?:(?:{_below_thousand}|an?)\s+thousand(?:,?(?:\s+and)?\s+{_below_thousand})?)"
NUMBER = re.compile(
    r"(?=[\daefnostz])(?:"  # the letters that a number can begin with: rules out most places of a text fast
    rf"(?P<digits>\d{{1,3}}(?:,\d{{3}})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?)"
    rf"|\b(?P<words>{_thousands}|{_hundreds}|{_below_hundred})\b)",
    re.IGNORECASE,
)
BEFORE_OTHER = re.compile(r"(?:[A-Za-z_.^\\]|\d[:/,.])$")  # "x2", "7:30", "1/2", "2^3"
AFTER_OTHER = re.compile(
    r"^(?:[A-Za-z_^]|[:/,.]\d|[- ]digit|\s+(?:and\s+)?\d+/\d|\s*(?:million|billion|dozen|hundred|thousand)\b)"
)
AFTER_OTHER_WORDS = re.compile(r"^(?:-[a-z]*(?:th|digit|some)\b|\s+(?:million|billion|dozen|digit))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mention:
    """A number in a text: `text[start:end]` reads as `value`.

    `free` is false if it is part of something else (an ordinal, a clock time, a fraction, "3x").
    """

    start: int
    end: int
    value: Value
    spelled: bool
    places: int  # digits after the point, as written
    free: bool


def mentions(text: str) -> list[Mention]:
    """All numbers of a text from left to right.

    >>> [(m.value, m.free) for m in mentions("Forty-five of 1,200 on the 3rd day")]
    [(45, True), (1200, True), (3, False)]
    """
    all_mentions = []
    for match in NUMBER.finditer(text):
        written = match["digits"]
        value = as_value(Fraction(written.replace(",", ""))) if written else read_words(match["words"])
        around = text[max(0, match.start() - 2) : match.start()], text[match.end() : match.end() + 16]
        if written:
            free = not (BEFORE_OTHER.search(around[0]) or AFTER_OTHER.search(around[1]))
        else:
            free = not AFTER_OTHER_WORDS.search(around[1])
        places = len(written.partition(".")[2]) if written else 0
        all_mentions.append(Mention(match.start(), match.end(), value, not written, places, free))
    return all_mentions


def read_words(words: str) -> int:
    """The value of a spelled number. Raises KeyError for a word that is not part of a number.

    >>> read_words("two thousand, three hundred and five")
    2305
    """
    total = part = 0
    for word in re.split(r"[\s,-]+", words.lower()):
        if word == "and":
            continue
        if word == "hundred":
            part *= 100
        elif word == "thousand":
            total, part = total + part * 1000, 0
        else:
            part += 1 if word in ("a", "an") else WORD_VALUES[word]
    return total + part


def spell(number: int) -> str:
    """A whole number from 0 to 999,999 in words.

    >>> spell(345)
    'three hundred forty-five'
    """
    assert 0 <= number <= LARGEST_SPELLED, f"{number} is outside 0 … {LARGEST_SPELLED}"
    if number < 20:
        return (UNITS + TEENS)[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f"-{UNITS[number % 10]}" if number % 10 else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    rest = f" {spell(number % size)}" if number % size else ""
    return f"{spell(number // size)} {name}{rest}"


def mask_numbers(text: str) -> str:
    """The template of a text: every number, written or spelled, becomes `#`.

    >>> mask_numbers("Tom has 12 pens and two caps") == mask_numbers("Tom has 7 pens and ninety caps")
    True
    """
    return NUMBER.sub("#", text)
