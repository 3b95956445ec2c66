"""Scores against brute force, oracles and hand-worked numbers."""

import doctest
import itertools
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted import TINY, Grader
from tests.tiny_models import TEXTS
from whetstone import measure
from whetstone import model as models
from whetstone.measure import majority_right, mean_interval, paired_bootstrap, pass_at_k, score_model, summarise, wilson
from whetstone.records import Problem
from whetstone.run.settings import ParallelSettings, ScoreSettings
from whetstone.run.tables import read_rows
from whetstone.verify import MathVerifier


def marks(name: str, right: str, **more) -> list[dict]:
    """`+` right, `-` wrong, `?` undecided."""
    known = {"+": True, "-": False, "?": None}
    base = {"problem_id": name, "policy": "math", "stop": "end", "tokens": 4, **more}
    return [base | {"index": i, "answer": mark, "correct": known[mark]} for i, mark in enumerate(right)]


def test_docstring_examples_are_true():
    assert doctest.testmod(measure).failed == 0


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_one(n):
    for right in range(n + 1):
        for k in range(1, n + 1):
            draws = list(itertools.combinations(range(n), k))
            share = sum(any(i < right for i in draw) for draw in draws) / len(draws)
            assert pass_at_k(n, right, k) == pytest.approx(share)


def majority(*answers: tuple[str, bool], verifier=None) -> float:
    rows = [{"answer": answer, "correct": correct, "policy": "math"} for answer, correct in answers]
    return majority_right(rows, verifier or Grader())


def test_the_majority_shares_the_point_of_a_tie_and_silence_does_not_vote():
    assert majority(("7", True), ("7", True), ("8", False)) == 1.0
    assert majority(("7", True), ("8", False), ("8", False)) == 0.0
    assert majority(("7", True), ("8", False)) == 0.5
    assert majority(("7", True), ("8", False), ("9", False)) == pytest.approx(1 / 3)
    assert majority(("", False), ("", False), ("7", True)) == 1.0
    assert majority(("", False)) == 0.0


def test_equal_answers_vote_together_in_a_score():
    halves = [("1/2", True), ("0.5", True), (r"\frac{1}{2}", True)]
    with MathVerifier() as verifier:
        assert majority(*halves, ("3", False), ("3", False), verifier=verifier) == 1.0
        assert majority(*halves[:2], ("3", False), ("3.0", False), verifier=verifier) == 0.5


def test_an_answer_that_was_decided_once_is_right_for_every_sample_that_gave_it():
    assert majority(("7", True), ("7", None), ("8", False)) == 1.0


def test_answers_that_are_all_right_or_all_wrong_are_not_compared():
    class Silent(Grader):
        def check_many(self, items):
            pytest.fail("the verifier was asked")

    assert majority(("1/2", True), ("0.5", True), ("", False), verifier=Silent()) == 1.0
    assert majority(("1", False), ("2", False), verifier=Silent()) == 0.0


def test_wilsons_interval_of_7_in_10():
    """(p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.96: 0.397 to 0.892 (Wilson 1927, standard tables)."""
    assert wilson(0.7, 10) == pytest.approx((0.3968, 0.8922), abs=1e-4)


def test_the_mean_is_over_problems_and_undecided_samples_are_wrong():
    rows = [*marks("a", "++--"), *marks("b", "+"), *marks("c", "?"), *marks("d", "?+")]
    mean, low, high, problems = mean_interval(rows)
    assert (mean, problems) == (0.5, 4)
    assert 0 <= low < mean < high <= 1
    assert mean_interval([]) == (0.0, 0.0, 1.0, 0)
    assert mean_interval(marks("c", "+???????"))[0] == 1 / 8


def test_one_sample_a_problem_has_wilsons_interval_of_that_many():
    """Between single samples the variance is p(1-p) n/(n-1), so the effective number is n - 1."""
    rows = [row for i in range(10) for row in marks(f"p{i}", "+" if i < 7 else "-")]
    assert mean_interval(rows)[1:3] == pytest.approx(wilson(0.7, 9))


