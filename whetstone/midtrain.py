"""Mid-training (Phi-4-Mini-Reasoning, stage 1): next-token training on all verified chains of thought, packed.

Conversations are packed into rows of `max_length` tokens by best-fit decreasing. None is cut, and each attends to itself
only. Training ends early once the loss on held-out problems stops improving: after `patience` validations without a new best.
The weights of the best validation are the stage's model.

`curriculum` is the share of the conversations with which the first epoch begins, from short to long. A model with random
weights learns to copy and to add from them; a pretrained model does not need it. `word_dropout`, `rare_word_dropout` and
`sentence_dropout` leave parts of questions out, so that few real questions last longer (learner/question_dropout.py).

Without an input model and without `[model] path`, the stage starts from a tiny model with random weights, kept in `base/`.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from whetstone.learner.conversation import Conversation, read_conversation
from whetstone.run.folder import Stage, alone, published
from whetstone.run.progress import say
from whetstone.run.room import TRAINING, Estimate, Input, Room
from whetstone.run.settings import CheckpointEvery, NextTokenSettings, Optimizer, OptimizerSettings
from whetstone.run.tables import read_rows

if TYPE_CHECKING:
    from whetstone.batch import Packed
    from whetstone.learner.order import StepPlan
    from whetstone.learner.token_store import TokenStore

TEXTS_FOR_TOKENIZER = 20_000  # conversations that a tiny model's tokenizer is trained on, at most


class Settings(NextTokenSettings):
    loss_on: Literal["all", "response"] = Field("all", description="whether the question's tokens count too")
    curriculum: float = Field(0, ge=0, le=1, description="share of the conversations that come first, short to long")
    word_dropout: float = Field(0, ge=0, lt=1, description="share of the questions' words left out, numbers never")
    rare_word_dropout: float = Field(0, ge=0, lt=1, description="the share of words that few texts have; 0: the same")
    sentence_dropout: float = Field(0, ge=0, lt=1, description="share of sentences without a number left out")
    validate_every: int = Field(50, gt=0, description="steps between two validations")
    patience: int = Field(4, ge=0, description="validations without a new best after which it ends; 0: never")
    optimizer: Optimizer = OptimizerSettings(
        learning_rate=4e-3, schedule="cosine", warmup=0.05, floor=0.1, weight_decay=0.1
    )
    checkpoint_every: CheckpointEvery = 100

    MOVED: ClassVar[Mapping[str, str]] = {
        **NextTokenSettings.MOVED,
        "sequence_length": "max_length",
        "rare_below": "gone: a word is rare if fewer than 0.4 % of the questions have it",
    }


def run(stage: Stage) -> dict[str, Any]:
    from whetstone import model as models
    from whetstone.learner.next_token import mean_loss, next_token_loss, token_mean
    from whetstone.learner.schedule import learning_rate
    from whetstone.learner.steps import Steps
    from whetstone.learner.student import load
    from whetstone.learner.tokenise import tokenise

    settings: Settings = stage.settings
    student = load(stage, stage.model_source or tiny_base(stage))
    read = reader(settings, stage.inputs["corpus"], stage.seed)
    only_responses, splits = settings.loss_on == "response", ("train", "validation")
    corpus = tokenise(
        stage, stage.inputs["corpus"], student.chat, read, only_responses, splits, student.context, student.prompting
    )
    corpus.refuse_empty(stage, stage.inputs["corpus"])
    rows, held_out = (corpus[split].at_most(corpus.longest) for split in splits)
    packed, plan = packed_steps(settings, rows, stage.seed)
    learner = student.learner()
    with Steps(stage, learner, len(plan)) as steps:
        for step in steps:
            chosen = token_mean([rows[i] for number in plan[step] for i in packed[number]])
            tokens = sum(len(row.ids) for row in chosen)
            sums = learner.gradient([[row] for row in chosen], next_token_loss)
            rate = learning_rate(settings.optimizer, step, len(plan))
            norm = steps.update(step, sums["loss"], rate)
            if norm is None:  # it goes back to a checkpoint
                continue
            metrics = {"loss": sums["loss"], "learning_rate": rate, "gradient_norm": norm, "entropy": sums["entropy"]}
            if held_out and ((step + 1) % settings.validate_every == 0 or step + 1 == len(plan)):
                steps.phase("validate")
                metrics["validation_loss"] = mean_loss(learner, held_out)
                steps.validated(step, metrics["validation_loss"])
            steps.log(step, tokens, **metrics)
            steps.state |= {"tokens": steps.state.get("tokens", 0) + tokens, "steps": step + 1}
            if settings.patience and steps.state.get("worse", 0) >= settings.patience:
                say(f"{stage.name}: validation loss has not improved for {settings.patience} validations; done")
                break
        state = dict(steps.state)
        steps.restore_best()
    student.save(learner)
    return {
        "parameters": models.parameters(student.model), "conversations": len(packed.members),
        "left_out": corpus.left_out.total(), "steps": state["steps"], "tokens": state["tokens"],
        "validation_loss": state.get("best_loss"), "best_step": state.get("best_step"),
    }  # fmt: skip


def packed_steps(settings: Settings, rows: "TokenStore", seed: int) -> tuple["Packed", "StepPlan"]:
    """The conversations in packed rows, and the packed rows of each step."""
    from whetstone.batch import pack, pack_in_order
    from whetstone.learner.order import plan_steps, short_first

    if settings.curriculum:
        order = short_first(rows.lengths, seed, settings.curriculum)
        packed = pack_in_order(rows.lengths, order, settings.max_length)
    else:
        packed = pack(rows.lengths, settings.max_length)
    first = range(len(packed)) if settings.curriculum else None
    sizes = packed.sizes(rows.lengths)
    budget, tokens, steps = settings.batch_tokens, settings.tokens, settings.steps
    return packed, plan_steps(sizes, budget, seed, settings.epochs, tokens, first, steps)


def tiny_base(stage: Stage) -> Path:
    """The folder of a tiny model with random weights and a tokenizer trained on the corpus. Makes it if it does not exist."""
    from whetstone import model as models

    base = stage.folder / "base"
    with alone(stage.folder / "base.lock"):  # with several processes, one makes it
        if not base.exists():
            corpus = map(read_conversation, islice(read_rows(stage.inputs["corpus"]), TEXTS_FOR_TOKENIZER))
            texts = (f"{row.question} {row.answer}" for row in corpus if not row.fault)
            with published(base) as aside:
                models.save(*models.build_tiny(stage.model, texts, stage.seed), aside)
    return base


def reader(settings: Settings, corpus: Path, seed: int) -> Callable[[dict[str, Any]], Conversation]:
    """A function from a row of the corpus to a conversation, with question dropout if the settings ask for it.

    It must get all rows once, in order, because it draws random numbers.
    """
    from whetstone.learner.question_dropout import QuestionDropout, common_words

    shares = settings.word_dropout, settings.rare_word_dropout, settings.sentence_dropout
    if not any(shares):
        return read_conversation
    rows = map(read_conversation, read_rows(corpus) if settings.rare_word_dropout else ())
    drop = QuestionDropout(
        *shares, common_words(row.question for row in rows if row.split == "train" and not row.fault)
    )
    rng = random.Random(f"{seed}/word dropout")

    def read(row: dict[str, Any]) -> Conversation:
        conversation = read_conversation(row)
        if conversation.split != "train" or conversation.fault:
            return conversation
        return replace(conversation, question=drop(conversation.question, rng))

    return read


def plan(stage: Stage) -> Estimate:
    """The estimate for `whetstone plan`. Tokens are known if they are bounded, or if corpus and tokenizer exist."""
    from whetstone.learner.cost import next_token_estimate

    return next_token_estimate(stage, stage.inputs["corpus"], best=True)


ROOM = Room(
    settings=Settings,
    run=run,
    plan=plan,
    inputs={"corpus": Input(("corpus",)), "model": Input(("model",), optional=True)},
    gives=("model",),
    uses=TRAINING,
    trains=True,
    base=tiny_base,
    longest=lambda settings: settings.max_length,
)
