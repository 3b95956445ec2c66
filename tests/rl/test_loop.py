"""The RL room: what is sampled and counted, when it stops, and resuming to the bit."""

from dataclasses import replace

import pytest
import torch

from tests.rl.worlds import group
from tests.scripted import Grader, Killed, Scripted, kill_after, problem, stage
from tests.tiny_world import logged
from tests.vllm_like import vllm
from whetstone.learner.learner import Learner
from whetstone.records import Verdict
from whetstone.rl import groups, loop, prompts
from whetstone.rl.algorithm import Group
from whetstone.rl.build import build
from whetstone.rl.tripwires import Paused
from whetstone.run.folder import hash_folder, read_json
from whetstone.run.sampler_settings import SamplerSettings
from whetstone.run.settings import ParallelSettings
from whetstone.run.tables import read_rows

# The paper's, for prompts and groups of which up to four in five rollouts are right
LENIENT = [
    {"name": "prompt_optimization", "threshold": 0.8},
    {"name": "reward_rebalancing", "threshold": 0.8, "oversample": 8},
    "temperature_annealing",
]


def room(folder, world, adder, **settings):
    known = {
        "steps": 5,
        "prompts_per_step": 4,
        "samples": 4,
        "max_tokens": 40,
        "pool": {"samples": 6},
        "stabilisers": LENIENT,
        "checkpoint_every": 2,
    } | settings
    inputs = {"model": adder, "prompts": world["prompts"]}
    return stage(folder, loop.Settings(kind="rl", **known), **inputs)


def test_a_stage_trains_and_its_summary_has_the_counts(tmp_path, world, adder):
    summary = loop.run(room(tmp_path / "r", world, adder))
    kept = read_json(tmp_path / "r" / "prompts.json")["kept"]
    dropped = list(read_rows(tmp_path / "r" / "dropped"))
    assert len(kept) + sum("problem_id" in row for row in dropped) == 16
    assert summary["candidates"]["kept"] == len(kept) and summary["steps"] == 5
    assert summary["updates"] == len(logged(tmp_path / "r", "gradient_norm")) > 0
    assert summary["rollouts"] == sum(logged(tmp_path / "r", "rollouts")) >= 5 * 4 * 4
    assert summary["probe_gap"] < 1e-4 and max(logged(tmp_path / "r", "sampler_gap")) < 1e-4
    assert logged(tmp_path / "r", "temperature") == pytest.approx([1.0, 0.84, 0.68, 0.6, 0.6])
    assert hash_folder(tmp_path / "r" / "model") != hash_folder(adder)


@pytest.mark.parametrize("killed_in_step", [1, 4])
def test_after_a_kill_the_model_is_that_of_an_undisturbed_run_to_the_bit(
    tmp_path, world, adder, monkeypatch, killed_in_step
):
    summary = loop.run(room(tmp_path / "one", world, adder))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, killed_in_step)
        loop.run(room(tmp_path / "two" / "one", world, adder))
    assert loop.run(room(tmp_path / "two" / "one", world, adder)) == summary
    assert hash_folder(tmp_path / "two" / "one" / "model") == hash_folder(tmp_path / "one" / "model")
    for name in ("loss", "reward", "rollouts", "sampler_gap"):
        assert logged(tmp_path / "two" / "one", name) == logged(tmp_path / "one", name)


def test_a_sampler_that_differs_from_the_learner_stops_training_before_the_first_step(
    tmp_path, world, adder, monkeypatch
):
    monkeypatch.setattr(prompts, "sampler_gap", lambda *_: 0.2)
    with pytest.raises(ValueError, match=r"step 0: .* differ by 0.2 nats per token on average \(allowed: 0.05\)"):
        loop.run(room(tmp_path / "r", world, adder))


def test_a_sampler_that_drifts_from_the_learner_stops_training_before_an_update(tmp_path, world, adder, monkeypatch):
    plain = Learner.forward_backward
    monkeypatch.setattr(
        Learner, "forward_backward", lambda self, *more: plain(self, *more) | {"sampler_gap": 0.3, "fresh": 1.0}
    )
    monkeypatch.setattr(Learner, "step", lambda *_: pytest.fail("updated with another policy's gradient"))
    with pytest.raises(ValueError, match=r"would be that of another policy\. Use the same dtype for both"):
        loop.run(room(tmp_path / "r", world, adder))
    assert not (tmp_path / "r" / "model").exists()


