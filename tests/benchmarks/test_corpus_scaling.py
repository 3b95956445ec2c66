"""The synthetic rollouts are what they say, and the stage's steps are timed without being changed."""

import random

from benchmarks import corpus_scaling
from whetstone.corpus import label, part
from whetstone.records import Problem


def test_rollouts_are_as_long_as_they_say():
    rng = random.Random(0)
    pool = corpus_scaling.sentences(rng)
    made = [t for n in range(40) for t in corpus_scaling.rollouts(Problem(f"p{n}", "?", "7"), pool, rng)]
    tokens = [len(trace.text) / corpus_scaling.CHARACTERS for trace in made]
    assert len(made) == 40 * corpus_scaling.PER_PROBLEM
    assert min(tokens) > 0.9 * corpus_scaling.SHORTEST and max(tokens) < 1.1 * corpus_scaling.LONGEST
    assert 0.5 < sum(trace.correct for trace in made) / len(made) < 0.8


def test_every_rollout_is_kept_or_dropped_and_the_steps_are_put_back(monkeypatch, tmp_path):
    monkeypatch.delenv("WHETSTONE_DATA", raising=False)
    plain = part.reason_to_drop, part.mark_duplicates, label.level
    found = corpus_scaling.case(160, 1, tmp_path)
    assert found["rows"]["corpus"] + sum(found["drops"].values()) == 160
    assert all(found["steps"][step]["cpu_seconds"] >= 0 for step in corpus_scaling.STEPS)
    assert found["peak_memory_mb"] > found["memory_at_start_mb"] > 0
    assert (part.reason_to_drop, part.mark_duplicates, label.level) == plain


def test_files_that_depend_on_the_number_of_processes_are_seen():
    cases = [{"rollouts": 1, "sha256": "a"}, {"rollouts": 2, "sha256": "b"}, {"rollouts": 2, "sha256": "b"}]
    assert corpus_scaling.same_files(cases)
    assert not corpus_scaling.same_files([*cases, {"rollouts": 1, "sha256": "c"}])
