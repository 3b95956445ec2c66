"""Supervised fine-tuning on a compact, representative subset (Phi-4-Mini-Reasoning, stage 2).

Each sample is a sequence of its own ("not packed", so that the model learns where to stop). The loss is on the response and
its end-of-turn id only. The response is found by its length, never by id: models with bos = eos = pad learn to stop, too.

`data = "dpo/pairs"` trains on the chosen side of a DPO stage's pairs: the control that DPO has to beat.
"""

from typing import Any

from whetstone.run.folder import Stage
from whetstone.run.room import TRAINING, Estimate, Input, Room
from whetstone.run.settings import NextTokenSettings, Optimizer, OptimizerSettings


class Settings(NextTokenSettings):
    optimizer: Optimizer = OptimizerSettings(
        learning_rate=1e-3, schedule="cosine", warmup=0.05, floor=0.05, weight_decay=0.1
    )


def run(stage: Stage) -> dict[str, Any]:
    from whetstone.learner.next_token import next_token_loss, token_mean
    from whetstone.learner.order import plan_steps
    from whetstone.learner.schedule import learning_rate
    from whetstone.learner.steps import Steps
    from whetstone.learner.student import load
    from whetstone.learner.tokenise import tokenise

    settings: Settings = stage.settings
    student = load(stage)
    samples = tokenise(stage, stage.inputs["data"], student.chat, context=student.context, prompting=student.prompting)
    samples.refuse_empty(stage, stage.inputs["data"])
    rows = samples["train"].at_most(samples.longest)
    plan = plan_steps(
        rows.lengths, settings.batch_tokens, stage.seed, settings.epochs, settings.tokens, steps=settings.steps
    )
    learner = student.learner()
    with Steps(stage, learner, len(plan)) as steps:
        for step in steps:
            chosen = token_mean([rows[i] for i in plan[step]])
            tokens = sum(len(row.ids) for row in chosen)
            sums = learner.gradient([[row] for row in chosen], next_token_loss)
            rate = learning_rate(settings.optimizer, step, len(plan))
            norm = steps.update(step, sums["loss"], rate)
            if norm is None:  # it goes back to a checkpoint
                continue
            steps.state["tokens"] = steps.state.get("tokens", 0) + tokens
            steps.log(step, tokens, loss=sums["loss"], learning_rate=rate, gradient_norm=norm, entropy=sums["entropy"])
        state = dict(steps.state)
    student.save(learner)
    counts = {"samples": len(rows), "left_out": samples.left_out.total()}
    return counts | {"steps": len(plan), "tokens": state["tokens"]}


def plan(stage: Stage) -> Estimate:
    """The estimate for `whetstone plan`. Tokens are known if they are bounded, or if data and tokenizer exist."""
    from whetstone.learner.cost import next_token_estimate

    return next_token_estimate(stage, stage.inputs["data"])


ROOM = Room(
    settings=Settings,
    run=run,
    plan=plan,
    inputs={"data": Input(("subset", "pairs")), "model": Input(("model",), or_path=True)},
    gives=("model",),
    uses=TRAINING,
    trains=True,
    longest=lambda settings: settings.max_length,
)
