"""The commonest endings, read at once: what is found is what the careful reading finds."""

import random
import sys

import pytest

import whetstone.verify.extract  # noqa: F401 (the package exports a function of that name)
from whetstone.verify import extract, get_policy
from whetstone.verify.plain import plain_ending

MATH = get_policy("math")
BEFORE = (
    "", "The answer is ", "x = ", "x=", "-", "$-", "$", "\\(", "\\\\(", "\\[", "[", "(", "2", "2\\cdot ", "not ",
    "at least ", "\\sqrt{", "\\frac{", "half of ", "We reject ", "the wrong answer is ", "~~", "~~no~~ ", "<!-- no -->",
    "<!-- ", "\\iffalse ", "\\fi ", "<b>", "\\boxed{1}, ", "\\boxed{1} or ", "\\boxed 1, ", "\\fbox{1} and ", "x^",
    "\\pm ", "3 + ", "times ", "% ", "\n", "n\n", "π", "\\", "`", "So $\\frac{1}{2} < x$.\n", "The final answer is: $",
    "-$", "$-$", "− ", "= - ", "\\ln", "\\log_2 ", "sin ", "e^{", "x_", "{", "-\\mathbf{", "|", "2(", "3 or ", "$3$ and ",
    "x = 3 or x = ",
    "Is it ",
)  # fmt: skip
BOXES = (
    "\\boxed{5}", "\\boxed{ -3 }", "\\boxed{\\frac{1}{2}}", "\\boxed{5\\text{ cm}}", "\\boxed{1,2}", "\\boxed{x+1}",
    "\\boxed{50\\%}", "\\boxed{}", "\\boxed{...}", "\\boxed{\\{1\\}}", "\\boxed{5", "\\fbox{5}", "\\boxed 5", "5",
    "$5$", "1,234.5",
)  # fmt: skip
AFTER = (
    "", ".", "$", "$.", "\\)", "\\).", "\\]", "\\\\)", "]", ")", "}", " \n", "\\%", "%", "^2", "\\text{ cm}", " cm",
    " is wrong.", " or more", "0", "x", "\\pi", "-->", "~~", "\\fi", "</b>", "\nSo it should be 6",
    "\nThe answer is 7.",
)  # fmt: skip


def test_a_plain_ending_is_what_careful_reading_finds(monkeypatch):
    rng = random.Random(0)
    texts = [
        "".join(rng.choices(BEFORE, k=rng.randint(1, 2)))
        + rng.choice(BOXES)
        + "".join(rng.choices(AFTER, k=rng.randint(1, 2)))
        for _ in range(6_000)
    ]
    at_once = {text: found for text in texts if (found := plain_ending(text))}
    monkeypatch.setattr(sys.modules["whetstone.verify.extract"], "plain_ending", lambda text: None)
    assert {text: extract(text, MATH) for text in at_once} == at_once
    assert len(at_once) > 150


@pytest.mark.parametrize(
    "text", [r"The answer is $\boxed{5}$.", r"so \(x = \boxed{5}\)", "Thus the answer is 5.", "The answer is: $5$"]
)
def test_the_commonest_endings_are_read_at_once(text):
    assert plain_ending(text).answer == "5"
