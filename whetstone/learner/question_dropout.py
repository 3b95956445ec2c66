"""Few real questions made to last longer: each conversation asks its question with something missing.

The answer then has to come from all of the rest, as with word dropout (Iyyer et al. 2015), and not from the one word by which
the question can be told from all others. So rare words are left out more often than common ones, and whole sentences that
tell no number. Numbers always stay, in digits or spelled, and so does an unknown x: without one of them the answer would be
a guess.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from whetstone.arithmetic.number_words import mentions

WORD = re.compile(r"\S+")
SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class QuestionDropout:
    """What is left out: shares of the words, of the rare ones among them, and of the sentences without a number."""

    words: float = 0.0
    rare_words: float = 0.0  # 0: as many as of the others
    sentences: float = 0.0
    common: frozenset[str] = frozenset()

    @property
    def on(self) -> bool:
        return bool(self.words or self.rare_words or self.sentences)

    def __call__(self, question: str, rng: random.Random) -> str:
        """The question with something missing; as it is when nothing would be left."""
        if self.sentences:
            *before, last = SENTENCE.split(question)
            question = " ".join([s for s in before if told(s) or rng.random() >= self.sentences] + [last])
        kept = told(question)
        words = [
            found[0]
            for found in WORD.finditer(question)
            if any(found.start() < end and start < found.end() for start, end in kept)
            or rng.random() >= self.share(found[0])
        ]
        return " ".join(words) or question

    def share(self, word: str) -> float:
        return self.rare_words if self.rare_words and plain(word) not in self.common else self.words


def told(text: str) -> list[tuple[int, int]]:
    """Where the numbers of a text stand, and an unknown x."""
    digits = [found.span() for found in re.finditer(r"\d+|\bx\b", text)]
    return digits + [(mention.start, mention.end) for mention in mentions(text)]


def plain(word: str) -> str:
    return re.sub(r"\W+", "", word.lower())


def common_words(questions: Iterable[str], rare: float) -> frozenset[str]:
    """The words found in at least the share `rare` of the questions, without capitals and punctuation."""
    found: Counter[str] = Counter()
    total = 0
    for question in questions:
        found.update({plain(word) for word in WORD.findall(question)})
        total += 1
    return frozenset(word for word, count in found.items() if count >= rare * total)
