"""The GPU benchmark's code, on a CPU: the shape is Phi-4-mini's, the numbers are those of the work."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu_sft
from benchmarks._phi4_mini import PHI_4_MINI, build
from benchmarks.gpu_sft import FULL, SMALL, measure, packed, rows
from whetstone import model as models
from whetstone.batch import Row, collate
from whetstone.learner.flops import Flops


def test_the_full_shape_has_phi_4_minis_parameters_and_the_long_table():
    model = build(PHI_4_MINI, "meta", FULL.row)
    assert models.parameters(model) == 3_836_021_760
    assert model.config.rope_parameters["short_factor"] == model.config.rope_parameters["long_factor"]
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_operations_of_a_row_are_those_worked_out_by_hand():
    """A token goes through 3.22e9 weights of matrices, and all but the last through the head; causal pairs at 12 L H D."""
    batch = collate([Row([0] * 16_384)])
    matrices = 32 * (3072 * 5120 + 3072 * 3072 + 3 * 3072 * 8192)
    pairs = 12 * 32 * 3072 * 16_384 * 16_385 / 2
    expected = 6 * 16_384 * matrices + 6 * 16_383 * 200_064 * 3072 + pairs
    assert Flops(build(PHI_4_MINI, "meta", FULL.row), PHI_4_MINI.vocabulary).of(batch) == pytest.approx(
        expected, rel=1e-9
    )
    assert expected / 16_384 == pytest.approx(32.7e9, rel=1e-3)


def test_packed_rows_are_full_and_ragged():
    lengths = packed(FULL)
    assert sum(lengths) == FULL.row and len(lengths) > 2 and max(lengths) <= FULL.row / 2


def test_no_tensor_of_a_whole_rows_logits_is_ever_made():
    size = replace(SMALL, steps=1)
    vocabulary = size.shape.vocabulary
    found = measure(size, "cpu", [size.row], {"activation_checkpointing": 1}, "float32")
    assert found["logits_rows"] == 1024 < size.row - 1
    assert found["first_loss"] == pytest.approx(torch.tensor(float(vocabulary)).log().item(), rel=0.02)
    with gpu_sft.LargestLogits(vocabulary) as largest:  # and it would have been seen
        row = rows([1500], vocabulary, 0)[0]
        build(size.shape, "cpu", size.row)(torch.tensor([row.ids]), use_cache=False)
    assert largest.rows == 1500


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(SystemExit, match="there is no GPU here"):
        gpu_sft.main([])


@pytest.mark.slow
def test_small_runs_the_same_code_and_writes_its_json(tmp_path, capsys):
    file = tmp_path / "found.json"
    gpu_sft.main(["--small", "--steps", "1", "--way", "each second layer again", "--json", str(file)])
    found = json.loads(file.read_text())
    assert found["name"] == "gpu_sft" and len(found["cases"]) == 2
    assert all(case["ours"] > 0 and case["details"]["mfu"] > 0 for case in found["cases"])
    assert "MFU" in capsys.readouterr().out
