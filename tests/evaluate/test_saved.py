"""Saved generations, ours and other harnesses': graded again, and two of them compared in pairs."""

import doctest
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from whetstone import cli
from whetstone.comparing import served_by
from whetstone.evaluate import harness_files, paired
from whetstone.evaluate.any_model import ModelOptions
from whetstone.evaluate.harness_files import read_harness
from whetstone.evaluate.paired import compare_saved
from whetstone.evaluate.regrade import graded_by_us, regrade
from whetstone.evaluate.saved import Saved, find_saved, read_saved
from whetstone.records import Score, to_row
from whetstone.run.folder import read_json, write_json
from whetstone.run.manifest import write_manifest
from whetstone.run.tables import read_rows, write_rows


def test_docstring_examples_are_true():
    assert doctest.testmod(harness_files).failed == doctest.testmod(paired).failed == 0


def sample(number: int, text: str, correct: bool | None, gold: str = "7", index: int = 0, **more) -> dict:
    row = {"problem_id": f"p{number}", "index": index, "question": f"{number} + 0?", "gold": gold, "policy": "math"}
    row |= {"level": 1, "domain": "sums", "text": text, "answer": "", "correct": correct, "reason": "", "stop": "end"}
    return row | {"tokens": 3, "form": "box", "flexible": correct} | more


def score(stage: str, benchmark: str = "sums", **given) -> dict:
    numbers = {"mean": 0.5, "low": 0.1, "high": 0.9, "pass_at_k": {"1": 0.5}, "majority": 0.5, "truncated": 0.0}
    return to_row(Score(stage, benchmark, True, 2, 1, mean_tokens=3.0, temperature=0.6, **numbers)) | given


def evaluated(folder: Path, rows: list[dict], **given) -> str:
    """As `evaluate --output` leaves it."""
    write_rows(folder / "sums", rows)
    write_json(folder / "scores.json", {"scores": [score("m", **given)], "model": {"name": "m"}})
    return str(folder)


def run_of(folder: Path, **stages: list[dict]) -> Path:
    for number, (name, rows) in enumerate(stages.items(), 1):
        (folder / f"{number:02}-{name}" / "model").mkdir(parents=True)
        write_rows(folder / "scores" / name / "sums", rows)
        write_manifest(folder / "scores" / name / "manifest.json", {"key": {}, "scores": [score(name)], "outputs": {}})
    write_json(folder / "scores.json", {"scores": [score(name) for name in stages]})
    return folder


RIGHT, WRONG = r"\boxed{7}", r"\boxed{8}"


# --- where generations are found


def test_a_run_is_its_last_stage_and_a_stage_its_own_scores(tmp_path):
    run = run_of(tmp_path / "run", sft=[sample(1, WRONG, False)], rl=[sample(1, RIGHT, True)])
    for name, stage in (
        (run, "rl"),
        (run / "01-sft", "sft"),
        (run / "01-sft" / "model", "sft"),
        (run / "scores/sft", "sft"),
    ):
        assert find_saved(str(name)).name.endswith(stage), name
    assert find_saved(evaluated(tmp_path / "out", [sample(1, RIGHT, True)])).rows.keys() == {"sums"}
    (tmp_path / "empty").mkdir()
    assert find_saved(str(tmp_path / "empty")) is None and find_saved("some/model") is None
    with pytest.raises(FileNotFoundError, match=r"holds no saved generations.*lm-eval"):
        read_saved(str(tmp_path / "empty"))


# --- graded again


def test_generations_are_graded_again_without_a_model_and_changes_are_counted(tmp_path):
    rows = [
        sample(1, RIGHT, False),
        sample(2, WRONG, False),
        sample(3, "7.0", True, stop="not asked"),
        sample(4, "The answer is 7.", True),
    ]
    (result,) = regrade(read_saved(evaluated(tmp_path / "a", rows)), output=tmp_path / "b")
    assert (result["mean"], result["problems"]) == (0.5, 4)
    before = result["compared"]["before"]
    assert (before["right"], before["alike"], before["only_theirs"], before["only_ours"]) == (2, 2, 1, 1)
    written = list(read_rows(tmp_path / "b" / "sums"))
    assert [row["correct"] for row in written] == [True, False, False, True]  # what was never asked stays wrong
    assert read_json(tmp_path / "b" / "regraded.json")["results"][0]["mean"] == 0.5
    with pytest.raises(ValueError, match="would be overwritten"):
        regrade(read_saved(str(tmp_path / "a")), output=tmp_path / "b")
    with pytest.raises(ValueError, match="policy"):
        regrade(read_saved(str(tmp_path / "a")), policy="mth")


