"""Published sets: each read from a row as its page shows it, and what must be refused."""

import doctest

import pytest

from whetstone.problems import published, reading
from whetstone.problems.reading import Drop, Shipped, read_problem
from whetstone.problems.sets import competition, known_sets
from whetstone.records import Problem
from whetstone.verify import POLICIES, verify

CHAT = [{"from": "user", "value": "What is 2+3?"}, {"from": "assistant", "value": "2+3 is \\boxed{5}"}]
STRATOS = (
    "<|begin_of_thought|>\nhm\n<|end_of_thought|>\n\n<|begin_of_solution|>\nIt is \\boxed{5}.\n<|end_of_solution|>"
)

META = {"query": "Q", "type": "a"}
OPENR1 = {"problem": "P", "answer": "7", "solution": "s", "generations": ["g", "h"]}
THOUGHTS = {"problem": "P", "deepseek_reasoning": "hm", "deepseek_solution": None, "domain": "math"}
NUMINA = {"problem": "P", "solution": "\\boxed{1}", "problem_is_valid": "Yes", "solution_is_valid": "Yes"}

# layout, a row, its question, its answer, its traces
ROWS = [
    (
        "gsm8k",
        {"question": "How many?", "answer": "He has 2*3=<<2*3=6>>6.\n#### 1,006"},
        ("How many?", "1006", ("He has 2*3=6.\n\nThe answer is $\\boxed{1006}$.",)),
    ),
    (
        "math",
        {"problem": "Find x.", "level": "Level 4", "type": "Algebra", "solution": "So $\\boxed{\\frac{1}{2}}$."},
        ("Find x.", "\\frac{1}{2}", ("So $\\boxed{\\frac{1}{2}}$.",)),
    ),
    ("aime", {"problem": "Find n.", "answer": "025", "year": 1983}, ("Find n.", "025", ())),
    (
        "aqua_rat",
        {"question": "Pick.", "options": ["A)1 m", "B)2 m"], "rationale": "So it is two.\nAnswer: B", "correct": "B"},
        (
            "Pick.\n\nAnswer Choices: choose one letter.\n(A) 1 m\n(B) 2 m",
            "B",
            ("So it is two.\nAnswer: B\n\nThe answer is $\\boxed{\\text{B}}$.",),
        ),
    ),
    (
        "asdiv",
        {"body": "Tom has 9 pens.", "question": "How many?", "solution_type": "Sum", "answer": "1,200 (pens)"},
        ("Tom has 9 pens. How many?", "1200", ()),
    ),
    ("mawps", {"input": "How many?", "target": 43.0, "type": "singleeq"}, ("How many?", "43", ())),
    (
        "mawps",
        {"input": "Tom 's hat cost $ 6.5 , or 7 % more . How many ?", "target": 2},
        ("Tom's hat cost $6.5, or 7% more. How many?", "2", ()),
    ),
    (
        "svamp",
        {"ID": "c1", "Body": "Tom has 9 pens", "Question": "How many?", "Answer": 7.5, "Type": "Sum", "Equation": ""},
        ("Tom has 9 pens. How many?", "7.5", ()),
    ),
    (
        "openmathinstruct2",
        {"problem": "P", "generated_solution": "\\boxed{2}", "expected_answer": "2", "problem_source": "math"},
        ("P", "2", ("\\boxed{2}",)),
    ),
    (
        "numinamath",
        {"source": "olympiads", "problem": "P", "solution": "thus $\\boxed{7}$", "messages": []},
        ("P", "7", ("thus $\\boxed{7}$",)),
    ),
    ("numinamath", NUMINA | {"answer": float("nan")}, ("P", "1", ("\\boxed{1}",))),
    (
        "openr1_math",
        {
            "problem": "P",
            "solution": "s",
            "answer": "7",
            "problem_type": "Algebra",
            "question_type": "math-word-problem",
            "generations": ["<think>a</think>\\boxed{7}", "<think>b"],
            "is_reasoning_complete": [True, False],
        },
        ("P", "7", ("<think>a</think>\\boxed{7}",)),
    ),
    ("openthoughts", {"system": "…", "conversations": CHAT}, ("What is 2+3?", "", ("2+3 is \\boxed{5}",))),
    (
        "openthoughts",
        {
            "problem": "P",
            "deepseek_reasoning": "hm",
            "deepseek_solution": "It is \\boxed{5}.",
            "ground_truth_solution": "\\boxed{5}",
            "domain": "math",
        },
        ("P", "5", ("<think>\nhm\n</think>\n\nIt is \\boxed{5}.",)),
    ),
    (
        "bespoke_stratos",
        {"system": "…", "conversations": [CHAT[0], {"from": "assistant", "value": STRATOS}]},
        ("What is 2+3?", "", ("<think>\nhm\n</think>\n\nIt is \\boxed{5}.",)),
    ),
    (
        "dapo_math",
        {
            "prompt": [
                {
                    "role": "user",
                    "content": "Solve the following math problem step by step. The last line of your response should be of "
                    "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\nFind n.\n\n"
                    'Remember to put your answer on its own line after "Answer:".',
                }
            ],
            "reward_model": {"ground_truth": "34", "style": "rule"},
        },
        ("Find n.", "34", ()),
    ),
    ("big_math", {"problem": "P", "answer": "3", "domain": ["Algebra"], "source": "orca"}, ("P", "3", ())),
    (
        "metamathqa",
        {"type": "GSM_FOBAR", "query": "Q", "original_question": "O", "response": "2 and 2.\n#### 4\nThe answer is: 4"},
        ("Q", "4", ("2 and 2.\n\nThe answer is $\\boxed{4}$.",)),
    ),
    (
        "mathinstruct",
        {"source": "data/CoT/aqua_rat.json", "instruction": "Q", "output": "Because.\nThe answer is B"},
        ("Q", "B", ("Because.\n\nThe answer is $\\boxed{B}$.",)),
    ),
    (
        "chat",
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
        ("Hi", "", ("Ho",)),
    ),
    (
        "chat",
        {"messages": [CHAT[0], {"role": "assistant", "reasoning_content": "hm", "content": "\\boxed{5}"}], "answer": 5},
        ("What is 2+3?", "5", ("<think>\nhm\n</think>\n\n\\boxed{5}",)),
    ),
]


