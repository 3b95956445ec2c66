"""Words that put a number into a formula without writing it: "half" is 2, "week" is 7."""

import re

from whetstone.arithmetic.expression import Value

_WORDS = {  # regular expressions of words, and the numbers
    r"half|halves|twice|double[sd]?|doubling|pairs?|couple|both|other|two-\w+|bi(?:cycle|ke)s?|squared?": (2,),
    r"triple[sd]?|thrice|thirds?|triangles?|tricycles?|feet|foot|yards?": (3, 12, 36),
    r"quarters?|fourths?|quadruple[sd]?|squares?|rectangles?|rectangular|perimeter|dogs?|cats?|legs?": (2, 4, 25),
    r"fifths?|nickels?|hands?|fingers?": (5, 10),
    r"sixths?|sevenths?|eighths?|ninths?|cubes?|tenths?|dimes?": (6, 7, 8, 9, 10),
    r"dozens?|weeks?|weekly|weekends?|daily|days?|years?|months?|annual|inch(?:es)?": (7, 12, 24, 30, 52, 365),
    r"hours?|minutes?|seconds?": (24, 60, 3600),
    r"cents?|penn(?:y|ies)|dollars?|percent|meters?|metres?|cm|km|kg|grams?|mL|liters?|litres?": (10, 100, 1000),
}
# What explains a number of a solution, too: knowledge of things, and the people whom a text counts one by one
_THINGS = {
    r"week-?days?|work-?days?|work week|school week|monday": (5,),
    r"weeks?|months?|cars?|wheels?|tires?|animals?|cows?|horses?|chairs?|tables?|sides?|seasons?|gallons?|quarts?": (
        4,
    ),
    r"gallons?|pints?|quarts?|cups?|ounces?|pounds?|lbs?": (8, 16),
    r"insects?|faces|dice|die|yards?": (6,),
    r"spiders?|octopus(?:es)?": (8,),
    r"together|total|all|each|everyone|altogether|siblings?|triplets?": (3,),
    r"average|mean": tuple(range(3, 13)),
}


def _compiled(table: dict[str, tuple[int, ...]]) -> dict[re.Pattern[str], frozenset[int]]:
    return {re.compile(rf"\b(?:{words})\b", re.IGNORECASE): frozenset(values) for words, values in table.items()}


IMPLIED, THINGS = _compiled(_WORDS), _compiled(_THINGS)


def implied_by_words(text: str) -> set[Value]:
    """The numbers that words such as "half" and "week" put into a formula.

    >>> sorted(implied_by_words("half of them"))
    [2]
    """
    return _of(IMPLIED, text)


def explained_by_words(text: str) -> set[Value]:
    """These, and the numbers that knowledge of things explains: a car has 4 wheels.

    >>> sorted(explained_by_words("one half of the spiders"))
    [2, 8]
    """
    return _of(IMPLIED, text) | _of(THINGS, text)


def _of(table: dict[re.Pattern[str], frozenset[int]], text: str) -> set[Value]:
    return {value for words, values in table.items() if words.search(text) for value in values}
