"""What MetaMath makes is right: its formula gives its answer, and its answer put back gives the original's."""

import doctest
import random
import re
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.arithmetic.expression import evaluate, numbers, parse, program, render, results, write_number
from whetstone.arithmetic.number_words import mentions, spell
from whetstone.problems.reading import Drop
from whetstone.questions import metamath, statements
from whetstone.questions.metamath import MetamathSettings, augment
from whetstone.questions.sources import procedural
from whetstone.questions.splits import template
from whetstone.questions.statements import as_statement
from whetstone.records import Problem

ALL = MetamathSettings(resample=5, fobar=2, self_verification=2)


def problem(question: str, formula: str, **more: str) -> Problem:
    return Problem(id="p", question=question, answer=write_number(evaluate(parse(formula))), formula=formula, **more)


APPLES = problem("Seven red and two green apples are in the basket. How many apples are in the basket?", "7+2")
BUTTONS = problem(
    "They used 2 buttons on jeans and 5 on shirts. If they made 9 shirts, how many buttons is that?", "5*9+2"
)
PRICES = problem("A cap costs $12.50 and a scarf $8.25. How much do they cost?", "12.5+8.25")


def made(original: Problem, kind: str, **counts: int) -> list[Problem]:
    asked = MetamathSettings(**counts) if counts else ALL
    return [item for name, item in augment(original, asked, seed=1) if name == kind and isinstance(item, Problem)]


def drops(original: Problem, **counts: int) -> list[Drop]:
    return [item for _, item in augment(original, MetamathSettings(**counts), seed=1) if isinstance(item, Drop)]


def grown(rng: random.Random, leaves: int) -> str:
    """A random formula of which every step is a whole number, 0 or more."""
    if leaves == 1:
        return str(rng.choice((rng.randrange(10), rng.randrange(100), rng.randrange(1000))))
    first = rng.randrange(1, leaves)
    left, right = grown(rng, first), grown(rng, leaves - first)
    a, b = evaluate(parse(left)), evaluate(parse(right))
    signs = "+*" + "-" * (a >= b) + "/" * (b > 0 and a % b == 0)
    return f"({left}{rng.choice(signs)}{right})"


def story(seed: int) -> Problem:
    """A text that gives the numbers of a random formula in order, in digits or in words."""
    rng = random.Random(seed)
    formula = parse(grown(rng, rng.randrange(2, 7)))
    shown = [spell(n) if rng.random() < 0.3 else str(n) for n in numbers(formula)]
    return problem(f"Given {', '.join(shown)}. What is it?", render(formula))


stories = st.integers(0, 2**32).map(story)


@pytest.mark.parametrize("kind", ["fobar", "self_verification", "resampled"])
def test_most_stories_give_problems_of_every_kind(kind: str):
    """The properties below say nothing of stories that give none."""
    assert sum(bool(made(story(seed), kind)) for seed in range(40)) >= 30


def test_docstring_examples_are_true():
    assert doctest.testmod(metamath).failed == doctest.testmod(statements).failed == 0


@settings(max_examples=100, deadline=None)
@given(stories)
def test_inverse_answers_put_back_give_the_original_answer(original: Problem):
    for kind in ("fobar", "self_verification"):
        for inverse in made(original, kind, fobar=3, self_verification=3):
            assert str(evaluate(parse(inverse.formula))) == inverse.answer
            restored = re.sub(r"\bx\b", inverse.answer, inverse.question, count=1)
            shown = [mention.value for mention in mentions(restored)][: len(numbers(parse(original.formula)))]
            assert shown == numbers(parse(original.formula))
            steps = results(program(parse(inverse.formula)), numbers(parse(inverse.formula)))
            assert steps is not None, f"{inverse.formula} has a step below zero"


@settings(max_examples=100, deadline=None)
@given(stories)
def test_no_other_number_answers_an_inverse_question(original: Problem):
    formula = parse(original.formula)
    for inverse in made(original, "fobar", fobar=3):
        written = numbers(formula)
        shown = inverse.question.partition(".")[0].removeprefix("Given ").split(", ")
        masked = shown.index("x")
        assert len(shown) == len(written)
        for other in range(120):
            changed = [*written[:masked], other, *written[masked + 1 :]]
            steps = results(program(formula), changed)
            if steps is not None and str(steps[-1]) == original.answer:
                assert str(other) == inverse.answer


@settings(max_examples=100, deadline=None)
@given(stories)
def test_resampled_numbers_agree_in_text_formula_and_answer(original: Problem):
    for variant in made(original, "resampled"):
        formula = parse(variant.formula)
        steps = results(program(formula), numbers(formula), whole=True)
        assert steps is not None and str(steps[-1]) == variant.answer
        assert [mention.value for mention in mentions(variant.question)] == numbers(formula)
        assert template(variant.question) == template(original.question)


@pytest.mark.parametrize("family", ["chain", "word"])
def test_procedural_problems_can_be_augmented(family: str):
    source = procedural.ProceduralSource(kind="procedural", families=(family,), train=20)
    for original in islice(source.draw(0), 20):
        kinds = [name for name, item in augment(original, ALL, seed=0) if isinstance(item, Problem)]
        assert kinds.count("resampled") == 5
        assert kinds.count("fobar") == 2


def test_fobar_by_hand():
    questions = {p.answer: p for p in made(APPLES, "fobar")}
    assert set(questions) == {"7", "2"}
    assert questions["7"].formula == "9-2"
    assert questions["7"].question == (
        "x red and two green apples are in the basket. How many apples are in the basket? If we know the answer to the "
        "above question is 9, what is the value of unknown variable x?"
    )


