"""A reward model from preferences, or an outcome verifier from right and wrong answers.

Preferences: Ouyang et al. 2022, arXiv 2203.02155 (InstructGPT), section 3.5. Outcome verifier: Cobbe et al. 2021, arXiv
2110.14168. The result is a Scorer (reward_model.py): RL takes it as `reward = "reward_model"`.

A share of the problems is held out and judged before and after training: `assessment.json` (reward/assess.py). What the model
gives each held-out answer in the end is the table `held_out`.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from whetstone.problems.files import find_files, read_paths
from whetstone.reward.assess import Judged, assess, longer_is_better
from whetstone.reward.settings import Settings
from whetstone.run.folder import Stage, write_json
from whetstone.run.progress import say
from whetstone.run.room import TRAINING, Estimate, Input, Room
from whetstone.run.tables import write_rows

if TYPE_CHECKING:
    from whetstone.learner.learner import Learner
    from whetstone.reward.examples import Examples


def run(stage: Stage) -> dict[str, Any]:
    from whetstone.learner.learner import Learner
    from whetstone.learner.order import plan_steps
    from whetstone.learner.parallel import join
    from whetstone.learner.schedule import learning_rate
    from whetstone.learner.steps import Steps
    from whetstone.learner.student import load
    from whetstone.reward.examples import read_examples
    from whetstone.reward.loss import BradleyTerry, Logistic, weighted
    from whetstone.reward_model import with_scalar_head

    settings: Settings = stage.settings
    student = load(stage)
    examples = read_examples(stage, student, join(stage.parallel, student.model.device.type))
    model = with_scalar_head(student.model, student.chat, stage.seed)
    model.prompting = student.prompting  # of the answers that it judges
    learner = Learner(model, student.chat.size, stage.parallel, settings.optimizer)
    write_rows(stage.output("dropped"), examples.dropped)
    loss = Logistic() if settings.loss == "logistic" else BradleyTerry(settings.margin, settings.centring)
    groups = examples.train
    plan = plan_steps([1] * len(groups), settings.batch_pairs, stage.seed, settings.epochs)
    with Steps(stage, learner, len(plan)) as steps:
        if steps.first == 0 and "before" not in steps.state:
            steps.state["before"] = _assessed(_judged(learner, examples), examples)
        for step in steps:
            batch = weighted([groups[i] for i in plan[step]])
            sums = learner.gradient(batch, loss)
            rate = learning_rate(settings.optimizer, step, len(plan))
            norm = steps.update(step, sums["loss"], rate)
            if norm is None:  # training goes back to a checkpoint
                continue
            tokens = sum(len(row.ids) for group in batch for row in group)
            steps.state["tokens"] = steps.state.get("tokens", 0) + tokens
            steps.log(step, tokens, learning_rate=rate, gradient_norm=norm, **sums)
        state = dict(steps.state)
    judged = _judged(learner, examples)
    write_rows(stage.folder / "held_out", [asdict(one) for one in judged])
    after = _assessed(judged, examples)
    write_json(stage.folder / "assessment.json", {"before": state.get("before", {}), "after": after})
    learner.save_model(student.tokenizer, stage.output("reward_model"))
    _say(stage.name, after)
    kind = "answers" if settings.loss == "logistic" else "pairs"
    facts = {kind: len(groups), "held_out": len(examples.held_out), "dropped": len(examples.dropped)}
    accuracy = after["accuracy"]["mean"] if after else None
    return {**examples.counts, **facts, "steps": len(plan), "tokens": state["tokens"], "accuracy": accuracy}


def _judged(learner: "Learner", examples: "Examples") -> list[Judged]:
    rewards = iter(learner.row_values([row for group in examples.held_out for row in group]))
    return [
        Judged(
            name, tuple(next(rewards) for _ in group), tuple(r.scored for r in group), bool(group[0].segment["right"])
        )
        for name, group in zip(examples.held_out_ids, examples.held_out, strict=True)
    ]


def _assessed(judged: list[Judged], examples: "Examples") -> dict[str, Any]:
    lengths = [(group[0].scored, group[1].scored) for group in examples.train if len(group) == 2]
    return assess(judged, longer_is_better(lengths) if lengths else None)


def _say(name: str, figures: dict[str, Any]) -> None:
    if not figures:
        return say(f"{name}: nothing is held out, so its accuracy is not known (held_out)")
    got, by_length = figures["accuracy"], figures.get("length_only")
    beside = f"; by length alone {by_length['mean']:.1%}" if by_length else ""
    say(
        f"{name}: right in {got['mean']:.1%} [{got['low']:.1%}, {got['high']:.1%}] of {figures['judged']:,} held out{beside}; "
        f"calibration error {figures['calibration_error']:.3f}"
    )


def plan(stage: Stage) -> Estimate:
    """Of the model's own rollouts and of tables that exist only upper bounds are known beforehand."""
    from math import ceil

    from whetstone.learner.cost import training_estimate, with_sampling

    settings: Settings = stage.settings
    sides = 1 if settings.loss == "logistic" else 2
    count = settings.pool.prompts * (
        settings.pool.samples if sides == 1 else min(settings.pairs_per_problem, settings.pool.samples // 2)
    )
    side, known = settings.max_tokens, settings.source == "student"
    estimate = training_estimate(
        stage,
        step_tokens=sides * side * settings.batch_pairs,
        row_tokens=sides * side,
        tokens=ceil(settings.epochs * count) * sides * side if known else None,
        steps=ceil(settings.epochs * count / settings.batch_pairs) if known else None,
        bound="at most ",
        lines={"examples": f"at most {count:,} of {sides} answers of at most {side:,} tokens"} if known else {},
    )
    if not known:
        return estimate
    return with_sampling(estimate, stage, settings.pool.prompts * settings.pool.samples * side, side)


def check(settings: Settings) -> None:
    for file in settings.preferences:
        find_files(file.path)


ROOM = Room(
    settings=Settings,
    run=run,
    plan=plan,
    check=check,
    inputs={
        "model": Input(("model",), or_path=True),
        "prompts": Input(
            ("prompts", "problems"), used=lambda s: s.source == "student", description='with source = "student"'
        ),
        "rollouts": Input(("rollouts",), used=lambda s: s.source == "rollouts", description='with source = "rollouts"'),
        "problems": Input(("problems",), used=lambda s: s.source == "rollouts", description='with source = "rollouts"'),
        "pairs": Input(("pairs",), used=lambda s: s.source == "pairs", description='with source = "pairs"'),
    },
    gives=("reward_model",),
    uses=TRAINING,
    reads=lambda settings: [path for file in settings.preferences for path in read_paths(file.path)],
    longest=lambda settings: settings.max_length,
)
