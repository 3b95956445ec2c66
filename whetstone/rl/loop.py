"""RL with verifiable rewards (Phi-4-Mini-Reasoning, stage 4): the loop, in terms of five answers.

Each step: draw prompts, sample and grade, keep the groups with signal, credit, update. The sampler shares the learner's
weights, or has a copy of them where a process keeps only shares or a GPU samples in another type. Its log-probabilities are
checked against the learner's on a probe before the first step and in every step, and training stops rather than go on with
a mismatch. Tripwires watch for what goes wrong more slowly.

Several processes share a step's rollouts, then its rows; between the two each has all groups and gives the same answers.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from whetstone.rl.choose import Name, Stabiliser, build, refuse_foreign_options, stabilisers
from whetstone.rl.kl import Estimator
from whetstone.rl.prompts import choose_prompts
from whetstone.rl.reward import file_of
from whetstone.rl.tripwires import RolledBack, Tripwires, Watch
from whetstone.run.folder import Stage
from whetstone.run.settings import (
    CheckpointEvery,
    Optimizer,
    OptimizerSettings,
    Spikes,
    SpikeSettings,
    TrainingSettings,
)

if TYPE_CHECKING:
    from whetstone.learner.cost import Estimate
    from whetstone.learner.learner import Learner, Loss
    from whetstone.learner.steps import Steps
    from whetstone.rl.update import Part

BIASED = ("top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "length_penalty")


class Settings(TrainingSettings):
    model: str | None = None  # the stage whose model is trained
    problems: str | None = None
    prompts: str | None = None  # the corpus stage whose prompts are candidates
    algorithm: Name = "grpo"  # what is drawn, kept and credited, and the loss (docs/algorithms.md)
    stabilisers: tuple[Stabiliser, ...] | None = None  # None: the paper's three with grpo, none with the others
    steps: int = Field(default=20, gt=0)  # samplings, each with its updates
    rollouts: int = Field(default=0, ge=0)  # the stage ends with the step that has sampled so many; 0: after its steps
    prompts_per_step: int = Field(default=32, gt=0)  # groups of one step
    samples: int = Field(default=8, gt=1)  # rollouts of a prompt
    max_tokens: int = Field(default=512, gt=0)  # longest rollout
    temperature: float = Field(default=1.0, gt=0)  # without temperature_annealing
    updates: int = Field(default=1, gt=0)  # optimizer updates that a step's groups are divided into
    passes: int = Field(default=1, gt=0)  # times that each rollout is trained on
    old_policy: Literal["sampler", "learner"] = "sampler"  # whose log-probabilities the ratio is to (rl/update.py)
    reward: str | dict[str, float] = (
        "plus_minus_one"  # plus_minus_one, zero_one, format, "file.py:function", or weights
    )
    clip_low: float | None = Field(default=None, gt=0)  # how far the ratio may fall below 1; None: the algorithm's own
    clip_high: float | None = Field(default=None, gt=0)  # how far it may rise above 1; None: the algorithm's own
    average: Literal["rollout", "token"] | None = (
        None  # grpo: whether rollouts or tokens weigh the same; None: rollouts
    )
    baseline: Literal["batch", "group"] | None = (
        None  # reinforce_pp: what a return is measured against; None: the batch
    )
    rounds: int | None = Field(default=None, gt=0)  # dapo: most samplings of a step; None: 10
    soft_tokens: int | None = Field(default=None, ge=0)  # dapo: ramp of the length penalty; None: a fifth of max_tokens
    mask_overlong: bool | None = None  # dapo: rollouts cut off are not trained on; None: they are
    kl_coefficient: float = Field(default=0.0, ge=0)  # of the KL to the model the stage began with; 0: none
    kl_estimator: Estimator = "k3"  # see rl/kl.py for their gradients
    kl_in: Literal["loss", "reward"] = "loss"  # where the KL counts
    entropy_bonus: float = Field(default=0.0, ge=0)  # paid for a nat of entropy a token
    candidates: int = Field(default=256, gt=0)  # prompts tried before RL
    candidate_levels: list[int] | None = None  # their levels; None: those of the prompts table
    candidate_domains: list[str] | None = None  # their domains; None: all
    candidate_samples: int = Field(default=8, ge=0)  # rollouts of each; 0: none is tried, all are trained on
    solvable: bool = True  # prompts that no candidate rollout solved are dropped
    threshold: float | None = Field(default=None, gt=0, le=1)  # most accurate prompts and groups kept; None: 0.5 or 1
    length_spread: float = Field(
        default=0.3, gt=0
    )  # prompt_optimization: most uneven response lengths kept (std / mean)
    oversample: int = Field(default=16, gt=0)  # reward_rebalancing: most rollouts of a hard prompt (paper: 128)
    anneal_to: float = Field(default=0.6, gt=0)  # temperature_annealing: from 1.0 to this over the first half
    covariance_share: float = Field(default=2e-4, gt=0, lt=1)  # clip_cov, kl_cov: share of the tokens held back
    sampler_tolerance: float = Field(default=0.05, gt=0)  # mean |log-prob gap| sampler-learner at which training stops
    tripwires: Tripwires = Tripwires()  # see below
    optimizer: Optimizer = OptimizerSettings(learning_rate=2e-4)
    checkpoint_every: CheckpointEvery = 5
    spikes: Spikes = SpikeSettings(spike="ignore")  # the size of a policy's loss means nothing

    @model_validator(mode="before")
    @classmethod
    def _sampling_is_that_of_the_policy(cls, values: Any) -> Any:
        if biased := [name for name in BIASED if name in (values if isinstance(values, dict) else {})]:
            raise ValueError(
                f"{biased[0]} = {values[biased[0]]!r} is refused: what is sampled with {biased[0]} is not what the policy "
                "would say, and RL would credit it as if it were, so that the ratio and with it the gradient are biased. Leave "
                "it out; the sampling of scores is set in [scores]"
            )
        return values

    @model_validator(mode="after")
    def _what_is_set_is_used(self) -> "Settings":
        refuse_foreign_options(self)
        for name in [self.reward] if isinstance(self.reward, str) else self.reward:
            file_of(name)
        if not self.reward:
            raise ValueError("reward names nothing: there is nothing to learn from. Leave it out for plus_minus_one")
        return self


def reads(settings: Settings) -> list[Path]:
    """The user's reward functions: the stage's result depends on these files."""
    named = [settings.reward] if isinstance(settings.reward, str) else list(settings.reward)
    return list(dict.fromkeys(path for name in named if (path := file_of(name)) is not None))


def run(stage: Stage) -> dict[str, Any]:
    while True:
        try:
            return train(stage)
        except RolledBack:  # all is loaded anew, as after a kill, from the last good checkpoint
            continue


def train(stage: Stage) -> dict[str, Any]:
    """From the last checkpoint, if there is one, to the end."""
    from whetstone import model as models
    from whetstone.chat import Chat
    from whetstone.decode.forked_generator import sampler
    from whetstone.learner.learner import Learner
    from whetstone.learner.steps import Steps
    from whetstone.rl.groups import describe, sample_step
    from whetstone.rl.loss import observed
    from whetstone.rl.update import parts_of, with_reference
    from whetstone.verify import MathVerifier

    settings: Settings = stage.settings
    model, tokenizer = load(stage)
    learner = Learner(model, Chat(tokenizer).size, stage.parallel, settings.optimizer)
    # after the learner kept only its share
    policy = models.sampled_from(
        model, stage.inputs["model"], stage.parallel, stage.longest, learner.process_group.sharded
    )
    engine = sampler(policy, tokenizer, stage.parallel, learner.process_group.count)
    watch = Watch(stage.folder, settings.tripwires, learner.process_group)
    with MathVerifier() as verifier:
        pool, facts = choose_prompts(stage, engine, learner, verifier, lambda gap: stop_on_mismatch(settings, 0, gap))
        algorithm = build(settings, pool, stage.seed)
        loss = observed(algorithm.loss)
        reference = load_reference(stage) if algorithm.reference else None
        with Steps(stage, learner, settings.steps) as steps:
            for step in steps:
                steps.phase("publish")
                learner.publish(policy)
                groups, temperature = sample_step(
                    steps.watched(engine),
                    verifier,
                    algorithm,
                    steps.state,
                    step,
                    settings.max_tokens,
                    watch.stream(stage.seed),
                    learner.process_group,
                )
                kept = algorithm.keep(steps.state, step, groups)
                values = describe(groups, kept, temperature, step)
                if reference:
                    kept = with_reference(reference, kept)
                parts = parts_of(kept, algorithm.credit(kept, groups), step) if kept else []
                if parts:
                    made = train_on(stage, steps, learner, loss, parts, step, watch.rate)
                    if made is None:  # it goes back to a checkpoint
                        continue
                    values |= made
                steps.log(step, settings.passes * sum(part.tokens for part in parts), **values)
                updates = settings.passes * min(settings.updates, len(parts))
                count(steps.state, steps=1, updates=updates, rollouts=sum(g.sampled for g in groups))
                watch.check(steps.state, step, values)
                if settings.rollouts and steps.state["rollouts"] >= settings.rollouts:
                    break
            state = dict(steps.state)
    learner.save_model(tokenizer, stage.output("model"))
    return {
        **facts, "updates": state["updates"], "rollouts": state["rollouts"], "steps": state["steps"],
        "tripwires": [{k: trip[k] for k in ("wire", "step", "action")} for trip in watch.tripped],
    }  # fmt: skip


def train_on(
    stage: Stage, steps: "Steps", learner: "Learner", loss: "Loss", parts: "list[Part]", step: int, factor: float
) -> dict[str, float] | None:
    """The updates of a step, at `factor` times the scheduled learning rate; None where it goes back to a checkpoint."""
    from whetstone.learner.schedule import learning_rate
    from whetstone.rl.update import update

    settings: Settings = stage.settings
    rate = factor * learning_rate(settings.optimizer, step, settings.steps)
    made = update(
        learner,
        loss,
        parts,
        apply=lambda value: steps.update(step, value, rate),
        updates=settings.updates,
        passes=settings.passes,
        old_policy=settings.old_policy,
        order=f"{stage.seed}/{step}",
        check=lambda gap: stop_on_mismatch(settings, step, gap),
    )
    return None if made is None else made | {"learning_rate": rate}


def load(stage: Stage) -> tuple[Any, Any]:
    """The model that the stage begins with, and its tokenizer."""
    from whetstone import model as models

    device = models.choose_device(stage.parallel.device)
    return models.load(stage.inputs["model"], device, stage.model.dtype, stage.longest)


def load_reference(stage: Stage) -> "Learner":
    """The model that the stage began with, for its log-probabilities: it is never updated."""
    from whetstone.chat import Chat
    from whetstone.learner.learner import Learner

    model, tokenizer = load(stage)
    return Learner(model.requires_grad_(False), Chat(tokenizer).size, stage.parallel)


def stop_on_mismatch(settings: Settings, step: int, gap: float) -> None:
    if gap > settings.sampler_tolerance:
        raise ValueError(
            f"step {step}: the sampler's and the learner's log-probabilities differ by {gap:.3g} nats a token on average "
            f"(allowed: {settings.sampler_tolerance}): the policy gradient would be that of another policy. Use the same dtype "
            "for both ([parallel] compute, [model] dtype), or raise sampler_tolerance."
        )


def count(state: dict[str, Any], **more: int) -> None:
    for name, number in more.items():
        state[name] = state.get(name, 0) + number


def plan(stage: Stage) -> "Estimate":
    """What can be known beforehand: how much is sampled, and bounds where that depends on what the model solves."""
    from whetstone.learner.cost import training_estimate, with_sampling

    settings: Settings = stage.settings
    step = settings.prompts_per_step * settings.samples
    hard = "reward_rebalancing" in stabilisers(settings)
    more = ""
    if hard:
        most = settings.prompts_per_step * max(settings.samples, settings.oversample)
        more = f", at most {most:,} where prompts are hard"
    elif settings.algorithm == "dapo":
        more = f", at most {step * (settings.rounds or 10):,} where few groups have signal"
    candidates = settings.candidates * settings.candidate_samples
    updates = settings.updates * settings.passes
    estimate = training_estimate(
        stage.inputs["model"],
        stage.model,
        stage.parallel,
        step_tokens=step * settings.max_tokens,
        row_tokens=settings.max_tokens,
        checkpoints=stage.run.keep_checkpoints,
        tokens=settings.steps * settings.passes * step * settings.max_tokens,
        steps=settings.steps,
        bound="about " if more else "at most ",  # of hard prompts more is sampled, and few negatives are kept
        steps_bound="",
        lines={
            "algorithm": " + ".join([settings.algorithm, *stabilisers(settings)]),
            "candidate rollouts": f"at most {candidates:,}",
            "rollouts a step": f"{step:,}{more}, each of at most {settings.max_tokens:,} tokens",
            "updates a step": f"{updates:,}",
        },
        samples=True,
    )
    sampled = (candidates + settings.steps * step) * settings.max_tokens
    return with_sampling(estimate, stage.inputs["model"], stage.model, stage.parallel, sampled, settings.max_tokens)
