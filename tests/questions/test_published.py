"""Published sets by their known layouts: each on a row as its page shows it, and on what it must refuse."""

import doctest
import gzip
import json
import os
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from whetstone.questions.gym import TASKS, GymSource, generate
from whetstone.questions.layouts import LAYOUTS
from whetstone.questions.published import WORDS, PublishedSource, Shipped, read_published

from tests.scripted import stage
from whetstone.questions import layouts
from whetstone.questions.gather import Settings, run
from whetstone.questions.sources import Drop
from whetstone.records import Problem, Trace
from whetstone.run.tables import read_records, read_rows
from whetstone.verify import POLICIES, verify

CHAT = [{"from": "user", "value": "What is 2+3?"}, {"from": "assistant", "value": "2+3 is \\boxed{5}"}]
STRATOS = (
    "<|begin_of_thought|>\nhm\n<|end_of_thought|>\n\n<|begin_of_solution|>\nIt is \\boxed{5}.\n<|end_of_solution|>"
)

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
        "asdiv_table",
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
]


@pytest.mark.parametrize(("name", "row", "said"), ROWS, ids=[f"{n}-{r[0]}" for n, r in enumerate(ROWS)])
def test_a_row_says_what_its_layout_says(name, row, said):
    reading = LAYOUTS[name](row)
    assert (reading.question, reading.answer, reading.traces) == said
    if reading.answer:
        for trace in reading.traces:
            assert verify(trace, reading.answer, reading.policy or LAYOUTS[name].policy).correct


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
    assert LAYOUTS["gsm8k"]({"question": question, "answer": steps}).formula == formula


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("gsm8k", {"question": "Q", "answer": "no mark"}, "no answer found"),
        ("gsm8k", {"question": "Q"}, "missing column: this row has no 'answer'"),
        ("math", {"problem": "P", "solution": "cut \\boxed{"}, "no complete box"),
        ("aqua_rat", {"question": "Q", "options": ["one"], "rationale": "", "correct": "A"}, "options are not"),
        ("aqua_rat", {"question": "Q", "options": ["A)1"], "rationale": "", "correct": "C"}, "none of the options"),
        ("olympiadbench", {"question": "Q", "final_answer": ["1"], "error": "1e-1"}, "tolerance"),
        ("numinamath", {"problem": "P", "solution": "QED", "answer": "proof"}, "a proof"),
        ("mathinstruct", {"source": "data/PoT/x.json", "instruction": "Q", "output": "print(2)"}, "program of thought"),
        ("chat", {"messages": CHAT + CHAT}, "several turns"),
        ("chat", {"messages": "hello"}, "not a chat"),
        ("mawps", {"input": "  ", "target": 1}, "empty question"),
        ("mawps", {"input": ["x"], "target": 1}, "not text"),
    ],
)
def test_what_gives_no_problem_is_refused_with_its_reason(name, row, reason):
    with pytest.raises(ValueError, match=reason):
        LAYOUTS[name](row)


def test_docstring_examples_are_true_and_policies_exist():
    assert doctest.testmod(layouts).failed == 0
    assert {layout.policy for layout in LAYOUTS.values()} | set(TASKS.values()) <= set(POLICIES)


def test_licences_differ_from_part_to_part_of_mathinstruct():
    row = {"source": "data/CoT/college_math.json", "instruction": "Q", "output": "The answer is 2"}
    assert LAYOUTS["mathinstruct"](row).licence == ""
    assert layouts.is_non_commercial(LAYOUTS["mathinstruct"](row | {"source": "data/CoT/math50k_camel.json"}).licence)