def test_the_probe_measures_the_gap(world, adder):
    from dataclasses import replace

    from whetstone.decode.engine import load_engine
    from whetstone.records import Sampling
    from whetstone.run.settings import ParallelSettings
    from whetstone.sample import sample_groups

    engine = load_engine(adder, "cpu")
    (sampled,) = sample_groups(engine, [problem("Compute 1 + 2", "3")], 3, Sampling(0.7, 30), Grader())
    learner = Learner(engine.model, engine.chat.size, ParallelSettings(device="cpu"))
    assert prompts.sampler_gap(sampled, learner, sampled[0].temperature) < 1e-5
    shifted = [replace(r, logprobs=[x - 0.25 for x in r.logprobs]) for r in sampled]
    assert prompts.sampler_gap(shifted, learner, shifted[0].temperature) == pytest.approx(0.25, abs=1e-5)


def test_prompts_that_nothing_can_be_learnt_from_are_an_error(tmp_path, world):
    with pytest.raises(ValueError, match=r"0 of 16 candidate prompts are left .* nearer to what it can do"):
        loop.run(room(tmp_path / "r", world, world["model"]))
    with pytest.raises(ValueError, match=r"no prompt of levels = \(7,\)"):
        loop.run(room(tmp_path / "s", world, world["model"], pool={"levels": [7]}))


class OneUndecided(Grader):
    """Undecided about rollout 1 of each problem; the rest are wrong, but for rollout 5."""

    def check(self, text, gold, policy="math"):
        index = int(text.split("/")[1])
        return Verdict(None, "timeout") if index == 1 else Verdict(index == 5, "")


def sampled(grader, generator):
    settings = loop.Settings(kind="rl", prompts_per_step=1, samples=4, stabilisers=LENIENT)
    algorithm = build(settings, [problem("a")], seed=0)
    return algorithm, *groups.sample_step(generator, grader, algorithm, {}, 0, max_tokens=40, seed=0)


def test_undecided_rollouts_are_in_no_group_and_never_asked_for_again():
    generator = Scripted()
    algorithm, (whole,), _ = sampled(OneUndecided(), generator)
    assert generator.asked == [("a", i) for i in range(8)], "none right in 0-3: four more, with numbers of their own"
    assert [r.index for r in whole.rollouts] == [0, 2, 3, 4, 5, 6, 7] and whole.left_out == 1
    assert whole.accuracy == pytest.approx(1 / 7)
    values = groups.describe([whole], [], 1.0)
    assert (values["rollouts"], values["undecided"]) == (7, 1)
    assert values["accuracy"] == pytest.approx(1 / 7) and values["reward"] == pytest.approx((1 - 6) / 7)
    (kept,) = algorithm.keep({}, 0, [whole])
    assert len(kept.rollouts) == 2 and all(r.correct is not None for r in kept.rollouts)


def test_a_step_in_which_nothing_can_be_decided_ends():
    class Undecided(Grader):
        def check(self, text, gold, policy="math"):
            return Verdict(None, "timeout")

    algorithm, (whole,), _ = sampled(Undecided(), Scripted())
    assert (whole.rollouts, whole.left_out) == ([], 8)
    assert algorithm.keep({}, 0, [whole]) == []
    assert groups.describe([whole], [], 1.0)["rollouts"] == 0


def test_a_problem_is_sampled_with_another_seed_in_another_step():
    seeds = []
    generator = Scripted(lambda prompt, sampling: seeds.append(sampling.seed) or "a/1")
    settings = loop.Settings(kind="rl", prompts_per_step=1, stabilisers=())
    algorithm = build(settings, [problem("a")], seed=0)
    for step in (0, 1):
        groups.sample_step(generator, Grader(), algorithm, {}, step, max_tokens=40, seed=0)
    assert len(set(seeds)) == 2


def test_without_stabilisers_it_is_plain_grpo_at_one_temperature():
    settings = loop.Settings(kind="rl", prompts_per_step=4, samples=4, stabilisers=(), temperature=0.9)
    algorithm = build(settings, [problem("a"), problem("b")], seed=0)
    draw = algorithm.draw({}, 3, [])
    assert draw.temperature == 0.9 and draw.counts == [4, 4]
    easy = group("a", "+++-")
    assert algorithm.keep({}, 0, [easy]) == [easy]
    assert not algorithm.draw({}, 0, [Group(problem("a"), [])]).problems


