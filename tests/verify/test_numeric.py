"""Formulas told apart, or not: by exact arithmetic, by a proof with many digits, or not at all."""

import sys
import threading

import mpmath
import pytest

from whetstone.verify.answers.reading import read
from whetstone.verify.exact import TooLarge
from whetstone.verify.relations import same_value


def same(gold: str, given: str) -> bool | None:
    return same_value(*(read(text)[0] for text in (gold, given)))


EQUAL = [
    (r"\sin(\pi/6)", "1/2"),
    (r"\sin(\pi)", "0"),
    (r"e^{i\pi}", "-1"),
    (r"\sin 2x", r"2\sin x\cos x"),
    (r"\sin^2 x+\cos^2 x", "1"),
    (r"\log_2 8", "3"),
    (r"\log 100", "2"),
    (r"\log_{5}(25)", "2"),
    (r"\sqrt{2+\sqrt{3}}", r"\frac{\sqrt6+\sqrt2}{2}"),
    (r"2^{\sqrt2}", r"\sqrt{2}^{2\sqrt{2}}"),
    (r"n!", r"n(n-1)!"),
    (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"),
    (r"\frac{1}{\sqrt{5}-\sqrt{\sqrt{3}}}", r"\frac{\sqrt{5}+\sqrt{\sqrt{3}}}{5-\sqrt{3}}"),
]
DIFFERENT = [
    (r"\sin x", r"\cos x"),
    (r"\sin(1)", "0.84147098480789650665"),
    (r"\ln 2", r"\log 2"),
    (r"e^{-300}", r"e^{-301}"),
    (r"x+\sin(1)", r"y+\sin(1)"),
    (r"\sin(30)", r"\frac{1}{2}"),
]
NOT_SAID = [
    (r"\ln(x^2)", r"2\ln x"),  # equal if x is positive, and nowhere else
    (r"\ln(\ln(3))", r"\ln(\ln(3)+\sin(\pi/7)-\cos(5\pi/14))"),  # equal, but neither algebraic nor one normal form
]
EXACT = [  # (gold, answer) that agree in the digits that are usually looked at
    (r"\tanh(60)", "1"),
    (r"\sqrt{10^{94}+1}", "10^{47}"),
    (r"\frac{1}{1+e^{-60}}", "1"),
    (r"\sin(10^{-40})", "10^{-40}"),
    (r"x+\sqrt{10^{94}+1}", "x+10^{47}"),
    (r"x\tanh(200)", "x"),
    (r"e^{\pi\sqrt{163}}", "262537412640768744"),
]
TOO_LARGE = [
    r"e^{e^{e^{e^{5}}}}",
    r"\sin(1)^{10^{12}}",
    r"\sin(10^{9})",
    r"(\sqrt{2}^{100000})!",
    r"\pi^{\pi^{\pi^{\pi^{\pi}}}}",
]


@pytest.mark.parametrize(("gold", "given"), EQUAL)
def test_equal_values_are_equal_either_way(gold, given):
    assert same(gold, given) is True
    assert same(given, gold) is True


@pytest.mark.parametrize(("gold", "given"), DIFFERENT)
def test_different_values_are_different(gold, given):
    assert same(gold, given) is False


@pytest.mark.parametrize(("gold", "given"), NOT_SAID)
def test_nothing_is_said_where_the_value_is_a_matter_of_opinion(gold, given):
    assert same(gold, given) is None


@pytest.mark.parametrize(("gold", "given"), EXACT)
def test_numbers_that_agree_in_45_digits_are_told_apart(gold, given):
    assert same(gold, given) is False


@pytest.mark.parametrize("text", TOO_LARGE)
def test_large_values_are_refused_before_they_cost_time(text):
    with pytest.raises(TooLarge):
        same("5", text)


def test_threads_that_compare_at_once_say_what_one_says():
    pairs = [
        (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2", True),
        (r"\sin 18^\circ", r"\frac{\sqrt5-1}{4}", True),
        (r"\tanh(60)", "1", False),
        (r"\cos(\pi/7)-\cos(2\pi/7)+\cos(3\pi/7)", r"\frac12", True),
    ]
    wrong = []

    def compare(start: int) -> None:
        for k in range(start, start + 24):
            gold, given, equal = pairs[k % len(pairs)]
            if same(gold, given) is not equal:
                wrong.append((gold, given))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=compare, args=(start,)) for start in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def test_the_precision_of_mpmath_is_left_to_its_other_users():
    with mpmath.workdps(3):
        assert same(r"\cos(\pi/7)-\cos(2\pi/7)+\cos(3\pi/7)", r"\frac12") is True
        assert mpmath.mp.dps == 3
