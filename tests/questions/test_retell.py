"""Retelling: other people and things, the same numbers and the same formula."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.arithmetic.number_words import mentions
from whetstone.questions.metamath import MetamathSettings, augment
from whetstone.questions.retell import BOYS, GIRLS, KEPT, NAMES, THINGS, counted, people, plural, retell, singular
from whetstone.records import Problem

ANN = "Ann has 3 apples. Tom gave Ann 2 more apples, one apple a day. How many apples does Ann have now?"


def test_names_and_things_are_exchanged_wherever_they_stand():
    for seed in range(50):
        told = retell(ANN, random.Random(seed))
        match = re.fullmatch(
            r"(\w+) has 3 ([\w-]+)\. (\w+) gave (\w+) 2 more ([\w-]+), one ([\w-]+) a day\. "
            r"How many ([\w-]+) does (\w+) have now\?",
            told,
        )
        assert match, told
        ann, things, tom, ann_again, more, thing, asked, ann_asked = match.groups()
        assert ann == ann_again == ann_asked != tom and tom in BOYS and tom != "Tom"
        assert things == more == asked == plural(thing) != "apples"


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_numbers_stay_in_their_order(seed: int):
    question = "Mia and Zed had twenty-two kites and 3.5 kites. Zed's brother lost 1,000. How many kites are left?"
    told = retell(question, random.Random(seed))
    assert [m.value for m in mentions(told)] == [m.value for m in mentions(question)]


def test_the_gender_of_a_name_is_kept():
    question = "Zadie has 3 pens. She buys 2. How many does Zadie have?"
    assert all(retell(question, random.Random(seed)).split()[0] in GIRLS for seed in range(30))


def test_what_the_formula_may_rest_on_stays():
    question = "It took 3 weeks of 7 days. How many days did it take on Monday and in March?"
    assert counted(question) is None and people(question) == [] and retell(question, random.Random(0)) == question
    assert not set(map(plural, THINGS)) & {"weeks", "days", "cents", "boxes"} and "days" in KEPT


def test_an_article_follows_its_word():
    question = "Ben ate an apple and a red apple. How many apples did Ben eat?"
    for seed in range(60):
        told = retell(question, random.Random(seed))
        assert all(
            (article == "an") == (word[0] in "aeiou") for article, word in re.findall(r"\b(an?) ([\w-]+)", told)
        ), told


def test_a_thing_and_its_plural_are_undone_by_each_other():
    assert [singular(plural(thing)) for thing in THINGS] == list(THINGS)
    assert len(set(THINGS)) == len(THINGS) and not set(GIRLS) & set(BOYS) and len(NAMES) == len(GIRLS) + len(BOYS)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_resampled_is_retold_and_the_numbers_do_not_depend_on_it(share):
    problem = Problem(
        "p", "Ann has 31 red pens. She buys 22 more red pens. How many red pens does Ann have?", "53", formula="31+22"
    )
    made = [new for _, new in augment(problem, MetamathSettings(resample=40, retell=share), 0)]
    plain = [new for _, new in augment(problem, MetamathSettings(resample=40), 0)]
    assert [(p.formula, p.answer, p.origin) for p in made] == [(p.formula, p.answer, p.origin) for p in plain]
    anew = sum("Ann " not in p.question for p in made)
    assert abs(anew - share * 40) <= (0 if share in (0, 1) else 12)
    again = [new for _, new in augment(problem, MetamathSettings(resample=40, retell=share), 0)]
    assert again == made
