import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.arithmetic.number_words import LARGEST_SPELLED, mask_numbers, mentions, read_words, spell


@given(st.integers(0, LARGEST_SPELLED))
def test_spelled_numbers_read_back_whole(number: int):
    words = spell(number)
    assert read_words(words) == number
    (mention,) = mentions(f"He has {words} apples.")
    assert (mention.value, mention.spelled, mention.free) == (number, True, True)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("Seven red apples and two green ones", [7, 2]),  # "ones" is no number
        ("five hundred fifty-four students", [554]),
        ("two hundred and five", [205]),
        ("one thousand, two hundred", [1200]),
        ("1,200 and $3.50.", [1200, 3.5]),
        ("He recorded: 81, 73, 83, 86 and 73.", [81, 73, 83, 86, 73]),
        ("5-year-old", [5]),
        ("someone often weighs height", []),
    ],
)
def test_numbers_found(text: str, values: list[float]):
    assert [mention.value for mention in mentions(text)] == values


@pytest.mark.parametrize(
    "text", ["the 3rd", "at 7:30", "1/2 cup", "2-digit", "x2", "3x", "5 million", "2 1/2", "two dozen"]
)
def test_numbers_inside_something_else_are_not_free(text: str):
    assert not any(mention.free for mention in mentions(text))


def test_templates_forget_the_numbers_only():
    assert mask_numbers("Tom has 12 pens and two caps") == "Tom has # pens and # caps"
    assert mask_numbers("Tom has 12 pens") != mask_numbers("Tom has 12 caps")
