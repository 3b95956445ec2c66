"""The decoding benchmark's arithmetic, by hand, and its code on a CPU."""

import json

import pytest
import torch

from benchmarks import gpu_decode
from benchmarks._phi4_mini import PHI_4_MINI, build
from benchmarks.gpu_decode import FULL, SMALL, bytes_a_step, bytes_a_token, cache_needed, case, too_large
from whetstone import model as models

H100 = 3.35e12  # bytes a second
WEIGHTS = 2 * 3_836_021_760  # bytes, bf16


def test_the_bound_is_the_one_worked_out_by_hand():
    """2 x 32 layers x 8 heads x 128 x 2 bytes a token; 32 sequences of 1,024: 7.67 + 4.29 GB a step, 3.57 ms."""
    a_token = bytes_a_token(PHI_4_MINI, 2)
    assert a_token == 131_072
    assert 2 * models.parameters(build(PHI_4_MINI, "meta", 4096)) == WEIGHTS
    read = bytes_a_step(WEIGHTS, 32 * 1024, a_token)
    assert read == 7_672_043_520 + 4_294_967_296
    assert read / H100 == pytest.approx(3.572e-3, rel=1e-3)
    # keys and values of 1 k a sequence in all that 80 GB leave beside the weights: 539 sequences, 22.6 k tokens/s
    full = (80e9 - WEIGHTS) / (1024 * a_token)
    assert full / (bytes_a_step(WEIGHTS, full * 1024, a_token) / H100) == pytest.approx(22.6e3, rel=1e-2)


def test_a_share_is_the_bound_of_what_was_read_by_what_it_took():
    ours = {"step_seconds": 5e-3, "fastest_step": 4e-3, "slowest_step": 8e-3, "tokens_read": 32 * 1024}
    theirs = {"step_seconds": 20e-3, "tokens_read": 32 * 1024}
    row = case("32 x 1,024", 32, ours, theirs, WEIGHTS, 131_072, H100)
    assert (row["ours"], row["peer"], row["ratio"]) == (6400, 1600, 4)
    assert (row["low"], row["high"]) == (pytest.approx(2.5), pytest.approx(5))
    assert row["details"]["share_of_bound"] == pytest.approx(0.7144, rel=1e-3)
    assert row["peer_details"]["share_of_bound"] == pytest.approx(0.1786, rel=1e-3)
    alone = case("32 x 1,024", 32, ours, {"failed": "no setting worked"}, WEIGHTS, 131_072, H100)
    assert alone["peer"] is None and "ratio" not in alone


def test_what_has_no_room_is_said_with_its_numbers():
    """256 sequences of 4,096 tokens and a block each: 256 x 129 x 32 x 131,072 bytes."""
    with torch.device("meta"):
        model = torch.nn.Linear(1, 1, dtype=torch.bfloat16)
    needed = cache_needed(model, FULL, 256, 4096)
    assert needed == 256 * 129 * 32 * 131_072
    assert too_large(needed, 72_000_000_000) == "does not fit: 138.5 GB of keys and values, 72.0 GB free"
    assert too_large(needed, 140_000_000_000) == too_large(needed, None) == ""


def test_a_setting_of_the_peer_that_fails_is_listed_and_the_fastest_other_counts(monkeypatch):
    def peer(model, size, device, sequences, context, settings):
        if "cache_implementation" in settings:
            raise RuntimeError("its compiler\ngave up")
        return {"step_seconds": 0.5}

    monkeypatch.setattr(gpu_decode, "peer", peer)
    found = gpu_decode.theirs(build(SMALL.shape, "meta", 64), SMALL, "cpu", 1, 64, ["dynamic", "static"])
    assert (found["setting"], found["step_seconds"]) == ("dynamic", 0.5)
    assert found["settings"]["static"] == {"failed": "RuntimeError: its compiler"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(SystemExit, match="there is no GPU here"):
        gpu_decode.main([])


def test_contexts_that_answers_alone_would_fill_are_refused(capsys):
    with pytest.raises(SystemExit):
        gpu_decode.main(["--small", "--contexts", "16", "--steps", "32"])
    assert "ask for longer" in capsys.readouterr().err


@pytest.mark.slow
def test_small_runs_the_same_code_and_writes_its_json(tmp_path, capsys):
    """Prompts of 4 x 115 tokens run 96 at a time: some sequences decode before the last has its first token."""
    file = tmp_path / "found.json"
    gpu_decode.main(["--small", "--contexts", "128", "--json", str(file)])
    found = json.loads(file.read_text())
    assert found["name"] == "gpu_decode" and found["bandwidth"] > 0
    assert [row["case"] for row in found["cases"]] == ["1 x 128 tokens", "4 x 128 tokens"]
    for row, count in zip(found["cases"], (1, 4), strict=True):
        assert row["ours"] > 0 and row["details"]["share_of_bound"] > 0
        assert 0.9 * count * 128 < row["details"]["tokens_read"] < count * 128
        assert set(row["peer_details"]["settings"]) == {"dynamic", "static"}
    assert "of the bound" in capsys.readouterr().out
