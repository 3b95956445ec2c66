"""Each wire trips at its own number, after `patience` steps, and does what the recipe says, once."""

import json

import pytest

from tests.scripted import rollout
from whetstone.learner.parallel import ProcessGroup
from whetstone.rl.tripwires import (
    Paused,
    RolledBack,
    Tripwires,
    Watch,
    beyond_limits,
    drop_checkpoints_after,
    repeats_itself,
)

GOOD = {
    "entropy": 0.5,
    "kl": 0.01,
    "repetition": 0.0,
    "truncated": 0.1,
    "zero_advantage": 0.5,
    "response_length": 100.0,
    "sampler_gap": 1e-6,
    "reward": 0.2,
    "accuracy": 0.5,
}
BAD = {
    "entropy": {"entropy": 0.04},
    "kl": {"kl": 0.6},
    "repetition": {"repetition": 0.9},
    "truncated": {"truncated": 0.6},
    "zero_advantage": {"zero_advantage": 1.0},
    "length_drift": {"response_length": 301.0},
    "sampler_gap": {"sampler_gap": 0.03},
    "reward_hacking": {"reward": 0.3, "accuracy": 0.35},
}


def follow(watch: Watch, steps: list[dict]) -> dict:
    state: dict = {}
    for step, values in enumerate(steps):
        watch.check(state, step, GOOD | values)
        state = json.loads(json.dumps(state))
    return state


@pytest.mark.parametrize("wire", BAD)
def test_a_wire_warns_once_after_consecutive_steps_beyond_its_limit(tmp_path, capsys, wire):
    watch = Watch(tmp_path, Tripwires(kl=0.5), ProcessGroup())
    follow(watch, [{}, BAD[wire], BAD[wire], {}, BAD[wire], BAD[wire]])
    assert watch.tripped == [], "never three steps on end"
    follow(watch, [{}, {}, *[BAD[wire]] * 3])
    (trip,) = watch.tripped
    assert (trip["wire"], trip["step"], trip["onset"], trip["action"]) == (wire, 4, 2, "warn")
    assert f"tripwire {wire}: " in capsys.readouterr().err


def test_good_steps_trip_nothing_and_a_limit_of_0_switches_a_wire_off(tmp_path):
    off = {wire: 0.0 for wire in BAD}
    watch = Watch(tmp_path, Tripwires(**off, patience=1), ProcessGroup())
    everything = {k: v for bad in BAD.values() for k, v in bad.items()}
    follow(watch, [{}, everything, everything])
    follow(Watch(tmp_path, Tripwires(kl=0.5, patience=1), ProcessGroup()), [{}] * 10)
    assert watch.tripped == [] and not (tmp_path / "tripwires.json").exists()


def test_entropy_and_length_are_measured_against_the_first_step_in_both_directions():
    def beyond(**values) -> bool:
        first = {"entropy": 0.5, "response_length": 100.0}
        return any(bad for _, bad in beyond_limits(Tripwires(), GOOD | values, first).values())

    assert not beyond(entropy=0.06) and beyond(entropy=0.04)
    assert not beyond(entropy=4.9) and beyond(entropy=5.1)
    assert not beyond(response_length=34.0) and beyond(response_length=33.0)
    assert not beyond(response_length=299.0) and beyond(response_length=301.0)
    assert not beyond_limits(Tripwires(), {}, {}), "a step without numbers is no step gone wrong"


def test_a_pause_stops_once_and_the_resumed_run_passes_that_step(tmp_path):
    settings = Tripwires(patience=1, actions={"truncated": "pause"})
    steps = [{}, {"truncated": 0.9}, {}]
    with pytest.raises(Paused):
        follow(Watch(tmp_path, settings, ProcessGroup()), steps)
    resumed = Watch(tmp_path, settings, ProcessGroup())
    follow(resumed, steps)
    assert len(resumed.tripped) == 1
    with pytest.raises(Paused):
        follow(resumed, [*steps, {"truncated": 0.9}])


def test_a_roll_back_keeps_earlier_checkpoints_and_changes_seed_and_rate(tmp_path):
    for step in (2, 4, 6):
        (tmp_path / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
    settings = Tripwires(patience=3, actions={"truncated": "rollback"})
    watch = Watch(tmp_path, settings, ProcessGroup())
    assert (watch.rate, watch.stream(7)) == (1.0, 7)
    with pytest.raises(RolledBack) as back:
        follow(watch, [{}] * 5 + [{"truncated": 0.9}] * 3)
    assert back.value.step == 5, "the steps 0 to 4 were good"
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step-000002", "step-000004"]
    again = Watch(tmp_path, settings, ProcessGroup())
    assert again.rollbacks == 1 and again.rate == 0.5 and again.stream(7) != 7


def test_a_wire_pauses_after_the_last_roll_back(tmp_path):
    settings = Tripwires(patience=1, actions={"truncated": "rollback"})
    for _ in range(3):
        with pytest.raises(RolledBack):
            follow(Watch(tmp_path, settings, ProcessGroup()), [{}, {"truncated": 0.9}])
    with pytest.raises(Paused):
        follow(Watch(tmp_path, settings, ProcessGroup()), [{}, {"truncated": 0.9}])


def test_checkpoints_of_bad_steps_are_deleted(tmp_path):
    drop_checkpoints_after(tmp_path / "none", 3)
    for step in (3, 4):
        (tmp_path / f"step-{step:06d}").mkdir()
    drop_checkpoints_after(tmp_path, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000003"]


def test_a_rollout_repeats_itself_when_most_of_its_windows_come_again():
    def of(ids):
        return repeats_itself(rollout(tokens=len(ids)).__class__("p", 0, [1], ids, [0.0] * len(ids), 1.0, "end", ""))

    assert of([1, 2, 3] * 40) and of([5] * 60)
    assert not of(list(range(120))) and not of([5] * 12)
    assert not of(list(range(60)) * 2), "said twice is a check, not a loop"
