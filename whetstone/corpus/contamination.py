"""Training questions that are test questions in other clothes.

Questions are compared as tokens (words, numbers, signs) after LaTeX mark-up, case and spacing are taken away. A
training question is contaminated when

- it equals a test question, or
- it shares a run of n tokens with one (n from 8 to 13; a shorter test question of at least 8 tokens is compared whole)
  *and* holds every number of that test question.

The second condition is ours. Word problems made from one template share long runs, and only their numbers make them
different problems; a pure n-gram rule would throw whole families away. Such look-alikes are counted, not dropped.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from whetstone.records import Problem

SHORTEST = 8  # tokens: shorter test questions are only compared for equality

_MARKUP = re.compile(
    r"\\(?:left|right|displaystyle|mathrm|mathbf|text|textbf|operatorname)(?![a-zA-Z])|\\[,;:!> ]|[${}~]"
)
_TOKEN = re.compile(r"\\?[^\W\d_]+|\d+(?:\.\d+)?|[^\w\s]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SPELLINGS = {
    "\\dfrac": "\\frac",
    "\\tfrac": "\\frac",
    "\\times": "*",
    "\\cdot": "*",
    "×": "*",
    "·": "*",
    "−": "-",
    "÷": "/",
}
_PUNCTUATION = frozenset(".,;:?!'\"`")


def tokens(question: str) -> list[str]:
    r"""The comparable tokens of a question.

    >>> tokens(r"What is $\dfrac{1}{2}$ of 1,200?")
    ['what', 'is', '\\frac', '1', '2', 'of', '1200']
    """
    text = _THOUSANDS.sub("", unicodedata.normalize("NFKC", question).lower())
    found = _TOKEN.findall(_MARKUP.sub(" ", text))
    return [_SPELLINGS.get(token, token) for token in found if token not in _PUNCTUATION]


@dataclass(frozen=True)
class Match:
    test_id: str
    rule: str  # "equal" | "n-gram" | "look-alike" (shared run, other numbers: not contamination)

    @property
    def contaminated(self) -> bool:
        return self.rule != "look-alike"


class TestQuestions:
    """An index of the test questions' token runs; memory is that of the test questions."""

    __test__ = False  # not a test class, whatever its name

    def __init__(self, problems: Iterable[Problem], ngram: int = 13):
        self.ngram = ngram
        self._equal: dict[tuple[str, ...], str] = {}
        self._runs: dict[tuple[str, ...], set[str]] = defaultdict(set)
        self._numbers: dict[str, Counter[str]] = {}
        for problem in problems:
            found = tuple(tokens(problem.question))
            self._equal.setdefault(found, problem.id)
            self._numbers[problem.id] = _numbers(found)
            size = min(ngram, len(found))
            if size >= SHORTEST:
                for start in range(len(found) - size + 1):
                    self._runs[found[start : start + size]].add(problem.id)
        self._sizes = sorted({len(run) for run in self._runs}, reverse=True)

    def match(self, question: str) -> Match | None:
        """The strongest match, or None."""
        found = tuple(tokens(question))
        if found in self._equal:
            return Match(self._equal[found], "equal")
        sharing: set[str] = set()
        for size in self._sizes:
            for start in range(len(found) - size + 1):
                sharing |= self._runs.get(found[start : start + size], set())
        if not sharing:
            return None
        numbers = _numbers(found)
        for test_id in sorted(sharing):
            if self._numbers[test_id] <= numbers:
                return Match(test_id, "n-gram")
        return Match(min(sharing), "look-alike")


def _numbers(found: tuple[str, ...]) -> Counter[str]:
    return Counter(token for token in found if token[0].isdigit())
