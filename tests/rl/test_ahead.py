"""Rollouts that are sampled ahead: by which weights, resumed without losing or doubling one, and with what they log."""

import json
import time
from collections import Counter
from dataclasses import replace

import pytest

from tests.learner.group import in_group
from tests.rl.test_loop import UNTRIED, room
from tests.scripted import Killed, Scripted, kill_after
from tests.tiny_world import logged
from tests.vllm_like import dies, vllm
from whetstone.learner.learner import Learner
from whetstone.learner.student import bits_of
from whetstone.records import Message, Prompt, Sampling
from whetstone.rl import groups, loop, sampler
from whetstone.rl.completions import KeptCompletions, forget_before, path_of
from whetstone.run.folder import hash_folder
from whetstone.run.sampler_settings import SamplerSettings
from whetstone.run.settings import AdapterSettings, ParallelSettings, SpikeSettings
from whetstone.run.tables import read_rows

SHORT = UNTRIED | {"stabilisers": [], "steps": 3, "prompts_per_step": 2, "samples": 3, "max_tokens": 24}
SHORT |= {"optimizer": {"learning_rate": 1e-3}, "staleness": 1, "tripwires": {"zero_advantage": 0}}
PROMPTS = [Prompt("p", i, (Message("user", "x"),)) for i in range(4)]
SAMPLING = Sampling(temperature=0.8, max_tokens=6, seed=3)


def short(folder, world, adder, *servers, **settings):
    given = SamplerSettings(servers=servers, in_flight=2, wait=0.0)
    return replace(room(folder, world, adder, **(SHORT | settings)), sampler=given)


def test_a_step_is_sampled_by_the_weights_of_so_many_steps_before(tmp_path, world, adder, monkeypatch):
    began, sampled, staleness = {}, {}, 2
    snapshot, sample_step = sampler.InProcess.snapshot, groups.sample_step

    def with_bits(self, step):
        began[step] = bits_of(self.learner.model)
        policy.append(self.policy)
        return snapshot(self, step)

    def seen(generator, verifier, algorithm, state, step, *more):
        sampled[step] = bits_of(policy[-1])
        return sample_step(generator, verifier, algorithm, state, step, *more)

    policy = []
    monkeypatch.setattr(sampler.InProcess, "snapshot", with_bits)
    monkeypatch.setattr(groups, "sample_step", seen)
    loop.run(short(tmp_path / "r", world, adder, steps=4, staleness=staleness))
    assert len(set(began.values())) > 2, "training changes the weights"
    assert sampled == {step: began[max(0, step - staleness)] for step in range(4)}
    trained = [max(0, step - staleness) for step in range(4)]
    assert logged(tmp_path / "r", "staleness") == [step - weights for step, weights in enumerate(trained)]
    gaps = logged(tmp_path / "r", "mismatch")
    assert gaps[0] < 1e-4 < min(gaps[1:]), "older weights give the rollouts other probabilities"


def test_after_a_kill_it_ends_with_the_weights_of_an_undisturbed_run(tmp_path, world, adder, monkeypatch):
    stages = [short(tmp_path / name / "r", world, adder, steps=4) for name in ("one", "two")]
    summary = loop.run(stages[0])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        loop.run(stages[1])
    assert loop.run(stages[1]) == summary
    assert hash_folder(tmp_path / "two" / "r" / "model") == hash_folder(tmp_path / "one" / "r" / "model")
    for name in ("loss", "reward", "staleness", "mismatch"):
        assert logged(tmp_path / "two" / "r", name) == logged(tmp_path / "one" / "r", name)
    assert not (tmp_path / "two" / "r" / "sampled").exists()


def test_a_step_that_is_left_out_is_left_out_ahead_too(tmp_path, world, adder, monkeypatch):
    plain, refused = Learner.step, []

    def step(self, rate):
        if not refused:
            refused.append(rate)
            raise FloatingPointError("the gradient is inf")
        return plain(self, rate)

    monkeypatch.setattr(Learner, "step", step)
    spikes = SpikeSettings(spike="ignore", not_finite="go_back")
    loop.run(short(tmp_path / "r", world, adder, steps=4, spikes=spikes.model_dump()))
    assert logged(tmp_path / "r", "left_out") == [1]
    assert len(logged(tmp_path / "r", "rollouts")) == 3


