"""RL with verifiable rewards (Phi-4-Mini-Reasoning, stage 4): the loop, in terms of five answers.

Each step: draw prompts, sample and grade, keep the groups with signal, credit, update. What samples is this process, or vLLM
servers (sampler.py). Its log-probabilities are compared with the learner's before the first step and in every step, and
training stops if they differ. Tripwires watch for what goes wrong more slowly.

Several processes share a step's rollouts, then its rows. Between the two each has all groups and gives the same answers.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from whetstone.learner.schedule import learning_rate
from whetstone.pool import stop_on_mismatch
from whetstone.rl.build import build, most_rollouts
from whetstone.rl.correction import with_correction
from whetstone.rl.critic import SharedCritic, build_critic, described_shared
from whetstone.rl.kept_rollouts import KeptRollouts
from whetstone.rl.prompts import WRONG_GRADIENT, choose_prompts
from whetstone.rl.random_verdicts import random_verdicts
from whetstone.rl.registry import ALGORITHMS, STABILISERS
from whetstone.rl.reward import REWARD_MODEL, build_reward
from whetstone.rl.sampler import rollout_sampler
from whetstone.rl.settings import Settings
from whetstone.rl.tripwires import RolledBack, Watch
from whetstone.rl.update import (
    average,
    batches_of,
    credited,
    gradient,
    mean_of,
    tokens_of,
    with_old_policy,
    with_reference,
)
from whetstone.run import user_file
from whetstone.run.folder import Stage
from whetstone.run.progress import say
from whetstone.run.room import PROMPT_TOKENS, TRAINING, Estimate, Input, Room
from whetstone.window import Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whetstone.learner.learner import Learner, Loss
    from whetstone.learner.steps import Steps
    from whetstone.learner.student import Student
    from whetstone.records import Generator
    from whetstone.rl.algorithm import Group, Reward, State
    from whetstone.rl.critic import Critic
    from whetstone.rl.update import Credited

MORE_SIGNAL = (
    "Choose prompts that the student solves now and then (pool.levels, pool.samples), more rollouts of each (samples), or "
    "another temperature; a student that solves none needs fine-tuning first (sft)."
)


def run(stage: Stage) -> dict[str, Any]:
    while True:
        try:
            return train(stage)
        except RolledBack:  # everything is loaded again, as after a kill, from the last good checkpoint
            continue


def train(stage: Stage) -> dict[str, Any]:
    """From the last checkpoint, if there is one, to the end."""
    from whetstone.learner.steps import Steps
    from whetstone.learner.student import load
    from whetstone.rl import groups as groups_of
    from whetstone.rl.ahead import Ahead
    from whetstone.rl.loss import observed
    from whetstone.verify import MathVerifier

    settings: Settings = stage.settings
    student = load(stage)
    learner = student.learner(values=shares_trunk(settings))
    process_group = learner.process_group
    window = Window(student.chat, student.context, settings.max_tokens, student.prompting)
    judge = random_verdicts(settings.random_verdicts, stage.seed) if settings.random_verdicts else None
    rollouts = KeptRollouts(stage, process_group, settings.keep_rollouts)
    with MathVerifier() as verifier, rollout_sampler(stage, student, learner) as sampler:
        pool, facts = choose_prompts(stage, sampler.generator, learner, verifier, window)
        watch = Watch(stage.folder, settings.tripwires, process_group, facts.get("shortcomings", ()))
        algorithm = build(settings, pool, stage.seed, reward_model(stage, student))
        loss = observed(algorithm.loss)
        reference = student.reference(learner) if algorithm.reference else None
        critic = build_critic(stage, student, learner, algorithm.critic) if algorithm.critic else None
        if isinstance(critic, SharedCritic):
            loss = critic.joined(loss)

        def sample(generator: "Generator", state: "State", step: int) -> "tuple[list[Group], float]":
            return groups_of.sample_step(
                generator, verifier, algorithm, state, step, settings.max_tokens, watch.stream(stage.seed),
                None if sampler.apart else process_group, student.prompting, judge,
            )  # fmt: skip

        with (
            Steps(stage, learner, settings.steps, critic.own if critic else None) as steps,
            Ahead(stage, sampler, steps, algorithm, sample) as ahead,
        ):
            for step in steps:
                sampled = ahead.take(step)
                groups, kept = sampled.groups, sampled.kept
                rollouts.add(step, groups, kept)
                metrics = groups_of.describe(groups, kept, sampled.temperature, step)
                if reference:
                    kept = with_reference(reference, kept)
                if critic:
                    kept = critic.valued(kept)
                trained = credited(algorithm, kept, groups)
                if settings.correction.kind != "none":
                    trained, corrections = with_correction(learner, trained, settings.correction)
                    metrics |= corrections
                elif settings.old_policy == "learner":
                    trained = with_old_policy(learner, trained, step)
                rate = watch.rate * learning_rate(settings.optimizer, step, settings.steps)
                updated = update(stage, steps, learner, loss, trained, step, rate, critic)
                if updated is None:  # training goes back to a checkpoint
                    ahead.forget()
                    continue
                metrics |= ahead.described(step, sampled) | updated
                tokens = settings.passes * tokens_of(trained)
                steps.log(step, tokens, **metrics)
                count(steps.state, steps=1, tokens=tokens, **counts_of(settings, groups, len(trained)))
                norm = metrics.get("gradient_norm", 0.0) + metrics.get("value_norm", 0.0)
                watch_signal("" if judge else stage.name, steps.state, step, groups, norm)
                watch.check(steps.state, step, metrics)
                if settings.rollouts and steps.state["rollouts"] >= settings.rollouts:
                    break
            ahead.finish()
        rollouts.finish(steps.state["steps"])
    if not judge:
        _refuse_untrained(stage.name, steps.state)
    student.save(learner)
    return {**facts, **totals(steps.state), "tripwires": watch.summary}


def reward_model(stage: Stage, student: "Student") -> "Reward | None":
    """The reward of the stage's reward model; None if it has none."""
    if REWARD_MODEL not in stage.settings.rewards:
        return None
    from whetstone.reward_model import RewardModel

    model = RewardModel.load(stage.inputs["reward_model"], stage.parallel, stage.model.dtype)
    return lambda problem, rollout: model.of_group(problem, [rollout], student.chat)[0]


