"""The corpus stage and its rules."""

import doctest
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from whetstone.corpus import build, label, limo, subset
from whetstone.corpus.accept import reason_to_drop
from whetstone.corpus.duplicates import mark_duplicates
from whetstone.corpus.limo import quality
from whetstone.corpus.pairs import make_pairs
from whetstone.corpus.subset import Subset, SubsetSettings, allocate
from whetstone.records import Pair, Problem, Trace, from_row
from whetstone.run.folder import Stage, read_json
from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings
from whetstone.run.tables import read_rows, write_records


def trace(problem_id="p1", index=0, text="<think>2+3=5</think>", correct=True, reason="equal") -> Trace:
    return Trace(problem_id, index, text, "teacher", correct, reason)


def problem(name="p1", question="What is 2 + 3?", answer="5", **more) -> Problem:
    return Problem(name, question, answer, **more)


def build_stage(folder: Path, problems: list[Problem], traces: list[Trace], **settings) -> Stage:
    write_records(folder / "problems", problems)
    write_records(folder / "rollouts", traces)
    return Stage(
        name="corpus",
        kind="corpus",
        folder=folder / "03-corpus",
        settings=build.Settings(kind="corpus", **settings),
        inputs={"problems": folder / "problems", "rollouts": folder / "rollouts"},
        run=RunSettings(name="t"),
        model=ModelSettings(),
        parallel=ParallelSettings(),
        scores=ScoreSettings(),
    )


def rows(of: Stage, artifact: str) -> list[dict]:
    return list(read_rows(of.folder / artifact))


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (trace(), ""),
        (trace(correct=None, reason="timeout"), "undecided: timeout"),
        (trace(correct=False, reason="different"), "wrong: different"),
        (trace(text="<think>2+3=5"), "thinking never closes"),
        (trace(text="x" * 101), "longer than 100 characters"),
        (trace(text="carry one and go on " * 20), "longer than 100 characters"),
        (trace(text="  "), "empty"),
    ],
)
def test_a_trace_is_left_out_with_its_reason(one, reason):
    assert reason_to_drop(one, max_repetition=0.6, max_characters=100) == reason


def test_a_loop_is_repetitive_and_a_second_look_is_not():
    said = " ".join(f"word{i}" for i in range(60))
    assert label.repetition(said) == 0
    assert 0.3 < label.repetition(f"{said} {said}") < 0.6
    assert label.repetition("wait let me see " * 40) > 0.9
    assert reason_to_drop(trace(text="wait let me see " * 40), 0.6, 0) == "repetitive"


def test_an_undecided_trace_does_not_count_in_the_pass_rate():
    assert label.pass_rate([trace(correct=True), trace(correct=False), trace(correct=None)]) == 0.5
    assert label.pass_rate([trace(correct=None)]) is None


def test_the_pass_rate_gives_a_level_only_where_the_source_gives_none():
    assert label.level(problem(level=2), 0.0) == 2
    assert [label.level(problem(), rate) for rate in (1.0, 0.8, 0.5, 0.3, 0.0)] == [1, 2, 3, 4, 5]
    assert label.level(problem(), None) is None


def test_duplicates_are_found_through_spacing():
    marked = list(mark_duplicates([trace(index=0, text="a b"), trace(index=1, text="c"), trace(index=2, text="a\n b")]))
    assert [first for _, first, _ in marked] == [None, None, 0]


def test_quality_prefers_the_trace_that_checks_itself():
    plain = "2 + 3 gives 5 " * 10
    careful = plain + "wait let me check : since 5 - 3 gives 2 therefore it is right"
    assert 0 < quality(plain) < quality(careful) < 1
    assert quality("") == 0


def test_pairs_never_mix_problems():
    with pytest.raises(AssertionError, match="never mix"):
        make_pairs(problem("p1"), [trace("p1")], [trace("p2", correct=False)], 1)


def test_pairs_match_in_length_and_use_a_trace_once():
    right = [trace(index=0, text="a" * 10), trace(index=1, text="a" * 50)]
    wrong = [trace(index=2, text="b" * 48, correct=False), trace(index=3, text="b" * 13, correct=False)]
    pairs = make_pairs(problem(), right, wrong, 5)
    assert [(len(p.chosen), len(p.rejected)) for p in pairs] == [(50, 48), (10, 13)]
    assert len(make_pairs(problem(), right, wrong, 1)) == 1
    assert make_pairs(problem(), right, [], 1) == []


