"""Word dropout for questions (after Iyyer et al. 2015), so that few real questions can be trained on more often.

Each conversation asks its question with some words missing. The model then has to read the rest of the text, and cannot
recognise the question by a single word. Rare words can be left out more often than common ones, and so can whole sentences
without a number. Numbers always stay, in digits or spelled, and so does an unknown x: the answer depends on them.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from whetstone.arithmetic.number_words import mentions

WORD = re.compile(r"\S+")
RARE = 0.004  # share of the questions; a word that fewer of them have is rare
SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class QuestionDropout:
    """The shares that are left out: of words, of rare words, and of sentences without a number."""

    words: float = 0.0
    rare_words: float = 0.0  # 0: the same share as of other words
    sentences: float = 0.0
    common: frozenset[str] = frozenset()

    def __call__(self, question: str, rng: random.Random) -> str:
        """The question with words missing; unchanged if nothing would be left."""
        if self.sentences:
            *before, last = SENTENCE.split(question)
            question = " ".join([s for s in before if numbers(s) or rng.random() >= self.sentences] + [last])
        kept = numbers(question)
        words = [
            word[0]
            for word in WORD.finditer(question)
            if any(word.start() < end and start < word.end() for start, end in kept)
            or rng.random() >= self.share(word[0])
        ]
        return " ".join(words) or question

    def share(self, word: str) -> float:
        return self.rare_words if self.rare_words and plain(word) not in self.common else self.words


def numbers(text: str) -> list[tuple[int, int]]:
    """The (start, end) of each number in a text, and of each unknown x."""
    digits = [match.span() for match in re.finditer(r"\d+|\bx\b", text)]
    return digits + [(mention.start, mention.end) for mention in mentions(text)]


def plain(word: str) -> str:
    return re.sub(r"\W+", "", word.lower())


def common_words(questions: Iterable[str]) -> frozenset[str]:
    """The words that at least the share RARE of the questions has, without capitals and punctuation."""
    questions_with: Counter[str] = Counter()
    total = 0
    for question in questions:
        questions_with.update({plain(word) for word in WORD.findall(question)})
        total += 1
    return frozenset(word for word, count in questions_with.items() if count >= RARE * total)
