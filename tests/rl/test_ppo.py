"""PPO: advantages and losses against independent float64 formulas, the critic beside the policy, resuming to the bit."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.rl.worlds import group
from tests.scripted import Killed, kill_after, problem, stage
from tests.tiny_world import logged
from whetstone.batch import Row, collate
from whetstone.learner.learner import Learner
from whetstone.learner.roots import PolicyAndValue
from whetstone.model import load
from whetstone.rl import loop
from whetstone.rl.algorithm import CriticSettings, Setup
from whetstone.rl.algorithms.ppo import Settings, gae, ppo
from whetstone.rl.credit import whitened
from whetstone.rl.critic import Critic, SharedCritic
from whetstone.run.folder import hash_folder, read_json
from whetstone.run.settings import ParallelSettings


@pytest.mark.parametrize(("discount", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (1.0, 0.0)])
def test_gae_is_the_sum_of_discounted_errors(discount, lam):
    """Equation 16 as a double sum, which is not how it is computed."""
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=7), rng.normal(size=7)
    after = np.append(values[1:], 0.0)
    delta = rewards + discount * after - values
    wanted = [sum((discount * lam) ** k * delta[t + k] for k in range(7 - t)) for t in range(7)]
    assert gae(rewards.tolist(), values.tolist(), discount, lam) == pytest.approx(wanted, abs=1e-12)


def test_with_lambda_1_the_advantage_is_the_return_minus_the_value_and_with_0_the_one_step_error():
    rewards, values = [0.0, -0.5, 2.0], [0.3, 0.1, 0.7]
    assert gae(rewards, values, 1.0, 1.0) == pytest.approx([1.5 - 0.3, 1.5 - 0.1, 2.0 - 0.7])
    assert gae(rewards, values, 1.0, 0.0) == pytest.approx([0.1 - 0.3, -0.5 + 0.7 - 0.1, 2.0 - 0.7])


def known(**settings):
    setup = Setup([problem("a")], prompts=1, samples=2, reward=lambda p, r: r.reward)
    return ppo(setup, Settings(name="ppo", **settings))


def test_credit_whitens_advantages_over_the_step_and_keeps_returns_as_they_are():
    one, two = group("a", "+-"), group("b", "++")
    valued = [
        replace(g, values=[[0.1 * (i + t) for t in range(len(r.ids))] for i, r in enumerate(g.rollouts)])
        for g in (one, two)
    ]
    rows = [row for part in known(gae_lambda=0.9).credit(valued, valued) for row in part]
    advantages = [a for row in rows for a in row.token["advantage"]]
    assert sum(advantages) == pytest.approx(0, abs=1e-9)
    assert sum(a * a for a in advantages) / len(advantages) == pytest.approx(1, abs=1e-4)
    raw = known(gae_lambda=0.9, whiten=False).credit(valued, valued)
    for part, g in zip(raw, valued, strict=True):
        for i, row in enumerate(part):
            paid = [0.0] * (len(g.rollouts[i].ids) - 1) + [g.rollouts[i].reward]
            expected = gae(paid, g.values[i], 1.0, 0.9)
            assert row.token["advantage"] == pytest.approx(expected)
            assert row.token["return"] == pytest.approx([a + v for a, v in zip(expected, g.values[i], strict=True)])
    assert sum(sum(row.weights for _ in range(row.scored)) for row in rows) == pytest.approx(1)


def test_the_rewards_of_tokens_are_part_of_their_returns():
    g = replace(group("a", "+"), values=[[0.0] * 3], penalties=[[-0.1, -0.2, -0.3]])
    ((row,),) = known(gae_lambda=1.0, whiten=False).credit([g], [g])
    assert row.token["return"] == pytest.approx([1 - 0.6, 1 - 0.5, 1 - 0.3])


def test_the_value_loss_is_the_clipped_one_and_its_gradient_that_of_differences():
    tokens = {"value": [0.5, 0.5, 0.5], "return": [0.9, 0.9, -2.0]}
    batch = collate([Row([4, 5, 6, 7], 1, weights=[0.5, 0.3, 0.2], token=tokens)], torch.float64)
    critic = Critic(None, CriticSettings(clip_value=0.2), steps=1)
    values = torch.tensor([0.6, 1.5, 0.4, 9.0], dtype=torch.float64, requires_grad=True)
    loss, sums = critic.loss(values, batch)
    # unclipped; clipped to 0.7, which is no worse than 1.5 is; within the bounds
    errors = [(0.6 - 0.9) ** 2, max((1.5 - 0.9) ** 2, (0.7 - 0.9) ** 2), (0.4 + 2.0) ** 2]
    assert loss.item() == pytest.approx(0.5 * sum(w * e for w, e in zip([0.5, 0.3, 0.2], errors, strict=True)))
    assert sums["weight"] == pytest.approx(1) and sums["return"] == pytest.approx(0.5 * 0.9 + 0.3 * 0.9 - 0.4)
    assert torch.autograd.gradcheck(lambda v: critic.loss(v, batch)[0], values)
    held = torch.tensor([0.6, 0.1, 0.4, 9.0], dtype=torch.float64, requires_grad=True)  # 0.3 is nearer to 0.9 than 0.1
    assert critic.loss(held, batch)[1]["clipped"] == 0.0


def test_whitening_is_over_all_tokens():
    flat = [x for part in whitened([[[1.0, 2.0], [3.0]], [[6.0]]]) for rollout in part for x in rollout]
    assert sum(flat) == pytest.approx(0) and math.fsum(x * x for x in flat) / 4 == pytest.approx(1, abs=1e-5)


def room(folder, world, adder, **settings):
    own = {"name": "ppo", "critic": {"optimizer": {"learning_rate": 1e-3}} | settings.pop("critic", {})}
    base = {"steps": 3, "prompts_per_step": 2, "samples": 3, "max_tokens": 40, "pool": {"samples": 0}}
    base |= {"algorithm": own, "checkpoint_every": 1, "updates": 2, "passes": 2}
    inputs = {"model": adder, "prompts": world["prompts"]}
    return stage(folder, loop.Settings(kind="rl", **(base | settings)), **inputs)


def test_policy_and_critic_are_restored_to_the_bit_after_a_kill(tmp_path, world, adder, monkeypatch):
    settings = {"kl": {"coefficient": 0.05, "estimator": "k1"}}
    summary = loop.run(room(tmp_path / "one", world, adder, **settings))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        loop.run(room(tmp_path / "two" / "one", world, adder, **settings))
    assert loop.run(room(tmp_path / "two" / "one", world, adder, **settings)) == summary
    assert hash_folder(tmp_path / "two" / "one" / "model") == hash_folder(tmp_path / "one" / "model")
    for name in ("loss", "value_loss", "explained_variance", "kl"):
        assert logged(tmp_path / "two" / "one", name) == logged(tmp_path / "one", name) != []


def test_while_the_critic_is_pretrained_the_policy_does_not_move(tmp_path, world, adder):
    with pytest.raises(ValueError, match="has trained nothing"):
        loop.run(room(tmp_path / "r", world, adder, critic={"pretraining": 3}, steps=3))
    losses = logged(tmp_path / "r", "value_loss")
    assert len(losses) == 3 and losses[-1] < losses[0] and logged(tmp_path / "r", "gradient_norm") == []
    state = read_json(tmp_path / "r" / "checkpoints" / "step-000003" / "state.json")["state"]
    assert state["steps_without_signal"] == 0


def test_a_shared_critics_loss_is_the_sum_of_both_and_so_is_its_gradient():
    tokens = {"value": [0.5, 0.5], "return": [0.9, -2.0], "advantage": [1.0, -1.0], "old": [-1.0, -2.0]}
    batch = collate([Row([4, 5, 6], 1, weights=[0.5, 0.3], token=tokens)], torch.float64)
    critic = SharedCritic(None, CriticSettings(trunk="shared", coefficient=0.3, clip_value=0.2), steps=1)
    policy = known().loss
    made = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in ([-1.1, -1.9], [0.6, 0.1]))
    logprobs, values = made
    loss, sums = critic.joined(policy)(logprobs, torch.zeros(2), values, batch)
    alone = policy(logprobs, torch.zeros(2), batch)[0]
    # 0.6 is within the bounds; 0.1 is clipped to 0.3, which is farther from -2
    of_values = 0.5 * (0.5 * (0.6 - 0.9) ** 2 + 0.3 * (0.3 + 2.0) ** 2)
    assert loss.item() == pytest.approx(alone.item() + 0.3 * of_values) and sums["value_loss"] == pytest.approx(
        of_values
    )
    gradients = torch.autograd.grad(loss, (logprobs, values))
    assert torch.equal(gradients[0], torch.autograd.grad(alone, logprobs)[0])
    assert gradients[1].tolist() == pytest.approx([0.3 * 0.5 * (0.6 - 0.9), 0.0])


def test_a_shared_critic_resumes_to_the_bit_and_is_no_part_of_the_model(tmp_path, world, adder, monkeypatch):
    shared = {"name": "ppo", "critic": {"trunk": "shared", "clip_value": 0.5}}
    settings = {"algorithm": shared, "optimizer": {"learning_rate": 1e-3}, "prompts_per_step": 4}
    summary = loop.run(room(tmp_path / "one", world, adder, **settings))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        loop.run(room(tmp_path / "two" / "one", world, adder, **settings))
    assert loop.run(room(tmp_path / "two" / "one", world, adder, **settings)) == summary
    assert hash_folder(tmp_path / "two" / "one" / "model") == hash_folder(tmp_path / "one" / "model")
    assert len(set(logged(tmp_path / "one", "value_loss"))) == 3 and logged(tmp_path / "one", "value_norm") == []
    assert logged(tmp_path / "two" / "one", "explained_variance") == logged(tmp_path / "one", "explained_variance")
    assert max(logged(tmp_path / "one", "sampler_gap")) < 1e-4
    names = {name for name, _ in load(tmp_path / "one" / "model")[0].state_dict().items()}
    assert names == {name for name, _ in load(adder)[0].state_dict().items()}


def test_a_shared_critic_learns_its_returns_and_its_values_are_those_of_its_head(adder):
    model, tokenizer = load(adder)
    root = PolicyAndValue(model, len(tokenizer))
    learner = Learner(model, len(tokenizer), ParallelSettings(device="cpu", forks=1), root=root)
    critic = SharedCritic(learner, CriticSettings(trunk="shared", coefficient=1.0, clip_value=0), steps=1)
    given = {"advantage": [0.0, 0.0], "old": [-1.0, -1.0], "value": [0.0, 0.0]}
    rows = [
        Row([5, 6, 7], 1, 0.25, given | {"return": [1.0, 1.0]}),
        Row([5, 9, 8], 1, 0.25, given | {"return": [1.0, -1.0]}),
    ]
    loss = critic.joined(known().loss)
    losses = []
    for _ in range(12):
        losses.append(learner.gradient([[row] for row in rows], loss)["value_loss"])
        learner.step(3e-3)
    assert losses[0] == pytest.approx(0.5) and losses[-1] < 0.2
    values = [value for row in learner.state_values(rows) for value in row.tolist()]
    hidden = torch.cat([model.base_model(torch.tensor([ids])).last_hidden_state[0] for ids in ([5, 6], [5, 9])])
    assert values == pytest.approx((hidden @ model.value_head.weight[0]).flatten().tolist(), abs=1e-5)


def test_options_of_the_other_trunk_are_refused():
    with pytest.raises(ValueError, match='pretraining belongs to trunk = "own"'):
        CriticSettings(trunk="shared", pretraining=2)
    with pytest.raises(ValueError, match='belongs to trunk = "shared"'):
        CriticSettings(coefficient=1.0)
    shared = loop.Settings(kind="rl", algorithm={"name": "ppo", "critic": {"trunk": "shared"}})
    assert loop.Settings.model_validate(shared.model_dump(mode="json")) == shared
