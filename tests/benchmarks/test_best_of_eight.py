"""Which answer each rule takes, worked by hand."""

from benchmarks.best_of_eight import by_rule, choices
from whetstone.records import Verdict


class Spelling:
    def check_many(self, items):
        return [Verdict(text == f"\\boxed{{{gold}}}", "", text) for text, gold, _ in items]


def row(answer, correct, tokens):
    return {"answer": answer, "correct": correct, "tokens": tokens, "policy": "math"}


ROWS = [row("4", False, 9), row("5", True, 8), row("4", False, 3), row("5", None, 9), row(None, False, 2)]


def test_each_rule_takes_its_answer():
    """4 and 5 have two votes each, and share the point; an undecided answer is not right."""
    found = choices(ROWS, [0.1, 2.0, -1.0, 0.5, 1.0], Spelling())
    assert found == {"mean": 0.2, "length": 0.0, "majority": 0.5, "best": 1.0, "any": 1.0}
    assert choices(ROWS, [2.0, 0.1, -1.0, 0.5, 1.0], Spelling())["best"] == 0.0


def test_the_rules_are_paired_by_problem():
    found = by_rule({"a": ROWS, "b": ROWS[:1]}, {"a": [0.0, 1.0, 0.0, 0.0, 0.0], "b": [0.0]}, Spelling())
    assert found["best"] == [{"problem_id": "a", "correct": 1.0}, {"problem_id": "b", "correct": 0.0}]
