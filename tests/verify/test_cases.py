"""Answers with their right verdict, by kind, from the folder that WHETSTONE_CASES names; and made-up ones of every kind."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from benchmarks._answer_grammar import PRODUCTIONS, pairs
from whetstone.verify import MathVerifier

CASES = os.environ.get("WHETSTONE_CASES")
with_cases = pytest.mark.skipif(not CASES, reason="WHETSTONE_CASES is not set: it names a folder with verifier.jsonl")
LEAST_RIGHT = 0.98
PAIRS, SEED = 1_000, 16  # the large run is `python -m benchmarks verify_fuzz`


@pytest.fixture(scope="module")
def cases():
    path = Path(CASES) / "verifier.jsonl"
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(deadline=20) as shared:
        yield shared


@with_cases
def test_no_wrong_answer_is_accepted_and_nearly_all_right_ones_are(cases, verifier):
    verdicts = [verifier.check(row["pred"], row["gold"], row["policy"]).correct for row in cases]
    accepted = [row for row, verdict in zip(cases, verdicts, strict=True) if verdict and not row["expected"]]
    assert accepted == []
    right = sum((verdict is True) == row["expected"] for row, verdict in zip(cases, verdicts, strict=True))
    assert right >= LEAST_RIGHT * len(cases)
    assert verdicts.count(None) <= 0.005 * len(cases)


@with_cases
def test_every_kind_of_case_has_a_production(cases):
    made = {kind for each in PRODUCTIONS for kind in each.kinds}
    assert {row["kind"] for row in cases} <= made


def test_pairs_of_known_truth_are_told_apart(verifier):
    accepted, refused, count = [], [], Counter()
    for _, pair in pairs(PAIRS, SEED):
        verdict = verifier.check(pair.answer, pair.gold, pair.policy).correct
        count[pair.equal, verdict] += 1
        if verdict and not pair.equal:
            accepted.append(pair)
        if pair.equal and not verdict:
            refused.append(pair)
    assert accepted == []
    assert len(refused) <= 0.01 * (count[True, True] + len(refused)), refused
    assert count[True, None] + count[False, None] <= 0.005 * PAIRS


def test_the_same_seed_makes_the_same_pairs():
    assert pairs(100, 3) == pairs(100, 3)
    assert {pair.equal for _, pair in pairs(100, 3)} == {True, False}