def test_places_go_to_every_stratum_first():
    sizes = Counter({("1", "a"): 900, ("2", "a"): 90, ("3", "b"): 1})
    assert allocate(sizes, 3) == {("1", "a"): 1, ("2", "a"): 1, ("3", "b"): 1}
    assert allocate(sizes, 100)[("3", "b")] == 1
    assert allocate(sizes, 5000, even=True) == dict(sizes)


def test_the_subset_by_quality_takes_the_best_and_by_hash_does_not_care_for_order():
    offers = [(f"p{i}", ("1", "a"), i / 10, [i]) for i in range(10)]

    def chosen(by, order):
        subset = Subset(SubsetSettings(problems=3, by=by), key=lambda name: build.shuffle_key(0, name))
        for offer in order:
            subset.offer(*offer)
        return subset.choose()

    assert chosen("quality", offers) == {"p9": {9}, "p8": {8}, "p7": {7}}
    assert chosen("representative", offers) == chosen("representative", offers[::-1])


def small_world() -> tuple[list[Problem], list[Trace]]:
    problems, traces = [], []
    for i in range(40):
        split = "test" if i % 10 == 9 else "validation" if i % 10 == 8 else "train"
        problems.append(
            problem(f"p{i}", f"What is {i} + {i + 1}?", str(2 * i + 1), split=split, level=1 + i % 3, domain="chain")
        )
        if split == "test" or i == 11:  # the teacher could not explain p11
            continue
        for j in range(4):
            text = f"<think>{i}+{i + 1} in {j} ways, so it is {2 * i + 1}</think>\\boxed{{{2 * i + 1 + (j == 3)}}}"
            traces.append(trace(f"p{i}", j, text, correct=j != 3, reason="equal" if j != 3 else "different"))
    problems[0] = problem("p0", "what is 9 + 10", "19", level=1, domain="chain")  # a test question (p9)
    return problems, traces


def test_the_stage_writes_what_the_later_stages_read(tmp_path):
    stage = build_stage(tmp_path, *small_world(), subset={"problems": 6, "traces": 2}, validation_problems=2)
    summary = build.run(stage)

    corpus = rows(stage, "corpus")
    train = [row for row in corpus if row["split"] == "train"]
    assert {row["split"] for row in corpus} == {"train", "validation"}
    assert len({row["problem_id"] for row in corpus if row["split"] == "validation"}) == 2
    assert {row["pass_rate"] for row in train} == {0.75}
    assert len(train) == 30 * 3  # 32 train problems; one is a test question, one has no traces
    assert list(train[0]) == (
        [
            "problem_id",
            "index",
            "question",
            "system",
            "text",
            "answer",
            "policy",
            "level",
            "domain",
            "pass_rate",
            "school",
            "language",
            "augmentation",
            "teacher",
            "repetition",
            "characters",
            "source",
            "licence",
            "split",
        ]
    )

    subset = rows(stage, "subset")
    assert len({row["problem_id"] for row in subset}) == 6
    assert Counter(row["level"] for row in subset) == {1: 4, 2: 4, 3: 4}
    assert {row["split"] for row in subset} == {"train"}

    pairs = [from_row(Pair, row) for row in rows(stage, "pairs")]
    assert len(pairs) == 30
    assert all(p.chosen != p.rejected and p.source == "teacher" for p in pairs)

    prompts = rows(stage, "prompts")
    assert {row["split"] for row in prompts} == {"train"}
    assert "p0" not in {row["id"] for row in prompts}
    assert [row["pass_rate"] for row in prompts if row["id"] == "p11"] == [None]

    dropped = rows(stage, "dropped")
    assert [(row["reason"], row["detail"]) for row in dropped if row["problem_id"] == "p0"] == [
        ("test question (equal)", "p9")
    ]
    left_out = sum(row["index"] is not None for row in dropped)
    whole_problems = sum(
        row["problem_id"] in ("p0",) or row["reason"] == "beyond validation_problems" for row in dropped
    )
    assert len(corpus) + left_out + 4 * whole_problems == 4 * 35, (
        "every trace is in the corpus or dropped with a reason"
    )

    card = read_json(stage.folder / "card.json")
    assert card["rows"]["corpus"] == len(corpus) == summary["corpus"]
    assert sum(card["levels"].values()) == sum(card["characters"].values()) == len(corpus)
    assert "levels 1: 33%, 2: 33%, 3: 33%" in card["stages"]["fine-tuning: compact, all levels"]
    assert sum(len(p.chosen) for p in pairs) / sum(len(p.rejected) for p in pairs) == pytest.approx(1, abs=0.01)
    assert "are 1.00 times as long" in card["stages"]["DPO: right against wrong, of like length"]
    page = (stage.folder / "card.md").read_text()
    assert f"| corpus | {len(corpus):,} |" in page and "| test question (equal) | 1 |" in page
    (match,) = [row for row in rows(stage, "matches") if row["rule"] == "equal"]
    assert (match["problem_id"], match["question"], match["test_id"]) == ("p0", "what is 9 + 10", "p9")
    assert card["contamination"]["examples"] == [{"problem": "p0", "test": "p9", "rule": "equal"}]