def update(
    stage: Stage, steps: "Steps", learner: "Learner", loss: "Loss", groups: "list[Credited]", step: int, rate: float,
    critic: "Critic | None" = None,
) -> dict[str, float] | None:  # fmt: skip
    """The updates of a step: their metrics, none if there are no groups. None if training goes back to a checkpoint."""
    settings: Settings = stage.settings
    done: list[dict[str, float]] = []
    of_critic: list[dict[str, float]] = []
    for batch in batches_of(groups, step, settings.updates, settings.passes, f"{stage.seed}/{step}"):
        if critic and critic.own:
            of_critic.append(critic.update(batch, step))
            if step < critic.settings.pretraining:
                continue
        sums = gradient(learner, loss, batch)
        if not done:
            gap = sums["sampler_gap"] / (sums["fresh"] or 1.0)
            stop_on_mismatch(step, gap, settings.sampler_tolerance, WRONG_GRADIENT)
        norm = steps.update(step, sums["loss"], rate)
        if norm is None:
            return None
        done.append(sums | {"gradient_norm": norm})
        if critic and not critic.own:
            of_critic.append(described_shared(sums))
    metrics = average(of_critic)
    return metrics | mean_of(done) | {"learning_rate": rate} if done else metrics


def totals(state: "Mapping[str, Any]") -> dict[str, float]:
    """The counts of the whole stage, and the share of right rollouts, for the manifest."""
    names = ("updates", "rollouts", "steps", "tokens", "steps_without_signal")
    return {name: state.get(name, 0) for name in names} | {"right": state.get("right", 0) / max(1, state["rollouts"])}


def counts_of(settings: Settings, groups: "Sequence[Group]", trained: int) -> dict[str, int]:
    """What a step adds to the counts of the stage; it was trained on so many groups."""
    return {
        "updates": settings.passes * min(settings.updates, trained),
        "rollouts": sum(group.sampled for group in groups),
        "right": sum(rollout.correct is True for group in groups for rollout in group.rollouts),
    }


def watch_signal(name: str, state: dict[str, Any], step: int, groups: "Sequence[Group]", norm: float) -> None:
    """Counts the steps that train nothing (no group is kept, or the gradient is 0) and the groups of all steps by their
    rewards. Says it the first time, of the stage with this name; "": says nothing, as nothing is to be learnt.
    """
    from whetstone.rl.groups import signs

    kinds = signs(groups)
    seen = state.setdefault("groups", {})
    count(seen, **kinds)
    count(state, steps_without_signal=int(not norm))
    if name and not norm and state["steps_without_signal"] == 1:
        say(
            f"warning: {name}: step {step + 1} trains nothing: none of its groups is kept, or all rewards in them are equal. "
            f"{_in_words(kinds)} {MORE_SIGNAL} Further steps like it are only counted (steps_without_signal)."
        )


