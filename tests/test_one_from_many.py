"""One answer from many: the verifier's equality decides what is the same; programs run first."""

import pytest

from tests.scripted import Scripted, problem
from whetstone.answer import best_of, hybrid, majority
from whetstone.records import PROGRAM_REQUEST, Completion, Sampling
from whetstone.verify import MathVerifier
from whetstone.verify.program import Refused, Sandbox


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier() as rules:
        yield rules


def test_answers_that_are_equal_vote_together_however_they_are_written(verifier):
    texts = [r"\boxed{3}", r"so \boxed{\frac{1}{2}}", r"\boxed{0.5}", "", r"\boxed{1/2}", r"\boxed{3}"]
    vote = majority(texts, verifier)
    assert (vote.answer, vote.votes, vote.voters, vote.of) == (r"\frac{1}{2}", 3, 5, (1, 2, 4))
    assert vote.share == 0.6


def test_of_equally_frequent_answers_the_first_wins_and_silence_has_no_vote(verifier):
    assert majority([r"\boxed{7}", r"\boxed{8}", r"\boxed{8}", r"\boxed{7}"], verifier).answer == "7"
    nobody = majority(["", "<think>\\boxed{1}"], verifier)
    assert nobody.answer is None and nobody.share == 0


def test_the_best_is_the_scorers_first_highest():
    completions = [Completion("p", i, text, "end") for i, text in enumerate(["aa", "b", "cc"])]
    assert best_of(problem(), completions, lambda p, text: len(text)).index == 0
    assert best_of(problem(), completions, lambda p, text: -len(text)).index == 1
    with pytest.raises(ValueError, match="the best of no completions"):
        best_of(problem(), [], lambda p, text: 0.0)
    with pytest.raises(ValueError, match=r"completion 0: the scorer's number is not one \(nan\)"):
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
