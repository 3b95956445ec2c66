"""Test questions in other clothes are recognised, and other questions are not."""

import doctest
import json
import random

import pytest

from whetstone.corpus import build, spelling
from whetstone.corpus.contamination import ContaminationSettings, TestQuestions
from whetstone.corpus.files import EvaluationSet
from whetstone.corpus.spelling import tokens
from whetstone.records import Problem

BAKER = "A baker has {} trays with {} rolls on each tray and sells {} rolls before noon. How many rolls are left?"
WALK = (
    r"Every morning Aya walks $9$ kilometers at a speed of $s+\frac{1}{2}$ kilometers per hour, where $s \leq 3$ and "
    r"$x^2 \cdot 60^\circ$ is given. Find the number of minutes the walk takes her."
)


def index(*questions: str, **settings) -> TestQuestions:
    problems = [Problem(f"t{n}", question, "", "test", "set") for n, question in enumerate(questions)]
    return TestQuestions(problems, ContaminationSettings(**settings))


def rule(tests: TestQuestions, question: str, formula: str = "") -> str | None:
    match = tests.match(question, formula)
    return match.rule if match else None


def test_docstring_examples_are_true():
    assert doctest.testmod(spelling).failed == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"$\dfrac{1}{2}\times 1,200$", r"\(\frac12 * 1{,}200\)"),
        (r"\left( x \right)", "(x)"),
        (r"$x^{2} \geq \ldots$", "x² ≥ …"),
        (r"60^{\circ}", "60°"),
        (r"\begin{align*} a &= 2 \\ b &= 3 \end{align*}", "$a = 2$ $b = 3$"),
        (r"\text{ if } \pi", "if π"),
        (r"\$5.50", "$5.50"),
        ("½ of it", "1/2 of it"),
    ],
)
def test_spellings_of_one_thing_have_the_same_tokens(one, other):
    assert tokens(one) == tokens(other)


def test_what_is_no_matter_of_spelling_keeps_tokens_apart():
    assert tokens("8 - 2") != tokens("8 + 2")
    assert tokens(r"\sin x") != tokens(r"\cos x")
    assert tokens("f(x)") != tokens("f x")


def test_a_test_question_is_recognised_in_other_spelling():
    tests = index("What is $2 \\times 3$?", WALK)
    assert rule(tests, "what is 2 × 3 ?") == "equal"
    assert rule(tests, "What is 2 * 4?") == "other numbers"
    other = WALK.replace(r"\frac{1}{2}", r"\tfrac 12").replace(r"\leq", "≤").replace("$", "$ ").replace(r"^\circ", "°")
    assert rule(tests, other) == "equal"


def test_a_test_question_inside_a_longer_text_is_found_by_its_run_and_its_numbers():
    tests = index(BAKER.format(12, 30, 99), "Work out the value of 17 + 4 * 25")
    assert rule(tests, f"Here is a riddle. {BAKER.format(12, 30, 99)} Box it.") == "n-gram"
    assert rule(tests, "Please think hard. Work out the value of 17 + 4 * 25. Box it.") == "n-gram"


def test_the_same_text_with_other_numbers_is_counted_and_is_not_contamination():
    tests = index(BAKER.format(12, 30, 99))
    assert rule(tests, BAKER.format(12, 30, 98)) == "other numbers"
    assert rule(tests, BAKER.format("twenty-five", 31, 7)) == "other numbers"
    assert rule(tests, f"Well. {BAKER.format(12, 30, 98)} Say it.") == "other numbers"
    assert not tests.match(BAKER.format(12, 30, 98)).contaminated


def test_what_is_like_a_test_question_but_for_its_numbers_is_a_look_alike_where_that_is_asked_for():
    question = BAKER.format(12, 30, 99)
    tests = index(question, look_alikes=0.75)
    told_anew = question.replace("baker", "cook", 1).replace("12", "47")
    assert told_anew != question and tests.match(told_anew).rule == "look-alike"
    assert not tests.match(told_anew).contaminated
    assert (
        tests.match("Tom has 9 pens and 12 caps in one box, 30 in another and 99 at home. How many are left?") is None
    )


def test_changed_word_order_is_found_however_it_is_changed():
    question = BAKER.format(12, 30, 99)
    tests = index(question, WALK)
    words = question.split()
    random.Random(0).shuffle(words)
    assert rule(tests, " ".join(words)) == "other order"
    assert rule(tests, "How many rolls are left? " + question.removesuffix(" How many rolls are left?")) == "n-gram"
    assert rule(tests, " ".join(words).replace("99", "98")) is None


def test_in_short_questions_the_order_of_the_words_tells_problems_apart():
    assert rule(index("Find the value of 8 - 3 + 2"), "Find the value of 3 - 8 + 2") == "other numbers"


def test_formulas_tell_problems_in_other_order_apart():
    said = "Mia has {} shells in a box . She finds {} more on the beach and loses {} of them . How many has she ?"
    problem = Problem("t", said.format(9, 4, 2), "11", "test", formula="9+4-2")
    tests = TestQuestions([problem])
    swapped = said.format(9, 2, 4)
    assert rule(tests, swapped) == "other order"
    assert rule(tests, swapped, "9+2-4") == "other numbers"


def test_similar_sets_are_found_exactly_as_by_comparing_all():
    rng = random.Random(1)
    words = [a + b for a in "bcdfghkl" for b in "aeiou"]
    questions = [" ".join(rng.choices(words, k=rng.randint(12, 20))) for _ in range(60)]
    changed = [q.split() for q in questions]
    for parts in changed:
        parts[rng.randrange(len(parts))] = rng.choice(words)
        rng.shuffle(parts)
    tests = index(*questions, near=0.8)
    for parts in changed + [rng.choices(words, k=15) for _ in range(40)]:
        similar = tests._bags.similar(parts, unknown=0)
        assert similar == [n for n, q in enumerate(questions) if _multiset_jaccard(parts, q.split()) >= 0.8]


def _multiset_jaccard(one: list[str], other: list[str]) -> float:
    kinds = set(one) | set(other)
    return sum(min(one.count(w), other.count(w)) for w in kinds) / sum(max(one.count(w), other.count(w)) for w in kinds)


def test_evaluation_sets_beside_the_recipe_are_read_and_a_wrong_column_is_named(tmp_path):
    path = tmp_path / "aime.jsonl"
    path.write_text(json.dumps({"problem": "What is 1 + 1?"}) + "\n")
    (one,) = EvaluationSet(path=str(path), question="problem").questions()
    assert (one.question, one.split, one.benchmark) == ("What is 1 + 1?", "test", tmp_path.name)
    with pytest.raises(ValueError, match=r"row 1, has no text in the column 'question': it has 'problem'"):
        list(EvaluationSet(path=str(path)).questions())
    assert build.reads(build.Settings(kind="corpus", contamination={"against": [{"path": str(path)}]})) == [path]


def test_no_test_questions_match_nothing():
    assert index().match("What is 1 + 1?") is None
    assert index("What is 1 + 1?").match("") is None
