"""Where an answer is found in a completion, and where there is none."""

import re
import sys
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.verify import extract, get_policy, last_box, verify

FOUND = [
    (r"\boxed{5}", "5"),
    (r"first \boxed{4}, then \boxed{5}.", "5"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\{1,2\}}", r"\{1,2\}"),
    (r"\boxed{ {{5}} }", "{{5}}"),
    (r"\boxed 5", "5"),
    (r"\fbox{5}", "5"),
    (r"<think>\boxed{4}</think>\boxed{5}", "5"),
    (r"thinking without an opening tag \boxed{4}</think> so \boxed{5}", "5"),
    ("The answer is 5.", "5"),
    ("The final answer is: 3.14.", "3.14"),
    ("the answer is 4. No, the answer is 5", "5"),
    ("The answer is $\\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
    ("Final Answer: The final answer is \\((-6, 10)\\). I hope it is correct.", "(-6, 10)"),
    ("**Answer:** 5", "5"),
    ("**Final Answer**: **5**", "5"),
    ("Answer:\n\\[\n5\n\\]", "5"),
    ("Answer: (C)", "(C)"),
    ("reasoning\n#### 72", "72"),
    ("so the answer is 5, because 2 + 3 = 5.", "5"),
    ("so the answer is 5 apples.\nThank you.", "5 apples"),
    ("the answer is 7.\n#### 8", "8"),
    ("42", "42"),
    ("$$\n42\n$$", "42"),
    ("<think>hm</think>\n42\n", "42"),
    (r"are: \[ \boxed{-2} \quad \text{and} \quad \boxed{1}. \]", "-2, 1"),
    ("$\\boxed{(1, 2)}, \\boxed{(2, 1)}$", "(1, 2), (2, 1)"),
    (r"\boxed{3} \text{ for part (a) and } \boxed{4}", "3, 4"),
    (r"\boxed{5}, and \boxed{5}", "5"),
    ("We get $\\boxed{3}$ and $\\boxed{5}$, so the sum is $\\boxed{8}$.", "8"),
    (r"\boxed{3} and then \boxed{5}", "5"),
    ("\\boxed{3}\n\n\\boxed{5}", "5"),
    ("\\boxed{255} Final Answer: The final answer is $10,455$. I hope it is correct.", "10,455"),
    ("The final answer is $\\boxed{5}$.", "5"),
    (r"I put the answer in \boxed{}: it is \boxed{4}, and \boxed{} is full.", "4"),
    ("We find that $x \\neq 3$.", r"x \neq 3"),
    ("Answer \\[ \n 9 \n \\]", "9"),
    ("Therefore $x > 5$ is the solution.", "x > 5"),
    ("Q: How many?\nWe add.\nA: 5", "5"),
    ('Here is the JSON:\n```json\n{"answer": 25}\n```', "25"),
    ("Svaret är 36.", "36"),
    ("Jawabannya adalah 36.", "36"),
    ("La solución es x = 36.", "x = 36"),
    ("The solutions are x = 1 and x = 2.", "x = 1 and x = 2"),
]
NONE = [
    ("", "no answer"),
    (r"\boxed{4} and then \boxed{5", "cut off"),
    (r"\boxed{4} and then \boxed{\frac{1}{2}", "cut off"),
    (r"\boxed{4} and then \boxed", "cut off"),
    (r"The answer is 4. \boxed{", "cut off"),
    (r"\boxed{ }", "empty"),
    ("The answer is 4. So the final answer is", "cut off"),
    (r"<think>\boxed{5}", "thinking not finished"),
    (r"<think>\boxed{5}</think>", "no answer"),
    (r"<think>a</think>\boxed{5}<think>\boxed{6}", "thinking not finished"),
    ("first we add\nthen 5", "neither"),
    ("first we add\nthen $5$, not $6$", "neither"),
    ("it is not\n$5$", "neither"),
    ("half of\n$5$", "neither"),
    (r"\boxed{1}, " * 30 + r"\boxed{2}", "too many boxes"),
    (r"\boxed{4}, \boxed{5", "cut off"),
    ('{"question": 25}', "no answer"),
]


@pytest.mark.parametrize(("text", "answer"), FOUND)
def test_the_last_answer_is_found(text, answer):
    assert extract(text, get_policy("math")).answer == answer


@pytest.mark.parametrize(("text", "reason"), NONE)
def test_what_is_no_answer_says_why(text, reason):
    found = extract(text, get_policy("math"))
    assert found.answer is None
    assert reason in found.how


def test_a_cut_off_box_is_wrong_though_an_earlier_one_was_right():
    assert verify(r"\boxed{4} so \boxed{4", "4").correct is False


def test_a_percent_sign_may_stand_outside_the_box():
    for text in (r"$\boxed{28}$ pct", r"$\boxed{28}\%$", r"\boxed{28} percent", r"\boxed{28\%}"):
        assert verify(text, r"28\%").correct is True
    assert verify(r"$\boxed{28}\%$", "28").correct is True  # the reference names no percent: the box is read alone
    assert verify(r"\boxed{28\%}", "28").correct is False
    assert verify(r"\boxed{28}\%", "28 percent").correct is True
    assert verify(r"\boxed{28}\%", "0.28").correct is True
    assert verify(r"\boxed{28}\%", "2.8").correct is False
    assert verify(r"$\boxed{28}$", r"28\%").correct is False


def test_thinking_counts_where_the_policy_says_so():
    assert verify(r"<think>\boxed{5}", "5").correct is False
    assert verify(r"<think>\boxed{5}", "5", "math_thinking").correct is True


MARKS = [
    ("<think>", "</think>"),
    ("<Think>", "</Think>"),
    ("<THINKING>", "</THINKING>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
]


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_thinking_in_the_marks_of_any_model_is_no_answer(opening, closing):
    for text in (rf"{opening}\boxed{{5}}{closing} no idea", rf"{opening}\boxed{{5}}", rf"\boxed{{5}}{closing} no"):
        assert verify(text, "5").correct is False
    assert verify(rf"{opening}\boxed{{6}}{closing}\boxed{{5}}", "5").correct is True
    assert verify(rf"\boxed{{6}}{closing}\boxed{{5}}", "5").correct is True
    assert verify(rf"{opening}\boxed{{5}}", "5", "math_thinking").correct is True


def test_a_million_characters_are_read_from_their_tail():
    text = "we compute 7 + \\frac{1}{2} { \\boxed{3} " * 25_000
    assert verify(text + r"so \boxed{5}", "5").correct is True
    assert verify(text + "\nthe answer is 5.", "5").correct is True  # stated after the box


def test_an_answer_of_the_longest_allowed_length_is_taken_and_a_longer_one_is_not():
    assert extract("\\boxed{" + "1" * 9_999 + "}", get_policy("math")).answer is not None
    assert extract("\\boxed{" + "1" * 20_000 + "}", get_policy("math")).answer is None


@pytest.mark.parametrize(
    ("policy", "text", "gold", "correct"),
    [
        ("integer", r"\boxed{025}", "25", True),
        ("integer", r"\boxed{1,025}", "1025", True),
        ("integer", r"\boxed{2.5}", "2.5", None),
        ("integer", r"\boxed{2.5}", "3", False),
        ("integer", r"\boxed{x = 3}", "3", True),
        ("aime", r"\boxed{204}", "204", True),
        ("aime", r"\boxed{33}", "033", True),
        ("aime", r"\boxed{1204}", "1204", None),
        ("choice", "The answer is (B).", "B", True),
        ("choice", r"\boxed{\text{b}}", "B", True),
        ("choice", r"\boxed{\textbf{(C)}\ 12}", "C", True),
        ("choice", "B. because it fits", "B", True),
        ("choice", "A dog", "A", False),
        ("choice", r"\boxed{12}", "C", False),
        ("choice", r"\boxed{C}", "12", None),
        ("word", r"\boxed{\text{Monday}}", "monday", True),
        ("word", r"\boxed{Tuesday}", "monday", False),
        ("number", r"\boxed{50\%}", "50", True),
        ("number", r"\boxed{0.5}", "50\\%", False),
    ],
)
def test_policies_are_declared_not_guessed(policy, text, gold, correct):
    assert verify(text, gold, policy).correct is correct


def test_an_unknown_policy_is_an_error_with_a_suggestion():
    with pytest.raises(ValueError, match=r'unknown.*Did you mean "math"'):
        verify("5", "5", "maths")


def test_an_empty_reference_is_undecided_not_wrong():
    assert verify("5", " ").correct is None


def test_a_reference_may_be_a_whole_solution():
    assert verify("18", "She sells 9 eggs.\n9 * 2 = 18\n#### 18").correct is True
    assert verify("5", r"Hence $x = \boxed{5}$.").correct is True
    assert verify("4", r"From $\boxed{4}$ we get $x = \boxed{5}$.").correct is False


@pytest.mark.parametrize(
    "name",
    [
        "whetstone.verify.verifier",
        "whetstone.verify.equal",
        "whetstone.verify.extract",
        "whetstone.verify.choice",
        "whetstone.verify.thinking",
    ],
)
def test_the_examples_in_docstrings_hold(name):
    import doctest
    import importlib

    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted and not outcome.failed


PIECES = ["\\boxed{", "\\fbox{", "{", "}", " ", "1", "a", ",", "and", "\\frac", "\n", "$", "final answer is $3$", "\\"]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_a_simple_box_is_read_as_the_long_way_reads_it(text):
    module = sys.modules["whetstone.verify.boxes"]
    short = extract(text, get_policy("math"))
    with mock.patch.object(module, "SIMPLE_BOX", re.compile("(?!)")):
        assert extract(text, get_policy("math")) == short


def test_numbers_are_compared_as_one_writes_them_and_other_types_are_an_error():
    assert verify("3", 3).correct is True
    assert verify(0.5, "1/2").correct is True
    for text, gold in (("3", None), ("3", True), (b"3", "3"), ("3", [3])):
        with pytest.raises(TypeError, match="is of type"):
            verify(text, gold)


def test_the_last_complete_box_is_public():
    assert last_box(r"so \boxed{1} and \boxed{\frac{1}{2}}, put in \boxed{}") == r"\frac{1}{2}"
    assert last_box(r"\boxed{1} and \boxed{2") == "1"
    assert last_box("none") is None
