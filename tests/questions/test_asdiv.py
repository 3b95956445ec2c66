import os
from pathlib import Path
from typing import Any

import pytest

from whetstone.arithmetic.expression import evaluate, parse, render
from whetstone.problems.formulas import joined_steps
from whetstone.problems.reading import Drop
from whetstone.questions.sources.asdiv import AsdivSource
from whetstone.questions.splits import template
from whetstone.records import Problem

HEAD = '<?xml version="1.0" encoding="UTF-8" ?><File><ProblemSet>'
TAIL = "</ProblemSet></File>"
ARITHMETIC = (
    "Addition",
    "Subtraction",
    "Multiplication",
    "Common-Division",
    "Sum",
    "Difference",
    "TVQ-Initial",
    "TVQ-Change",
    "TVQ-Final",
)


def element(number: int, answer: str, formula: str, body: str = "He has 7 pens and 2 caps.", kind: str = "Sum") -> str:
    return (
        f'<Problem ID="n-{number}" Grade="3"><Body>{body}</Body><Question>How many things?</Question>'
        f"<Solution-Type>{kind}</Solution-Type><Answer>{answer}</Answer><Formula>{formula}</Formula></Problem>"
    )


def read(folder: Path, *elements: str, **settings: Any) -> list[Problem | Drop]:
    path = folder / "ASDiv.xml"
    path.write_text(HEAD + "".join(elements) + TAIL)
    given = {"solution_types": ("Sum",), "benchmark": "asdiv"} | settings
    return list(AsdivSource(kind="asdiv", path=str(path), **given).problems("asdiv", "train", 0))


def test_a_problem_is_read_with_formula_grade_and_licence(tmp_path: Path):
    (problem,) = read(tmp_path, element(1, "9 (things)", "7+2=9"))
    assert isinstance(problem, Problem)
    assert problem.question == "He has 7 pens and 2 caps. How many things?"
    assert (problem.answer, problem.formula, problem.level, problem.domain) == ("9", "7+2", 3, "sum")
    assert (problem.licence, problem.id) == ("CC BY-NC 4.0", "asdiv/n-1")


@pytest.mark.parametrize(
    ("answer", "formula", "reason"),
    [
        ("9 (things)", "7+2=10", "formula is not plain arithmetic"),
        ("10 (things)", "7+2=9", "formula does not give the answer"),
        ("8; 40", "5*8=40", "answer is not one number"),
        ("3:30 p.m.", "1+2=3", "answer is not one number"),
        ("8", "GCD(40,32)=8", "formula is not plain arithmetic"),
        ("9", "19/2=9 r1", "formula is not plain arithmetic"),
        ("6", "10/3+8/3=6", "a step is negative or has no end as a decimal"),
        ("2", "3-5+4=2", "a step is negative or has no end as a decimal"),
        ("", "7+2=9", "empty answer"),
    ],
)
def test_what_arithmetic_does_not_explain_is_dropped_with_its_reason(
    tmp_path: Path, answer: str, formula: str, reason: str
):
    (drop,) = read(tmp_path, element(1, answer, formula))
    assert isinstance(drop, Drop)
    assert (drop.reason, drop.id) == (reason, "asdiv/1")


@pytest.mark.parametrize(
    ("written", "formula"),
    [
        ("7+2=9", "7+2"),
        ("(5*9)+(2*1)=47 ", "5*9+2*1"),
        ("11 (day) * 24 (hour/day) = 264 (hour)", "11*24"),
        ("8/2=4; 8+4+36=48", "8+8/2+36"),
        ("3*4=12; 12-2=10; 3+12=15", None),  # 12 is used twice and 10 never
        ("360/4=90 r0", "360/4"),
        ("99+99=198 cents", "99+99"),
    ],
)
def test_formulas_are_read_as_one_expression(written: str, formula: str | None):
    if formula is None:
        with pytest.raises(ValueError):
            joined_steps(written, "no numbers")
    else:
        assert render(joined_steps(written, "no numbers")) == formula


def test_a_step_whose_result_the_text_tells_too_is_not_joined():
    with pytest.raises(ValueError, match="which 4"):
        joined_steps("8/2=4; 8+4=12", "Tom has 8 pens and 4 caps")


def test_texts_with_other_numbers_stay_in_one_fold(tmp_path: Path):
    bodies = [f"He has {a} pens and {b} caps." for a in range(2, 30) for b in ("two", "forty-five", "1,200")]
    problems = read(tmp_path, *(element(n, "9", "7+2=9", body) for n, body in enumerate(bodies)))
    assert len({problem.split for problem in problems}) == 1


def test_an_unknown_solution_type_suggests_the_one_meant(tmp_path: Path):
    with pytest.raises(ValueError, match=r"'Summ'.*did you mean 'Sum'"):
        read(tmp_path, element(1, "9", "7+2=9"), solution_types=("Summ",))


def test_a_file_that_is_not_xml_is_an_error_with_its_name(tmp_path: Path):
    path = tmp_path / "a.xml"
    path.write_text("no xml")
    source = AsdivSource(kind="asdiv", benchmark="asdiv", path=str(path), solution_types=("Sum",))
    with pytest.raises(ValueError, match=r"a\.xml is not readable"):
        list(source.problems("a", "train", 0))


# --- the real file ---


@pytest.fixture(scope="module")
def asdiv() -> list[Problem | Drop]:
    folder = os.environ.get("WHETSTONE_DATA")
    if not folder or not (Path(folder) / "asdiv" / "ASDiv.xml.gz").exists():
        pytest.skip("WHETSTONE_DATA names no folder with asdiv/ASDiv.xml.gz")
    return list(AsdivSource(kind="asdiv", benchmark="asdiv", solution_types=ARITHMETIC).problems("asdiv", "train", 0))


def test_most_of_asdivs_arithmetic_is_explained_by_its_formula(asdiv: list[Problem | Drop]):
    kept = [item for item in asdiv if isinstance(item, Problem)]
    assert len(asdiv) == 1561
    assert len(kept) >= 1490
    assert all(evaluate(parse(problem.formula)) == evaluate(parse(problem.answer)) for problem in kept)


def test_folds_hold_a_fifth_each_and_no_template_twice(asdiv: list[Problem | Drop]):
    kept = [item for item in asdiv if isinstance(item, Problem)]
    held_out = {template(problem.question) for problem in kept if problem.split == "test"}
    assert not held_out & {template(problem.question) for problem in kept if problem.split != "test"}
    share = sum(problem.split == "test" for problem in kept) / len(kept)
    assert 0.15 < share < 0.25


def test_a_source_that_does_not_teach_gives_its_fold_alone_and_a_tenth_lies_outside_the_first_fifth():
    settings = {"kind": "asdiv", "benchmark": "b", "solution_types": ["Sum"]}
    held_out = AsdivSource(**settings, folds=10, test_fold=9, teach=False)
    fold = AsdivSource(**settings, folds=5, test_fold=0)
    assert held_out.splits == {"test"} and fold.splits == {"test", "validation", "train"}
    texts = [f"{'a' * n} has 7 pens." for n in range(200)]
    held = [text for text in texts if held_out.split_of(text) == "test"]
    assert 5 < len(held) < 40 and "test" not in {fold.split_of(text) for text in held}
