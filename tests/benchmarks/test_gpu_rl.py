"""The RL benchmark's work and arithmetic, by hand, and its code on a CPU."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu_rl
from benchmarks.gpu_rl import FULL, SMALL, case, line, long, measure, one_row


@pytest.mark.parametrize("size", [FULL, SMALL])
def test_rollouts_are_ragged_and_fill_what_they_should(size):
    groups = one_row(size)
    assert [len(group) for group in groups] == [4, 4, 4, 4]
    assert sum(map(sum, groups)) + 16 * size.prompt == size.row
    lengths = [n for group in groups for n in group]
    assert min(lengths) >= 1 and max(lengths) > 3 * min(lengths)
    assert size.prompt + max(max(group) for group in long(size)) == size.row


def test_an_update_counts_the_operations_worked_out_by_hand():
    """Two layers of 96 x (160 + 96 + 384) + 192 x 96 weights; answers alone go through the head of 2,000 x 96; the prompt that
    four rollouts share is computed once."""
    found = measure(replace(SMALL, warm=0, steps=1), "cpu", {}, ["one row"])["one row"]
    answers = [n for group in one_row(SMALL) for n in group]
    matrices = 2 * (96 * (160 + 96 + 384) + 192 * 96)
    pairs = sum(n * (n + 1) // 2 for n in (SMALL.prompt + n for n in answers))
    pairs -= 12 * SMALL.prompt * (SMALL.prompt + 1) // 2
    tokens = 1024 - 12 * SMALL.prompt
    assert found["tokens"] == tokens
    assert found["flops"] == 6 * tokens * matrices + 6 * sum(answers) * 2000 * 96 + 12 * 2 * 96 * pairs
    assert found["mfu"] == pytest.approx(found["flops"] / found["seconds"] / found["peak_flops"])
    assert found["largest_gap_to_its_own_scores"] < 1e-5, "the ratio is not to the policy that is trained"
    assert found["gradient_norm"] > 0


def test_the_target_is_met_or_not_and_what_does_not_fit_is_said():
    found = {"tokens_per_second": 9e3, "tokens": 16384, "seconds": 1.8, "mfu": 0.31, "peak_memory": 70e9}
    assert case("one row", found)["reaches_target"] and not case("one row", found | {"mfu": 0.29})["reaches_target"]
    assert "31.0% MFU" in line(case("one row", found)) and "70.0 GB" in line(case("one row", found))
    row = case("long", {"failed": "out of memory: tried 2 GiB"})
    assert row["ours"] is None and not row["reaches_target"] and "out of memory" in line(row)


def test_a_case_that_runs_out_of_memory_leaves_the_others(monkeypatch, capsys):
    def nothing_left(*_):
        raise torch.cuda.OutOfMemoryError("tried to allocate 9 GiB\nand more")

    monkeypatch.setattr(gpu_rl, "updates", nothing_left)
    found = measure(SMALL, "cpu", {}, ["one row", "long"])
    assert found["one row"] == found["long"] == {"failed": "out of memory: tried to allocate 9 GiB"}
    assert found["draw"]["tokens"] == 16 * SMALL.drawn and found["draw"]["gap_to_the_learner"] < 1e-5


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(SystemExit, match="there is no GPU here"):
        gpu_rl.main([])


@pytest.mark.slow
def test_small_runs_the_same_code_and_writes_its_json(tmp_path, capsys):
    file = tmp_path / "found.json"
    gpu_rl.main(["--small", "--steps", "1", "--way", "bf16 weights, each layer again", "--json", str(file)])
    found = json.loads(file.read_text())
    assert found["name"] == "gpu_rl" and found["mfu"] > 0
    assert [row["case"].partition(":")[0] for row in found["cases"]] == ["one row", "long"]
    assert all(row["ours"] > 0 and row["details"]["mfu"] > 0 for row in found["cases"])
    assert "MFU" in capsys.readouterr().out