def test_a_limit_of_rollouts_is_not_sampled_beyond(tmp_path, world, adder):
    summary = loop.run(short(tmp_path / "r", world, adder, steps=9, rollouts=7, staleness=3))
    assert (summary["rollouts"], summary["steps"]) == (12, 2)


def kept(folder) -> list[tuple]:
    lines = [line for path in sorted((folder / "sampled").glob("*")) for line in path.read_text().splitlines()]
    return [(row["stream"], row["problem_id"], row["index"], tuple(row["ids"])) for row in map(json.loads, lines)]


def test_no_rollout_of_a_server_is_lost_or_doubled_by_a_kill(tmp_path, world, adder, monkeypatch):
    with vllm(adder) as (address, _), monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        loop.run(short(tmp_path / "r", world, adder, address, steps=4))
    arrived = kept(tmp_path / "r")
    assert len(arrived) >= 12 and not (tmp_path / "r" / "checkpoints" / "step-000002").exists()
    with vllm(adder) as (address, served):
        loop.run(short(tmp_path / "r", world, adder, address, steps=4))
    assert len(served.asked) - 1 == 4 * 2 * 3 - len(arrived), "beside a probe, only what had not arrived is asked for"
    rows = Counter((row["problem_id"], row["index"], row["step"]) for row in read_rows(tmp_path / "r" / "rollouts"))
    assert len(rows) == 24 and set(rows.values()) == {1}


def test_servers_sample_the_next_step_while_this_one_is_trained_on(tmp_path, world, adder, monkeypatch):
    """The update of step 1 waits until a rollout of step 2 has been asked for: one after the other, it would wait for ever."""
    before = 1 + 16 + 6  # a probe, rollouts that compare sampler and learner, those of step 1
    with vllm(adder) as (address, served):
        plain = Learner.step

        def step(self, rate):
            while len(served.asked) <= before:
                time.sleep(0.01)
            return plain(self, rate)

        monkeypatch.setattr(Learner, "step", step)
        loop.run(short(tmp_path / "r", world, adder, address, steps=2))
    assert logged(tmp_path / "r", "staleness") == [0, 1]
    assert all(0 <= share <= 1 for share in logged(tmp_path / "r", "waiting"))
    assert max(logged(tmp_path / "r", "sampler_gap")) < 1e-4, "of given ids, with the weights that sampled"


def test_servers_that_are_lost_while_training_goes_on_end_the_stage_with_their_reason(tmp_path, world, adder):
    with (
        vllm(adder, answer=dies(16 + 1 + 6 + 2)) as (address, _),
        pytest.raises(ConnectionError, match="no server can sample"),
    ):
        loop.run(short(tmp_path / "r", world, adder, address))
    assert len(kept(tmp_path / "r")) >= 6


def test_adapters_are_loaded_beside_the_weights_and_sample_as_the_learner_computes(tmp_path, world, adder):
    with vllm(adder) as (address, served):
        stage = short(tmp_path / "r", world, adder, address, staleness=0, optimizer={"learning_rate": 1e-2})
        loop.run(
            replace(stage, adapter=AdapterSettings(rank=4), sampler=stage.sampler.model_copy(update={"adapter": True}))
        )
    assert served.calls["/collective_rpc"] == 0 and served.calls["/v1/load_lora_adapter"] == 3
    assert max(logged(tmp_path / "r", "sampler_gap")) < 1e-4


def asked(generator) -> Counter:
    return Counter(generator.asked)


