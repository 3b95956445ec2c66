"""One answer from many: the verifier's equality decides what is the same; programs run first."""

import doctest
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted import Scripted, problem
from whetstone import answer
from whetstone.answer import best_of, count_votes, hybrid, majority
from whetstone.records import PROGRAM_REQUEST, Completion, Sampling, Verdict
from whetstone.verify import MathVerifier, extract, get_policy
from whetstone.verify.program import Refused, Sandbox


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier() as rules:
        yield rules


def test_docstring_examples_are_true():
    assert doctest.testmod(answer).failed == 0


def test_answers_that_are_equal_vote_together_however_they_are_written(verifier):
    texts = [r"\boxed{3}", r"so \boxed{\frac{1}{2}}", r"\boxed{0.5}", "", r"\boxed{1/2}", r"\boxed{3}"]
    vote = majority(texts, verifier)
    assert (vote.answer, vote.votes, vote.voters, vote.places) == (r"\frac{1}{2}", 3, 5, (1, 2, 4))
    assert vote.share == 0.6


def test_of_equally_frequent_answers_the_first_wins_and_silence_has_no_vote(verifier):
    assert majority([r"\boxed{7}", r"\boxed{8}", r"\boxed{8}", r"\boxed{7}"], verifier).answer == "7"
    nobody = majority(["", "<think>\\boxed{1}"], verifier)
    assert nobody.answer is None and nobody.share == 0
    assert count_votes([None, "", None], verifier) == []


def votes(answers: list[str], verifier) -> list[list[str]]:
    return [[answers[place] for place in vote.places] for vote in count_votes(answers, verifier)]


class Accepting:
    """A verifier by hand: accepts (answer, reference) pairs, cannot decide others, and counts what it is asked."""

    def __init__(self, accepts: set[tuple[str, str]] = frozenset(), undecided: set[tuple[str, str]] = frozenset()):
        self.accepts, self.undecided, self.asked = accepts, undecided, 0

    def check_many(self, items):
        for text, gold, policy in items:
            self.asked += 1
            pair = extract(text, get_policy(policy)).answer, gold
            yield Verdict(None if pair in self.undecided else pair in self.accepts, "")


UNITS = Accepting({pair for unit in ("5 feet", "5 inches") for pair in ((unit, "5"), ("5", unit))})


def test_answers_share_a_vote_only_if_each_is_accepted_for_the_other(verifier):
    assert votes(["x=5", "y=5", "x=5"], verifier) == [["x=5", "x=5"], ["y=5"]]
    assert votes(["28%", "28", "0.28"], verifier) == [["28%", "0.28"], ["28"]]


@pytest.mark.parametrize("answers", list(permutations(["5", "5 feet", "5 feet", "5 inches"])))
def test_a_bare_number_that_is_accepted_for_two_units_joins_neither(answers):
    assert sorted(map(sorted, votes(list(answers), UNITS))) == [["5"], ["5 feet", "5 feet"], ["5 inches"]]


@pytest.mark.parametrize("answers", list(permutations(["5", "x=5", "y=5"])))
def test_a_bare_number_that_is_accepted_for_two_equations_joins_neither(answers, verifier):
    assert sorted(votes(list(answers), verifier)) == [["5"], ["x=5"], ["y=5"]]


def test_the_most_frequent_spelling_forms_its_group_first():
    assert votes(["5", "5 feet", "5 inches", "5"], UNITS) == [["5", "5 feet", "5"], ["5 inches"]]


AB, BA = ("a", "b"), ("b", "a")


def test_one_direction_or_an_undecided_comparison_is_not_enough():
    assert len(count_votes(list("ab"), Accepting({"ab"}))) == len(count_votes(list("ab"), Accepting({"ba"}))) == 2
    assert len(count_votes(list("ab"), Accepting({AB}, {BA}))) == 2
    assert len(count_votes(list("ab"), Accepting({AB, BA}))) == 1


LETTERS = st.sampled_from("abcdef")


@given(st.lists(LETTERS, max_size=8), st.sets(st.tuples(LETTERS, LETTERS)))
def test_every_two_answers_of_a_vote_are_the_same_and_the_checks_are_bounded(answers, accepts):
    verifier = Accepting(accepts)
    groups = votes(answers, verifier)
    assert Counter(answer for group in groups for answer in group) == Counter(answers)
    assert all(a == b or {(a, b), (b, a)} <= accepts for group in groups for a in group for b in group)
    assert [len(group) for group in groups] == sorted(map(len, groups), reverse=True)
    assert verifier.asked <= len(answers) * max(0, len(answers) - 1)


def test_the_best_is_the_scorers_first_highest():
    completions = [Completion("p", i, text, "end") for i, text in enumerate(["aa", "b", "cc"])]
    assert best_of(problem(), completions, lambda p, text: len(text)).index == 0
    assert best_of(problem(), completions, lambda p, text: -len(text)).index == 1
    with pytest.raises(ValueError, match="no best of no completions"):
        best_of(problem(), [], lambda p, text: 0.0)
    with pytest.raises(ValueError, match=r"completion 0: the scorer gave nan"):
        best_of(problem(), completions, lambda p, text: float("nan"))


def test_a_program_answers_and_where_it_fails_a_thought_does():
    problems = [problem("runs"), problem("raises"), problem("none")]

    def text(prompt, sampling):
        if not prompt.messages[0].content.endswith(PROGRAM_REQUEST):
            return f"I think \\boxed{{{len(prompt.problem_id)}}}"
        return {
            "runs": "```python\ndef solution():\n    return 6 * 7\n```",
            "raises": "```python\nprint(1 / 0)\n```",
            "none": "I will not.",
        }[prompt.problem_id]

    generator = Scripted(text)
    with Sandbox() as sandbox:
        if sandbox.level is None:
            pytest.skip("this machine runs no programs")
        runs, raises, none = hybrid(generator, problems, Sampling(0.0), sandbox)
    assert (runs.by, runs.answer, runs.thought) == ("program", "42", None)
    assert (raises.by, raises.answer, raises.outcome.reason) == ("thought", "6", "error")
    assert (none.by, none.answer, none.outcome.reason) == ("thought", "4", "no program")
    assert len(generator.asked) == 5, "a thought is asked for only where the program failed"


def test_without_isolation_no_program_is_asked_for(monkeypatch):
    def refuse(self):
        raise Refused("this machine offers no level of isolation")

    monkeypatch.setattr(Sandbox, "require", refuse)
    generator = Scripted(lambda prompt, sampling: "")
    with pytest.raises(ValueError, match="offers no level of isolation"), Sandbox() as sandbox:
        hybrid(generator, [problem()], Sampling(0.0), sandbox)
    assert generator.asked == []
