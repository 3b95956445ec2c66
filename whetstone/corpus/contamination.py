"""Training questions that repeat test questions.

Questions are compared as tokens (`spelling.py`). A training question matches a test question by the first rule that fits:

equal          the same tokens in the same order
n-gram         a shared run of 13 tokens (a test question of 8 to 12 tokens is one run) *and* all numbers of the test
               question: a test question inside a longer text
other order    the same numbers and nearly the same words in any order, in questions of at least 12 tokens: the Jaccard index
               of the token multisets is at least `near`. If both carry a formula, it is the same: in "has 9, finds 4,
               loses 2" the order of the words is the problem
other numbers  the same text except for its numbers, written or spelled; or a test question of at least 8 tokens, with other
               numbers, inside a longer text
look-alike     a shared run of 13 tokens or, with `look_alikes`, at least that Jaccard index without the numbers

The last two are not contamination and are only counted: word problems made from one template share long runs and differ in
their numbers. With `look_alikes` the corpus drops them too: if training and test problems come from one source, a model can
know a template without solving it.

The index holds sorted 64-bit hashes of the test questions' runs. "Other order" is an exact set-similarity join by prefix
filtering (Bayardo, Ma and Srikant, WWW 2007): two similar sets share one of their rarest elements.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from pydantic import Field

from whetstone.arithmetic.number_words import TEENS, TENS, UNITS
from whetstone.corpus.files import EvaluationSet
from whetstone.corpus.shingles import distinct, runs
from whetstone.corpus.spelling import tokens
from whetstone.records import Problem
from whetstone.run.settings import Settings

CONTAMINATED = ("equal", "n-gram", "other order")
RULES = (*CONTAMINATED, "other numbers", "look-alike")  # strongest first
RUN = 13  # tokens in a row that a training question may not share with a test question
SHORTEST_RUN = 8  # tokens: shorter test questions are not searched for inside others
SHORTEST_NEAR = 12  # tokens: in shorter questions the order of the words distinguishes problems
NUMBER = "#"  # stands for any number in a template
SPELLED = frozenset({*UNITS[1:], *TEENS, *TENS, "hundred", "thousand", "half", "twice"})


class ContaminationSettings(Settings):
    """Which training questions are dropped because they repeat test questions."""

    near: float = Field(0.9, gt=0.5, le=1, description="Jaccard index of the tokens in any order")
    look_alikes: float = Field(0, ge=0, le=1, description="the same without numbers; 0: look-alikes are only counted")
    against: tuple[EvaluationSet, ...] = Field((), description="evaluation sets besides the recipe's test problems")

    MOVED: ClassVar[Mapping[str, str]] = {"ngram": f"fixed: {RUN} tokens in a row"}


@dataclass(frozen=True)
class Match:
    test_id: str
    benchmark: str
    rule: str  # one of RULES
    test_question: str = field(repr=False, default="")

    @property
    def contaminated(self) -> bool:
        return self.rule in CONTAMINATED


class TestQuestions:
    """An index of test questions. Evaluation sets of the settings are not read here: pass their questions."""

    __test__ = False  # pytest would take it for a test class by its name

    def __init__(self, problems: Iterable[Problem], settings: ContaminationSettings | None = None):
        settings = settings or ContaminationSettings()
        self._problems: list[Problem] = []
        self._numbers: list[Counter[str]] = []
        self._equal: dict[tuple[str, ...], int] = {}
        self._templates: dict[tuple[str, ...], int] = {}
        self._codes: dict[str, int] = {}  # of the tokens that occur in test questions
        questions, templates = [], []
        for place, problem in enumerate(problems):
            words = tokens(problem.question)
            questions.append(words)
            templates.append(_template(words))
            self._problems.append(problem)
            self._numbers.append(_numbers(words))
            self._equal.setdefault(tuple(words), place)
            self._templates.setdefault(tuple(templates[-1]), place)
            for word in words:
                self._codes.setdefault(word, len(self._codes) + 1)
        self._codes.setdefault(NUMBER, len(self._codes) + 1)
        self._runs = _Runs([self._coded(words) for words in questions])
        self._masked = [_joined(template) for template in templates]
        self._masked_runs = _Runs([self._coded(template) for template in templates])
        self._bags = _Bags(questions, settings.near)
        self._alike = _Bags(templates, settings.look_alikes) if settings.look_alikes else None

    def match(self, question: str, formula: str = "") -> Match | None:
        """The strongest match, or None."""
        words = tokens(question)
        if (place := self._equal.get(tuple(words))) is not None:
            return self._match(place, "equal")
        codes = self._coded(words)
        sharing = self._runs.sharing(codes)
        numbers = _numbers(words)
        for place in sharing:
            if self._numbers[place] <= numbers:
                return self._match(place, "n-gram")
        for place in self._bags.similar(words, unknown=int(np.count_nonzero(codes == 0))):
            other = self._problems[place].formula
            if self._numbers[place] == numbers and not (formula and other and formula != other):
                return self._match(place, "other order")
        template = _template(words)
        if words and (place := self._with_other_numbers(template)) is not None:
            return self._match(place, "other numbers")
        if not sharing and self._alike:
            sharing = self._alike.similar(template, unknown=0)
        return self._match(sharing[0], "look-alike") if sharing else None

    def _with_other_numbers(self, template: Sequence[str]) -> int | None:
        """The test question that has this template, or whose template is inside it."""
        place = self._templates.get(tuple(template))
        if place is not None:
            return place
        masked = _joined(template)
        return next((p for p in self._masked_runs.sharing(self._coded(template)) if self._masked[p] in masked), None)

    def _match(self, place: int, rule: str) -> Match:
        problem = self._problems[place]
        return Match(problem.id, problem.benchmark, rule, problem.question)

    def _coded(self, words: Sequence[str]) -> np.ndarray:
        """(T,) codes; 0 for a token of no test question, so that no run across it can be shared."""
        return np.fromiter((self._codes.get(word, 0) for word in words), np.uint64, len(words))


class _Runs:
    """Which test questions share runs of RUN tokens with a question; a shorter test question is one run."""

    def __init__(self, questions: Sequence[np.ndarray]):
        parts, owners = [], []
        for place, codes in enumerate(questions):
            size = min(RUN, len(codes))
            hashes = _run_hashes(codes, {size}) if size >= SHORTEST_RUN else np.empty(0, np.uint64)
            parts.append(hashes)
            owners.append(np.full(len(hashes), place))
        hashes = np.concatenate(parts) if parts else np.empty(0, np.uint64)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._owners = hashes[order], np.concatenate(owners)[order] if parts else hashes
        self._sizes = {min(RUN, len(codes)) for codes in questions} - set(range(SHORTEST_RUN))

    def sharing(self, codes: np.ndarray) -> list[int]:
        """Places of the test questions that share a run with a question of these (T,) codes."""
        own = _run_hashes(codes, self._sizes)
        first = np.searchsorted(self._hashes, own)
        last = np.searchsorted(self._hashes, own, side="right")
        shared = first < last
        spans = zip(first[shared].tolist(), last[shared].tolist(), strict=True)
        return sorted({place for low, high in spans for place in self._owners[low:high].tolist()})


def _run_hashes(codes: np.ndarray, sizes: set[int]) -> np.ndarray:
    """The distinct hashes of all runs of these sizes in (T,) codes."""
    return distinct(np.concatenate([np.empty(0, np.uint64), *(runs(codes, size) for size in sizes)]))


Element = tuple[str, int]  # a token and how often it came before: a multiset as a set


class _Bags:
    """Which test questions have nearly the same tokens, in any order."""

    def __init__(self, questions: Sequence[Sequence[str]], near: float):
        self.near = near
        self._bags = [_elements(words) if len(words) >= SHORTEST_NEAR else frozenset() for words in questions]
        frequency = Counter(element for bag in self._bags for element in bag)
        ranked = sorted(frequency, key=lambda element: (frequency[element], element))
        self._rank = {element: rank for rank, element in enumerate(ranked)}  # rarest first
        self._postings: dict[Element, list[int]] = defaultdict(list)
        for place, bag in enumerate(self._bags):
            for element in sorted(bag, key=self._rank.__getitem__)[: self._prefix(len(bag))]:
                self._postings[element].append(place)

    def _prefix(self, size: int) -> int:
        """How many of the rarest of `size` elements must be compared so that no similar set is missed."""
        return size - math.ceil(self.near * size) + 1 if size else 0

    def similar(self, words: Sequence[str], unknown: int) -> list[int]:
        """Places of similar test questions. `unknown` words are in none of them; if they are too many, none is similar."""
        if len(words) < SHORTEST_NEAR or self._prefix(len(words)) <= unknown:
            return []
        bag = _elements(words)
        known = sorted((element for element in bag if element in self._rank), key=self._rank.__getitem__)
        compared = self._prefix(len(bag)) - (len(bag) - len(known))  # unknown elements are the rarest of all
        candidates = {place for element in known[: max(0, compared)] for place in self._postings.get(element, ())}
        return [place for place in sorted(candidates) if _jaccard(bag, self._bags[place]) >= self.near]


def _elements(words: Sequence[str]) -> frozenset[Element]:
    return frozenset((word, earlier) for word, times in Counter(words).items() for earlier in range(times))


def _jaccard(one: frozenset[Element], other: frozenset[Element]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _joined(words: Iterable[str]) -> str:
    return f" {' '.join(words)} "


def _numbers(words: Iterable[str]) -> Counter[str]:
    return Counter(word for word in words if word[0].isdigit())


def _template(words: Iterable[str]) -> list[str]:
    """The tokens with `#` for each number, written or spelled; a number of several words is one."""
    masked: list[str] = []
    for word in words:
        if word[0].isdigit() or word in SPELLED:
            if not masked or masked[-1] != NUMBER:
                masked.append(NUMBER)
        elif not (word == "-" and masked and masked[-1] == NUMBER):  # "forty-five"
            masked.append(word)
    return masked
