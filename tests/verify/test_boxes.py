"""What stands around a box, or around "the answer is": part of the answer, another answer, or its denial."""

import pytest

from whetstone.verify import verify

# the answer that the text gives
GIVEN = [
    (r"$-\boxed{3}$", "-3"),
    (r"\boxed{5}\times 10^{3}", "5000"),
    (r"\boxed{5}\text{ thousand}", "5000"),
    (r"x<\boxed{5}", "x<5"),
    (r"\boxed{5}\pi", r"5\pi"),
    (r"\boxed{3}:\boxed{4}", "3:4"),
    (r"\boxed{3} \le x \le \boxed{4}", "[3,4]"),
    (r"\boxed{5} cm", "0.05 m"),
    (r"(1) $\boxed{4}$; (2) $\boxed{7}$", "4,7"),
    ("Part (a): \\boxed{4}\nPart (b): \\boxed{7}", "4,7"),
    ("\\boxed{5}\n\nSo the final answer is **6**.", "6"),
    ("\\boxed{5}\n\nTherefore, the correct answer is $6$, not 5.", "6"),
    ("\\boxed{5}\n\nThe answer is verified.", "5"),
    (r"\boxed{\frac{1}{3}}, which is less than 1.", r"\frac{1}{3}"),
    (r"First guess \boxed{4}. Wait, actually it is \boxed{5}.", "5"),
    (r"It is not 4, so it's \boxed{5}.", "5"),
    (r"You need at least \boxed{13} socks.", "13"),
    (r"Answer - $\boxed{5}$", "5"),
    (r"<solution>\boxed{5}</solution>", "5"),
    ("If it is odd, then the answer is 5.", "5"),
    ("I think the answer is 5.", "5"),
    ("The answer, then, is 64.", "64"),
    ("The answer to this question is: 64", "64"),
    ("The answer comes out to 64.", "64"),
    ("Therefore, **37** is the answer.", "37"),
    ("We add.\nTherefore, x = 64.", "64"),
    ("The total number of ways is 64.", "64"),
    ("The solutions are 729 and 1000.", "729,1000"),
    ("<ANSWER>25</ANSWER>", "25"),
]

# no statement of that answer
NOT_GIVEN = [
    ("The answer is 5. No wait, it is 6.", "5"),
    ("The answer is 5? No.", "5"),
    (r"-\boxed{5}", "5"),
    (r"\boxed{5}^2", "5"),
    (r"\boxed{5}x", "5"),
    (r"\boxed{5} dozen", "5"),
    (r"$\sqrt{\boxed{5}}$", "5"),
    (r"twice \boxed{5}", "5"),
    (r"y=\boxed{5}", "x=5"),
    (r"\boxed{5}$^\circ$F", r"5^\circ\text{C}"),
    (r"more than \boxed{5}", "5"),
    (r"[\boxed{3},\boxed{4}]", "3,4"),
    (r"between \boxed{3} and \boxed{4}", "3,4"),
    (r"\boxed{5} or possibly \boxed{6}", "6"),
    (r"\boxed{5}; alternatively \boxed{6}", "6"),
    (r"\boxed{5} / \boxed{6}", "6"),
    (r"\boxed{4} oder \boxed{6}", "6"),
    (r"\boxed{4} 或 \boxed{6}", "6"),
    (r"If n is even, \boxed{5}. Otherwise, \boxed{6}.", "6"),
    (r"\boxed{5} is wrong.", "5"),
    (r"\boxed{5} does not work.", "5"),
    (r"\boxed{5} (wrong)", "5"),
    (r"The answer is anything but \boxed{5}.", "5"),
    (r"~~\boxed{5}~~", "5"),
    (r"<!-- \boxed{5} -->", "5"),
    (r"\boxed{6} % \boxed{5}", "5"),
    (r"\cancel{\boxed{5}}", "5"),
    (r"\boxed{\text{\boxed{5}} 6}", "5"),
    ("\\boxed{5}\n\n#### 6", "5"),
    ("Suppose the answer is 5. Contradiction.", "5"),
    ("My friend claims that the answer is 5.", "5"),
    ("I don't think the answer is 5.", "5"),
    ("The wrong answer is 5.", "5"),
    ("The answer is 5, which is wrong.", "5"),
    ("The answer is 5. Actually, it is 6.", "5"),
    ("The answer is unlikely to be 5.", "5"),
    ("答えは5ではない。", "5"),
    (r"\boxed{5} - \boxed{6}", "6"),
    (r"\boxed{5} または \boxed{6}", "6"),
    (r"1\boxed{5}", "5"),
    (r"\boxed{5},000", "5"),
    (r"\boxed{5} or more", "5"),
    (r"\boxed{5}\pmod 7", "5"),
]


@pytest.mark.parametrize(("text", "gold"), GIVEN)
def test_what_a_text_says_with_its_box_or_statement_is_the_answer(text, gold):
    assert verify(text, gold).correct is True


@pytest.mark.parametrize(("text", "gold"), NOT_GIVEN)
def test_what_a_text_changes_or_denies_is_not_the_answer(text, gold):
    assert verify(text, gold).correct is False


@pytest.mark.parametrize(
    "text", ["The answer is D, since A is false.", "Therefore D.", "It's D.", "答案为D。", "正解はDです。"]
)
def test_one_letter_is_chosen(text):
    assert verify(text, "D", "choice").correct is True
    assert verify(text, "A", "choice").correct is False


def test_an_option_that_is_denied_is_not_chosen():
    assert verify("The answer can't be D.", "D", "choice").correct is False
