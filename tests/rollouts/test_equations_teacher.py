"""A problem's equations alone, as a chain of thought and as a program."""

import pytest

from tests import scripted
from whetstone.problems.reading import Shipped, read_problem
from whetstone.problems.sets import find_set
from whetstone.records import Problem, Trace, to_row
from whetstone.rollouts import collect
from whetstone.rollouts.equations_teacher import EquationsTeacher
from whetstone.rollouts.mammoth import program_trace
from whetstone.run.tables import read_records, read_rows, write_records, write_rows
from whetstone.verify import verify
from whetstone.verify.program import programs, run_program

QUESTION = "Ann has 48 pens and gives half away. Each of the others has 1.5 caps. Then she buys 30 caps. How many caps?"
STEPS = (
    "She keeps 48/2 = <<48/2=24>>24.\nThey have 24*1.5 = <<24*1.5=36>>36.\nSo <<10=10>>36+30 = <<36+30=66>>66.\n#### 66"
)


def gsm8k(answer: str = STEPS) -> Shipped:
    return read_problem({"question": QUESTION, "answer": answer}, 1, find_set("gsm8k"), "gsm8k")


def test_annotations_alone_are_one_equation_a_line_then_the_box():
    (trace,) = EquationsTeacher().traces(gsm8k().problem, 8)
    assert trace.text == "48/2=24\n24*1.5=36\n36+30=66\nThe answer is \\boxed{66}."
    assert verify(trace.text, "66", "number").correct


def test_a_formula_without_annotations_is_one_operation_a_line():
    (trace,) = EquationsTeacher().traces(Problem("p", "…", "1", formula="(47-5*9)/2"), 1)
    assert trace.text == "5*9=45\n47-45=2\n2/2=1\nThe answer is \\boxed{1}."


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ("<<48/2=23>>23\n#### 23", "not true"),
        ("<<48/2=24>>24\n#### 66", "does not give the answer: 48/2=24, but the answer is 66"),
        ("<<48/2=24>>24, <<41+25=66>>66\n#### 66", "comes from nowhere: 41"),
        ("<<-48+114=66>>66\n#### 66", "not an equation"),
        ("<<66=66>>66\n#### 66", "compute nothing"),
        ("so 66\n#### 66", "no formula"),
        ("<<48/0=66>>66\n#### 66", "not an equation"),
    ],
)
def test_annotations_that_do_not_lead_to_the_answer_are_refused(steps: str, reason: str):
    with pytest.raises(ValueError, match=reason):
        EquationsTeacher().traces(gsm8k(steps).problem, 1)


def test_a_program_of_annotations_names_the_results_that_it_uses_again():
    text = program_trace(gsm8k().problem, 0).text
    assert "    x1 = 48 / Fraction(2)\n    x2 = x1 * Fraction(3, 2)\n    x3 = x2 + 30\n    return x3\n" in text
    assert run_program(programs(text)[-1]).answer == "66"
    twins = program_trace(
        Problem("p", "Of 10, 15, 7, 2 and 6", "40", equations="10/2=5; 5+5=10; 7+10=17; 15+2=17; 17+17+6=40"), 0
    )
    assert (
        "x2 = x1 + x1\n    x3 = 7 + 10\n" in twins.text and "x5 = 17 + 17 + 6\n" in twins.text
    )  # which is meant is not known
    brackets = program_trace(
        Problem("p", "Of 9, 5, 3 and 2", "8", equations="(9-5)*2=8; 8/(3-1)/2=2; 2*(9-5)=8"), 0
    ).text
    assert run_program(programs(brackets)[-1]).answer == "8"


def test_the_teacher_answers_beside_a_shipped_solution_and_says_where_it_cannot(tmp_path):
    problems = [gsm8k().problem, scripted.problem("q", "5"), Problem("r", "…", "1", formula="3-2")]
    shipped = [*gsm8k().traces, "It is \\boxed{5}."]
    write_records(tmp_path / "problems", problems)
    table = [to_row(Trace(problem.id, 0, text)) for problem, text in zip(problems, shipped, strict=False)]
    write_rows(tmp_path / "traces", table)
    settings = collect.Settings(kind="rollouts", teacher="equations", beside_shipped=True)
    stage = scripted.stage(tmp_path / "01", settings, problems=tmp_path / "problems", traces=tmp_path / "traces")
    summary = collect.run(stage)
    traces = list(read_records(Trace, stage.output("rollouts")))
    assert [(t.problem_id, t.index, t.teacher, t.correct) for t in traces] == [
        (problems[0].id, 0, "equations", True), (problems[0].id, 1, "", True), ("q", 0, "", True), ("r", 0, "equations", True),
    ]  # fmt: skip
    (lacking,) = read_rows(stage.output("dropped"))
    assert lacking["problem_id"] == "q" and lacking["reason"].startswith(
        "the teacher cannot explain it: it has no formula"
    )
    assert summary["problems without a trace"] == 0 and sum(summary["reasons"].values()) == 1


def test_only_a_teacher_of_this_process_answers_beside_shipped_solutions():
    with pytest.raises(ValueError, match="beside_shipped = true asks a teacher of this process"):
        collect.Settings(kind="rollouts", teacher="none", beside_shipped=True)
