"""DPO in several processes: the same rollouts, pairs and reference as in one, losses and weights equal but for rounding."""

import pytest

from tests.dpo.test_rollout_dpo import room
from tests.learner.group import in_group
from tests.rl.test_rl_in_processes import divided, same_weights
from tests.tiny_world import logged
from whetstone.dpo import rollout_dpo
from whetstone.learner.learner import Learner
from whetstone.records import Pair
from whetstone.run.folder import Stage
from whetstone.run.tables import read_records, read_rows

ROUNDING = {"rel": 1e-4, "abs": 1e-5}  # weights are fp32, and each of twelve updates adds up in another order
COMPUTED = ("loss", "gradient_norm", "margin", "accuracy", "chosen_logprob", "rejected_logprob", "chosen_log_ratio")


def begun_again(stage: Stage) -> dict:
    """The stage once more, from its last checkpoint: with nothing to sample, and no reference to compute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("whetstone.decode.engine.Engine.generate", lambda *_: pytest.fail("sampled again"))
        patch.setattr(Learner, "row_logprobs", lambda *_: pytest.fail("scored again"))
        return rollout_dpo.run(stage)


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["fsdp", "ddp"])
def test_two_processes_pair_and_prefer_what_one_does(tmp_path, world, adder, shard):
    alone = divided(room(tmp_path / "one" / "d", world, adder, optimizer={"learning_rate": 1e-3}), 1)
    pair = divided(room(tmp_path / "two" / "d", world, adder, optimizer={"learning_rate": 1e-3}), 2, shard)
    summary = rollout_dpo.run(alone)
    for other_summary in in_group(tmp_path, 2, rollout_dpo.run, pair):
        assert other_summary == pytest.approx(summary, **ROUNDING)
    pairs, pairs_too = (list(read_records(Pair, folder / "pairs")) for folder in (alone.folder, pair.folder))
    assert pairs_too == pairs and len(pairs) > 4, "other rollouts (test_rl_in_processes.py says how that may be)"
    reference, too = ([row["logprob"] for row in read_rows(f / "reference")] for f in (alone.folder, pair.folder))
    assert too == pytest.approx(reference, rel=1e-6) and len(too) == 2 * len(pairs)
    for name in COMPUTED:
        assert logged(pair.folder, name) == pytest.approx(logged(alone.folder, name), **ROUNDING), name
    same_weights(alone.folder, pair.folder)
    for other_summary in in_group(tmp_path, 2, begun_again, pair):
        assert other_summary == pytest.approx(summary, **ROUNDING)