# Every algorithm's state, and what else a step may hold
EVERY = {
    "dr_grpo": {"algorithm": "dr_grpo"},
    "dapo": {"algorithm": {"name": "dapo", "rounds": 3}, "updates": 2, "samples": 3},
    "srpo": {"algorithm": "srpo", "prompts_per_step": 6},
    "rloo": {"algorithm": "rloo", "kl": {"coefficient": 0.05, "estimator": "k1"}},
    "reinforce_pp": {"algorithm": "reinforce_pp", "updates": 3},
    "gspo": {"algorithm": "gspo", "updates": 2, "passes": 2},
    "cispo": {"algorithm": "cispo", "updates": 2, "old_policy": "learner"},
    "held back": {
        "algorithm": "grpo",
        "stabilisers": ["clip_cov", "kl_cov"],
        "updates": 2,
        "kl": {"coefficient": 0.05},
    },
}
UNTRIED = {"pool": {"samples": 0}, "stabilisers": None}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_algorithm_trains_and_resumes_to_the_bit(tmp_path, world, adder, monkeypatch, name):
    settings = UNTRIED | {"steps": 3, "optimizer": {"learning_rate": 1e-3}, "checkpoint_every": 1} | EVERY[name]
    summary = loop.run(room(tmp_path / "one", world, adder, **settings))
    assert summary["updates"] > 0 and hash_folder(tmp_path / "one" / "model") != hash_folder(adder)
    assert max(logged(tmp_path / "one", "sampler_gap")) < 1e-4
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        loop.run(room(tmp_path / "two" / "one", world, adder, **settings))
    assert loop.run(room(tmp_path / "two" / "one", world, adder, **settings)) == summary
    assert hash_folder(tmp_path / "two" / "one" / "model") == hash_folder(tmp_path / "one" / "model")
    for number in ("loss", "reward", "rollouts", "entropy", "carried_groups"):
        assert logged(tmp_path / "two" / "one", number) == logged(tmp_path / "one", number)


def test_dapo_carries_groups_over(tmp_path, world, adder):
    loop.run(room(tmp_path / "r", world, adder, **UNTRIED | EVERY["dapo"] | {"steps": 6}))
    assert sum(logged(tmp_path / "r", "carried_groups")) > 0
    assert max(logged(tmp_path / "r", "sampler_gap")) < 1e-4, "older weights are no other program"


def test_untried_candidates_are_all_trained_on_after_a_probe(tmp_path, world, adder):
    settings = UNTRIED | {"algorithm": "gspo", "steps": 1, "pool": {"samples": 0, "prompts": 10}}
    summary = loop.run(room(tmp_path / "r", world, adder, **settings))
    assert summary["candidates"] == {"untried": 10} and 0 < summary["probe_gap"] < 1e-4
    assert len(read_json(tmp_path / "r" / "prompts.json")["kept"]) == 10


def test_candidates_can_be_chosen_by_domain(tmp_path, world, adder):
    with pytest.raises(ValueError, match=r"domains = \('word',\)"):
        loop.run(room(tmp_path / "r", world, adder, pool={"domains": ["word"]}))


def test_a_users_reward_is_what_is_trained_on(tmp_path, world, adder):
    mine = tmp_path / "mine.py"
    mine.write_text("def tokens(problem, completion, rollout):\n    return -len(rollout.ids) / 40\n")
    settings = {
        "algorithm": "grpo",
        "stabilisers": (),
        "reward": {"plus_minus_one": 0.0, f"{mine}:tokens": 1.0},
        "steps": 1,
    }
    loop.run(room(tmp_path / "r", world, adder, pool={"samples": 0}, **settings))
    (reward,), (length,) = logged(tmp_path / "r", "reward"), logged(tmp_path / "r", "response_length")
    assert reward == pytest.approx(-length / 40)


LOOSE = UNTRIED | {"steps": 4, "algorithm": "gspo", "checkpoint_every": 1}


