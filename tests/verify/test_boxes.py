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
    # brackets, functions and bars around it
    (r"(\boxed{5})", "5"),
    (r"\left(\boxed{5}\right)", "5"),
    (r"{\boxed{5}}", "5"),
    (r"\Rightarrow{\boxed{5}}", "5"),
    (r"\color{red}{\boxed{5}}", "5"),
    (r"\textbf{\boxed{5}}", "5"),
    (r"The answer (\boxed{5}) is right.", "5"),
    (r"| \boxed{-5} |", "-5"),
    (r"-\left(\boxed{5}\right)", "-5"),
    (r"(\boxed{2})^3", "8"),
    (r"\ln\boxed{5}", r"\ln 5"),
    (r"|\boxed{-5}|", "5"),
    (r"- \boxed{3}", "3"),
    (r"- $\boxed{3}$", "3"),
    (r"\boxed{3} 1/2", "7/2"),
    # relations after it that hold
    (r"\boxed{50\pi} \approx 157", r"50\pi"),
    (r"\boxed{5} = 5", "5"),
    (r"\boxed{3.14} \approx \pi", "3.14"),
    (r"\boxed{\frac{22}{7}} \approx \pi", r"\frac{22}{7}"),
    (r"\boxed{\frac12} = 0.5", r"\frac12"),
    (r"\boxed{5}\text{ cm} = 50\text{ mm}", "5"),
    (r"\boxed{30^\circ} = \pi/6", r"30^\circ"),
    (r"\boxed{2x+1} = y", "2x+1"),
    (r"$\boxed{3} < x < 5$", "(3,5)"),
    (r"\boxed{x<5}<br>", "x<5"),
    (r"Here it is \boxed{5} - 2 of them are red", "5"),
    (r"*\boxed{5}* apples", "5"),
    (r"(a) \boxed{5}", "5"),
    (r"1.\boxed{5}", "5"),
    # what is no other answer, no question and no denial
    (r"\boxed{3}, and 4 apples remain", "3"),
    (r"\boxed{3}, 4 of which are red", "3"),
    (r"\boxed{3} times a week", "3"),
    (r"\boxed{k\pi}, k\in\mathbb{Z}", r"k\pi"),
    (r"$a = \boxed{3}$ and $b = 2$.", "3"),
    (r"$\frac{11}{2}$ or $\boxed{5.5}$.", "5.5"),
    (r"$7q=-7$ or $q=\boxed{-1}$.", "-1"),
    (r"$2 \times 3$ or $\boxed{6}$ paths", "6"),
    (r"When n = 3, \boxed{4}", "4"),
    (r"1, 2, 3, \boxed{4}", "4"),
    (r"What is it? It is \boxed{5}.", "5"),
    (r"\boxed{5}? Yes.", "5"),
    (r"\boxed{5}. Otherwise, the equation has no solutions.", "5"),
    (r"\boxed{5}\text{ square units}", r"5\text{ units}^2"),
]

