"""MAmmoTH's hybrid set: programs are run and compared, beside the chains of thought for the same problems."""

from fractions import Fraction

import pytest

from tests.rollouts.test_server_teacher import build_stage, number, rollouts
from tests.servers import said, send, server
from whetstone.records import PROGRAM_REQUEST, Problem, Trace
from whetstone.rollouts import collect
from whetstone.rollouts.mammoth import ProgramGrader, program_trace
from whetstone.verify import MathVerifier
from whetstone.verify.isolation.kernel import LEVELS
from whetstone.verify.program import Outcome, Refused, Sandbox, programs, run_program

FORMULAS = {"(2*3+2)*2": 16, "7": 7, "1/3*6": 2, "10/4": Fraction(5, 2), "0.5*3+20-(4+1)": Fraction(33, 2)}


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formulas_program_computes_it_exactly(formula):
    text = program_trace(Problem("p", "Q", "", formula=formula), 0).text
    assert Fraction(run_program(programs(text)[-1]).answer) == FORMULAS[formula]


def test_one_operation_stands_in_one_line():
    text = program_trace(Problem("p", "Q", "16", formula="(2*3+2)*2"), 0).text
    assert text == ("```python\ndef solution():\n    x1 = 2 * 3\n    x2 = x1 + 2\n    x3 = x2 * 2\n    return x3\n```")
    with pytest.raises(ValueError, match="no formula"):
        program_trace(Problem("p", "Q", "16"), 0)


class FakeSandbox:
    def __init__(self, *outcomes: Outcome):
        self.outcomes = list(outcomes)

    def require(self):
        return "namespaces"

    def run_text(self, completion):
        return self.outcomes.pop(0)


def test_a_program_that_does_not_answer_is_wrong_with_its_reason_and_without_a_sandbox_nothing_runs():
    problem = Problem("p", "Q", "16", formula="4*4")

    def graded(*outcome) -> Trace:
        return ProgramGrader(FakeSandbox(Outcome(*outcome)), verifier).of_formula(problem)

    with MathVerifier() as verifier:
        answered, late = graded("16.0", "answered"), graded(None, "timeout")
        assert (answered.correct, answered.reason) == (True, "program: equal")
        assert (late.correct, late.reason) == (False, "program: timeout")
        with pytest.raises(ValueError, match="no longer be run isolated: no namespaces"):
            graded(None, "refused", "no namespaces")


def test_a_formula_that_cannot_be_read_has_no_program():
    grader = ProgramGrader(FakeSandbox(), None)
    assert grader.of_formula(Problem("p", "Q", "16", formula="2**4")) is None
    assert grader.of_formula(Problem("p", "Q", "16")) is None


def test_programs_of_formulas_lie_beside_the_chains_of_thought(tmp_path):
    problems = [Problem(f"p{n}", f"What is {n} + 1?", str(n + 1), formula=f"{n}+1") for n in range(3)]
    stage = build_stage(
        tmp_path, "", problems, teacher="procedural", samples=2, programs=1, procedural={"wrong_rate": 0}
    )
    collect.run(stage)
    rows = [(t.problem_id, t.augmentation, t.correct, t.reason) for t in rollouts(stage) if t.problem_id == "p1"]
    assert [kind for _, kind, _, _ in rows] == ["", "", "program"]
    assert rows[-1] == ("p1", "program", True, "program: equal")


def test_without_isolation_nobody_is_asked_and_the_level_is_in_the_summary(tmp_path, monkeypatch):
    problems = [Problem("p", "What is 1 + 1?", "2", formula="1+1")]
    stage = build_stage(tmp_path / "with", "", problems, teacher="procedural", samples=1, programs=1)
    assert collect.run(stage)["isolation of programs"] in LEVELS

    def refuse(self):
        raise Refused("this machine offers no level of isolation")

    monkeypatch.setattr(Sandbox, "require", refuse)
    with server(lambda *_: None) as (address, world):
        with pytest.raises(ValueError, match="offers no level of isolation"):
            collect.run(build_stage(tmp_path / "without", address, problems, samples=1, programs=1))
        assert world.bodies == []
    collect.ROOM.check(collect.Settings(kind="rollouts"))
    with pytest.raises(ValueError, match="offers no level of isolation"):  # the pipeline asks before any stage runs
        collect.ROOM.check(collect.Settings(kind="rollouts", programs=1))


def test_programs_that_a_server_fails_to_write_are_counted_and_the_next_block_goes_on(tmp_path):
    def writes_none(handler, body, attempt):
        wanted = body["messages"][-1]["content"].endswith(PROGRAM_REQUEST)
        send(handler, *(("oops", 500) if wanted and number(body) == 0 else (said(f"\\boxed{{{number(body) + 1}}}"),)))

    problems = [Problem(f"p{n}", f"What is {n} + 1?", str(n + 1)) for n in range(9)]
    with server(writes_none) as (address, _):
        summary = collect.run(build_stage(tmp_path, address, problems, samples=1, programs=1))
    assert (summary["rollouts that failed"], summary["right"]) == (1, 9)


def test_plan_and_run_say_how_programs_are_isolated(tmp_path, capsys):
    problems = [Problem("p", "What is 1 + 1?", "2", formula="1+1")]
    stage = build_stage(tmp_path, "", problems, teacher="procedural", samples=1, programs=1)
    level = collect.run(stage)["isolation of programs"]
    assert f"programs are run isolated at level {level!r}" in capsys.readouterr().err
    assert collect.plan(stage).lines["programs"].startswith(f"1 per problem, run isolated at level {level!r}")


def test_a_server_is_asked_for_programs_in_mammoths_words_and_they_are_run(tmp_path):
    def programmer(handler, body, attempt):
        asked, wanted = number(body), body["messages"][-1]["content"].endswith(PROGRAM_REQUEST)
        code = f"```python\ndef solution():\n    return {asked} + {1 if asked else 2}\n```"
        send(handler, said(code if wanted else f"\\boxed{{{asked + 1}}}"))

    problems = [Problem(f"p{n}", f"What is {n} + 1?", str(n + 1)) for n in range(2)]
    with server(programmer) as (address, world):
        stage = build_stage(tmp_path, address, problems, samples=1, programs=2, most=4)
        collect.run(stage)
    rows = [(t.problem_id, t.index, t.augmentation, t.correct) for t in rollouts(stage)]
    assert rows == [
        ("p0", 0, "", True),
        ("p0", 4, "program", False),
        ("p0", 5, "program", False),
        ("p1", 0, "", True),
        ("p1", 4, "program", True),
        ("p1", 5, "program", True),
    ]
    assert len(world.bodies) == 6
