"""Which split a question belongs to: by the hash of its normalised text, so that copies of a text stay together."""

import hashlib
import math
import re
import unicodedata
from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from whetstone.arithmetic.number_words import mask_numbers
from whetstone.run.settings import Settings

SPLITS = ("test", "validation", "train")  # in order of priority: a question that is in two is kept in the first
Split: TypeAlias = Literal["train", "validation", "test"]


class Shares(Settings):
    """How a source is cut into splits: by the hash of the question's normalised text, so that copies stay together."""

    train: float = Field(0.8, ge=0, le=1, description="share of the training problems")
    validation: float = Field(0.1, ge=0, le=1, description="share of the validation problems")
    test: float = Field(0.1, ge=0, le=1, description="share of the test problems")

    @model_validator(mode="after")
    def sum_to_one(self) -> "Shares":
        total = self.train + self.validation + self.test
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(
                f"the shares train {self.train}, validation {self.validation}, test {self.test} sum to {total:g}: "
                "every problem goes into one split. Let them sum to 1."
            )
        return self


def splits_of(split: Split | Shares) -> frozenset[str]:
    if isinstance(split, str):
        return frozenset({split})
    return frozenset(name for name in SPLITS if getattr(split, name) > 0)


def split_by_hash(key: str, shares: Shares) -> str:
    place = hash_fraction(key)
    if place < shares.test:
        return "test"
    return "validation" if place < shares.test + shares.validation or shares.train == 0 else "train"


def hash_fraction(key: str) -> float:
    """A number in [0, 1) that depends on the text alone: never on the seed, the machine or the other rows."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big") / (1 << 56)


SUPERSCRIPTS = re.compile("[⁰¹²³⁴-⁹]+")
LATEX_SPACE = re.compile(r"\\(?:[,;:!> ]|quad\b|qquad\b|left\b|right\b|displaystyle\b)|~|\$\$|\\[()\[\]]")
DELIMITERS = ("$$", r"\(", r"\)", r"\[", r"\]")
AROUND_MARKS = re.compile(r"\s*([^\w\s])\s*")


def normalise(text: str) -> str:
    """The same string for texts that differ only in case, spacing, Unicode form or LaTeX spacing and delimiters.

    >>> normalise("What  is $3\\\\,x^2$ ?") == normalise("what is \\\\(3x²\\\\)?")
    True
    """
    text = SUPERSCRIPTS.sub(lambda match: "^" + match[0], text)  # NFKC alone would make 3² the number 32
    text = LATEX_SPACE.sub(lambda match: "$" if match[0] in DELIMITERS else " ", text)
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(?<=\d)\s+(?=[a-z]\b)", "", text)
    return " ".join(AROUND_MARKS.sub(r"\1", text).split())


def template(text: str) -> str:
    """The normalised text without its numbers: equal for problems that are one problem with other numbers."""
    return normalise(mask_numbers(text))
