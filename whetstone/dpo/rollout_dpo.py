"""Rollout DPO (Phi-4-Mini-Reasoning, stage 3): right rollouts preferred to wrong ones of the same problem.

The paper pairs the *teacher's* right and wrong rollouts; here the default is the *student's* own, because on a small model
the teacher's mistakes are not the student's (see docs/rollout_dpo.md for the measurement). `source = "teacher"` is the
paper's way. The reference is the model the stage starts from; its log-probabilities are computed once a pair.
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from whetstone.run.folder import Stage
from whetstone.run.progress import say
from whetstone.run.settings import SpikeSettings, StageSettings
from whetstone.run.tables import read_records, read_rows, write_records

if TYPE_CHECKING:
    from whetstone.chat import Chat
    from whetstone.records import Pair


class Settings(StageSettings):
    model: str | None = None  # the stage whose model is trained, and is the reference
    prompts: str | None = None  # the corpus stage whose prompts the student tries
    pairs: str | None = None  # the teacher's pairs, used with source = "teacher"
    source: Literal["student", "teacher"] = "student"  # whose rollouts are paired
    sample_problems: int = Field(default=400, gt=0)  # train problems the student tries
    sample_levels: list[int] | None = None  # their levels; None: all
    samples: int = Field(default=8, ge=2)  # rollouts of each
    temperature: float = Field(default=1.0, gt=0)  # of the student's rollouts
    max_tokens: int = Field(default=512, gt=0)  # longest rollout
    pairs_per_problem: int = Field(default=2, gt=0)  # at most
    max_pairs: int = Field(default=0, ge=0)  # at most so many in all; 0: all
    beta: float = Field(default=0.1, gt=0)  # how hard the reference holds
    length_normalised: bool = False  # log-probabilities a token instead of a sequence
    chosen_nll: float = Field(default=0.0, ge=0)  # weight of the chosen side's cross-entropy
    learning_rate: float = Field(default=3e-5, gt=0)  # the peak
    schedule: Literal["constant", "linear", "cosine"] = "linear"  # from the peak down
    warmup: float = Field(default=0.1, ge=0, le=1)  # share of the steps
    weight_decay: float = Field(default=0.0, ge=0)  # AdamW's
    epochs: float = Field(default=1.0, gt=0)  # passes over the pairs
    batch_pairs: int = Field(default=32, gt=0)  # pairs of one optimizer step
    checkpoint_every: int = Field(default=20, gt=0)  # steps
    spikes: SpikeSettings = SpikeSettings()  # what to do when the loss blows up


def run(stage: Stage) -> dict[str, Any]:
    from whetstone import model as models
    from whetstone.batch import Row
    from whetstone.chat import Chat
    from whetstone.dpo.loss import DPOLoss, pair_rows, weigh
    from whetstone.learner.learner import Learner
    from whetstone.learner.next_token import plan_steps
    from whetstone.learner.schedule import learning_rate
    from whetstone.learner.steps import Steps

    settings: Settings = stage.settings
    model, tokenizer = models.load(
        stage.inputs["model"], models.choose_device(stage.parallel.device), stage.model.dtype
    )
    chat = Chat(tokenizer)
    pairs, counts = student_pairs(stage, model, tokenizer) if settings.source == "student" else teacher_pairs(stage)
    if not pairs:
        raise ValueError(
            f"{stage.name} has no pair: no problem has both a right and a wrong {settings.source} rollout. Sample more "
            "(samples, sample_problems), at other levels (sample_levels), or from a better model."
        )
    write_records(stage.output("pairs"), pairs)
    learner = Learner(model, chat.size, stage.parallel, weight_decay=settings.weight_decay)
    sides = [side for pair in pairs for side in ids_of(chat, pair)]
    rows = [Row([*prompt, *ids], prompt=len(prompt)) for prompt, ids in sides]
    reference = [float(values.sum()) for values in learner.row_logprobs(rows)]
    couples = [
        pair_rows(sides[i][0], sides[i][1], sides[i + 1][1], (reference[i], reference[i + 1]))
        for i in range(0, len(sides), 2)
    ]
    plan = plan_steps([1] * len(couples), settings.batch_pairs, stage.seed, settings.epochs)
    loss = DPOLoss(settings.beta, settings.length_normalised, settings.chosen_nll)
    with Steps(stage, learner, len(plan), settings.checkpoint_every, settings.spikes) as steps:
        for step in steps:
            chosen = weigh([couples[i] for i in plan[step]])
            sums = learner.gradient(chosen, loss)
            rate = learning_rate(settings.learning_rate, step, len(plan), settings.warmup, settings.schedule)
            norm = steps.update(step, sums["loss"], rate)
            if norm is None:
                continue
            tokens = sum(len(row.ids) for pair in chosen for row in pair)
            steps.log(step, tokens, learning_rate=rate, gradient_norm=norm, **sums)
            steps.state.setdefault("first_chosen_logprob", sums["chosen_logprob"])
            steps.state |= {"last": sums, "tokens": steps.state.get("tokens", 0) + tokens}
        state = dict(steps.state)
    fallen = state["first_chosen_logprob"] - state["last"]["chosen_logprob"]
    if fallen > 0.05:
        say(
            f"warning: {stage.name} made its own chosen side less likely (by {fallen:.3f} nats a token): the model may "
            "be unlearning right answers. Lower learning_rate, or set chosen_nll = 1.0."
        )
    models.save(model, tokenizer, stage.output("model"))
    return {**counts, "pairs": len(pairs), "steps": len(plan), "tokens": state["tokens"], "chosen_logprob_fell": fallen}


def student_pairs(stage: Stage, model: Any, tokenizer: Any) -> tuple[list["Pair"], dict[str, Any]]:
    """Sample the model the stage starts from on train problems, and pair what it gets right with what it gets wrong."""
    from whetstone.decode.forked_generator import sampler
    from whetstone.dpo.pairs import build_pairs
    from whetstone.records import Problem, Sampling
    from whetstone.sample import sample_journalled, share_right
    from whetstone.verify import MathVerifier

    settings: Settings = stage.settings
    problems = [
        p
        for p in read_records(Problem, stage.inputs["prompts"])
        if p.split == "train" and (settings.sample_levels is None or p.level in settings.sample_levels)
    ]
    problems = shuffled(problems, stage.seed)[: settings.sample_problems]
    sampling = Sampling(settings.temperature, settings.max_tokens, seed=stage.seed)
    with MathVerifier() as verifier:
        groups = sample_journalled(
            sampler(model, tokenizer, stage.parallel),
            problems,
            settings.samples,
            sampling,
            verifier,
            stage.folder / "rollouts.jsonl",
            f"{stage.name}: the student's rollouts",
        )
    pairs = [
        pair
        for problem, group in zip(problems, groups, strict=True)
        for pair in build_pairs(problem, group, settings.pairs_per_problem, stage.seed)
    ]
    if settings.max_pairs:
        pairs = shuffled(pairs, stage.seed)[: settings.max_pairs]
    rollouts = [r for group in groups for r in group]
    return pairs, {
        "problems": len(problems),
        "rollouts": len(rollouts),
        "right": share_right(rollouts),
        "truncated": sum(r.stop == "length" for r in rollouts) / len(rollouts),
    }


def teacher_pairs(stage: Stage) -> tuple[list["Pair"], dict[str, Any]]:
    from whetstone.records import Pair

    settings: Settings = stage.settings
    pairs = list(read_records(Pair, stage.inputs["pairs"]))
    return (shuffled(pairs, stage.seed)[: settings.max_pairs] if settings.max_pairs else pairs), {}


def shuffled(items: list[Any], seed: int) -> list[Any]:
    import random

    items = list(items)
    random.Random(f"{seed}/pairs").shuffle(items)
    return items


def ids_of(chat: "Chat", pair: "Pair") -> list[tuple[list[int], list[int]]]:
    """(prompt, answer) ids of the chosen and the rejected side: sampled ids as they are, a teacher's text tokenised."""
    prompt = pair.prompt_ids or chat.question_ids(pair.question)
    if pair.chosen_ids:
        return [(prompt, pair.chosen_ids), (prompt, pair.rejected_ids)]
    chosen, rejected = chat.completion_ids([pair.chosen, pair.rejected])
    return [(prompt, chosen), (prompt, rejected)]


def plan(stage: Stage) -> dict[str, Any]:
    """What can be known beforehand; how many pairs the student's rollouts make is not, only their upper bound."""
    from math import ceil

    from whetstone.learner.cost import training_cost

    settings: Settings = stage.settings
    known: dict[str, Any] = {}
    if settings.source == "student":
        tried = settings.sample_problems
        known["rollouts"] = f"at most {tried * settings.samples:,} of at most {settings.max_tokens:,} tokens"
        pairs, about = tried * min(settings.pairs_per_problem, settings.samples // 2), "at most "
    else:
        there = stage.inputs["pairs"].exists()
        pairs, about = sum(1 for _ in read_rows(stage.inputs["pairs"])) if there else settings.max_pairs, ""
        about = about if there else "at most "
    if pairs:
        pairs = min(pairs, settings.max_pairs or pairs)
        known |= {
            "pairs": f"{about}{pairs:,}",
            "steps": f"{about}{ceil(settings.epochs * pairs / settings.batch_pairs):,}",
        }
    return known | training_cost(
        stage.inputs["model"],
        stage.model,
        stage.parallel,
        stage.parallel.micro_batch_tokens,
        stage.run.keep_checkpoints,
    )
