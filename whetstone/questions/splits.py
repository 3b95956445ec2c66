"""Which split a question belongs to: by the hash of its normalised text, so that copies of a text stay together."""

import hashlib
import re
import unicodedata

from whetstone.arithmetic.number_words import mask_numbers

SPLITS = ("test", "validation", "train")  # in order of priority: a question that is in two is kept in the first


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