def test_samples_that_repeat_each_other_do_not_narrow_the_interval():
    once = [row for i in range(10) for row in marks(f"p{i}", "+" if i < 7 else "-")]
    eight = [row for i in range(10) for row in marks(f"p{i}", "++++++++" if i < 7 else "--------")]
    assert mean_interval(once) == mean_interval(eight)


def test_the_interval_holds_the_truth_about_95_times_in_100():
    """60 problems of mixed difficulty, 8 samples, 400 draws: 95 % ± 1.1 % standard deviation; under 91 % is four away."""
    rng = random.Random(0)
    covered = 0
    for _ in range(400):
        skills = [rng.betavariate(1, 1) for _ in range(60)]
        rows = [{"problem_id": i, "correct": rng.random() < skill} for i, skill in enumerate(skills) for _ in range(8)]
        _, low, high, _ = mean_interval(rows)
        covered += low <= 0.5 <= high
    assert covered / 400 > 0.91


def test_the_paired_difference_by_hand():
    ours = [*marks("a", "++"), *marks("b", "+-"), *marks("only ours", "++")]
    theirs = [*marks("a", "--"), *marks("b", "+-"), *marks("only theirs", "++")]
    difference, low, high = paired_bootstrap(ours, theirs)
    assert difference == 0.5  # (1 + 0) / 2
    assert (low, high) == (0.0, 1.0)  # each end is drawn one time in four
    assert paired_bootstrap(ours, ours) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="share no problem"):
        paired_bootstrap(marks("a", "+"), marks("b", "+"))


def test_the_bootstrap_interval_is_that_of_plain_resampling_and_repeats():
    rng = random.Random(1)
    ours = [row for i in range(80) for row in marks(f"p{i}", "".join(rng.choice("++-") for _ in range(4)))]
    theirs = [row for i in range(80) for row in marks(f"p{i}", "".join(rng.choice("+--") for _ in range(4)))]
    interval = paired_bootstrap(ours, theirs, seed=3)
    assert interval == paired_bootstrap(ours, theirs, seed=3) != paired_bootstrap(ours, theirs, seed=4)
    share = [[sum(r["correct"] for r in rows[4 * i : 4 * i + 4]) / 4 for i in range(80)] for rows in (ours, theirs)]
    gaps = np.array(share[0]) - np.array(share[1])
    picks = np.random.default_rng(0).integers(0, 80, (20_000, 80))
    low, high = np.quantile(gaps[picks].mean(1), [0.025, 0.975])
    assert interval[0] == pytest.approx(gaps.mean())
    assert interval[1:] == pytest.approx((low, high), abs=0.01)
    assert high - low == pytest.approx(2 * 1.96 * gaps.std() / math.sqrt(80), rel=0.05)


@given(st.lists(st.text("+-?", min_size=1, max_size=8), min_size=1, max_size=12))
def test_a_score_is_consistent_with_itself(problems):
    rows = [row for i, right in enumerate(problems) for row in marks(f"p{i}", right)]
    score = summarise(rows, Grader(), "s", "b", True, 0.6)
    assert 0 <= score.low <= score.mean <= score.high <= 1
    assert 0 <= score.majority <= 1
    assert score.problems == len(problems) and score.samples == max(map(len, problems))
    if "?" not in "".join(problems):
        assert score.pass_at_k["1"] == pytest.approx(score.mean)
        if len({len(right) for right in problems}) == 1:
            shares = list(score.pass_at_k.values())
            assert shares == sorted(shares)


def test_an_undecided_answer_is_wrong_in_every_figure_and_counted():
    rows = [*marks("a", "+?"), *marks("b", "++"), *marks("c", "??"), *marks("d", "??")]
    score = summarise(rows, Grader(), "s", "b", True, 0.6)
    assert score.mean == 0.375
    assert score.pass_at_k == {"1": 0.375, "2": 0.5}
    assert score.majority == pytest.approx(1.5 / 4)
    assert score.undecided == 5 / 8