def test_self_verification_by_hand():
    questions = {p.answer: p.question for p in made(APPLES, "self_verification")}
    assert questions["2"] == (
        "Seven red and x green apples are in the basket. 9 apples are in the basket. "
        "What is the value of unknown variable x?"
    )


def test_way_back_is_undone_step_by_step():
    assert {p.answer: p.formula for p in made(BUTTONS, "fobar", fobar=3)} == {
        "2": "47-5*9",
        "5": "(47-2)/9",
        "9": "(47-2)/5",
    }


def test_decimals_keep_their_places():
    for variant in made(PRICES, "resampled"):
        assert re.fullmatch(
            r"A cap costs \$\d\d\.\d\d and a scarf \$\d\.\d\d\. How much do they cost\?", variant.question
        )
        assert evaluate(parse(variant.formula)) == evaluate(parse(variant.answer))


def test_numbers_are_as_long_as_before_and_written_the_same_way():
    original = problem("Forty-five of the 1,200 apples fell. How many are left?", "1200-45")
    variants = made(original, "resampled")
    assert len(variants) == ALL.resample
    for variant in variants:
        assert re.fullmatch(
            r"[A-Z][a-z]+(-[a-z]+)? of the \d,\d{3} apples fell\. How many are left\?", variant.question
        )


def test_origin_licence_level_and_split_travel():
    original = problem(APPLES.question, "7+2", licence="CC BY-NC 4.0", source="asdiv", domain="addition")
    for _, item in augment(original, ALL, seed=0):
        assert (item.origin, item.licence, item.source, item.domain) == ("p", "CC BY-NC 4.0", "asdiv", "addition")
        assert item.split == "train" and item.id.startswith("p/")


def test_augmentation_is_a_function_of_problem_and_seed():
    assert list(augment(APPLES, ALL, 1)) == list(augment(APPLES, ALL, 1))
    assert list(augment(APPLES, ALL, 1)) != list(augment(APPLES, ALL, 2))


@pytest.mark.parametrize("split", ["test", "validation"])
def test_held_out_problems_are_never_augmented(split: str):
    with pytest.raises(AssertionError, match="only training problems"):
        list(augment(problem("Is it 7 and 2?", "7+2", split=split), ALL, 0))


@pytest.mark.parametrize(
    ("question", "formula"),
    [
        ("Half of the 18 pens and 2 caps: how many things?", "18/2+2"),  # the 2 of "half"
        ("On the 3rd day 3 birds and 4 ducks came. How many came?", "3+4"),  # the 3 of "3rd"
        ("Is 3x + 3 = 18? Then what is it?", "(18-3)/3"),  # the 3 of "3x"
    ],
)
def test_numbers_that_may_stand_for_something_else_are_left_alone(question: str, formula: str):
    risky = {"18/2+2": 2, "3+4": 3, "(18-3)/3": 3}[formula]
    before = [m.value for m in mentions(question)].count(risky)
    variants = made(problem(question, formula), "resampled")
    assert variants
    for variant in variants:
        assert [m.value for m in mentions(variant.question)].count(risky) >= before


def test_a_text_that_tells_the_result_is_not_resampled():
    original = problem("Tom had 12 pens, lost 4 and has 8 left. How many is that?", "12-4")
    (drop,) = drops(original, resample=3)
    assert drop.reason == "metamath: fewer resampled than asked" and "tells a result" in drop.detail


def test_a_number_that_occurs_twice_is_not_masked():
    (drop,) = drops(problem("Two pens and 2 caps: how many things?", "2+2"), fobar=1)
    assert drop.detail == "0 of 1: no number occurs once in the text and once in the formula"


def test_a_number_that_is_not_determined_is_not_asked_for():
    original = problem("Ann has 5 bags with 0 pens each and 4 caps. How many things are there?", "5*0+4")
    assert [p.answer for p in made(original, "fobar", fobar=2)] == ["4"]
    assert "1 of 2: the masked number is not determined" in drops(original, fobar=2)[0].detail


def test_a_text_with_an_x_in_it_gets_no_second_one():
    original = problem("Solve for x: x + 34 = 120.", "120-34")
    assert "already has an x" in drops(original, fobar=1)[0].detail
    assert made(original, "resampled")


def test_inverse_questions_beyond_the_original_use_new_numbers():
    asked = made(APPLES, "fobar", resample=5, fobar=6)
    assert len(asked) == 6
    assert len({p.question for p in asked}) == 6


@pytest.mark.parametrize(
    ("question", "statement"),
    [
        (
            "Ellen has x balls. How many balls does Ellen have?",
            "Ellen has x balls. The number of balls that Ellen has is 15.",
        ),
        (
            "Mr. Lee had x. If he got 3 more, how many did he have?",
            "Mr. Lee had x. If he got 3 more, the number that he had is 15.",
        ),
        ("What is x + 3?", "x + 3 is 15."),
        ("Compute x + 3.", "x + 3 is 15."),
        ("Find the area of a square with side x.", "The area of a square with side x is 15."),
        ("There were x. How many pens are there now?", "There were x. There are 15 pens now."),
        (
            "She paid x. How much money did she pay in all?",
            "She paid x. The amount of money that she did pay in all is 15.",
        ),
        ("A wall is x m. What's its length?", "A wall is x m. Its length is 15."),
        ("Who has x?", None),
        ("How many more pens than x caps does he have?", None),
        ("x. ", None),
    ],
)
def test_question_and_answer_become_a_statement(question: str, statement: str | None):
    assert as_statement(question, "15") == statement


def test_more_variants_than_there_are_is_not_tried_forever():
    original = problem("Of 9 pens 8 are lost. How many are left?", "9-8")
    assert len(made(original, "resampled", resample=100)) == 27, "8 over 2 pairs from 2 to 9, less the original"
    assert "27 of 100" in drops(original, resample=100)[0].detail
