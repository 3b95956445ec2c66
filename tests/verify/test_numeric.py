"""Formulas told apart, or not, by their values."""

import pytest

from whetstone.verify.exact import TooLarge
from whetstone.verify.numeric import same

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
    (r"\int x dx", "5"),
    (r"\ln(x^2)", r"2\ln x"),  # equal where x is positive, and nowhere else
    (r"\sqrt{x^2}", "x"),
    (r"f(2)", "3"),
    (r"\tan(\pi/2)", "3"),
    (r"\sqrt[3]{2-\sqrt5}", "1"),  # the real root, or the principal one?
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
def test_values_that_differ_in_45_digits_are_different(gold, given):
    assert same(gold, given) is False


@pytest.mark.parametrize(("gold", "given"), NOT_SAID)
def test_nothing_is_said_where_the_value_is_a_matter_of_opinion(gold, given):
    assert same(gold, given) is None


@pytest.mark.parametrize("text", TOO_LARGE)
def test_large_values_are_refused_before_they_cost_time(text):
    with pytest.raises(TooLarge):
        same("5", text)