def test_the_same_settings_and_seed_give_the_same_files(tmp_path):
    one, two = (build_stage(tmp_path / name, *small_world(), subset={"problems": 5}) for name in "ab")
    build.run(one)
    build.run(two)
    for artifact in ("corpus", "subset", "pairs", "prompts", "dropped"):
        assert rows(one, artifact) == rows(two, artifact)


def test_levels_and_limits_are_settings(tmp_path):
    stage = build_stage(
        tmp_path, *small_world(), levels=[1, 2], prompt_levels=[3], traces_per_problem=1, pairs_per_problem=0
    )
    build.run(stage)
    train = [row for row in rows(stage, "corpus") if row["split"] == "train"]
    assert {row["level"] for row in train} == {1, 2}
    assert len(train) == len({row["problem_id"] for row in train})
    assert {row["level"] for row in rows(stage, "prompts")} == {3}
    assert rows(stage, "pairs") == []


def test_rollouts_of_other_problems_are_refused(tmp_path):
    stage = build_stage(tmp_path, [problem("p1")], [trace("stranger")])
    with pytest.raises(ValueError, match="collected from other problems"):
        build.run(stage)


def test_look_alikes_of_test_questions_are_dropped_where_the_recipe_asks_and_counted_where_not(tmp_path):
    said = "The old baker of our small town bakes {} rolls every morning and sells {} of them. How many are left?"
    problems = [
        problem("t", said.format(30, 4), "26", split="test"),
        problem("other numbers", said.format(71, 5), "66"),
        problem("reworded", said.format(82, 9).replace("baker", "cook"), "73"),
        problem("another", "Tom has 9 pens and buys 4 more in the shop by the river. How many pens has he?", "13"),
    ]
    traces = [trace(one.id) for one in problems[1:]]
    for look_alikes, left in ((0, 3), (0.75, 1)):
        stage = build_stage(tmp_path / str(look_alikes), problems, traces, contamination={"look_alikes": look_alikes})
        build.run(stage)
        assert len({row["problem_id"] for row in rows(stage, "corpus")}) == left
        dropped = {row["problem_id"]: row["reason"] for row in rows(stage, "dropped")}
        assert dropped == (
            {"other numbers": "test question (other numbers)", "reworded": "test question (look-alike)"}
            if left == 1
            else {}
        )


def test_near_duplicates_other_languages_and_unverified_traces_are_settings(tmp_path):
    said = "The old baker of our small town bakes 30 rolls every morning and sells most of them before noon today"
    problems = [
        problem("a", said, "1"),
        problem("b", said + " ok", "1"),
        problem("c", "小明有五个苹果。", "5"),
        problem("d"),
    ]
    problems.append(problem("chat", "Say hello to the whole wide world.", ""))
    texts = [
        "one two three four five six seven eight nine ten eleven",
        "one two three four five six seven eight nine ten",
    ]
    traces = [trace("a", i, text) for i, text in enumerate(texts)] + [trace("b"), trace("c"), trace("d")]
    traces.append(trace("chat", text="Hello!", correct=None, reason="no reference answer"))

    plain = build_stage(tmp_path / "plain", problems, traces)
    build.run(plain)
    assert [row["problem_id"] for row in rows(plain, "corpus")] == ["a", "a", "b", "c", "d"]

    stage = build_stage(
        tmp_path / "set", problems, traces, near_duplicates=0.8, near_traces=0.7, languages=["en"], unverified=True
    )
    build.run(stage)
    assert [(row["problem_id"], row["index"]) for row in rows(stage, "corpus")] == [("a", 0), ("d", 0), ("chat", 0)]
    dropped = {(row["problem_id"], row["reason"], row["detail"]) for row in rows(stage, "dropped")}
    assert dropped >= {
        ("b", "near duplicate problem", "of a"),
        ("c", "language is not taught", "zh"),
        ("a", "near duplicate trace", "of rollout 0"),
    }