def test_a_paused_run_ends_with_the_model_of_a_run_without_pauses(tmp_path, world, adder):
    never = {"sampler_gap": 1e-12, "patience": 2}
    loop.run(room(tmp_path / "one", world, adder, tripwires=never, **LOOSE))
    stopping = never | {"actions": {"sampler_gap": "pause"}}
    stops = 0
    while not (tmp_path / "two" / "one" / "model").exists():
        try:
            loop.run(room(tmp_path / "two" / "one", world, adder, tripwires=stopping, **LOOSE))
        except Paused:
            stops += 1
    assert stops == 2, "after steps 2 and 4"
    assert hash_folder(tmp_path / "two" / "one" / "model") == hash_folder(tmp_path / "one" / "model")


def test_a_roll_back_restarts_before_the_bad_steps_with_other_rollouts(tmp_path, world, adder, monkeypatch):
    monkeypatch.setattr("whetstone.rl.tripwires.MOST_ROLLBACKS", 1)
    wires = {"sampler_gap": 1e-12, "patience": 2, "actions": {"sampler_gap": "rollback"}}
    stage = room(tmp_path / "r", world, adder, tripwires=wires, **LOOSE)
    with pytest.raises(Paused):  # the second time it is one too many
        loop.run(stage)
    first, second = read_json(tmp_path / "r" / "tripwires.json", list)
    assert (first["action"], first["onset"], second["action"]) == ("rollback", 0, "pause")
    assert logged(tmp_path / "r", "learning_rate") == pytest.approx([stage.settings.optimizer.learning_rate / 2] * 2)
    summary = loop.run(room(tmp_path / "r", world, adder, tripwires=wires | {"sampler_gap": 0.0}, **LOOSE))
    assert [trip["action"] for trip in summary["tripwires"]] == ["rollback", "pause"]


def test_what_samples_in_another_type_is_a_copy_that_follows_the_learner(tmp_path, world, adder, monkeypatch):
    """As on a GPU that computes in bf16: its log-probabilities differ by rounding, and the weights are those of each step."""
    from whetstone import model as models
    from whetstone.decode import forked_generator

    policies, sampler, publish, published = [], forked_generator.sampler, Learner.publish, {}

    def publish_and_note(self, copy):
        publish(self, copy)
        published.update({name: weight.detach().bfloat16() for name, weight in self.model.named_parameters()})

    monkeypatch.setattr(Learner, "publish", publish_and_note)
    monkeypatch.setattr(ParallelSettings, "sampling_dtype", lambda self, device, dtype: "bfloat16")
    monkeypatch.setattr(
        forked_generator, "sampler", lambda model, *rest: (policies.append(model), sampler(model, *rest))[1]
    )
    loop.run(room(tmp_path / "r", world, adder))
    gaps = logged(tmp_path / "r", "sampler_gap")
    assert min(gaps) > 1e-5 and max(gaps) < 0.03
    (policy,) = policies
    before = dict(models.load(adder)[0].named_parameters())
    weights = dict(policy.named_parameters())
    assert all(torch.equal(weights[name], published[name]) for name in before), "those of the last step, rounded"
    assert not all(torch.equal(weights[name], before[name].bfloat16()) for name in before), "and not those of the start"


def test_servers_sample_what_the_learner_trains_on_and_are_given_every_update(tmp_path, world, adder):
    """A server that shifts its log-probabilities stops training before the first step."""
    with vllm(adder) as (address, served):
        on_servers = replace(room(tmp_path / "r", world, adder, steps=2), sampler=SamplerSettings(servers=[address]))
        summary = loop.run(on_servers)
    assert summary["probe_gap"] < 1e-4 and max(logged(tmp_path / "r", "sampler_gap")) < 1e-4
    assert served.calls["/collective_rpc"] == 3 and served.version.startswith("r-1-")
    assert not (tmp_path / "r" / "published").exists()

    def shifted(choice, count):
        logprobs = choice["logprobs"]["token_logprobs"]
        return choice | {"logprobs": {"token_logprobs": [x - 0.2 for x in logprobs]}}

    with vllm(adder, answer=shifted) as (address, served), pytest.raises(ValueError, match=r"differ by 0\.2 nats"):
        loop.run(replace(room(tmp_path / "s", world, adder), sampler=SamplerSettings(servers=[address])))
