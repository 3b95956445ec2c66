"""Dates, times of the day and amounts of several units."""

from datetime import date, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.verify import verify
from whetstone.verify.moments import MONTHS, WEEKDAYS, Amounts, Moment, _read, read, same

EQUAL = r"""
March 5, 2020 == 5 March 2020
March 5, 2020 == March 5th, 2020
March 5, 2020 == 2020-03-05
March 5, 2020 == Mar. 5, 2020
March 5, 2020 == Thursday, March 5, 2020
Thursday, March 5, 2020 == March 5, 2020
\text{October 30} == October 30th
\text{October 30} == \text{30 October}
\text{June 20} == the 20th of June
25/12/2020 == December 25, 2020
3/5/2020 == 03/05/2020
3:30 PM == 3:30\text{ p.m.}
3:30 PM == 15:30
4\!:\!51\!:\!06 \text{ p.m.} == 4:51:06 PM
9\text{ a.m.} == 9:00 AM
05\!:\!00\text{ p.m.} == 5 o'clock p.m.
12:00 PM == noon
noon == 12 noon
12:00 AM == midnight
5:45 == 5:45 p.m.
5:45 == 05:45
0:05 == 12:05 a.m.
Monday 7:00 a.m. == 7 a.m. on Monday
2964-07-04 11:59:09 == July 4, 2964, 11:59:09 am
2 hours 30 minutes == 2 hours and 30 minutes
2 hours 30 minutes == 2 h 30 min
2 hours 30 minutes == 2h30m
2 hours 30 minutes == 150 minutes
2 hours 30 minutes == 2.5 hours
150\text{ minutes} == 2\text{ hours }30\text{ minutes}
17 days, 03:43 == 17 days 3 hours 43 minutes
5 feet 6 inches == 66 inches
5\text{ feet }6\text{ inches} == 5 ft 6 in
3 dollars and 50 cents == 350 cents
2 pencils and 3 pens == 3 pens, 2 pencils
3:2 == 3:2
"""
DIFFERENT = r"""
March 5, 2020 == March 6, 2020
March 5, 2020 == May 3, 2020
March 5, 2020 == March 5, 2021
March 5, 2020 == March 5
March 5, 2020 == Friday, March 5, 2020
March 5, 2020 == 3/5/2020
2020-03-05 == 2020-05-03
2020-03-05 == 2012
2020-03-05 == 2020-02-06
\text{October 30} == \text{October 3}
3/5/2020 == 5/3/2020
3:30 PM == 3:30 AM
3:30 PM == 3:30
3:30 PM == 3:31 PM
3:30 PM == 3:30:01 PM
9\text{ a.m.} == 9\text{ p.m.}
12:00 PM == midnight
15:30 == 3:30 a.m.
5:45 == 6:45 p.m.
Monday 7:00 a.m. == Tuesday 7:00 a.m.
2 hours 30 minutes == 30 hours 2 minutes
2 hours 30 minutes == 2, 30
2 hours 30 minutes == 150
2 hours 30 minutes == 2 hours
2 hours 30 minutes == 2.3 hours
2 hours 30 minutes == 2 days 30 minutes
5 feet 6 inches == 6 feet 5 inches
17 days, 03:43 == 17 days, 03:44
2 pencils and 3 pens == 3 pencils and 2 pens
2019 == May 5, 2019
\text{May} == 5
3:2 == 4:6
1:30 == 1/30
"""


def pairs(table):
    return [tuple(line.split(" == ")) for line in table.strip().splitlines()]


@pytest.mark.parametrize("gold, answer", pairs(EQUAL))
def test_a_moment_is_equal_in_any_notation(gold, answer):
    assert verify(rf"\boxed{{{answer}}}", gold).correct is True
    assert verify(f"The answer is ${answer}$.", gold).correct is True


@pytest.mark.parametrize("gold, answer", pairs(DIFFERENT))
def test_another_moment_is_different(gold, answer):
    assert verify(rf"\boxed{{{answer}}}", gold).correct is False


def clocks(hour, minute):
    half, twelve = ("PM" if hour >= 12 else "AM"), (hour + 11) % 12 + 1
    return [
        f"{twelve}:{minute:02} {half}",
        f"{twelve:02}:{minute:02}\\text{{ {half[0].lower()}.m.}}",
        f"{twelve}\\!:\\!{minute:02}{half.lower()}",
        f"{twelve}:{minute:02}:00 {half}",
    ]


@given(st.integers(0, 1439), st.integers(0, 1439))
def test_times_are_the_same_exactly_when_their_minutes_are(first, second):
    for gold in clocks(*divmod(first, 60)):
        for answer in clocks(*divmod(second, 60)):
            assert same(gold, answer) is (first == second), (gold, answer)


def dates(day):
    month = MONTHS[day.month - 1].capitalize()
    return [
        f"{month} {day.day}, {day.year}",
        f"{day.day} {month[:3]} {day.year}",
        f"{WEEKDAYS[day.weekday()]}, {month} {day.day}, {day.year}",
        day.isoformat(),
        f"\\text{{{month} {day.day}}}, {day.year}",
    ]


@given(st.dates(date(1000, 1, 1), date(9998, 1, 1)), st.integers(0, 400))
def test_dates_are_the_same_exactly_when_their_days_are(first, days):
    second = first + timedelta(days=days)
    for gold in dates(first):
        for answer in dates(second):
            assert same(gold, answer) is (days == 0), (gold, answer)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 99), st.integers(0, 59))
def test_amounts_are_the_same_exactly_when_their_sums_are(hours, minutes, other_hours, other_minutes):
    gold, answer = f"{hours} hours {minutes} minutes", f"{other_hours} hr, {other_minutes} min."
    assert same(gold, answer) is (hours * 60 + minutes == other_hours * 60 + other_minutes)
    assert same(gold, f"{Fraction(hours * 60 + minutes)} minutes") is True


def test_no_such_day_is_no_date():
    assert read("February 30, 2020") is None
    assert read("2021-02-29") is None
    assert read("13/13/2020") is None
    assert read("25:00 PM") is None and read("13 pm") is None


def test_formulas_are_no_moments():
    for text in (
        "3",
        "2x3y",
        "3:2",
        "12 cm",
        "sin 2x",
        "2 mod 3",
        "x=3",
        "(1, 2)",
        "50 percent",
        r"\frac{1}{2}",
        "May",
        "1/2",
    ):
        moment = read(text)
        assert moment is None or (isinstance(moment, Amounts) and not moment.several), text
    assert read("3:30") == Moment(seconds=12600) and read("3:30").bare


@given(st.text(max_size=60), st.text("0123456789:apm./- jun", max_size=20))
def test_no_text_raises_or_differs_from_itself(text, near):
    for gold in (text, near):
        assert same(gold, gold) is not False
        assert read(gold) is not None or same(gold, near) is None


def test_long_texts_are_not_kept():
    before = _read.cache_info().currsize
    assert read("2 hours 30 minutes" + " " * 10_000) is None
    assert _read.cache_info().currsize == before
