"""Texts that say the same: exact and near duplicates among the traces of one problem, near ones among all problems.

Two problems are near duplicates if the Jaccard index of their runs of five tokens is at least `near` *and* they have the same
numbers: with other numbers a word problem is another problem. Candidates come from banding (Leskovec, Rajaraman and Ullman,
Mining of Massive Datasets, chapter 3): each band of a problem's MinHash signature is hashed to one number, and problems with
the same number in some band are compared. Signatures are in a file and one band at a time in memory, so ten million problems
need some hundred megabytes. The questions stage has dropped equal questions before.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from whetstone.corpus.shingles import codes, likeness, mixed, runs, sketch, word_codes
from whetstone.corpus.spelling import tokens
from whetstone.records import Problem, Trace

QUESTION_RUN = 5  # tokens in a run of a question
TRACE_RUN = 8  # words in a run of a trace
# Of a signature. A pair with a Jaccard index of 0.8 is a candidate with probability 1 - (1 - 0.8^4)^32 = 1 - 5e-8.
BANDS, ROWS = 32, 4

OTHER_SPACE = "".join(filter(str.isspace, map(chr, range(0x80, 0x3001))))  # beyond ASCII; there is none further on

_SEEDS = np.arange(1, BANDS * ROWS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def mark_duplicates(traces: Iterable[Trace], near: float = 0) -> Iterator[tuple[Trace, int | None, str]]:
    """(trace, index of the earlier one that says the same or None, "" or which kind of duplicate it is).

    White space makes no difference. With `near`, traces whose runs of words have at least that Jaccard index are near
    duplicates.
    """
    first: dict[int, list[Trace]] = {}  # by a hash of the words
    sketches: list[tuple[int, np.ndarray]] = []
    for trace in traces:
        alike = first.setdefault(_hash_of_words(trace.text), [])
        words = trace.text.split() if alike else []
        if (same := next((other for other in alike if other.text.split() == words), None)) is not None:
            yield trace, same.index, "duplicate trace"
            continue
        alike.append(trace)
        if near:
            own = sketch(word_codes(trace.text), TRACE_RUN)
            nearby = next((index for index, other in sketches if likeness(own, other) >= near), None)
            if nearby is not None:
                yield trace, nearby, "near duplicate trace"
                continue
            sketches.append((trace.index, own))
        yield trace, None, ""


def _hash_of_words(text: str) -> int:
    """Equal for texts that differ in white space alone."""
    if not text.isascii() and any(map(text.__contains__, OTHER_SPACE)):
        text = " ".join(text.split())
    words = word_codes(text)
    return int(runs(words, len(words))[0]) if len(words) else 0


def near_duplicate_problems(problems: Iterable[Problem], near: float) -> dict[str, str]:
    """Id of a problem -> id of the earlier problem that it nearly repeats.

    A problem that was made from another (`origin`) resembles it on purpose: the two are not compared.
    """
    ids, families, numbers = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "signatures"
        with path.open("wb") as signature_file:
            for problem in problems:
                words = tokens(problem.question)
                signature_file.write(_signature(words).tobytes())
                numbers.append(sorted(word for word in words if word[0].isdigit()))
                ids.append(problem.id)
                families.append(problem.origin or problem.id)
        if not ids:
            return {}
        signatures = np.memmap(path, np.uint32, "r", shape=(len(ids), BANDS * ROWS))
        earlier = np.full(len(ids), -1, np.int64)
        for one, other in _candidates(signatures):
            alike = numbers[one] == numbers[other] and np.mean(signatures[one] == signatures[other]) >= near
            if alike and families[one] != families[other] and (earlier[other] < 0 or one < earlier[other]):
                earlier[other] = one
        return {ids[place]: ids[earlier[place]] for place in np.flatnonzero(earlier >= 0)}


def _signature(words: list[str]) -> np.ndarray:
    """(BANDS * ROWS,) MinHash: the smallest hash of the runs under each of so many permutations."""
    hashes = runs(codes(words), min(QUESTION_RUN, max(1, len(words))))
    if not len(hashes):
        return np.zeros(BANDS * ROWS, np.uint32)
    return (mixed(hashes[:, None] ^ _SEEDS) >> np.uint64(32)).min(axis=0).astype(np.uint32)


def _candidates(signatures: np.ndarray) -> Iterator[tuple[int, int]]:
    """(earlier, later) pairs that agree in a band: each problem with the first of its bucket."""
    for band in range(BANDS):
        rows = np.array(signatures[:, band * ROWS : (band + 1) * ROWS], np.uint64)
        keys = hash_rows(rows)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        first = np.repeat(order[starts], np.diff(np.append(starts, len(keys))))
        for place in np.flatnonzero(first != order):
            yield int(first[place]), int(order[place])


def hash_rows(rows: np.ndarray) -> np.ndarray:
    """(N, R) -> (N,) one hash per row."""
    hashes = np.zeros(len(rows), np.uint64)
    for column in range(rows.shape[1]):
        hashes = mixed(hashes + mixed(rows[:, column] + np.uint64(column + 1)))
    return hashes
