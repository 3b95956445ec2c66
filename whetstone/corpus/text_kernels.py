"""Passes over every letter or word of a trace, compiled by numba at their first use.

numpy makes such a pass in a dozen steps that each read and write all of it, and regular expressions take a hundred times as
long for a letter as a compiled loop. All numbers are of 64 bits, without sign and modulo 2^64, so that every machine finds the
same. `shingles.py` and `limo.py` say what the results mean.
"""

import numpy as np

from whetstone.run.compiled import compiled

SLOTS = 256  # of a vocabulary

_FACTOR = 0x9E3779B97F4A7C15  # odd, so that multiplying by it loses nothing modulo 2^64
FACTOR, INVERSE = np.uint64(_FACTOR), np.uint64(pow(_FACTOR, -1, 1 << 64))
_ONE, _SLOT_SHIFT = np.uint64(1), np.uint64(56)
_FIRST, _SECOND, _SHIFT, _LAST_SHIFT = (
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
    np.uint64(31),
    np.uint64(29),
)
_LETTERS, _BEFORE_A = 26, 96


@compiled
def _mixed(number):
    number *= _FIRST
    number ^= number >> _SHIFT
    number *= _SECOND
    return number ^ (number >> _LAST_SHIFT)


@compiled
def word_codes(letters, inside, terms, places, out):
    """Writes the code of each word of bytes to `out`, and returns how many there are.

    `inside` (256,) says which bytes belong to words. A code is the sum of terms[letter] * places[its place in the word % 64].
    """
    words, code, place, open_ = 0, np.uint64(0), 0, False
    for letter in letters:
        if inside[letter]:
            if not open_:
                code, place, open_ = np.uint64(0), 0, True
            code += terms[letter] * places[place & 63]
            place += 1
        elif open_:
            out[words] = code
            words += 1
            open_ = False
    if open_:
        out[words] = code
        words += 1
    return words


@compiled
def runs(numbers, size, out):
    """Writes the polynomial hash of every run of `size` of (T,) numbers to `out` (T - size + 1,), each from the one before."""
    first, last, hash_ = FACTOR, _ONE, np.uint64(0)
    for place in range(size):
        last *= FACTOR
        hash_ += _mixed(numbers[place]) * last
    out[0] = hash_
    for place in range(1, len(out)):
        hash_ = (hash_ - _mixed(numbers[place - 1]) * first) * INVERSE + _mixed(numbers[place + size - 1]) * last
        out[place] = hash_


@compiled
def count_distinct(hashes, slots):
    """How many different hashes there are. `slots` are zeros, a power of two and more than the hashes."""
    mask = np.uint64(len(slots) - 1)
    found, zero = 0, False
    for hash_ in hashes:
        if hash_ == 0:
            zero = True
            continue
        slot = _mixed(hash_) & mask
        while slots[slot] != 0 and slots[slot] != hash_:
            slot = (slot + _ONE) & mask
        if slots[slot] == 0:
            slots[slot] = hash_
            found += 1
    return found + zero


@compiled
def mixed_below(hashes, limit, out):
    """Writes those of the mixed hashes that are at most `limit` to `out`, and returns how many there are."""
    found = 0
    for hash_ in hashes:
        spread = _mixed(hash_)
        if spread <= limit:
            out[found] = spread
            found += 1
    return found


@compiled
def shared_smallest(one, other, most):
    """(how many of the `most` smallest numbers of two sorted arrays' union are in both, how many these are)."""
    i, j, seen, shared = 0, 0, 0, 0
    while seen < most and (i < len(one) or j < len(other)):
        if j == len(other) or (i < len(one) and one[i] < other[j]):
            i += 1
        elif i == len(one) or other[j] < one[i]:
            j += 1
        else:
            i, j, shared = i + 1, j + 1, shared + 1
        seen += 1
    return shared, seen


@compiled
def tally_words(points, kinds, codes, groups, phrases, counts):
    """Adds the words of each group to `counts`, and returns how many texts between white space there are.

    `points` are code points, and `kinds` of each is 1 for white space and 2 for letters of words. `codes` and `groups` (SLOTS,)
    are a vocabulary (`word_code`, `vocabulary`). A row (first, second, group) of `phrases` is two words with one blank between.
    """
    texts, in_text = 0, False
    code, letters, plain = np.uint64(0), 0, True  # of the word so far
    before, end = np.uint64(0), -9  # the last word of the vocabulary, and where it ended
    size = len(points)
    for place in range(size + 1):
        point = points[place] if place < size else 32
        kind = kinds[point] if place < size else 1
        if kind == 1:
            in_text = False
        elif not in_text:
            in_text = True
            texts += 1
        if kind == 2:
            letters += 1
            letter = int(point) - _BEFORE_A
            if 1 <= letter <= _LETTERS and letters <= 13:
                code = code * np.uint64(_LETTERS + 1) + np.uint64(letter)
            else:
                plain = False
        elif letters:
            if plain:
                slot = (code * FACTOR) >> _SLOT_SHIFT
                while codes[slot] != 0 and codes[slot] != code:
                    slot = (slot + _ONE) & np.uint64(SLOTS - 1)
                if codes[slot] == code:
                    counts[groups[slot]] += 1
                    start = place - letters
                    if end == start - 1 and points[end] == 32:
                        for row in range(len(phrases)):
                            if phrases[row, 0] == before and phrases[row, 1] == code:
                                counts[phrases[row, 2]] += 1
                    before, end = code, place
            code, letters, plain = np.uint64(0), 0, True
    return texts


def word_code(word: str) -> int:
    """A number for a word of at most 13 of the letters a to z, another for each word."""
    code = 0
    for letter in word:
        code = code * (_LETTERS + 1) + ord(letter) - _BEFORE_A
    return code


def vocabulary(groups: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """(codes, groups) of a word -> group table, as `tally_words` looks them up."""
    codes, places = np.zeros(SLOTS, np.uint64), np.zeros(SLOTS, np.int64)
    for word, group in groups.items():
        assert word.isascii() and word.isalpha() and word.islower() and len(word) <= 13, word
        slot = (word_code(word) * _FACTOR >> 56) % SLOTS
        while codes[slot]:
            slot = (slot + 1) % SLOTS
        codes[slot], places[slot] = word_code(word), group
    return codes, places
