"""Supervised fine-tuning on a compact, representative subset (Phi-4-Mini-Reasoning, stage 2).

Whole samples, one sequence each ("not packed": so the model learns where to stop), loss on the response and its end of
turn only. The response is masked by its length, never by id: models that ship bos = eos = pad learn to stop all the same.

`data = "dpo/pairs"` trains on the chosen side of a DPO stage's pairs instead: the control that DPO has to beat.
"""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from whetstone.run.folder import Stage
from whetstone.run.settings import CheckpointEvery, Optimizer, OptimizerSettings, TrainingSettings
from whetstone.run.tables import read_rows

if TYPE_CHECKING:
    from whetstone.learner.cost import Estimate
    from whetstone.learner.tokenise import Conversation


class Settings(TrainingSettings):
    data: str | None = None  # a corpus stage's subset, or pairs (their chosen side)
    model: str | None = None  # the stage whose model is trained
    epochs: float = Field(default=1.0, gt=0)  # passes over the samples
    tokens: int = Field(default=0, ge=0)  # stop once so many tokens are spent; 0: after the epochs
    batch_tokens: int = Field(default=4096, gt=0)  # tokens of one optimizer step
    max_length: int = Field(default=1024, gt=1)  # longer samples are left out, whole
    optimizer: Optimizer = OptimizerSettings(
        learning_rate=1e-3, schedule="cosine", warmup=0.05, floor=0.05, weight_decay=0.1
    )
    checkpoint_every: CheckpointEvery = 50


def run(stage: Stage) -> dict[str, Any]:
    from whetstone import model as models
    from whetstone.chat import Chat
    from whetstone.learner.learner import Learner
    from whetstone.learner.next_token import next_token_loss, token_mean
    from whetstone.learner.order import plan_steps
    from whetstone.learner.schedule import learning_rate
    from whetstone.learner.steps import Steps
    from whetstone.learner.tokenise import tokenise

    settings: Settings = stage.settings
    source = stage.inputs.get("model") or stage.model.path
    if source is None:
        raise ValueError(f"{stage.name} has no model to train: put a midtrain stage above it, or set [model] path.")
    model, tokenizer = models.load(
        source, models.choose_device(stage.parallel.device), stage.model.dtype, stage.longest
    )
    chat = Chat(tokenizer)
    samples = tokenise(stage, stage.inputs["data"], chat, conversation, settings.max_length)
    rows = samples["train"].at_most(settings.max_length)
    plan = plan_steps(rows.lengths, settings.batch_tokens, stage.seed, settings.epochs, settings.tokens)
    if not plan:
        raise ValueError(
            f"{stage.inputs['data']} has no sample of at most {settings.max_length} tokens: nothing to train on."
        )
    learner = Learner(model, chat.size, stage.parallel, settings.optimizer)
    with Steps(stage, learner, len(plan)) as steps:
        for step in steps:
            chosen = token_mean([rows[i] for i in plan[step]])
            tokens = sum(len(row.ids) for row in chosen)
            sums = learner.gradient([[row] for row in chosen], next_token_loss)
            rate = learning_rate(settings.optimizer, step, len(plan))
            norm = steps.update(step, sums["loss"], rate)
            if norm is None:
                continue
            steps.state["tokens"] = steps.state.get("tokens", 0) + tokens
            steps.log(step, tokens, loss=sums["loss"], learning_rate=rate, gradient_norm=norm, entropy=sums["entropy"])
        state = dict(steps.state)
    learner.save_model(tokenizer, stage.output("model"))
    return {
        "samples": len(rows),
        "left_out": samples.left_out.total(),
        "steps": len(plan),
        "tokens": state["tokens"],
    }


def conversation(row: dict[str, Any]) -> "Conversation":
    """A question and its answer; of a pair, the chosen side, as the ids that were sampled where there are any."""
    from whetstone.learner.tokenise import Conversation

    if "chosen" not in row:
        return Conversation(row.get("problem_id"), row.get("question"), row.get("text"))
    ids = {"prompt_ids": row["prompt_ids"] or (), "answer_ids": row["chosen_ids"] or ()}
    return Conversation(row.get("problem_id"), row.get("question"), row["chosen"], **ids)


def plan(stage: Stage) -> "Estimate":
    """What can be known beforehand: tokens only where they are bounded, or data and tokenizer are there."""
    from whetstone.learner.cost import next_token_estimate

    data = read_rows(stage.inputs["data"]) if stage.inputs["data"].exists() else ()
    texts = (f"{row['question']} {row.get('chosen') or row['text']}" for row in data)
    return next_token_estimate(stage, texts, stage.settings.max_length, stage.run.keep_checkpoints)