def test_ready_pairs_join_and_what_is_no_pair_or_a_test_question_is_dropped(tmp_path):
    file = tmp_path / "prefs" / "pairs.jsonl"
    file.parent.mkdir()
    ready = [
        {"prompt": "Which is nicer?", "chosen": "this", "rejected": "that"},
        {"prompt": "what is 9 + 10", "chosen": "19", "rejected": "20"},
        {"prompt": "Same?", "chosen": "x", "rejected": "x"},
        {"chosen": "x"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in ready))
    stage = build_stage(tmp_path, *small_world(), imported_pairs=[{"path": str(file)}])
    build.run(stage)
    (imported,) = [row for row in rows(stage, "pairs") if row["source"] == "prefs"]
    assert (imported["question"], imported["chosen"], imported["rejected"]) == ("Which is nicer?", "this", "that")
    reasons = {
        row["problem_id"]: row["reason"] for row in rows(stage, "dropped") if row["problem_id"].startswith("prefs/")
    }
    assert reasons == {
        "prefs/2": "test question (equal)",
        "prefs/3": "imported pair: both sides are equal",
        "prefs/4": "imported pair: not a pair",
    }


def test_programs_are_taught_as_answers_to_the_question_that_asks_for_them_and_never_paired_with_thoughts(tmp_path):
    def program(index, correct):
        return Trace("p1", index, f"```python\nprint({index})\n```", "t", correct, "program", "program")

    traces = [trace(index=0), trace(index=1, text="2+3=6", correct=False, reason="different"), program(8, True)]
    stage = build_stage(tmp_path, [problem()], [*traces, program(9, False)], traces_per_problem=1, pairs_per_problem=4)
    build.run(stage)
    asked = {row["index"]: row["question"] for row in rows(stage, "corpus")}
    assert asked == {0: "What is 2 + 3?", 8: "What is 2 + 3? Let's write a program."}
    assert [(p["question"], p["chosen"][:3], p["rejected"][:3]) for p in rows(stage, "pairs")] == [
        ("What is 2 + 3?", "<th", "2+3"),
        ("What is 2 + 3? Let's write a program.", "```", "```"),
    ]
    assert {row["pass_rate"] for row in rows(stage, "corpus")} == {0.5}


def test_docstring_examples_are_true():
    assert [doctest.testmod(module).failed for module in (limo, label, subset)] == [0, 0, 0]


def test_keys_of_an_earlier_version_name_the_new_ones():
    for old, new in build.Settings.MOVED.items():
        with pytest.raises(ValueError, match=f"(?s){old}.*is now {new}"):
            build.Settings.model_validate({"kind": "corpus", old: 1})
        table, _, key = new.partition(".")
        assert new.startswith("fixed: ") or key in type(getattr(build.Settings(kind="corpus"), table)).model_fields


def test_limo_keeps_what_a_weak_model_never_and_a_strong_one_now_and_then_solves(tmp_path):
    names = ["easy", "often", "right", "never", "also"]
    problems = [problem(name, f"What is this {name} question about?", domain="a") for name in names]
    said = {name: "so it is five " * (3 + n) + "wait, let me check" * (name == "also") for n, name in enumerate(names)}
    traces = [trace(name, text=said[name]) for name in names]
    weak = {"easy": 1}
    strong = {"easy": 2, "often": 4, "right": 1, "never": 0, "also": 3}
    for file, right in (("weak", weak), ("strong", strong)):
        rated = [trace(name, i, correct=i < right.get(name, 0)) for name in names for i in range(4)]
        write_records(tmp_path / file, rated)
    stage = build_stage(tmp_path, problems, traces, subset={"by": "limo", "problems": 1})
    stage = replace(stage, inputs=stage.inputs | {"weak": tmp_path / "weak", "strong": tmp_path / "strong"})
    build.run(stage)
    assert [row["problem_id"] for row in rows(stage, "subset")] == ["also"], "the better argued of right and also"
    assert len(rows(stage, "corpus")) == 5, "mid-training gets all"
    assert read_json(stage.folder / "card.json")["not_in_subset"] == {
        "too easy: the weak model solves it": 1,
        "too easy: the strong model solves it often": 1,
        "too hard: the strong model hardly ever solves it": 1,
    }


def test_the_diverse_subset_gives_domains_as_many_places_and_takes_the_longest(tmp_path):
    problems = [problem(f"p{n}", f"Question {n}?", domain="b" if n == 9 else "a", level=n % 3) for n in range(10)]
    traces = [trace(p.id, text="x y " * (5 + n)) for n, p in enumerate(problems)]
    stage = build_stage(tmp_path, problems, traces, subset={"by": "diverse", "problems": 2}, max_repetition=1)
    build.run(stage)
    assert [row["problem_id"] for row in rows(stage, "subset")] == ["p8", "p9"]