def read(name: str, row: dict) -> tuple[Problem, tuple[str, ...]]:
    item = read_problem(row, 1, known_sets()[name], name)
    return (item.problem, item.traces) if isinstance(item, Shipped) else (item, ())


@pytest.mark.parametrize(("name", "row", "said"), ROWS, ids=[f"{n}-{r[0]}" for n, r in enumerate(ROWS)])
def test_a_row_says_what_its_layout_says(name, row, said):
    problem, traces = read(name, row)
    assert (problem.question, problem.answer, traces) == said
    if problem.answer:
        for trace in traces:
            assert verify(trace, problem.answer, problem.policy).correct


@pytest.mark.parametrize(
    ("steps", "formula"),
    [
        ("He sold 48/2=<<48/2=24>>24 and 48+24=<<48+24=72>>72.\n#### 72", "48+48/2"),
        ("150 + 30 % + 10 = <<150+45+10=205>>205\n#### 205", ""),  # 45 is told nowhere
        ("<<2*3=6>> and <<4*5=20>>\n#### 20", ""),  # the first step is never used
        ("<<2+2=4>> <<4*4=16>>\n#### 16", ""),  # which 4 is the step's?
        ("<<40*3=120>> <<120/2=60>> <<120+60=180>>\n#### 180", ""),  # 120 would stay behind in the last one
        ("<<10-3=8>>\n#### 8", ""),  # not true
        ("<<10-3=7>>\n#### 9", ""),  # not the answer
        ("no steps\n#### 9", ""),
    ],
)
def test_annotated_steps_join_into_a_formula_or_give_none(steps, formula):
    question = "He sold 48 of 40, 5 or 120, or 150."
    assert known_sets()["gsm8k"].read({"question": question, "answer": steps}).formula == formula


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("gsm8k", {"question": "Q", "answer": "no mark"}, "no answer found"),
        ("gsm8k", {"question": "Q"}, "missing column: this row has no 'answer'"),
        ("math", {"problem": "P", "solution": "cut \\boxed{"}, "no complete box"),
        ("aqua_rat", {"question": "Q", "options": ["one"], "rationale": "", "correct": "A"}, "options are not"),
        ("aqua_rat", {"question": "Q", "options": ["A)1"], "rationale": "", "correct": "C"}, "none of the options"),
        ("olympiadbench", {"question": "Q", "final_answer": []}, "empty answer"),
        ("mmlu_stem", {"question": "Q", "choices": "ab", "answer": "A"}, "not as the layout says"),
        ("numinamath", {"problem": "P", "solution": "QED", "answer": "proof"}, "a proof"),
        ("numinamath", {"problem": "P", "solution": "QED", "answer": "Proof."}, "a proof"),
        ("numinamath", {"problem": "P", "solution": "\\boxed{1}", "answer": "unknown"}, "'answer' holds 'unknown'"),
        ("numinamath", NUMINA | {"problem_is_valid": "Incomplete"}, "'problem_is_valid' holds 'Incomplete'"),
        ("numinamath", NUMINA | {"solution_is_valid": "Problem not solved"}, "'solution_is_valid' holds 'Problem not"),
        ("metamathqa", META | {"response": "The answer is: 5.\n\nGreat"}, "'response' goes on after \"The answer is\""),
        ("metamathqa", META | {"response": "The answer is: 5. Great"}, "'response' goes on after"),
        ("metamathqa", META | {"response": "Five.\n#### 5\nGreat"}, "'response' goes on after \"####\""),
        (
            "mathinstruct",
            {"source": "x", "instruction": "Q", "output": "The answer is 5\nOr 6"},
            "'output' goes on after",
        ),
        ("gsm8k", {"question": "Q", "answer": "Five.\n#### 5\nGreat"}, "no answer found"),
        (
            "openr1_math",
            OPENR1 | {"is_reasoning_complete": [True]},
            "'is_reasoning_complete' holds [True], and not true or",
        ),
        (
            "openr1_math",
            OPENR1 | {"is_reasoning_complete": ["true", "false"]},
            "holds ['true', 'false'], and not true or",
        ),
        ("openr1_math", OPENR1 | {"is_reasoning_complete": "[true, false]"}, "'is_reasoning_complete' holds"),
        ("openr1_math", OPENR1 | {"is_reasoning_complete": True}, "'is_reasoning_complete' holds [True]"),
        ("openr1_math", OPENR1 | {"is_reasoning_complete": []}, "'is_reasoning_complete' holds []"),
        ("openr1_math", OPENR1 | {"generations": '["g", "h"]'}, "'generations' holds a list written as text"),
        (
            "openr1_math",
            OPENR1 | {"generations": ["g", "<think>\nh</think>"]},
            "'generations' holds thoughts, and no answer",
        ),
        ("openthoughts", THOUGHTS, "'deepseek_solution' holds thoughts, and no answer after them"),
        ("mathinstruct", {"source": "data/PoT/x.json", "instruction": "Q", "output": "print(2)"}, "program of thought"),
        ("chat", {"messages": CHAT + CHAT}, "several turns"),
        ("chat", {"messages": "hello"}, "not a chat"),
        ("chat", {"messages": [CHAT[0], {"role": "assistant", "content": [{"type": "text"}]}]}, "a turn holds a list"),
        ("mawps", {"input": "  ", "target": 1}, "empty question"),
        ("mawps", {"input": ["x"], "target": 1}, "not text"),
    ],
)
def test_what_gives_no_problem_is_refused_with_its_reason(name, row, reason):
    drop = read_problem(row, 7, known_sets()[name], name)
    assert isinstance(drop, Drop) and reason in f"{drop.reason}: {drop.detail}" and drop.line == 7


def test_docstring_examples_are_true_and_policies_exist():
    for module in (published, reading, competition):
        assert doctest.testmod(module).failed == 0
    assert {described.policy for described in known_sets().values()} <= set(POLICIES)


def test_licences_differ_from_part_to_part_of_mathinstruct():
    row = {"source": "data/CoT/college_math.json", "instruction": "Q", "output": "The answer is 2"}
    assert known_sets()["mathinstruct"].read(row).licence == ""
    camel = known_sets()["mathinstruct"].read(row | {"source": "data/CoT/math50k_camel.json"})
    assert published.is_non_commercial(camel.licence)
