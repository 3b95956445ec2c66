"""The procedural teacher: what it writes is true, uneven and wrong at the rates asked for, and the same every time."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.records import Problem
from whetstone.rollouts.procedural_teacher import Procedural, ProceduralTeacher

COLUMN = re.compile(r"(?<=[:,])(\d)([-+])(\d)(?:[-+](\d))?=([cb]?)(\d)")
OPERATION = re.compile(r"(?:Check )?(\d+)([-+*/])(\d+)(?::.* so |=)(\d+)")
SUMS = [f"{a}+({b}-{c})+{d}" for a, b, c, d in [(12, 345, 67, 8), (1, 999, 1, 1), (500, 90, 17, 6), (3, 40, 39, 999)]]


def teacher(seed: int = 0, **rates: float) -> ProceduralTeacher:
    """One that never errs, but for the rates given."""
    return ProceduralTeacher(Procedural(**{"wrong_rate": 0, "correction_rate": 0, **rates}), seed)


def traces(formula: str, n: int = 1, **rates: float) -> list[str]:
    return [trace.text for trace in teacher(**rates).traces(Problem("p", "?", "", formula=formula), n)]


def false_columns(text: str) -> int:
    """How many of a trace's columns do not hold. Every trace has at least one column, if shortcuts are off."""
    columns = COLUMN.findall(text)
    assert len(columns) == len(re.findall(r"(?<=[:,])\d[-+]\d", text)), f"a column that cannot be read: {text}"
    totals = [eval(f"{x}{sign}{y}" + (f"{sign}{carried}" if carried else "")) for x, sign, y, carried, _, _ in columns]
    return sum(
        total % 10 != int(digit) or (mark != "") != (total > 9 or total < 0)
        for total, (*_, mark, digit) in zip(totals, columns, strict=True)
    )


@pytest.mark.parametrize("formula", SUMS)
def test_every_column_and_every_step_of_a_right_trace_is_true(formula: str):
    texts = traces(formula, 8, shortcut_rate=0.5)
    assert all(len(OPERATION.findall(text)) >= 3 for text in texts) and any(COLUMN.search(text) for text in texts)
    for text in texts:
        assert false_columns(text) == 0, text
        for a, sign, b, result in OPERATION.findall(text):
            assert eval(f"{a}{sign}{b}") == int(result), text
        assert text.endswith(f"The answer is \\boxed{{{eval(formula)}}}.")


def test_shortcuts_are_taken_at_their_rate_and_not_at_all_by_default():
    shortcut = re.compile(r"^(?!Check)\d+[-+]\d+=\d+$", re.MULTILINE)
    taken = sum(len(shortcut.findall(text)) for text in traces(SUMS[0], 400, shortcut_rate=0.3))
    assert abs(taken / (3 * 400) - 0.3) < 0.05
    assert not any(shortcut.search(text) for text in traces(SUMS[0], 50))


def test_wrong_traces_come_at_their_rate_and_slip_once():
    texts = traces(SUMS[0], 400, wrong_rate=0.25)
    wrong = [text for text in texts if "\\boxed{298}" not in text]
    assert abs(len(wrong) / 400 - 0.25) < 0.08
    assert {false_columns(text) for text in wrong} == {1}


def test_a_corrected_slip_is_followed_by_the_right_conclusion():
    texts = traces(SUMS[0], 20, correction_rate=1, check_rate=0)
    assert all("Wait" in text and false_columns(text) == 1 and "\\boxed{298}" in text for text in texts)


def test_the_same_seed_writes_the_same_traces_and_another_seed_others():
    problem = Problem("p", "?", "298", formula=SUMS[0])
    first, again, other = (teacher(seed, wrong_rate=0.5, correction_rate=0.5).traces(problem, 20) for seed in (1, 1, 2))
    assert first == again and first != other


def test_a_formula_that_is_none_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="a bracket is not closed"):
        traces("2*(3+4")
    with pytest.raises(ValueError, match="101 numbers"):
        traces("+".join(["1"] * 101))
    with pytest.raises(ValueError, match="has no formula"):
        ProceduralTeacher().traces(Problem("p", "?", "5"), 1)


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_any_chain_of_sums_is_explained_to_its_end(seed: int):
    rng = random.Random(seed)
    formula = "+".join(str(rng.randint(0, 999)) for _ in range(rng.randint(1, 5)))
    assert f"\\boxed{{{eval(formula)}}}" in traces(formula, shortcut_rate=0.3)[0]


def test_what_is_given_is_written_first_in_digits_and_in_order():
    problem = Problem("p", "Of 1,200 pens on the 3rd day forty-five are red and 2.5 blue.", "1155", formula="1200-45")
    (trace,) = teacher(given=True).traces(problem, 1)
    (plain,) = teacher().traces(problem, 1)
    first, given, rest = trace.text.split("\n", 2)
    assert (first, given) == ("<think>", "Given 1200, 45, 2.5") and plain.text == f"<think>\n{rest}"
    (no_numbers,) = teacher(given=True).traces(Problem("p", "?", "5", formula="2+3"), 1)
    assert "Given" not in no_numbers.text


@pytest.mark.parametrize(
    ("formula", "line"),
    [("7.38*100", "7.38*100:>2 so 738"), ("281/100", "281/100:<2 so 2.81"), ("5/10", "5/10:<1 so 0.5")],
)
def test_times_or_over_a_power_of_ten_moves_the_point(formula: str, line: str):
    assert line in traces(formula)[0]
