r"""Dates, times of the day, and amounts with several units: `October 30`, `4:51:06 p.m.`, `2 hours 30 minutes`.

As formulas they would be products of letters, in which order does not matter, or differences: but 2 hours 30 minutes is not
30 hours 2 minutes, and 2020-03-05 is not 2012. Only texts that are nothing but a date, a time or an amount are read here.

An answer to a time with a.m. or p.m. must have the same, or use a 24-hour clock; an answer to a bare `3:30` may add one.
Dates are compared by their parts. 3/5/2020 equals only itself, because the month may be either number.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import date
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

LONGEST = 80  # characters
TEXT_ANYWHERE = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it)|mbox|hbox|rm|operatorname)\s*\{([^{}]*)\}")

MONTHS_TEXT = "january february march april may june july august september october november december"
MONTHS = MONTHS_TEXT.split()
WEEKDAYS_TEXT = "monday tuesday wednesday thursday friday saturday sunday"
WEEKDAYS = WEEKDAYS_TEXT.split()
MONTH = r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|" + (
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
WEEKDAY = r"(?P<weekday>mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:rs(?:day)?)?|fri(?:day)?|sat(?:urday)?|" + (
    r"sun(?:day)?)\b\.?"
)
DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
YEAR = r"(?P<year>\d{4})"
DATES = [
    re.compile(pattern)
    for pattern in (
        rf"{MONTH}\s*{DAY}(?:\s*,?\s*{YEAR})?",
        rf"(?:the\s+)?{DAY}\s*(?:of\s+)?{MONTH}(?:\s*,?\s*{YEAR})?",
        rf"{MONTH}\s*,?\s*{YEAR}",
        rf"{YEAR}-(?P<number>\d\d)-{DAY}",
        rf"{YEAR}/(?P<number>\d\d)/{DAY}",
        r"(?P<first>\d{1,2})/(?P<second>\d{1,2})/(?P<year>\d{4})",
    )
]
ISO = re.compile(r"\d{4}-\d\d-\d\d")  # a time beside it is on a 24-hour clock
CLOCK = re.compile(
    r"(\d{1,2})(?::(\d\d))?(?::(\d\d))?\s*(?:o'?\s*clock)?\s*(?:in the )?([ap]m|morning|evening|noon|midnight)?"
)
HALVES = {"am": 0, "morning": 0, "midnight": 0, "pm": 12, "evening": 12, "noon": 12}
AMOUNT = re.compile(r"(\d+(?:\.\d+)?(?:/[1-9]\d*)?)\s*([a-z]+)\.?")
BETWEEN = re.compile(r"\s*(?:,|;|and|,\s*and)?\s*")
BARE = re.compile(r"\d{1,2}:\d\d")
PADDED = re.compile(r"\d{1,2}:0\d")  # no term of a ratio begins with 0
TWO_NUMBERS = re.compile(r"\d{1,2}:\d{1,2}")
HOURS = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")

SECOND, METRE, GRAM = Fraction(1), Fraction(1), Fraction(1)
POUND = Fraction("453.59237")
SIZES: dict[tuple[str, Fraction], str] = {
    ("time", SECOND): "second seconds sec secs s",
    ("time", 60 * SECOND): "minute minutes min mins",
    ("time", 3600 * SECOND): "hour hours hr hrs h",
    ("time", 86400 * SECOND): "day days d",
    ("time", 604800 * SECOND): "week weeks wk wks",
    ("calendar", Fraction(1)): "month months",
    ("calendar", Fraction(12)): "year years yr yrs",
    ("length", METRE / 1000): "millimeter millimeters millimetre millimetres mm",
    ("length", METRE / 100): "centimeter centimeters centimetre centimetres cm",
    ("length", METRE): "meter meters metre metres m",
    ("length", 1000 * METRE): "kilometer kilometers kilometre kilometres km",
    ("length", METRE * Fraction("0.0254")): "inch inches in",
    ("length", METRE * Fraction("0.3048")): "foot feet ft",
    ("length", METRE * Fraction("0.9144")): "yard yards yd yds",
    ("length", METRE * Fraction("1609.344")): "mile miles mi",
    ("mass", GRAM): "gram grams g",
    ("mass", 1000 * GRAM): "kilogram kilograms kg",
    ("mass", POUND / 16): "ounce ounces oz",
    ("mass", POUND): "pound pounds lb lbs",
    ("volume", Fraction(1)): "milliliter milliliters millilitre millilitres ml",
    ("volume", Fraction(1000)): "liter liters litre litres l",
    ("US volume", Fraction(1)): "cup cups",
    ("US volume", Fraction(2)): "pint pints",
    ("US volume", Fraction(4)): "quart quarts",
    ("US volume", Fraction(16)): "gallon gallons",
    ("money", Fraction(1)): "cent cents",
    ("money", Fraction(100)): "dollar dollars",
}
UNITS = {name: kind for kind, names in SIZES.items() for name in names.split()}
NOT_UNITS_TEXT = """
and or not is to of by the mod plus minus times over if for with base hundred thousand million billion trillion dozen
half halves third thirds quarter quarters percent sin cos tan cot sec csc log ln exp pi sqrt
"""
NOT_UNITS = frozenset(NOT_UNITS_TEXT.split())  # words between numbers that are neither units nor things counted
HINT = re.compile(
    r"\d\s*:\s*\d\d|\d\s*(?:[ap]\s*\.?\s*m\b|o'?clock)|noon|midnight|\d{4}[-/]\d\d[-/]\d|\d/\d{1,2}/\d{4}|"
    r"\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?,?\s*\d|\d(?:st|nd|rd|th)?\s*(?:of\s+)?"
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)|\d\s*[a-z]+\.?[\s,;]*(?:and\s*)?\d[\d.,/:]*\s*(?:[a-z]|$)"
)


class Moment(NamedTuple):
    """A date, a time of the day, or both. Parts that the text does not give are None."""

    year: int | None = None
    month: int | None = None
    day: int | None = None
    ambiguous: tuple[int, int] | None = None  # the first two numbers of 3/5/2020
    weekday: int | None = None
    seconds: int | None = None  # since midnight; without a.m. or p.m. as on a clock of 12 hours
    half: bool = False  # whether it is known which half of the day that is

    @property
    def bare(self) -> bool:
        """Nothing but digits and colons, so it may be a ratio."""
        return self == Moment(seconds=self.seconds)


class Amounts(NamedTuple):
    """Several numbers with units."""

    dimension: str  # what all of them measure; "" if they measure, or count, different things
    values: Mapping[str, Fraction]  # by unit; the sum under "" if all measure one thing
    several: bool


def same(gold: str, answer: str) -> bool | None:
    """Whether both are the same date, time or amount; None if the reference is none of these, or if this cannot tell.

    >>> same("3:30 PM", "15:30"), same("2 hours 30 minutes", "30 hours 2 minutes"), same("3:2", "3:2")
    (True, False, None)
    """
    clocks = [text.strip(" $").lstrip("0") for text in (gold, answer)]
    if any(map(PADDED.fullmatch, clocks)) and all(map(TWO_NUMBERS.fullmatch, clocks)):
        return clocks[0] == clocks[1]
    wanted = read(gold)
    if wanted is None:
        return None
    if BARE.fullmatch(_plain(gold)) and BARE.fullmatch(_plain(answer)):
        return None  # as well two ratios
    given = read(answer)
    if isinstance(wanted, Moment):
        return _same_clock(wanted, given) if wanted.bare else wanted == given
    if not isinstance(given, Amounts):
        return False if wanted.several and wanted.dimension else None
    if not (wanted.several or given.several):
        return None  # a single number with a unit, which others compare
    return wanted.dimension == given.dimension and wanted.values == given.values


def read(text: str) -> Moment | Amounts | None:
    """The text as a date, a time or an amount with units; None if it is anything else."""
    return None if len(text) > 2 * LONGEST else _read(text)


@lru_cache(maxsize=4096)
def _read(text: str) -> Moment | Amounts | None:
    plain = _plain(text)
    if len(plain) > LONGEST or not (HINT.search(plain) or AMOUNT.fullmatch(plain)):
        return None
    return _moment(plain) or _amounts(plain)


def _plain(text: str) -> str:
    r"""The text without LaTeX: `4\!:\!30 \text{ p.m.}` -> `4:30 pm`."""
    text = TEXT_ANYWHERE.sub(r" \1 ", text)
    text = re.sub(r"\\[!,;: ]|\$|~|\\q?quad", lambda match: "" if match[0] == "\\!" else " ", text)
    text = text.replace("’", "'").replace("{:}", ":").casefold()
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text) if "/" not in text and ":" not in text else text
    text = re.sub(r"\b([ap])\s?\.?\s?m\b\.?", r"\1m", text)
    text = re.sub(r"(?<=\d)([ap])\.?\s?m\b\.?", r" \1m", text)
    text = re.sub(r"\s*:\s*", ":", text)
    return " ".join(text.split()).strip(" .,")


# --- dates and times


def _moment(text: str) -> Moment | None:
    """A date, a time, or both in either order, with the name of a weekday before or between them."""
    for first, second in _halves(text):
        day, clock = _date(first), _clock(second)
        if day is not None and clock is not None:
            seconds, half = clock
            return day._replace(seconds=seconds, half=half or ISO.fullmatch(first) is not None)
    alone = _clock(text)
    if alone is not None:
        return Moment(seconds=alone[0], half=alone[1])
    day = _date(text)
    return day if day is not None and day != Moment(weekday=day.weekday) else None


def _halves(text: str) -> Iterator[tuple[str, str]]:
    """(date, time) for each way to cut the text in two."""
    for cut in re.finditer(r"\s*,\s*(?:at |on )?|\s+(?:at |on )?|(?<=\d)t(?=\d)", text):
        before, after = text[: cut.start()], text[cut.end() :]
        yield before, after
        yield after, before


def _date(text: str) -> Moment | None:
    weekday = re.match(rf"(?:on )?{WEEKDAY}(?:\s*,\s*|\s+|$)", text)
    named = next(i for i, d in enumerate(WEEKDAYS) if d.startswith(weekday["weekday"][:3])) if weekday else None
    rest = text[weekday.end() :] if weekday else text
    if not rest:
        return Moment(weekday=named)
    for pattern in DATES:
        if match := pattern.fullmatch(rest):
            return _checked(match.groupdict(), named)
    return None


def _checked(parts: dict[str, str | None], weekday: int | None) -> Moment | None:
    """The date with these parts; None if there is no such day."""
    year = int(parts["year"]) if parts.get("year") else None
    if "first" in parts:
        pair = int(parts["first"]), int(parts["second"])
        if min(pair) > 12 or max(pair) > 31 or 0 in pair:
            return None
        if max(pair) <= 12 and pair[0] != pair[1]:
            return Moment(year, ambiguous=pair, weekday=weekday)
        month, day = min(pair), max(pair)
    else:
        month = int(parts["number"]) if "number" in parts else _month(parts["month"])
        day = int(parts["day"]) if parts.get("day") else None
    try:
        known = date(year or 2000, month, day or 1)  # 2000: February has 29 days
    except ValueError:
        return None
    if year and day:
        if weekday not in (None, known.weekday()):
            return None
        weekday = None  # it follows from the date
    return Moment(year, month, day, weekday=weekday)


def _month(name: str) -> int:
    return 1 + next(i for i, month in enumerate(MONTHS) if month.startswith(name[:3]))


def _clock(text: str) -> tuple[int, bool] | None:
    """(seconds since midnight, whether the half of the day is known)."""
    if text in ("noon", "midnight"):
        return HALVES[text] * 3600, True
    match = CLOCK.fullmatch(re.sub(r"^at ", "", text))
    if match is None or (match[2] is None and match[4] is None):
        return None
    hour, minute, second = (int(number or 0) for number in match.groups()[:3])
    half = match[4]
    if minute > 59 or second > 59 or hour > 24:
        return None
    if half in ("noon", "midnight") and (hour, minute, second) != (12, 0, 0):
        return None
    if half is None:
        return (hour % 24 * 60 + minute) * 60 + second, hour > 12 or hour == 0
    if not 1 <= hour <= 12:
        return None
    return ((hour % 12 + HALVES[half]) * 60 + minute) * 60 + second, True


def _same_clock(gold: Moment, given: Moment | Amounts | None) -> bool | None:
    """Compares an answer with a bare reference: 3:30 p.m. is a right answer to 3:30. None if both may be ratios."""
    if not isinstance(given, Moment) or given.bare or given.seconds is None:
        return None
    return gold.seconds % 43200 == given.seconds % 43200 and (not gold.half or gold.seconds == given.seconds)


# --- amounts


def _amounts(text: str) -> Amounts | None:
    """`2 hours 30 minutes`, `5 ft 6 in`, `17 days, 03:43`, `2 pens and 3 pencils`."""
    parts: list[tuple[Fraction, str]] = []
    at = 0
    while at < len(text):
        if parts and parts[-1][1] in ("day", "days") and (hours := HOURS.fullmatch(text, at)):
            sizes = ("hours", "minutes", "seconds")
            parts += [(Fraction(n), name) for n, name in zip(hours.groups(), sizes, strict=True) if n is not None]
            break
        amount = AMOUNT.match(text, at)
        if amount is None or amount[2] in NOT_UNITS or (amount[2] not in UNITS and len(amount[2]) < 3):
            return None
        parts.append((Fraction(amount[1]), amount[2]))
        at = BETWEEN.match(text, amount.end()).end()
    return _measured(parts) if parts else None


def _measured(parts: list[tuple[Fraction, str]]) -> Amounts | None:
    """None if a unit occurs twice, unless all parts measure one thing."""
    dimensions = {UNITS[name][0] if name in UNITS else "" for _, name in parts}
    if any(name in ("m", "d") for _, name in parts) and "time" in dimensions:
        parts = [(value, "min" if name == "m" else name) for value, name in parts]  # 2 h 30 m
        dimensions = {UNITS[name][0] if name in UNITS else "" for _, name in parts}
    if len(dimensions) == 1 and "" not in dimensions:
        total = sum((value * UNITS[name][1] for value, name in parts), Fraction(0))
        return Amounts(dimensions.pop(), {"": total}, len(parts) > 1)
    values: dict[str, Fraction] = {}
    for value, name in parts:
        thing = name.removesuffix("s")
        if thing in values:
            return None
        values[thing] = value
    return Amounts("", values, len(parts) > 1)
