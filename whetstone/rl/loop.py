"""RL with verifiable rewards (Phi-4-Mini-Reasoning, stage 4): the loop, in terms of five answers.

Each step: draw prompts, sample and grade, keep the groups with signal, credit, one update. The sampler shares the
learner's weights; its log-probabilities are checked against the learner's on a probe before the first step and in every
step, and training stops rather than go on with a mismatch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.progress import say
from whetstone.run.settings import SpikeSettings, StageSettings
from whetstone.run.tables import read_records, write_rows

if TYPE_CHECKING:
    from whetstone.learner.cost import Estimate
    from whetstone.records import Problem, Rollout, Verifier
    from whetstone.rl.algorithm import Algorithm, Group, State


class Settings(StageSettings):
    model: str | None = None  # the stage whose model is trained
    problems: str | None = None
    prompts: str | None = None  # the corpus stage whose prompts are candidates
    algorithm: Literal["grpo"] = "grpo"  # what is drawn, kept and credited, and the loss
    stabilisers: tuple[Literal["prompt_optimization", "reward_rebalancing", "temperature_annealing"], ...] = (
        "prompt_optimization",
        "reward_rebalancing",
        "temperature_annealing",
    )
    steps: int = Field(default=20, gt=0)  # updates
    prompts_per_step: int = Field(default=32, gt=0)  # groups of one update
    samples: int = Field(default=8, gt=1)  # rollouts of a prompt
    max_tokens: int = Field(default=512, gt=0)  # longest rollout
    temperature: float = Field(default=1.0, gt=0)  # without temperature_annealing
    learning_rate: float = Field(default=2e-4, gt=0)  # the peak
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # from the peak down
    warmup: float = Field(default=0.0, ge=0, le=1)  # share of the steps
    weight_decay: float = Field(default=0.0, ge=0)  # AdamW's
    clip: float = Field(default=0.2, gt=0)  # how far the probability ratio may leave 1
    token_mean: bool = False  # every token of the step weighs the same, instead of every rollout
    candidates: int = Field(default=256, gt=0)  # prompts tried before RL
    candidate_levels: list[int] | None = None  # their levels; None: those of the prompts table
    candidate_samples: int = Field(default=8, gt=0)  # rollouts of each
    solvable: bool = True  # prompts that no candidate rollout solved are dropped
    threshold: float = Field(default=0.5, gt=0, le=1)  # prompts and groups of higher accuracy are dropped
    length_spread: float = Field(
        default=0.3, gt=0
    )  # prompt_optimization: most uneven response lengths kept (std / mean)
    oversample: int = Field(default=16, gt=0)  # reward_rebalancing: most rollouts of a hard prompt (paper: 128)
    anneal_to: float = Field(default=0.6, gt=0)  # temperature_annealing: from 1.0 to this over the first half
    sampler_tolerance: float = Field(default=0.05, gt=0)  # mean |log-prob gap| sampler-learner at which training stops
    checkpoint_every: int = Field(default=5, gt=0)  # steps
    spikes: SpikeSettings = SpikeSettings(
        spike="ignore"
    )  # when the loss blows up; the size of a policy's means nothing


def run(stage: Stage) -> dict[str, Any]:
    from whetstone import model as models
    from whetstone.chat import Chat
    from whetstone.decode.forked_generator import sampler
    from whetstone.learner.learner import Learner
    from whetstone.learner.schedule import learning_rate
    from whetstone.learner.steps import Steps
    from whetstone.verify import MathVerifier

    settings: Settings = stage.settings
    model, tokenizer = models.load(
        stage.inputs["model"], models.choose_device(stage.parallel.device), stage.model.dtype, stage.longest
    )
    chat = Chat(tokenizer)
    learner = Learner(model, chat.size, stage.parallel, weight_decay=settings.weight_decay)
    engine = sampler(model, tokenizer, stage.parallel)
    with MathVerifier() as verifier:
        pool, facts = choose_prompts(stage, engine, learner, verifier)
        algorithm = build(settings, pool, stage.seed)
        with Steps(stage, learner, settings.steps, settings.checkpoint_every, settings.spikes) as steps:
            for step in steps:
                groups, temperature = rollouts(stage, steps.watched(engine), verifier, algorithm, steps.state, step)
                kept = [k for g in groups if (k := algorithm.keep(steps.state, step, g)) is not None]
                values = describe(groups, kept, temperature)
                rate = learning_rate(settings.learning_rate, step, settings.steps, settings.warmup, settings.schedule)
                tokens = 0
                if kept:
                    rows = [row for group in algorithm.credit(kept, groups) for row in group]
                    tokens = sum(len(row.ids) for row in rows)
                    sums = learner.gradient([[row] for row in rows], algorithm.loss, temperature)
                    share = sums.pop("weight")
                    values |= {name: sums[name] / share for name in ("entropy", "clipped", "sampler_gap")}
                    values["loss"] = sums["loss"]
                    stop_on_mismatch(settings, step, values["sampler_gap"], temperature)
                    norm = steps.update(step, sums["loss"], rate)
                    if norm is None:
                        continue
                    values |= {"learning_rate": rate, "gradient_norm": norm}
                steps.log(step, tokens, **values)
                steps.state["updates"] = steps.state.get("updates", 0) + bool(kept)
                steps.state["rollouts"] = steps.state.get("rollouts", 0) + sum(g.sampled for g in groups)
            state = dict(steps.state)
    models.save(model, tokenizer, stage.output("model"))
    return {**facts, "updates": state["updates"], "rollouts": state["rollouts"], "steps": settings.steps}


def build(settings: Settings, pool: Sequence["Problem"], seed: int) -> "Algorithm":
    from dataclasses import replace

    from whetstone.rl.grpo import grpo
    from whetstone.rl.stabilisers.reward_rebalancing import reward_rebalancing
    from whetstone.rl.stabilisers.temperature_annealing import temperature_annealing

    algorithm = grpo(
        pool, settings.prompts_per_step, settings.samples, seed, clip=settings.clip, token_mean=settings.token_mean
    )
    plain = algorithm.draw
    algorithm = replace(algorithm, draw=lambda *asked: replace(plain(*asked), temperature=settings.temperature))
    if "reward_rebalancing" in settings.stabilisers:
        algorithm = reward_rebalancing(algorithm, settings.threshold, settings.oversample, settings.samples, seed)
    if "temperature_annealing" in settings.stabilisers:
        algorithm = temperature_annealing(algorithm, settings.steps, end=settings.anneal_to)
    return algorithm


def choose_prompts(
    stage: Stage, engine: Any, learner: Any, verifier: "Verifier"
) -> tuple[list["Problem"], dict[str, Any]]:
    """The prompts to train on: candidates that the model solves sometimes, at most `threshold` of the time.

    Their rollouts also serve as the start-up probe of sampler against learner.
    """
    import random

    from whetstone.records import Problem, Sampling
    from whetstone.rl.stabilisers.prompt_optimization import optimise_prompts
    from whetstone.sample import sample_journalled

    settings: Settings = stage.settings
    levels = settings.candidate_levels
    candidates = [p for p in read_records(Problem, stage.inputs["prompts"]) if levels is None or p.level in levels]
    random.Random(f"{stage.seed}/candidates").shuffle(candidates)
    candidates = candidates[: settings.candidates]
    if not candidates:
        raise ValueError(
            f"{stage.name}: no prompt of levels {levels} in {stage.inputs['prompts']}. Name other candidate_levels."
        )
    done = stage.folder / "prompts.json"
    if done.exists():
        kept = set(read_json(done)["kept"])
        return [p for p in candidates if p.id in kept], read_json(done)["facts"]
    groups = sample_journalled(
        engine,
        candidates,
        settings.candidate_samples,
        Sampling(1.0, settings.max_tokens, seed=stage.seed),
        verifier,
        stage.folder / "candidates.jsonl",
        f"{stage.name}: candidate prompts",
    )
    gap = probe([r for group in groups[:8] for r in group], learner)
    stop_on_mismatch(settings, 0, gap, 1.0)
    uniform = "prompt_optimization" in settings.stabilisers
    pool, dropped, counts = optimise_prompts(
        candidates, groups, settings.length_spread, settings.threshold, uniform, settings.solvable
    )
    if len(pool) < 2:
        raise ValueError(
            f"{stage.name}: {len(pool)} of {len(candidates)} candidate prompts are left ({dict(counts)}): RL needs prompts "
            f"that the model solves sometimes but at most {settings.threshold:.0%} of the time. Choose candidate_levels "
            "nearer to what it can do, or more candidates."
        )
    write_rows(stage.output("dropped"), dropped)
    facts = {"candidates": dict(counts), "probe_gap": gap}
    write_json(done, {"kept": [p.id for p in pool], "facts": facts})
    say(f"   {len(pool)} of {len(candidates)} prompts kept: {dict(counts)}; sampler-learner gap {gap:.1e}")
    return pool, facts


def probe(rollouts: Sequence["Rollout"], learner: Any) -> float:
    """Mean absolute difference between the sampler's and the learner's log-probabilities."""
    from whetstone.batch import Row

    rows = [Row([*r.prompt_ids, *r.ids], prompt=len(r.prompt_ids)) for r in rollouts]
    seen = learner.row_logprobs(rows, rollouts[0].temperature)
    gaps = [
        abs(float(a) - b)
        for values, r in zip(seen, rollouts, strict=True)
        for a, b in zip(values, r.logprobs, strict=True)
    ]
    return sum(gaps) / max(1, len(gaps))


def stop_on_mismatch(settings: Settings, step: int, gap: float, temperature: float) -> None:
    if gap > settings.sampler_tolerance:
        raise ValueError(
            f"step {step}: the sampler's and the learner's log-probabilities differ by {gap:.3g} nats a token on average "
            f"(allowed: {settings.sampler_tolerance}) at temperature {temperature:.2f}: the policy gradient would be that of "
            "another policy. Use the same dtype for both ([parallel] compute, [model] dtype), or raise sampler_tolerance."
        )


def rollouts(
    stage: Stage, engine: Any, verifier: "Verifier", algorithm: "Algorithm", state: "State", step: int
) -> tuple[list["Group"], float]:
    """The step's groups, sampled and rewarded, drawing again until the algorithm has enough."""
    from dataclasses import replace

    from whetstone.records import Sampling
    from whetstone.rl.algorithm import Group
    from whetstone.sample import sample_groups

    settings: Settings = stage.settings
    groups: list[Group] = []
    temperature = settings.temperature
    while (draw := algorithm.draw(state, step, groups)).problems:
        temperature = draw.temperature
        have = {g.problem.id: g for g in groups}
        for problem in draw.problems:
            have.setdefault(problem.id, Group(problem, []))
        # One stream a (step, problem, rollout): a problem drawn in two steps is not sampled alike.
        seed = stage.seed * 1_000_003 + step + 1
        sampling = Sampling(draw.temperature, settings.max_tokens, seed=seed)
        drawn = list(zip(draw.problems, draw.counts, strict=True))
        for first in sorted({have[p.id].sampled for p in draw.problems}):
            asked = [(p, n) for p, n in drawn if have[p.id].sampled == first]
            fresh = sample_groups(engine, [p for p, _ in asked], [n for _, n in asked], sampling, verifier, first=first)
            for (problem, _), sampled in zip(asked, fresh, strict=True):
                rewarded = [replace(r, reward=algorithm.reward(problem, r)) for r in sampled]
                kept = [r for r in rewarded if r.reward is not None]
                old = have[problem.id]
                left_out = old.left_out + len(rewarded) - len(kept)
                have[problem.id] = Group(problem, [*old.rollouts, *kept], left_out)
        groups = list(have.values())
    return groups, temperature