def write(path: Path, rows: list[dict | str]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def source(path: str, name: str = "gsm8k", **more) -> dict:
    return {"kind": "published", "set": name, "path": path, **more}


def test_bad_rows_are_dropped_with_their_reason_and_a_damaged_file_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", [ROWS[0][1], "{broken", {"question": "Q", "answer": ["x"]}, "[1]"])
    items = list(read_published(PublishedSource(**source(path)), "gsm8k"))
    assert isinstance(items[0], Shipped) and items[0].problem.licence == "MIT" and items[0].problem.policy == "number"
    assert [(item.line, item.reason) for item in items[1:] if isinstance(item, Drop)] == [
        (2, "broken row"),
        (3, "not text"),
        (4, "broken row"),
    ]
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"question": "Q"}\n' * 1000)[:40])
    with pytest.raises(ValueError, match=r"cut\.jsonl\.gz is damaged"):
        list(read_published(PublishedSource(**source(str(cut))), "s"))
    parquet = tmp_path / "x.parquet"
    parquet.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"x\.parquet"):
        list(read_published(PublishedSource(**source(str(parquet))), "s"))


def test_evaluation_sets_are_refused_as_training_data_unless_the_recipe_says_so_in_words(tmp_path):
    for more in (
        source("aime24.jsonl", "aime24"),
        source("gsm8k/test.jsonl.gz"),
        {**source("", "gsm8k"), "part": "test"},
    ):
        with pytest.raises(ValueError, match="made for scoring"):
            PublishedSource(**more)
        with pytest.raises(ValueError, match="made for scoring"):
            PublishedSource(**more, evaluation_as_training="yes")
        assert PublishedSource(**more, evaluation_as_training=WORDS).splits == {"train"}
        assert PublishedSource(**more, split="test", benchmark="b").splits == {"test"}


def test_an_unknown_set_and_a_set_without_a_place_are_named():
    with pytest.raises(ValueError, match="Did you mean 'gsm8k'"):
        PublishedSource(kind="published", set="gsm8", path="a.jsonl")
    with pytest.raises(ValueError, match="no usual place on the Hub"):
        PublishedSource(kind="published", set="mawps")


