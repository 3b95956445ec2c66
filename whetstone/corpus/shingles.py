"""Texts as sets of word runs (shingles), for likeness and repetition: 64-bit hashes, a few operations per word.

Likeness is the Jaccard index of two texts' runs. It is estimated from each text's smallest hashes (a bottom-k sketch: Cohen
and Kaplan 2007), and is exact for texts of at most k runs.
"""

from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np

from whetstone.corpus import text_kernels

SKETCH = 256  # hashes kept per text: a likeness of 0.8 is then estimated to about 0.025

_FACTORS = [np.uint64(pow(int(text_kernels.FACTOR), power, 1 << 64)) for power in range(1, 65)]
_PLACES = np.array(_FACTORS)  # a factor for each place of a letter in its word
# All bytes but the ASCII characters at which str.split() splits
_INSIDE = ~np.isin(np.arange(256), [*b" \t\n\r\v\f", *range(0x1C, 0x20)])


@lru_cache(maxsize=4)  # a trace is compared with others, then measured for repetition
def word_codes(text: str) -> np.ndarray:
    """(T,) a 64-bit hash of each word between white space, the same in every process. The array is read-only."""
    letters = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    hashes = np.empty(len(letters) // 2 + 1, np.uint64)
    hashes = hashes[: text_kernels.word_codes(letters, _INSIDE, _LETTERS, _PLACES, hashes)].copy()
    hashes.flags.writeable = False
    return hashes


def codes(words: Sequence[str]) -> np.ndarray:
    """(T,) one number per token, the same in every process."""
    return np.fromiter((crc32(word.encode("utf-8", "surrogatepass")) for word in words), np.uint64, len(words))


def mixed(numbers: np.ndarray) -> np.ndarray:
    """The numbers spread over 64 bits, one to one."""
    spread = numbers * np.uint64(0xBF58476D1CE4E5B9)
    spread ^= spread >> np.uint64(31)
    spread *= np.uint64(0x94D049BB133111EB)
    return spread ^ (spread >> np.uint64(29))


_LETTERS = mixed(np.arange(1, 257, dtype=np.uint64))


def runs(numbers: np.ndarray, size: int) -> np.ndarray:
    """(T - size + 1,) the polynomial hash of every run of `size` of the (T,) numbers; empty if there are fewer."""
    if not 0 < size <= len(numbers):
        return np.empty(0, np.uint64)
    hashes = np.empty(len(numbers) - size + 1, np.uint64)
    text_kernels.runs(numbers, size, hashes)
    return hashes


def count_distinct(hashes: np.ndarray) -> int:
    return text_kernels.count_distinct(hashes, np.zeros(2 << len(hashes).bit_length(), np.uint64))


def distinct(hashes: np.ndarray) -> np.ndarray:
    """np.unique in a fifth of its time (numpy 2.4, thousands of hashes that hardly ever repeat)."""
    ordered = np.sort(hashes)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))] if len(ordered) else ordered


def sketch(numbers: np.ndarray, size: int) -> np.ndarray:
    """The SKETCH smallest distinct hashes of a text's runs, sorted. A text that is shorter than a run is one run."""
    hashes = runs(numbers, min(size, len(numbers)))
    for share in (2 * SKETCH, len(hashes)):  # of hashes that are looked at: those that repeat may be too many
        limit = np.uint64((2**64 - 1) // max(1, len(hashes)) * share if share < len(hashes) else 2**64 - 1)
        smallest = np.empty(len(hashes), np.uint64)
        smallest = distinct(smallest[: text_kernels.mixed_below(hashes, limit, smallest)])
        if len(smallest) >= SKETCH:
            break
    return smallest[:SKETCH]


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The Jaccard index of the texts behind two sketches; 0 for two empty ones."""
    shared, compared = text_kernels.shared_smallest(one, other, SKETCH)
    return shared / max(1, compared)