def describe(groups: Sequence["Group"], kept: Sequence["Group"], temperature: float) -> dict[str, float]:
    """What the step looked like, before the update."""
    rollouts = [r for g in groups for r in g.rollouts]
    n = max(1, len(rollouts))
    return {
        "accuracy": sum(r.correct is True for r in rollouts) / n,
        "reward": sum(r.reward for r in rollouts) / n,
        "response_length": sum(len(r.ids) for r in rollouts) / n,
        "truncated": sum(r.stop == "length" for r in rollouts) / n,
        "temperature": temperature,
        "rollouts": len(rollouts),
        "undecided": sum(g.left_out for g in groups),
        "kept_groups": len(kept) / max(1, len(groups)),
        "kept_rollouts": sum(len(g.rollouts) for g in kept) / n,
    }


def plan(stage: Stage) -> "Estimate":
    """What can be known beforehand: how much is sampled, and bounds where that depends on what the model solves."""
    from whetstone.learner.cost import training_estimate, with_sampling

    settings: Settings = stage.settings
    step = settings.prompts_per_step * settings.samples
    most = settings.prompts_per_step * max(settings.samples, settings.oversample)
    hard = "reward_rebalancing" in settings.stabilisers
    more = f", at most {most:,} where prompts are hard" if hard else ""
    candidates = settings.candidates * settings.candidate_samples
    alone = stage.parallel.model_copy(update={"processes": 1})  # sampler and learner share one device's weights
    estimate = training_estimate(
        stage.inputs["model"],
        stage.model,
        alone,
        step_tokens=step * settings.max_tokens,
        row_tokens=settings.max_tokens,
        checkpoints=stage.run.keep_checkpoints,
        tokens=settings.steps * step * settings.max_tokens,
        steps=settings.steps,
        bound="about " if hard else "at most ",  # of hard prompts more is sampled, and few negatives are kept
        steps_bound="",
        lines={
            "candidate rollouts": f"at most {candidates:,}",
            "rollouts a step": f"{step:,}{more}, each of at most {settings.max_tokens:,} tokens",
        },
    )
    sampled = (candidates + settings.steps * step) * settings.max_tokens
    return with_sampling(estimate, stage.inputs["model"], stage.model, alone, sampled, settings.max_tokens)
