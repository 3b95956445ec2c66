"""Question dropout leaves out words and sentences at their rates, and never numbers."""

import random

import pytest

from whetstone.arithmetic.number_words import mentions
from whetstone.learner.question_dropout import QuestionDropout, common_words

QUESTION = "On a sunny day they met. Ann has twenty-two pens and 3 caps. They sang. If x is 4, how many pens has she?"


def test_numbers_and_the_unknown_always_stay():
    drop, rng = QuestionDropout(0.9, 0.95, 0.9), random.Random(0)
    for _ in range(200):
        left = drop(QUESTION, rng)
        assert [m.value for m in mentions(left)] == [22, 3, 4] and "x" in left.split()


def test_rare_words_are_left_out_more_often_than_common_ones():
    questions = ["how many pens are there"] * 300 + ["how many zebras are there"]
    common = common_words(questions)
    assert common == {"how", "many", "pens", "are", "there"}
    drop, rng = QuestionDropout(0.1, 0.6, common=common), random.Random(0)
    questions = [drop("How many zebras, are there?", rng).split() for _ in range(2000)]
    share = {word: sum(word in words for words in questions) / 2000 for word in ("zebras,", "many", "there?")}
    assert share["zebras,"] == pytest.approx(0.4, abs=0.04)
    assert share["many"] == pytest.approx(0.9, abs=0.03) == share["there?"]


def test_sentences_without_a_number_are_left_out_and_the_last_never():
    drop, rng = QuestionDropout(sentences=0.5), random.Random(0)
    questions = [drop("They met. Ann has 3 pens. They sang. How many are red?", rng) for _ in range(1000)]
    assert {len(question.split(". ")) for question in questions} == {2, 3, 4}
    assert sum("They met." in question for question in questions) / 1000 == pytest.approx(0.5, abs=0.05)
    assert all("Ann has 3 pens." in question and question.endswith("How many are red?") for question in questions)


def test_a_question_is_never_empty_and_rates_of_zero_change_nothing():
    assert all(QuestionDropout(0.99)("Why?", random.Random(seed)) == "Why?" for seed in range(20))
    assert QuestionDropout()(QUESTION, random.Random(0)) == QUESTION
