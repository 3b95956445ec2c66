"""Verdicts are kept in bounded bytes, whatever the length of answers and references."""

import tracemalloc

from whetstone.records import Verdict
from whetstone.verify import MathVerifier
from whetstone.verify.verdict_cache import Question, VerdictCache


def test_the_cache_forgets_all_when_it_is_full():
    cache = VerdictCache(most_bytes=10_000)
    questions = [Question(f"{n}" * 600, "1", "math") for n in range(5)]
    for question in questions:
        cache.put(question, Verdict(False, "different"))  # 2,804 bytes each
        assert cache.get(question) is not None and cache.bytes <= 10_000
    assert [cache.get(question) is not None for question in questions] == [False, False, False, True, True]


def test_a_question_larger_than_the_cache_is_not_kept():
    cache = VerdictCache(most_bytes=1_000)
    cache.put(Question("1" * 2_000, "1", "math"), Verdict(False, "different"))
    assert cache.get(Question("1" * 2_000, "1", "math")) is None and cache.bytes == 0


def test_long_answers_and_references_take_bounded_memory():
    with MathVerifier() as verifier:
        verifier._remembered.most_bytes = 200_000
        tracemalloc.start()
        for n in range(60):
            verdict = verifier.check(f"\\boxed{{{n}{',5' * 4_000}}}", f"{n}{',6' * 4_000}")
            assert verdict.correct is not True
        for n in range(20):
            verifier.check("\\boxed{1}", f"{n}" + "8" * 1_000_000)
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert grown < 2 << 20, f"{grown / 2**20:.1f} MiB"
