"""Training on a small and a large corpus: what is measured is the room's own way, and the summary's arithmetic."""

import pytest

from benchmarks.learner_scaling import Training, corpus, memory, summarise
from whetstone.run.tables import write_rows


def test_a_corpus_is_prepared_and_trained_on_at_its_start_middle_and_end(tmp_path):
    write_rows(tmp_path / "corpus", corpus(40))
    training = Training(40, tmp_path)
    assert set(training.prepare()) == {"tokenise", "pack", "plan"}
    assert sorted(i for step in training.plan for room in step for i in training.rooms[room]) == list(range(40))
    firsts = [training.first_step(position, 2) for position in ("start", "middle", "end")]
    assert firsts[0] == 0 < firsts[1] < firsts[2] == len(training.plan) - 2
    told = training.train(firsts[2], 2)
    last = [i for step in list(training.plan)[-2:] for room in step for i in training.rooms[room]]
    assert told["tokens"] == sum(len(training.rows[i].ids) for i in last)
    assert 0 < told["reading"] < told["cpu"]
    with pytest.raises(AssertionError, match="too few"):
        training.first_step("end", 1000)


def test_memory_is_that_of_this_process():
    found = memory()
    assert found["peak"] >= found["own"] > 10 and found["mapped"] > 0


def test_rates_are_compared_within_their_round():
    """In the second round the machine is half as fast for all, which changes no share."""

    def told(rate, slow):
        return {"tokens": rate, "cpu": slow, "reading": 0.01 * slow, "memory": {}}

    def size(rows, rate, peak):
        rounds = {position: [told(rate, 1.0), told(rate, 2.0)] for position in ("start", "middle", "end")}
        return {"rows": rows, "rounds": rounds, "memory": {"trained": {"peak": peak}}}

    found = summarise([size(10, 90.0, 100.0), size(1000, 110.0, 107.0)])
    assert [case["share"] for case in found["cases"]] == pytest.approx([0.9] * 3 + [1.1] * 3)
    assert found["cases"][0]["ours"] == pytest.approx(67.5)  # the median of 90 and 45
    assert found["spread"] == pytest.approx(1.1 / 0.9)
    assert found["peak_memory_growth_mb"] == 7.0 and found["reading_share"] == pytest.approx(0.01)