def test_a_formula_is_searched_for_where_the_set_gives_none_and_the_recipe_asks(tmp_path):
    rows = [
        {"input": "Joan found 70 seashells . She gave twenty-seven to Sam . How many are left ?", "target": 43.0},
        {"input": "Tom has 2 red pens and 2 blue pens . How many has he ?", "target": 4.0},  # 2+2 or 2*2
        {"input": "Ann has 3 of them . How many ?", "target": 3.0},
        {"input": "Ann has 3 and 4 . How many ?", "target": "x"},
    ]
    (tmp_path / "mawps.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for search, formulas in ((False, ["", "", "", ""]), (True, ["70-27", "", "", ""])):
        settings = PublishedSource(
            kind="published", set="mawps", path=str(tmp_path / "mawps.jsonl"), search_formula=search
        )
        assert [problem.formula for problem in read_published(settings, "mawps")] == formulas


def test_the_hub_is_read_by_the_datasets_library_row_by_row(monkeypatch):
    asked = []

    def load_dataset(*names, **options):
        asked.append((names, options))
        if names[0] == "nowhere":
            raise FileNotFoundError("no such data set")
        return iter([ROWS[0][1]])

    library = ModuleType("datasets")
    library.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)
    (one,) = read_published(PublishedSource(kind="published", set="gsm8k"), "gsm8k")
    assert one.problem.answer == "1006"
    assert asked == [(("openai/gsm8k", "main"), {"split": "train", "streaming": True})]
    with pytest.raises(ValueError, match=r"nowhere.*no such data set.*say path"):
        list(read_published(PublishedSource(kind="published", set="gsm8k", hub="nowhere"), "s"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install \"whetstone\[hub\]\""):
        list(read_published(PublishedSource(kind="published", set="gsm8k"), "s"))


def gathered(folder: Path, *sources: dict, **settings):
    made = stage(folder, Settings(kind="questions", source=sources, **settings))
    summary = run(made)
    return (
        summary,
        list(read_records(Problem, made.folder / "problems")),
        list(read_records(Trace, made.folder / "traces")),
        Counter(row["reason"] for row in read_rows(made.folder / "dropped")),
    )


def test_shipped_solutions_are_gathered_and_a_repeated_question_adds_its_own(tmp_path):
    rows = [
        {"problem": p, "generated_solution": f"way {n} \\boxed{{2}}", "expected_answer": "2", "problem_source": "math"}
        for n, p in enumerate(["One?", "Two?", "One?", "one ?"])
    ]
    path = write(tmp_path / "a.jsonl", rows)
    summary, problems, traces, dropped = gathered(tmp_path / "s", source(path, "openmathinstruct2"))
    assert [p.question for p in problems] == ["One?", "Two?"]
    assert [(t.problem_id, t.index, t.text[:5]) for t in traces] == [
        ("openmathinstruct2/1", 0, "way 0"),
        ("openmathinstruct2/2", 0, "way 1"),
        ("openmathinstruct2/1", 1, "way 2"),
        ("openmathinstruct2/1", 2, "way 3"),
    ]
    assert (summary["traces"], dropped) == (4, {"duplicate question": 2})
    assert gathered(tmp_path / "t", source(path, "openmathinstruct2", traces=False))[2] == []


def test_non_commercial_problems_can_be_left_out(tmp_path):
    path = write(tmp_path / "a.jsonl", [ROWS[4][1]])
    other = write(tmp_path / "b.jsonl", [ROWS[0][1]])
    sources = source(path, "asdiv_table"), source(other)
    _, problems, _, dropped = gathered(tmp_path / "s", *sources, exclude_non_commercial=True)
    assert [p.licence for p in problems] == ["MIT"]
    assert dropped == {"licence forbids commercial use": 1}
    assert len(gathered(tmp_path / "t", *sources)[1]) == 2


def test_reasoning_gyms_generators_make_problems_and_its_scorers_are_never_called(monkeypatch, tmp_path):
    class Made:
        def __init__(self, task, seed, size, **options):
            self.task, self.seed, self.options = task, seed, options

        def __getitem__(self, index):
            return {
                "question": f"{self.task} {self.seed % 1000} {index}?",
                "answer": None if index == 1 else str(index),
            }

        def score_answer(self, *_):
            raise AssertionError("never")

    factory = ModuleType("reasoning_gym.factory")
    factory.create_dataset = Made
    monkeypatch.setitem(sys.modules, "reasoning_gym", SimpleNamespace(factory=factory))
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", factory)
    gym = {"kind": "reasoning_gym", "tasks": ["gcd", "chain_sum"], "train": 6, "test": 4, "benchmark": "gym"}
    _, problems, _, _ = gathered(tmp_path / "s", gym)
    assert Counter((p.split, p.domain, p.policy) for p in problems) == {
        ("test", "gcd", "integer"): 2,
        ("test", "chain_sum", "number"): 2,
        ("train", "gcd", "integer"): 3,
        ("train", "chain_sum", "number"): 3,
    }
    assert {p.licence for p in problems} == {"Apache-2.0"}
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(ValueError, match=r"whetstone\[gym\]"):
        next(generate(GymSource(**gym), 0))
    with pytest.raises(ValueError, match=r"'countdown' is not offered.*declared policy"):
        GymSource(kind="reasoning_gym", tasks=["countdown"], train=1)


@pytest.mark.skipif(not os.environ.get("WHETSTONE_DATA"), reason="WHETSTONE_DATA names no folder of public data files")
@pytest.mark.parametrize(
    ("name", "path", "rows", "dropped"),
    [
        ("aqua_rat", "aqua_rat/dev.json.gz", 254, 0),
        ("olympiadbench", "olympiadbench/test.jsonl.gz", 675, 1),
        ("openmathinstruct2", "openmathinstruct2_sample/openmathinstruct2.jsonl.gz", 100, 0),
        ("aime24", "aime24/test.jsonl.gz", 30, 0),
    ],
)
def test_the_files_themselves_are_read(name, path, rows, dropped):
    found = PublishedSource(**source(f"$WHETSTONE_DATA/{path}", name, evaluation_as_training=WORDS))
    items = list(read_published(found, name))
    assert (len(items), sum(isinstance(item, Drop) for item in items)) == (rows, dropped)