COLUMNS = [
    "problem_id",
    "index",
    "question",
    "gold",
    "policy",
    "level",
    "domain",
    "text",
    "answer",
    "correct",
    "reason",
    "stop",
    "tokens",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    models.save(*models.build_tiny(TINY, TEXTS, seed=0), path)
    return path


def problems() -> list[Problem]:
    return [
        Problem(f"{name}{i}", f"Compute {i} + 1.", str(i + 1), "test", name, level=1, domain="chain")
        for name in ("easy", "hard")
        for i in range(3)
    ]


def scored(folder, out, **settings):
    chosen = ScoreSettings(main="hard", samples=2, max_tokens=12, **settings)
    return score_model(folder, problems(), chosen, ParallelSettings(device="cpu"), 0, out, "sft")


def test_a_scored_model_leaves_its_generations_and_a_score_for_each_problem_set(folder, tmp_path):
    scores = scored(folder, tmp_path)
    assert [(s.benchmark, s.main, s.problems, s.samples, s.stage) for s in scores] == [
        ("easy", False, 3, 2, "sft"),
        ("hard", True, 3, 2, "sft"),
    ]
    for score in scores:
        rows = list(read_rows(tmp_path / score.benchmark))
        assert list(rows[0]) == [*COLUMNS, "form", "flexible"]
        assert [(r["problem_id"], r["index"]) for r in rows] == [
            (f"{score.benchmark}{i}", g) for i in range(3) for g in range(2)
        ]
        assert all(r["tokens"] <= 12 and r["gold"] == str(int(r["problem_id"][4:]) + 1) for r in rows)
        summed = summarise(rows, Grader(), "sft", score.benchmark, score.main, 0.6)
        assert replace(summed, prompt=score.prompt, max_tokens=12) == score and score.prompt["after"] == ""
        assert not (tmp_path / score.benchmark / "journal.jsonl").exists()


def test_a_score_that_was_interrupted_goes_on_and_is_the_same(folder, tmp_path, monkeypatch):
    undisturbed = scored(folder, tmp_path / "one")
    plain = measure.write_rows

    def dies(path, rows):
        if path.name == "hard":
            raise KeyboardInterrupt
        plain(path, rows)

    monkeypatch.setattr(measure, "write_rows", dies)
    with pytest.raises(KeyboardInterrupt):
        scored(folder, tmp_path / "two")
    monkeypatch.setattr(measure, "write_rows", plain)
    monkeypatch.setattr("whetstone.decode.engine.Engine.generate", lambda *_: pytest.fail("sampled again"))
    assert scored(folder, tmp_path / "two") == undisturbed


def test_greedy_needs_one_sample_and_problems_can_be_limited(folder, tmp_path):
    (easy, _) = scored(folder, tmp_path, temperature=0, problems=2)
    assert (easy.samples, easy.problems, easy.temperature) == (1, 2, 0)


def test_a_score_says_if_the_model_was_rounded_to_eight_bits(folder, tmp_path):
    (rounded, _), (easy, _) = scored(folder, tmp_path / "8", weights="int8"), scored(folder, tmp_path / "32")
    assert (rounded.weights, easy.weights) == ("int8", "stored") and rounded.problems == easy.problems


def test_a_problem_that_is_too_long_for_the_model_stays_in_the_denominator_as_not_solved(folder, tmp_path, capsys):
    long = Problem("long", "1 + " * 400 + "1", "401", "test", "easy", level=1)
    chosen = ScoreSettings(main="hard", samples=2, max_tokens=12)

    def of(given, out):
        return score_model(folder, given, chosen, ParallelSettings(device="cpu"), 0, out, "sft")

    without, _ = of(problems(), tmp_path / "without")
    easy, hard = of([long, *problems()], tmp_path / "with")
    assert (easy.problems, easy.not_asked, hard.not_asked, without.not_asked) == (4, 1, 0, 0)
    assert easy.mean == pytest.approx(without.mean * 3 / 4) and easy.mean_tokens == without.mean_tokens
    first = list(read_rows(tmp_path / "with" / "easy"))[:2]
    assert [(r["problem_id"], r["index"], r["correct"], r["stop"]) for r in first] == [
        ("long", 0, False, "not asked"),
        ("long", 1, False, "not asked"),
    ]
    said = capsys.readouterr().err
    assert "1 of 4 problems cannot be asked and count as not solved: long (" in said and "context of 256" in said
    with pytest.raises(ValueError, match="none of its 1 problems can be asked: long"):
        of([long], tmp_path / "alone")