def test_what_was_graded_again_is_compared_and_graded_like_any_generations(tmp_path):
    a = evaluated(tmp_path / "a", [sample(1, RIGHT, False), sample(2, WRONG, False)], temperature=0.2)
    b = evaluated(tmp_path / "b", [sample(1, WRONG, False), sample(2, WRONG, False)])
    regrade(read_saved(a), output=tmp_path / "again")
    again = read_saved(str(tmp_path / "again"))
    (row,) = compare_saved(again, read_saved(b))
    assert (row["difference"], row["asked_differently"]) == (-0.5, ["temperature (0.2 and 0.6)"])
    assert regrade(again)[0]["compared"]["before"]["alike"] == 2
    path = jsonl(tmp_path / "samples_mine_2026-11-30T05-01-02.1.jsonl", [lm_eval_row(0, "It is 7.", "none", 1.0)])
    regrade(read_saved(str(path)), output=tmp_path / "theirs")
    assert regrade(read_saved(str(tmp_path / "theirs")))[0]["compared"]["none"]["alike"] == 1


def test_another_policy_gives_other_verdicts(tmp_path):
    saved = read_saved(evaluated(tmp_path / "a", [sample(1, r"\boxed{7.00001}", False)]))
    assert regrade(saved)[0]["mean"] == 0.0
    (result,) = regrade(read_saved(evaluated(tmp_path / "c", [sample(1, "(B)", False, gold="B")])), policy="choice")
    assert result["mean"] == 1.0


# --- other harnesses' files

DOC = {"question": "What is 3 + 4?", "answer": "3+4=<<3+4=7>>7\n#### 7"}


def lm_eval_row(number: int, text: str, kind: str, right: float, doc: dict = DOC, **more) -> dict:
    arguments = {"gen_args_0": {"arg_0": f"Q: {doc['question']}\nA:", "arg_1": {"until": ["Q:"]}}}
    row = {"doc_id": number, "doc": doc, "target": doc["answer"], "arguments": arguments, "resps": [[text]]}
    row |= {"filtered_resps": ["7"], "filter": kind, "metrics": ["exact_match"], "exact_match": right}
    return row | more


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_lm_evals_samples_are_read_once_for_all_filters_with_the_verdict_of_each(tmp_path):
    texts = [("The answer is 7.", 0.0, 1.0), ("It is #### 8", 0.0, 0.0)]
    rows = [
        lm_eval_row(number, text, kind, right)
        for number, (text, strict, flexible) in enumerate(texts)
        for kind, right in (("strict-match", strict), ("flexible-extract", flexible))
    ]
    path = jsonl(tmp_path / "samples_gsm8k_cot_2026-11-30T05-01-02.123456.jsonl", rows)
    found = read_harness([path])["gsm8k"]
    assert [(row["question"], row["gold"], row["policy"]) for row in found] == [("What is 3 + 4?", "7", "number")] * 2
    assert [row["theirs"] for row in found] == [
        {"strict-match": False, "flexible-extract": True},
        {"strict-match": False, "flexible-extract": False},
    ]
    (result,) = regrade(read_saved(str(tmp_path)))
    assert result["mean"] == 0.5
    strict, flexible = (result["compared"][name] for name in ("strict-match", "flexible-extract"))
    assert (strict["only_ours"], strict["alike"], flexible["alike"]) == (1, 1, 2)


def test_several_metrics_of_a_filter_are_told_apart(tmp_path):
    row = lm_eval_row(0, RIGHT, "none", 0.0, metrics=["exact_match", "math_verify"], math_verify=1)
    (found,) = read_harness([jsonl(tmp_path / "samples_gsm8k_2026-11-30T05-01-02.1.jsonl", [row])])["gsm8k"]
    assert found["theirs"] == {"none, exact_match": False, "none, math_verify": True}


def test_of_several_dates_the_newest_is_read(tmp_path):
    for date, text in (("2026-11-29", "8"), ("2026-11-30", "The answer is 7.")):
        jsonl(tmp_path / f"samples_gsm8k_{date}T05-01-02.1.jsonl", [lm_eval_row(0, text, "none", 0.0)])
    assert [row["text"] for row in read_saved(str(tmp_path)).rows["gsm8k"]] == ["The answer is 7."]


