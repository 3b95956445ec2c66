"""Supervised fine-tuning on a compact, representative subset (Phi-4-Mini-Reasoning, stage 2).

Each sample is a sequence of its own ("not packed", so that the model learns where to stop). The loss is on the response and
its end-of-turn id only. The response is found by its length, never by id: models with bos = eos = pad learn to stop, too.

`data = "dpo/pairs"` trains on the chosen side of a DPO stage's pairs: the control that DPO has to beat.
"""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from whetstone.run.folder import Stage
from whetstone.run.room import TRAINING, Estimate, Input, Room
from whetstone.run.settings import CheckpointEvery, Optimizer, OptimizerSettings, TrainingSettings
from whetstone.run.tables import read_rows

if TYPE_CHECKING:
    from whetstone.learner.tokenise import Conversation


class Settings(TrainingSettings):
    epochs: float = Field(1.0, gt=0, description="passes over the samples")
    tokens: int = Field(0, ge=0, description="stop once this many tokens are spent; 0: after the epochs")
    batch_tokens: int = Field(4096, gt=0, description="tokens per optimizer step")
    max_length: int = Field(1024, gt=1, description="tokens of a sample; longer ones are left out")
    optimizer: Optimizer = OptimizerSettings(
        learning_rate=1e-3, schedule="cosine", warmup=0.05, floor=0.05, weight_decay=0.1
    )
    checkpoint_every: CheckpointEvery = 50


def run(stage: Stage) -> dict[str, Any]:
    from whetstone.learner.next_token import next_token_loss, token_mean
    from whetstone.learner.order import plan_steps
    from whetstone.learner.schedule import learning_rate
    from whetstone.learner.steps import Steps
    from whetstone.learner.student import load
    from whetstone.learner.tokenise import tokenise

    settings: Settings = stage.settings
    student = load(stage)
    samples = tokenise(stage, stage.inputs["data"], student.chat, conversation, settings.max_length)
    rows = samples["train"].at_most(settings.max_length)
    plan = plan_steps(rows.lengths, settings.batch_tokens, stage.seed, settings.epochs, settings.tokens)
    if not plan:
        raise ValueError(
            f"{stage.inputs['data']} has no sample of at most {settings.max_length} tokens: there is nothing to train on. "
            "Raise max_length, or look into dropped/ for the reasons."
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


def conversation(row: dict[str, Any]) -> "Conversation":
    """A question and its answer. For a pair: the chosen side, as the sampled ids if there are any."""
    from whetstone.learner.tokenise import Conversation

    if "chosen" not in row:
        return Conversation(row.get("problem_id"), row.get("question"), row.get("text"))
    ids = {"prompt_ids": row["prompt_ids"] or (), "answer_ids": row["chosen_ids"] or ()}
    return Conversation(row.get("problem_id"), row.get("question"), row["chosen"], **ids)


def plan(stage: Stage) -> Estimate:
    """The estimate for `whetstone plan`. Tokens are known if they are bounded, or if data and tokenizer exist."""
    from whetstone.learner.cost import next_token_estimate

    data = read_rows(stage.inputs["data"]) if stage.inputs["data"].exists() else ()
    texts = (f"{row['question']} {row.get('chosen') or row['text']}" for row in data)
    return next_token_estimate(stage, texts, stage.settings.max_length, stage.run.keep_checkpoints)


ROOM = Room(
    settings=Settings,
    run=run,
    plan=plan,
    inputs={"data": Input(("subset", "pairs")), "model": Input(("model",), optional=True)},
    gives=("model",),
    uses=TRAINING,
    trains=True,
    longest=lambda settings: settings.max_length,
)