RELATIONS = ("= 6", r"\ne 5", "> x", r"\geq x", r"\to 6", "-> 6", "→ 6", "< x", "!= 4", r"\not= 4")

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
    # a relation after it
    *[(rf"\boxed{{5}} {after}", "5") for after in RELATIONS],
    (r"\boxed{5}=6", "5"),
    (r"$\boxed{5}$ $= 6$", "5"),
    (r"$\boxed{5} \le x$", "5"),
    (r"\boxed{5}\text{ cm} = 6\text{ cm}", "5"),
    (r"$\boxed{3} < x < 5$", "3"),
    (r"\boxed{50\pi} \approx 158", r"50\pi"),
    (r"\boxed{3.2} \approx \pi", "3.2"),
    # a sign before it
    *[(before + r"\boxed{3}", "3") for before in ("-$", "$-$", "− ", "x = - ", "$- ", r"\(- ", r"-\(")],
    (r"-\left(\boxed{5}\right)", "5"),
    (r"-(\boxed{5})", "5"),
    (r"-\mathbf{\boxed{5}}", "5"),
    # functions, powers, indices, brackets and bars around it
    *[
        (before + r"\boxed{5}", "5")
        for before in (r"\ln", r"\log ", r"\log_2 ", r"\sin^2", "sin ", r"\sum_{k=1}^{3}", "x_")
    ],
    *[(before + r"(\boxed{5})", "5") for before in ("2", "f", "sin", r"\sin", r"(x+1)", r"\sin\left")],
    *[
        (before + r"{\boxed{5}}" + after, "5")
        for before, after in (("e^", ""), ("x_", ""), (r"\overline", ""), ("", "^3"))
    ],
    (r"(\boxed{2})^3", "2"),
    (r"\left(\boxed{2}\right)^{3}", "2"),
    (r"\binom{\boxed{5}}{2}", "5"),
    (r"\binom{5}{\boxed{2}}", "2"),
    (r"\lfloor\boxed{2.5}\rfloor", "2.5"),
    (r"\left\lceil \boxed{2.5} \right\rceil", "2.5"),
    (r"|\boxed{-5}|", "-5"),
    (r"\left|\boxed{-5}\right|", "-5"),
    (r"\gcd(\boxed{4}, 6)", "4"),
    (r"(\boxed{3}, 4)", "3"),
    (r"\boxed{3} 1/2", "3"),
    (r"\boxed{3} times x", "3"),
    (r"\boxed{3} times $x$", "3"),
    (r"\boxed{5}\text{ cubic units}", r"5\text{ square units}"),
    (r"\boxed{5}\text{ square cm}", r"5\text{ cm}"),
    # another answer beside it
    *[(rf"\boxed{{3}}{after}", "3") for after in (" or 4", r"\text{ or }4", " and 4", ", 4", " or $4$.", ", 4, 5")],
    (r"$\boxed{3}$, $4$", "3"),
    (r"\boxed{3}, \boxed{4}, 5", "3,4"),
    *[(rf"{before}\boxed{{4}}", "4") for before in ("3 or ", "The answer is 3 or ", "$3$ or ", "x=3 or x=", "3 and ")],
    *[
        (rf"\boxed{{3}}{after}", "3")
        for after in ("*2", " * 2", " - 2", "(x+1)", r"\ln 2", " i", r" \cup 4", r"\lor 4", " or greater")
    ],
    *[
        (rf"\boxed{{3}}{after}", "3")
        for after in (" (or 4)", " at least", r"\text{ or more}", r" \text{ to } 4", "–4", r" \gg x")
    ],
    *[
        (before + r"\boxed{5}", "5")
        for before in (r"\pi", "(1+x)", "2^{3}", "0.", r"\sqrt", r"\frac{1}", "not necessarily ")
    ],
    *[(text, "3") for text in (r"(2, \boxed{3})", r"[2,\boxed{3}]", r"4 (or \boxed{3})", r"\sqrt[\boxed{3}]{4}")],
    *[
        (text, "5")
        for text in (r"\boxed{x = 5}\text{ or }x = -5", r"The answers are $3$ and $\boxed{5}$.", r"\boxed{5}\,dx")
    ],
    *[(before + r"\boxed{5}", "5") for before in (r"$x = -$ $", r"\text{-}", "{-}", r"\int_0^1 ", "minus $")],
    # a question, or a later denial
    *[
        (text, "5")
        for text in (r"Is it \boxed{5}?", r"Could it be \boxed{5} then?", r"\boxed{5}? No.", r"\boxed{5}? No, 6.")
    ],
    ("\\boxed{5}\n\nHmm, this contradicts the condition. So there is no answer.", "5"),
    ("\\boxed{5}\nWait, that's wrong.", "5"),
    ("\\boxed{5}\n\nWe check it.\n\nSo there is no answer.", "5"),
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