def test_two_tasks_of_one_set_are_both_read_and_two_models_are_not_mixed(tmp_path):
    for task, text in (("gsm8k", "It is 7."), ("gsm8k_cot", "It is 8."), ("asdiv_cot_llama", "It is 7.")):
        jsonl(tmp_path / "m" / f"samples_{task}_2026-11-30T05-01-02.1.jsonl", [lm_eval_row(0, text, "none", 1.0)])
    found = read_saved(str(tmp_path / "m")).rows
    assert {task: row["text"] for task, (row,) in found.items()} == {
        "gsm8k": "It is 7.",
        "gsm8k_cot": "It is 8.",
        "asdiv": "It is 7.",
    }
    jsonl(tmp_path / "other" / "samples_gsm8k_2026-12-01T05-01-02.1.jsonl", [lm_eval_row(0, "7", "none", 1.0)])
    with pytest.raises(ValueError, match="holds generations in m, other: several models"):
        read_saved(str(tmp_path))


def test_an_own_task_is_read_from_its_target(tmp_path):
    doc = {"problem": "Half of 3?", "answer": r"so \boxed{\frac{3}{2}}"}
    row = lm_eval_row(0, r"\boxed{1.5}", "none", 1.0, {"question": "", **doc})
    path = jsonl(tmp_path / "samples_my_task_2026-11-30T05-01-02.1.jsonl", [row])
    (found,) = read_harness([path])["my_task"]
    assert (found["question"], found["gold"], found["policy"]) == ("Half of 3?", r"\frac{3}{2}", "math")


def lighteval_row(text: list[str], metric: dict) -> dict:
    doc = {
        "query": "Solve: 3 + 4?",
        "original_query": "3 + 4?",
        "choices": ["7"],
        "gold_index": 0,
        "specific": None,
        "id": "0",
    }
    return {"doc": doc, "model_response": {"input": "…", "text": text, "logprobs": []}, "metric": metric}


def test_lightevals_details_are_read_old_and_new(tmp_path):
    rows = [lighteval_row([RIGHT], {"extractive_match": 1.0}), lighteval_row([RIGHT, WRONG], {"pass@k:k=1&n=2": 0.5})]
    path = tmp_path / "details_aime24|0_2025-11-05T14-43-47.148527.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = read_harness([path])["aime24"]
    assert [(row["problem_id"], row["index"], row["text"], row["gold"]) for row in found] == [
        ("aime24-0", 0, RIGHT, "7"), ("aime24-1", 0, RIGHT, "7"), ("aime24-1", 1, WRONG, "7"),
    ]  # fmt: skip
    assert found[0]["theirs"]["extractive_match"] is True and found[1]["theirs"] == {}
    old = {"predictions": [RIGHT], "gold": ["7"], "full_prompt": "3 + 4?", "metrics": {"extractive_match": 1}}
    as_text = {name: str(value) for name, value in old.items()}  # as older versions wrote nested values
    for number, row in enumerate((old, as_text)):
        path = tmp_path / f"details_mine|{number}_2025-02-05T14-43-47.148527.parquet"
        pq.write_table(pa.Table.from_pylist([row]), path)
        (read,) = read_harness([path])["mine"]
        assert (read["text"], read["gold"], read["theirs"]) == (RIGHT, "7", {"extractive_match": True})


def test_evalchemys_results_are_read_and_graded_by_us(tmp_path):
    aime = {
        "examples": [
            {"problem": "3 + 4?", "expected_answer": 7, "model_outputs": [RIGHT, WRONG], "model_answers": ["7", "8"]}
        ]
    }
    math = {"examples": [{"problem": "3 + 4?", "answer": "7", "model_output": RIGHT, "model_answer": "7"}]}
    write_json(tmp_path / "results_2026.json", {"results": {"AIME24": aime, "MATH500": math, "mmlu": {"acc": 0.5}}})
    saved = graded_by_us(read_saved(str(tmp_path / "results_2026.json")))
    assert {name: [row["correct"] for row in rows] for name, rows in saved.rows.items()} == {
        "aime24": [True, False],
        "math500": [True],
    }


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("samples_x_1.jsonl", '{"a": 1}\n', r"it has a\. Accepted are samples_"),
        ("samples_x_1.jsonl", "", "it has no rows"),
        ("results.json", '{"results": {"gsm8k": {"acc": 1}}}', "no `results` with `examples`"),
        ("results.json", "{", "is no results file of evalchemy"),
        ("samples_x_1.jsonl", json.dumps(lm_eval_row(0, "7", "none", 1.0)) + "\n{", "a row cannot be read"),
        ("samples_x_1.jsonl", json.dumps(lm_eval_row(0, "", "none", 1.0, resps=[[[-1.5, True]]])), "no generations of x"),
        ("samples_x_1.jsonl", json.dumps(lm_eval_row(0, "7", "none", 1.0, target="", doc={"question": "?", "answer": ""})),
         "x_1-0 has no reference answer|x-0 has no reference answer"),
    ],
)  # fmt: skip
def test_a_file_without_generations_is_refused(tmp_path, name, content, complaint):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=complaint):
        read_saved(str(tmp_path / name))


