"""Published sets as a source: from a file or the Hub, with their solutions, and never in training what is made for scoring."""

import gzip
import json
import os
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.scripted import stage
from whetstone.problems.reading import Drop, Shipped
from whetstone.questions.gather import Settings, run
from whetstone.questions.sources.published import WORDS, PublishedSource
from whetstone.questions.sources.reasoning_gym import GymSource
from whetstone.records import Problem, Trace
from whetstone.run.tables import read_records, read_rows

GSM8K = {"question": "How many?", "answer": "He has 2*3=<<2*3=6>>6.\n#### 1,006"}
ASDIV = {"body": "Tom has 9 pens.", "question": "How many?", "solution_type": "Sum", "answer": "1,200 (pens)"}


def write(path: Path, rows: list[dict | str]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def source(path: str, name: str = "gsm8k", **more) -> dict:
    return {"kind": "published", "set": name, "path": path, **more}


def test_bad_rows_are_dropped_with_their_reason_and_a_damaged_file_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", [GSM8K, "{broken", {"question": "Q", "answer": ["x"]}, "[1]"])
    items = list(PublishedSource(**source(path)).problems("gsm8k", "train", 0))
    assert isinstance(items[0], Shipped) and items[0].problem.licence == "MIT" and items[0].problem.policy == "number"
    assert [(item.line, item.reason) for item in items[1:] if isinstance(item, Drop)] == [
        (2, "not JSON"),
        (3, "not text"),
        (4, "not an object"),
    ]
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"question": "Q"}\n' * 1000)[:40])
    with pytest.raises(ValueError, match=r"cut\.jsonl\.gz is damaged"):
        list(PublishedSource(**source(str(cut))).problems("s", "train", 0))
    parquet = tmp_path / "x.parquet"
    parquet.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"x\.parquet"):
        list(PublishedSource(**source(str(parquet))).problems("s", "train", 0))


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
        assert PublishedSource(**more, test=1, benchmark="b").splits == {"test"}


def test_an_unknown_set_and_a_set_without_a_place_are_named():
    with pytest.raises(ValueError, match="did you mean 'gsm8k'"):
        PublishedSource(kind="published", set="gsm8", path="a.jsonl")
    with pytest.raises(ValueError, match="did you mean 'asdiv'"):
        PublishedSource(kind="published", set="asdiv_table", path="a.jsonl")
    with pytest.raises(ValueError, match="not described with a place on the Hub"):
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
        assert [problem.formula for problem in settings.problems("mawps", "train", 0)] == formulas


def test_the_hub_is_read_by_the_datasets_library_row_by_row(monkeypatch):
    asked = []

    def load_dataset(*names, **options):
        asked.append((names, options))
        if names[1] == "nowhere":
            raise FileNotFoundError("no such data set")
        return iter([GSM8K])

    library = ModuleType("datasets")
    library.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)
    (one,) = PublishedSource(kind="published", set="gsm8k").problems("gsm8k", "train", 0)
    assert one.problem.answer == "1006"
    assert asked == [(("openai/gsm8k", "main"), {"split": "train", "streaming": True})]
    list(PublishedSource(kind="published", set="gsm8k", hub="me/copy").problems("gsm8k", "train", 0))
    assert asked.pop()[0] == ("me/copy", "main")
    with pytest.raises(ValueError, match=r"nowhere.*no such data set.*say path"):
        list(
            PublishedSource(kind="published", set="gsm8k", part="nowhere/test", test=1, benchmark="b").problems(
                "s", "train", 0
            )
        )
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install \"whetstone-reasoner\[hub\]\""):
        list(PublishedSource(kind="published", set="gsm8k").problems("s", "train", 0))


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
    path = write(tmp_path / "a.jsonl", [ASDIV])
    other = write(tmp_path / "b.jsonl", [GSM8K])
    sources = source(path, "asdiv"), source(other)
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
    with pytest.raises(ValueError, match=r"whetstone-reasoner\[gym\]"):
        next(GymSource(**gym).draw(0))
    with pytest.raises(ValueError, match=r"'countdown' is not offered.*declared policy"):
        GymSource(kind="reasoning_gym", tasks=["countdown"], train=1)


@pytest.mark.skipif(not os.environ.get("WHETSTONE_DATA"), reason="WHETSTONE_DATA names no folder of public data files")
@pytest.mark.parametrize(
    ("name", "path", "rows", "dropped"),
    [
        ("aqua_rat", "aqua_rat/dev.json.gz", 254, 0),
        ("olympiadbench", "olympiadbench/test.jsonl.gz", 675, 0),
        ("openmathinstruct2", "openmathinstruct2_sample/openmathinstruct2.jsonl.gz", 100, 0),
        ("aime24", "aime24/test.jsonl.gz", 30, 0),
    ],
)
def test_the_files_themselves_are_read(name, path, rows, dropped):
    found = PublishedSource(**source(f"$WHETSTONE_DATA/{path}", name, evaluation_as_training=WORDS))
    items = list(found.problems(name, "train", 0))
    assert (len(items), sum(isinstance(item, Drop) for item in items)) == (rows, dropped)