def _refuse_untrained(name: str, state: dict[str, Any]) -> None:
    """Raises ValueError if no step of the stage has trained anything."""
    if state.get("steps_without_signal", 0) == state["steps"]:
        raise ValueError(
            f"{name}: none of its {state['steps']} steps trained anything, so its model would be the one it started from: in "
            f"no group that was kept did the rewards differ. {_in_words(state['groups'])} {MORE_SIGNAL}"
        )


def _in_words(kinds: "Mapping[str, int]") -> str:
    return f"Of {sum(kinds.values()):,} groups: {', '.join(f'{n:,} {kind}' for kind, n in kinds.items())}."


def count(state: dict[str, Any], **more: int) -> None:
    for name, number in more.items():
        state[name] = state.get(name, 0) + number


def reads(settings: Settings) -> list[Path]:
    """The user's own files that the stage's result depends on."""
    chosen = [settings.algorithm, *settings.chosen_stabilisers]
    named = [*settings.rewards, *(options.name for options in chosen)]
    return list(dict.fromkeys(path for name in named if (path := user_file.file_of(name)) is not None))


def plan(stage: Stage) -> Estimate:
    """What can be known beforehand: how much is sampled, and bounds if that depends on what the model solves."""
    from whetstone.learner.cost import Beside, training_estimate, with_sampling

    settings: Settings = stage.settings
    step, most = settings.prompts_per_step * settings.samples, most_rollouts(settings)
    more = f", at most {most:,}" if most > step else ""
    candidates = settings.pool.prompts * settings.pool.samples
    updates = settings.updates * settings.passes
    names = [options.name for options in (settings.algorithm, *settings.chosen_stabilisers)]
    reference = settings.kl.coefficient > 0 or settings.tripwires.kl > 0
    own_critic = hasattr(settings.algorithm, "critic") and not shares_trunk(settings)
    beside = Beside(samples=True, reference=reference, critic=own_critic)
    ahead = (
        {"staleness": f"weights that sample are up to {settings.staleness} steps older"} if settings.staleness else {}
    )
    estimate = training_estimate(
        stage,
        step_tokens=step * settings.max_tokens,
        row_tokens=settings.max_tokens,
        tokens=settings.steps * settings.passes * step * settings.max_tokens,
        steps=settings.steps,
        bound="about " if more else "at most ",  # more is sampled for hard prompts, and few negatives are kept
        steps_bound="",
        lines={
            "algorithm": " + ".join(names),
            "candidate rollouts": f"at most {candidates:,}",
            "rollouts per step": f"{step:,}{more}, each of at most {settings.max_tokens:,} tokens",
            "updates per step": f"{updates:,}",
        }
        | ahead,
        beside=beside,
    )
    sampled = (candidates + settings.steps * step) * settings.max_tokens
    return with_sampling(estimate, stage, sampled, settings.max_tokens, beside)


def shares_trunk(settings: Settings) -> bool:
    """Whether the policy has a head for values, as its critic has no layers of its own."""
    critic = getattr(settings.algorithm, "critic", None)
    return critic is not None and critic.trunk == "shared"


def needs_reward_model(settings: Settings) -> bool:
    critic = getattr(settings.algorithm, "critic", None)
    return REWARD_MODEL in settings.rewards or (critic is not None and critic.start == REWARD_MODEL)


def check(settings: Settings) -> None:
    """Before any stage runs. Raises ValueError or FileNotFoundError if a function of the user's own cannot be used."""
    build_reward(settings.reward)
    ALGORITHMS.function_of(settings.algorithm.name)
    for stabiliser in settings.chosen_stabilisers:
        STABILISERS.function_of(stabiliser.name)


ROOM = Room(
    settings=Settings,
    run=run,
    plan=plan,
    inputs={
        "model": Input(("model",), or_path=True),
        "prompts": Input(("prompts", "problems")),
        "reward_model": Input(
            ("reward_model",),
            used=needs_reward_model,
            description='with reward = "reward_model", or a critic that starts as one',
        ),
    },
    gives=("model",),
    uses=TRAINING,
    trains=True,
    reads=reads,
    check=check,
    longest=lambda settings: PROMPT_TOKENS + settings.max_tokens,
)
