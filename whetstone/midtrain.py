"""Mid-training: next-token training on all verified chains of thought, packed (Phi-4-Mini-Reasoning, stage 1).

Whole conversations are packed best-fit-decreasing into rows of `sequence_length` tokens, none is cut; inside a row each
attends to itself alone. Fed until the loss on held-out problems stops improving: `patience` validations without a new best
end the stage, and the best weights are kept.

`curriculum` is the share of the conversations that the first epoch begins with, from short to long: a model made from
nothing learns to copy and to add from them, a base model needs no such help.

`word_dropout`, `rare_word_dropout` and `sentence_dropout` make few real questions last longer: each conversation asks its
question with something missing (learner/question_dropout.py).

Without a model above it, and without `[model] path`, the stage makes a tiny model from nothing and leaves it in `base/`.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from whetstone.run.folder import Stage, alone
from whetstone.run.progress import say
from whetstone.run.settings import CheckpointEvery, Optimizer, OptimizerSettings, TrainingSettings
from whetstone.run.tables import read_rows

if TYPE_CHECKING:
    from whetstone.learner.cost import Estimate
    from whetstone.learner.question_dropout import QuestionDropout
    from whetstone.learner.tokenise import Conversation


class Settings(TrainingSettings):
    corpus: str | None = None  # the stage (or stage/artifact) with the chains of thought
    model: str | None = None  # the stage whose model is trained; default: from [model]
    epochs: float = Field(default=1.0, gt=0)  # passes over the corpus
    tokens: int = Field(default=0, ge=0)  # stop once so many tokens are spent; 0: after the epochs
    batch_tokens: int = Field(default=4096, gt=0)  # tokens of one optimizer step
    sequence_length: int = Field(default=1024, gt=1)  # of a packed row
    loss_on: Literal["all", "response"] = "all"  # whether the question's tokens count too
    curriculum: float = Field(default=0, ge=0, le=1)  # share of the first epoch that goes from short to long
    word_dropout: float = Field(default=0, ge=0, lt=1)  # share of the questions' words left out, numbers never
    rare_word_dropout: float = Field(default=0, ge=0, lt=1)  # share of the rare ones among them; 0: as of the others
    rare_below: float = Field(default=0.01, gt=0, lt=1)  # a word is rare that less than this share of the questions has
    sentence_dropout: float = Field(default=0, ge=0, lt=1)  # of sentences without a number, the last never
    validate_every: int = Field(default=50, gt=0)  # steps
    patience: int = Field(default=4, ge=0)  # validations without a new best before it ends; 0: never
    optimizer: Optimizer = OptimizerSettings(
        learning_rate=4e-3, schedule="cosine", warmup=0.05, floor=0.1, weight_decay=0.1
    )
    checkpoint_every: CheckpointEvery = 100


def run(stage: Stage) -> dict[str, Any]:
    from whetstone import model as models
    from whetstone.batch import pack, pack_in_order
    from whetstone.chat import Chat
    from whetstone.learner.learner import Learner
    from whetstone.learner.next_token import mean_loss, next_token_loss, token_mean
    from whetstone.learner.order import plan_steps, short_first
    from whetstone.learner.schedule import learning_rate
    from whetstone.learner.steps import Steps
    from whetstone.learner.tokenise import tokenise

    settings: Settings = stage.settings
    model, tokenizer = start(stage)
    chat = Chat(tokenizer)
    corpus = tokenise(
        stage,
        stage.inputs["corpus"],
        chat,
        reader(dropout(settings, stage.inputs["corpus"]), stage.seed),
        settings.sequence_length,
        responses_only=settings.loss_on == "response",
        splits=("train", "validation"),
    )
    rows, held_out = corpus["train"], corpus["validation"].at_most(settings.sequence_length)
    if settings.curriculum:
        order = short_first(rows.lengths, stage.seed, settings.curriculum)
        rooms = pack_in_order(rows.lengths, order, settings.sequence_length)
    else:
        rooms = pack(rows.lengths, settings.sequence_length)
    first = range(len(rooms)) if settings.curriculum else None
    sizes = rooms.sizes(rows.lengths)
    plan = plan_steps(sizes, settings.batch_tokens, stage.seed, settings.epochs, settings.tokens, first)
    if not plan:
        raise ValueError(f"{stage.inputs['corpus']} has no training conversation that fits: nothing to train on.")
    learner = Learner(model, chat.size, stage.parallel, settings.optimizer)
    with Steps(stage, learner, len(plan)) as steps:
        for step in steps:
            chosen = token_mean([rows[i] for room in plan[step] for i in rooms[room]])
            tokens = sum(len(row.ids) for row in chosen)
            sums = learner.gradient([[row] for row in chosen], next_token_loss)
            rate = learning_rate(settings.optimizer, step, len(plan))
            norm = steps.update(step, sums["loss"], rate)
            if norm is None:
                continue
            facts = {"loss": sums["loss"], "learning_rate": rate, "gradient_norm": norm, "entropy": sums["entropy"]}
            if held_out and ((step + 1) % settings.validate_every == 0 or step + 1 == len(plan)):
                steps.phase("validate")
                facts["validation_loss"] = mean_loss(learner, held_out)
                steps.validated(step, facts["validation_loss"])
            steps.log(step, tokens, **facts)
            steps.state |= {"tokens": steps.state.get("tokens", 0) + tokens, "steps": step + 1}
            if settings.patience and steps.state.get("worse", 0) >= settings.patience:
                say(f"{stage.name}: validation loss has not improved for {settings.patience} validations; done")
                break
        state = dict(steps.state)
        steps.restore_best()
    learner.save_model(tokenizer, stage.output("model"))
    return {
        "parameters": models.parameters(model),
        "conversations": len(rooms.members),
        "left_out": corpus.left_out.total(),
        "steps": state["steps"],
        "tokens": state["tokens"],
        "validation_loss": state.get("best_loss"),
        "best_step": state.get("best_step"),
    }


def start(stage: Stage) -> tuple[Any, Any]:
    """The model above, or that of `[model] path`, or a tiny one made from nothing (kept in `base/`)."""
    from whetstone import model as models

    device = models.choose_device(stage.parallel.device)
    if "model" in stage.inputs:
        return models.load(stage.inputs["model"], device, stage.model.dtype, stage.longest)
    if stage.model.path:
        return models.load(stage.model.path, device, stage.model.dtype, stage.longest)
    base = stage.folder / "base"
    with alone(stage.folder / "base.lock"):  # of several processes one makes it, and all begin with the same
        if not base.exists():
            corpus = map(conversation, islice(read_rows(stage.inputs["corpus"]), 20_000))
            texts = (f"{one.question} {one.answer}" for one in corpus if not one.fault)
            aside = stage.output("base.part")
            models.save(*models.build_tiny(stage.model, texts, stage.seed), aside)
            aside.rename(base)
    return models.load(base, device, longest=stage.longest)


def conversation(row: Mapping[str, Any]) -> "Conversation":
    from whetstone.learner.tokenise import Conversation

    return Conversation(row.get("problem_id"), row.get("question"), row.get("text"), row.get("split"))


def dropout(settings: Settings, corpus: Path) -> "QuestionDropout":
    from whetstone.learner.question_dropout import QuestionDropout, common_words

    found = QuestionDropout(settings.word_dropout, settings.rare_word_dropout, settings.sentence_dropout)
    if not settings.rare_word_dropout:
        return found
    taught = (one.question for one in map(conversation, read_rows(corpus)) if one.split == "train" and not one.fault)
    return replace(found, common=common_words(taught, settings.rare_below))


def reader(dropout: "QuestionDropout", seed: int) -> Callable[[dict[str, Any]], "Conversation"]:
    """What makes a conversation of each of the corpus's rows, which are given in their order, once."""
    rng = random.Random(f"{seed}/word dropout")

    def read(row: dict[str, Any]) -> "Conversation":
        one = conversation(row)
        if dropout.on and one.split == "train" and not one.fault:
            one = replace(one, question=dropout(one.question, rng))
        return one

    return read


def plan(stage: Stage) -> "Estimate":
    """What can be known beforehand: tokens only where they are bounded, or corpus and tokenizer are there."""
    from whetstone.learner.cost import next_token_estimate

    corpus = read_rows(stage.inputs["corpus"]) if stage.inputs["corpus"].exists() else ()
    texts = (f"{row['question']} {row['text']}" for row in corpus if row["split"] == "train")
    kept = stage.run.keep_checkpoints + 1  # and the best
    return next_token_estimate(stage, texts, stage.settings.sequence_length, kept)