def test_kept_completions_are_given_again_and_only_the_missing_ones_are_sampled(tmp_path):
    first, second = Scripted(), Scripted()
    first.dies_after = 2
    with pytest.raises(Killed):
        list(KeptCompletions(first, tmp_path, 5, 4, one_by_one=True).generate(PROMPTS, SAMPLING))
    with path_of(tmp_path, 5).open("a") as journal:
        journal.write('{"stream": "torn')
    again = KeptCompletions(second, tmp_path, 5, 5, one_by_one=True)
    completions = list(again.generate(PROMPTS, SAMPLING))
    assert [c.index for c in completions] == [0, 1, 2, 3] and again.oldest == 4
    assert asked(second) == Counter({("p", 2): 1, ("p", 3): 1})
    list(KeptCompletions(second, tmp_path, 5, 5, one_by_one=True).generate(PROMPTS, replace(SAMPLING, seed=4)))
    assert asked(second) == Counter({("p", 0): 1, ("p", 1): 1, ("p", 2): 2, ("p", 3): 2}), (
        "another stream is sampled anew"
    )


def test_a_call_of_the_own_engine_that_was_cut_off_is_made_again_as_a_whole(tmp_path):
    first, second = Scripted(), Scripted()
    list(KeptCompletions(first, tmp_path, 5, 4, one_by_one=False).generate(PROMPTS, SAMPLING))
    path = path_of(tmp_path, 5)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    again = KeptCompletions(second, tmp_path, 5, 5, one_by_one=False)
    assert [c.index for c in again.generate(PROMPTS, SAMPLING)] == [0, 1, 2, 3]
    assert len(second.asked) == 4 and again.oldest == 5


def test_a_damaged_line_is_named(tmp_path):
    path_of(tmp_path, 5).parent.mkdir()
    path_of(tmp_path, 5).write_text('{"stream": "x", "weights": 1}\n')
    with pytest.raises(ValueError, match=r"step-000005.jsonl, line 1, is damaged"):
        list(KeptCompletions(Scripted(), tmp_path, 5, 5, one_by_one=True).generate(PROMPTS, SAMPLING))


def test_journals_of_steps_that_a_checkpoint_has_are_removed(tmp_path):
    for step in (3, 4, 12):
        list(KeptCompletions(Scripted(), tmp_path, step, step, one_by_one=True).generate(PROMPTS, SAMPLING))
    forget_before(tmp_path, 4)
    assert [path_of(tmp_path, step).exists() for step in (3, 4, 12)] == [False, True, True]


def test_older_weights_are_corrected_unless_the_recipe_says_otherwise():
    assert loop.Settings(kind="rl").correction.kind == "none"
    stale = loop.Settings(kind="rl", staleness=1)
    assert stale.correction.kind == "truncate" and loop.Settings.model_validate(stale.model_dump(mode="json")) == stale
    assert loop.Settings(kind="rl", staleness=1, correction={"kind": "none"}).correction.kind == "none"
    assert loop.Settings(kind="rl", staleness=1, correction={"kind": "mask"}).correction.kind == "mask"


@pytest.mark.parametrize(
    ("trained", "message"),
    [({}, "no adapter is trained"), ({"rank": 4, "dora": True}, "loads no DoRA"), ({"rank": 999}, "vLLM loads is 512")],
)
def test_adapters_that_no_server_loads_are_refused(trained, message):
    with pytest.raises(ValueError, match=message):
        SamplerSettings(launch=1, adapter=True).check_adapter(AdapterSettings(**trained))


def test_settings_of_servers_that_have_no_effect_are_refused():
    for table, message in (
        ({"adapter": True}, "no effect without servers"),
        ({"staleness": 1}, "staleness of the rl stage"),
    ):
        with pytest.raises(ValueError, match=message):
            SamplerSettings(**table)


@pytest.mark.slow
def test_of_two_processes_one_asks_the_servers_and_both_train_on_what_it_got(tmp_path, world, adder):
    with vllm(adder) as (address, served):
        stage = short(tmp_path / "r", world, adder, address, steps=2)
        parallel = ParallelSettings(device="cpu", forks=1, processes=2, shard="ddp")
        one, two = in_group(tmp_path, 2, loop.run, replace(stage, parallel=parallel))
    assert one == two and one["steps"] == 2 and logged(tmp_path / "r", "staleness") == [0, 1]
    assert Counter(map(tuple, served.asked)).total() == 1 + 16 + 12, "no rollout is sampled by both"
