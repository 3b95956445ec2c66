"""Wrong answers that the best-known verifier was reported to accept (its issue numbers), and those measured on 0.9.0.

Each stands as (answer, reference). An answer is graded boxed, bare, in dollar signs and as a stated answer.
"""

import pytest

from whetstone.verify import MathVerifier

REPORTED = {
    "1/2004! (Math-Verify#14)": (r"\frac{1}{2006!}", r"\frac{1}{2004!}"),
    "1/2^99 (Math-Verify#14)": (r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}"),
    "2^-99, measured": ("2^{-98}", "2^{-99}"),
    "a small number is not 0": ("0", "10^{-30}"),
    "a labelled list (Math-Verify#14)": ("n=1, 2, 3", "n=2, 3, 4"),
    "a labelled interval (Math-Verify#14)": ("D = (0, 1.5)", "D = (0, 1)"),
    "a labelled sum (Math-Verify#14)": (
        r"F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2}",
        r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}",
    ),
    "a list whose last item agrees (Math-Verify#14)": ("21, 36, and 82", r"19, 46, \text{ and } 82"),
    "large powers (Math-Verify#14)": (r"\frac{1}{3 \cdot 2^{2006}}", r"\frac{2^{2005}+1}{3 \cdot 2^{2006}}"),
    "another sign (Math-Verify#14)": (r"1 + \frac{1}{\mathrm{e}}", r"1 - \frac{1}{\mathrm{e}}"),
    "one of plus and minus (Math-Verify#14)": ("2021", r"\pm 2021"),
    "times of day (Math-Verify#14)": ("1:00", "12:00"),
    "lists with dots (Math-Verify#14)": (r"1, 3, 5, \ldots, 2n-1", r"1, 2, \ldots, n"),
    "ratios with dots (Math-Verify#14)": (r"1:4:9:\ldots", r"1:2:3:\ldots"),
    "equations that end in 0 (Math-Verify#60)": ("3x + 4y + 14=0", "3*x-1*y+13=0"),
    "one answer of two (ms-swift#4541)": ("a=-2", r"a=1 \text{ or } a=-2"),
    "equations that end in 0, measured": ("3x-y+13=0", "3x+4y+14=0"),
    "the number after an equation's sign": ("0", "3x+4y+14=0"),
    "a tuple is no set, measured": ("(1,2)", r"\{1,2\}"),
    "a set is no tuple, measured": (r"\{1,2\}", "(1,2)"),
    "ends of intervals": ("[0,1)", "(0,1)"),
    "a number out of a word": ("AZYUK2A", "2"),
    "a number out of an unreadable answer": ("48{/h}52{/h}", "48"),
}


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(deadline=20) as shared:
        yield shared


@pytest.mark.parametrize(("answer", "gold"), REPORTED.values(), ids=REPORTED)
def test_a_reported_false_positive_is_refused(verifier, answer, gold):
    for text in (rf"\boxed{{{answer}}}", answer, f"${answer}$", f"The final answer is ${answer}$."):
        for reference in (gold, f"${gold}$", rf"Hence \boxed{{{gold}}}"):
            assert verifier.check(text, reference).correct is not True, (text, reference)


@pytest.mark.parametrize(
    "text", [r"\boxed{4} and then \boxed{4", r"so \boxed{4}, thus \boxed{\frac{4}{1}", r"\boxed{4} then \boxed"]
)
def test_a_cut_off_box_is_not_credited_from_an_earlier_one(verifier, text):
    assert verifier.check(text, "4").correct is False  # marin#9163


def test_no_answer_is_not_right(verifier):
    assert verifier.check("", r"a=1 \text{ or } a=-2").correct is False  # ms-swift#4541


def test_two_answers_are_not_one_of_them(verifier):
    assert verifier.check(r"\boxed{3} or \boxed{4}", "4").correct is False
    assert verifier.check(r"\boxed{3}, \boxed{4}", "4").correct is False
