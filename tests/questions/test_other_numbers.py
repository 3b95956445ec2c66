"""Other numbers through a solution's own equations: every result is recomputed, every text says the same numbers."""

import doctest
import random
import re
from fractions import Fraction

import pytest

from whetstone.arithmetic import equations as equations_module
from whetstone.problems.reading import Shipped
from whetstone.questions import other_numbers as module
from whetstone.questions import rewriting
from whetstone.questions.metamath import MetamathSettings, augment
from whetstone.questions.other_numbers import other_numbers, understand_solution
from whetstone.records import Problem

CLIPS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many in May. How many did she sell?",
    "48/2=24; 48+24=72",
    "Natalia sold 48/2 = 24 clips in May.\nNatalia sold 48+24 = 72 clips.\n\nThe answer is $\\boxed{72}$.",
)
SALE = (
    "A $60 coat is 20% off, and five caps cost $4.50 each. What do they cost?",
    "60*.2=12; 60-12=48; 5*4.50=22.5; 48+22.5=70.5",
    "The discount is $60 x .2 = $12, so the coat costs $60 - $12 = $48. Five caps cost 5 x $4.50 = $22.50. "
    "That is $48 + $22.50 = $70.50.\n\nThe answer is $\\boxed{70.5}$.",
)
SUM = re.compile(r"(?<![\w.])((?:\$?[\d.]+ ?[-+*/x] ?)+\$?[\d.]*\d) ?= ?\$?([\d.]*\d)")


def problem(story: tuple[str, str, str]) -> Problem:
    question, equations, solution = story
    answer = re.search(r"\\boxed{(.*)}", solution)[1]
    return Problem("p", question, answer, equations=equations)


def variants(story: tuple[str, str, str], count: int = 20) -> list[Shipped]:
    return list(other_numbers(problem(story), [story[2]], count, random.Random(1)))


def test_docstring_examples_are_true():
    assert not any(doctest.testmod(tested).failed for tested in (module, rewriting, equations_module))


def test_every_text_of_a_variant_says_the_same_numbers():
    made = variants(CLIPS)
    assert len(made) == 20
    for item in made:
        friends = int(re.search(r"to (\d+) of", item.problem.question)[1])
        assert friends != 48 and 24 <= friends <= 96 and friends % 2 == 0
        may, both = friends // 2, friends + friends // 2
        assert item.problem.answer == str(both)
        assert item.problem.equations == f"{friends}/2={may}; {friends}+{may}={both}"
        assert item.traces == (
            f"Natalia sold {friends}/2 = {may} clips in May.\nNatalia sold {friends}+{may} = {both} clips.\n\n"
            f"The answer is $\\boxed{{{both}}}$.",
        )


def test_percentages_cents_and_words_are_rewritten_as_they_were_written():
    for item in variants(SALE):
        coat, off = map(int, re.search(r"A \$(\d+) coat is (\d+)% off", item.problem.question).groups())
        caps = re.search(r"and (\w+) caps cost \$(\d+\.\d\d) each", item.problem.question)
        shown = SUM.findall(item.traces[0])
        assert caps and not caps[1].isdigit() and len(shown) == 4
        for left, right in shown:
            assert eval(re.sub(r"\$", "", left).replace("x", "*")) == pytest.approx(float(right))
        assert float(shown[1][1]) == pytest.approx(coat * (100 - off) / 100)
        assert Fraction(item.problem.answer) == Fraction(shown[-1][1])


@pytest.mark.parametrize(
    ("question", "equations", "solution", "reason"),
    [
        (
            "Ann has 24 pens and 48 caps, half of them red. How many pens and red caps?",
            "48/2=24; 24+24=48",
            "",
            "two things",
        ),
        ("Ann has 5 pens and 7 caps. How many?", "5+7=12; 12+100.5=112.5", "", "from nowhere"),
        ("Ann has 5 pens and 7 caps. How many?", "5+7=13", "", "not true"),
        (
            "Ann has 5 pens and 7 caps. How many?",
            "5+7=12",
            "She has 5+7 = 12, that is 4 boxes of 3.",
            "no equation gives",
        ),
        ("Ann has 5 pens and 7 caps. How many?", "5+7=12", "She has 5+7 = 13.", "equation that is not true"),
        ("He came on May 5 at 7 pm. What is the sum?", "5+7=12", "", "that may change"),
        ("The triangle's sides are 5 and 7. What is their sum?", "5+7=12", "", "fit a figure"),
    ],
)
def test_what_cannot_be_changed_safely_is_refused_with_its_reason(question, equations, solution, reason):
    answer = equations.rpartition("=")[2]
    with pytest.raises(ValueError, match=reason):
        understand_solution(Problem("p", question, answer, equations=equations), [solution])


def test_new_numbers_stay_within_their_unit():
    week = "Al works 5 days a week for 8 hours a day, and earns 90% of $20 an hour. How much per week?"
    made = other_numbers(Problem("p", week, "720", equations="5*8=40; 20*.9=18; 40*18=720"), [], 40, random.Random(0))
    for item in made:
        days, hours, share, pay = map(int, re.findall(r"\d+", item.problem.question))
        assert (days <= 7 and hours <= 16 and share <= 99) and int(
            item.problem.answer
        ) * 100 == days * hours * share * pay


def test_metamath_ships_the_rewritten_solution_and_counts_what_gives_none():
    settings = MetamathSettings(resample=2, fobar=1)
    made = list(augment(problem(CLIPS), settings, 0, [CLIPS[2]]))
    assert [name for name, item in made if isinstance(item, Shipped)] == ["resampled", "resampled"]
    assert [item.detail for _, item in made if not isinstance(item, Shipped)] == [
        "0 of 1: its equations do not join into one formula"
    ]
    unclear = Problem("p", "Ann has 12 pens, 10 caps and 3 hats. How many?", "15", equations="10+2=12; 12+3=15")
    (_, drop), _ = augment(unclear, settings, 0)
    assert (drop.reason, drop.detail.split(": ")[1]) == (
        "metamath: fewer resampled than asked",
        "a number may stand for two things",
    )
