"""Compiled passes over texts against the same in Python's own numbers, sets and regular expressions."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from whetstone.corpus.duplicates import OTHER_SPACE, mark_duplicates
from whetstone.corpus.limo import HALF_DENSITY, HALF_LENGTH, quality
from whetstone.corpus.shingles import SKETCH, codes, count_distinct, likeness, runs, sketch, word_codes
from whetstone.records import Trace

WHOLE = 1 << 64
FACTOR = 0x9E3779B97F4A7C15
_PIECES = (
    "wait Wait wait! slet me let me let  me let\nme Let me. let men which means it follows it\tfollows so Then, check checked "
    "alternatively alternativelyx verification maybe_ _maybe try9 é İ ſo \u212a 中文 \U0001d7d8 \ud800 \x1c \xa0 \u3000"
)
PIECES = _PIECES.split(" ")


def mixed(number: int) -> int:
    number = number * 0xBF58476D1CE4E5B9 % WHOLE
    number ^= number >> 31
    number = number * 0x94D049BB133111EB % WHOLE
    return number ^ number >> 29


def texts(count: int):
    rng = random.Random(0)
    for _ in range(count):
        pieces = rng.choices(PIECES, k=rng.randrange(30))
        text = "".join(piece + rng.choice((" ", "  ", "\n", "", ",")) for piece in pieces)
        yield text if rng.random() < 0.5 else text.encode("ascii", "ignore").decode()


def test_the_code_of_a_word_is_the_sum_over_its_letters_wherever_it_stands():
    def code(word: str) -> int:
        letters = enumerate(word.encode("utf-8", "surrogatepass"))
        return sum(mixed(letter + 1) * pow(FACTOR, place % 64 + 1, WHOLE) for place, letter in letters) % WHOLE

    for text in [*texts(100), "x" * 130]:
        words = [word for word in re.split("[ \t\n\r\v\f\x1c-\x1f]+", text) if word]
        assert word_codes(text).tolist() == [code(word) for word in words]


@pytest.mark.parametrize("size", [1, 5, 8, 16, 70])
def test_the_hash_of_a_run_is_its_polynomial(size):
    numbers = np.random.default_rng(0).integers(0, 2**64, 100, np.uint64)
    spread = [mixed(number) for number in numbers.tolist()]
    wanted = [
        sum(spread[i + j] * pow(FACTOR, j + 1, WHOLE) for j in range(size)) % WHOLE for i in range(100 - size + 1)
    ]
    assert runs(numbers, size).tolist() == wanted
    assert len(runs(numbers, 101)) == len(runs(numbers[:0], 0)) == 0


def test_distinct_hashes_are_counted_as_a_set_counts_them():
    rng = random.Random(0)
    for length in (0, 1, 2, 63, 64, 65, 3000):
        hashes = [rng.choice((0, 1, 1 << 40, rng.randrange(WHOLE))) for _ in range(length)]
        assert count_distinct(np.array(hashes, np.uint64)) == len(set(hashes))


@pytest.mark.parametrize("different", [1, 40, 300, 3000])
def test_a_sketch_holds_the_smallest_hashes_also_of_a_text_that_repeats_itself(different):
    rng = random.Random(different)
    words = [f"w{rng.randrange(different)}" for _ in range(4000)]
    found = sketch(codes(words), 1)
    every = sorted({mixed(number) for number in runs(codes(words), 1).tolist()})
    assert found.tolist() == every[:SKETCH]
    other = sketch(codes(words[:500]), 1)
    union = sorted({*found.tolist(), *other.tolist()})[:SKETCH]
    assert likeness(found, other) == len([h for h in union if h in found and h in other]) / len(union)


def test_quality_counts_words_and_phrases_as_regular_expressions_do():
    groups = (
        ("check checks checked checking verify verifies verified verification confirm confirms confirmed", ()),
        ("perhaps might maybe wait alternatively suppose possibly consider try", ("let me",)),
        ("therefore since because thus hence so then", ("which means", "it follows")),
    )

    def expected(text: str) -> float:
        text = text.lower()
        words, counts = len(text.split()), Counter(re.findall(r"\w+", text))
        if not words:
            return 0.0
        score = 0.30 * (words / (words + HALF_LENGTH))
        for weight, (singles, phrases) in zip((0.20, 0.25, 0.25), groups, strict=True):
            found = sum(counts[word] for word in singles.split())
            found += sum(len(re.findall(rf"(?<!\w){phrase}\b", text)) for phrase in phrases)
            score += weight * (found / words / (found / words + HALF_DENSITY))
        return score

    for text in texts(1500):
        assert quality(text) == expected(text), ascii(text)


def test_white_space_of_any_script_makes_no_difference_to_duplicates_and_a_missing_blank_does():
    plain = "one two  three"
    said = [plain, *(plain.replace(" ", space) for space in OTHER_SPACE + "\n\x1f"), "onetwo three", "one twothree"]
    marked = mark_duplicates([Trace("p", i, text) for i, text in enumerate(said)])
    assert [first for _, first, _ in marked] == [None, *[0] * (len(said) - 3), None, None]
    assert set(OTHER_SPACE) == {c for c in map(chr, range(0x80, 0x110000)) if c.isspace()}