# --- compared


def test_the_paired_difference_by_hand_whatever_the_ids(tmp_path):
    a = [sample(1, WRONG, False), sample(2, RIGHT, True), sample(3, RIGHT, True)]
    b = [sample(1, RIGHT, True), sample(2, RIGHT, True), sample(9, RIGHT, True)]
    b = [row | {"problem_id": f"theirs-{row['problem_id']}"} for row in b]
    saved = [Saved(name, {"sums": rows}, {"sums": score(name)}) for name, rows in (("a", a), ("b", b))]
    (row,) = compare_saved(*saved)
    assert (row["problems"], row["difference"], row["low"], row["high"]) == (2, 0.5, 0.0, 1.0)
    assert (row["a"][0], row["b"][0], row["only_a"], row["only_b"], row["left_out"]) == (0.5, 1.0, 0, 1, [1, 1])
    assert row["asked_differently"] == []


def test_another_question_under_the_same_id_is_no_pair(tmp_path):
    a, b = [sample(1, RIGHT, True)], [sample(1, RIGHT, True, question="another?")]
    with pytest.raises(ValueError, match="no question with the same answer is in both a and b"):
        compare_saved(Saved("a", {"sums": a}), Saved("b", {"sums": b}))
    with pytest.raises(ValueError, match="a has generations of sums, and b of more: both need a common problem set"):
        compare_saved(Saved("a", {"sums": a}), Saved("b", {"more": b}))


def test_a_question_that_a_set_has_twice_counts_twice():
    twice = [sample(1, RIGHT, True), sample(2, WRONG, False, question="1 + 0?")]
    (row,) = compare_saved(Saved("a", {"sums": twice}), Saved("b", {"sums": twice}))
    assert (row["problems"], row["a"][0], row["difference"]) == (2, 0.5, 0.0)


def test_the_command_compares_a_run_with_another_harness_and_says_what_differs(tmp_path, monkeypatch, capsys):
    rows = [sample(n, RIGHT, True, question=f"What is {n} + 4?", policy="number") for n in range(3)]
    write_rows(tmp_path / "a" / "gsm8k", rows)
    write_json(tmp_path / "a" / "scores.json", {"scores": [score("m", "gsm8k")], "model": {"name": "m"}})
    docs = [{"question": f"What is {n} + 4?", "answer": "#### 7"} for n in range(3)]
    texts = ["The answer is 7.", "The answer is 8.", "The answer is 9."]
    theirs = [lm_eval_row(n, text, "none", 0.0, doc) for n, (doc, text) in enumerate(zip(docs, texts, strict=True))]
    path = jsonl(tmp_path / "samples_gsm8k_2026-11-30T05-01-02.1.jsonl", theirs)
    monkeypatch.setattr(
        sys, "argv", ["whetstone", "compare", str(tmp_path / "a"), str(path), "--json", str(tmp_path / "c.json")]
    )
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code
    printed = capsys.readouterr().out
    assert "of 3 problems a bootstrap interval is too narrow" in printed
    assert "-66.7" in printed and "asked differently: how they were asked is not known on one side" in printed
    (row,) = read_json(tmp_path / "c.json")["comparisons"]
    assert row["difference"] == pytest.approx(-2 / 3) and row["only_a"] == 2


def test_generations_of_other_problems_than_those_that_are_named_are_not_compared(tmp_path, monkeypatch, capsys):
    sides = [evaluated(tmp_path / name, [sample(1, RIGHT, True)]) for name in "ab"]
    for named in ("other", str(jsonl(tmp_path / "other.jsonl", [{"question": "1 + 1?", "answer": 2}]))):
        monkeypatch.setattr(sys, "argv", ["whetstone", "compare", *sides, "--benchmark", named])
        with pytest.raises(SystemExit) as done:
            cli.main()
        assert done.value.code == 2 and "both need other" in capsys.readouterr().err


def test_two_models_of_servers_are_named_in_order():
    sides = [ModelOptions(name) for name in ("http://a/v1", "runs/x", "http://b/v1")]
    assert [side.served for side in served_by(sides, ["one", "two"])] == ["one", "", "two"]
    with pytest.raises(ValueError, match="--served three: there is no server for it"):
        served_by(sides, ["one", "two", "three"])


def test_a_model_without_generations_needs_a_problem_set(tmp_path, monkeypatch, capsys):
    out = evaluated(tmp_path / "a", [sample(1, RIGHT, True)])
    monkeypatch.setattr(sys, "argv", ["whetstone", "compare", out, "http://127.0.0.1:9/v1"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 2 and "name problem sets to score it on" in capsys.readouterr().err
