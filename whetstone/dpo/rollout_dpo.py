"""Rollout DPO (Phi-4-Mini-Reasoning, stage 3): right rollouts preferred to wrong ones of the same problem.

The paper pairs the *teacher's* right and wrong rollouts; here the default is the *student's* own, because on a small model
the teacher's mistakes are not the student's (see docs/rollout_dpo.md for the measurement). `source = "teacher"` is the
paper's way. The reference is the model the stage starts from; its log-probabilities are computed once a pair, before the
first step, and kept on disk: no epoch and no resumed run computes them again, and no second model is held.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from whetstone.run.folder import Stage
from whetstone.run.progress import say
from whetstone.run.settings import CheckpointEvery, Optimizer, OptimizerSettings, TrainingSettings
from whetstone.run.tables import read_records, read_rows, write_records, write_rows

if TYPE_CHECKING:
    from whetstone.batch import Row
    from whetstone.chat import Chat
    from whetstone.learner.cost import Estimate
    from whetstone.learner.learner import Learner
    from whetstone.learner.parallel import ProcessGroup
    from whetstone.records import Pair

CHOSEN_MAY_FALL = 0.05  # nats a token, against the reference, before it is said
SCORED_AT_ONCE = 4096  # rows whose tokens' log-probabilities are in memory
WITHOUT_REFERENCE = ("simpo",)


class Settings(TrainingSettings):
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
    pairing: Literal["length_matched", "hardest", "one", "all"] = "length_matched"  # which of the student's rollouts
    max_pairs: int = Field(default=0, ge=0)  # at most so many in all; 0: all
    loss: Literal["sigmoid", "robust", "ipo", "simpo"] = "sigmoid"  # DPO's own is sigmoid
    beta: float = Field(default=0.1, gt=0)  # how hard the reference holds
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)  # sigmoid, robust: share of pairs believed to be swapped
    target_margin: float = Field(default=0.0, ge=0)  # simpo: its gamma, the margin asked for
    length_normalised: bool | None = None  # log-probabilities a token, not a sequence; None: with ipo and simpo
    chosen_nll: float = Field(default=0.0, ge=0)  # weight of the chosen side's cross-entropy
    epochs: float = Field(default=1.0, gt=0)  # passes over the pairs
    batch_pairs: int = Field(default=32, gt=0)  # pairs of one optimizer step
    optimizer: Optimizer = OptimizerSettings(learning_rate=3e-5, schedule="linear", warmup=0.1)
    checkpoint_every: CheckpointEvery = 20

    @model_validator(mode="after")
    def _loss_has_what_is_set(self) -> "Settings":
        if self.loss == "robust" and not self.label_smoothing:
            raise ValueError(
                'loss = "robust" corrects for a known share of swapped pairs, and label_smoothing = 0 says there is none. '
                'Set label_smoothing, 0.1 for instance, or loss = "sigmoid"'
            )
        if self.label_smoothing and self.loss not in ("sigmoid", "robust"):
            raise ValueError(
                f'label_smoothing = {self.label_smoothing} belongs to loss = "sigmoid" or "robust", not to "{self.loss}". '
                "Leave it out"
            )
        if self.target_margin and self.loss != "simpo":
            raise ValueError(f'target_margin = {self.target_margin} belongs to loss = "simpo". Leave it out')
        if self.loss == "simpo" and self.length_normalised is False:
            raise ValueError('loss = "simpo" is defined on log-probabilities a token. Leave length_normalised out')
        return self


def run(stage: Stage) -> dict[str, Any]:
    from whetstone import model as models
    from whetstone.batch import Row
    from whetstone.chat import Chat
    from whetstone.dpo.loss import make_loss, pair_rows, weigh
    from whetstone.learner.learner import Learner
    from whetstone.learner.order import plan_steps
    from whetstone.learner.parallel import join
    from whetstone.learner.schedule import learning_rate
    from whetstone.learner.steps import Steps

    settings: Settings = stage.settings
    device = models.choose_device(stage.parallel.device)
    model, tokenizer = models.load(stage.inputs["model"], device, stage.model.dtype, stage.longest)
    chat, process_group = Chat(tokenizer), join(stage.parallel, model.device.type)
    if settings.source == "student":  # before a process keeps only its share of the model
        student = models.sampled_from(model, stage.inputs["model"], stage.parallel, stage.longest)
        pairs, counts = student_pairs(stage, student, tokenizer, process_group)
        del student  # a copy's memory is the learner's
    else:
        pairs, counts = teacher_pairs(stage)
    if not pairs:
        raise ValueError(
            f"{stage.name} has no pair: no problem has both a right and a wrong {settings.source} rollout. Sample more "
            "(samples, sample_problems), at other levels (sample_levels), or from a better model."
        )
    if process_group.main:
        write_records(stage.output("pairs"), pairs)
    learner = Learner(model, chat.size, stage.parallel, settings.optimizer)
    sides = [side for pair in pairs for side in ids_of(chat, pair)]
    rows = [Row([*prompt, *ids], prompt=len(prompt)) for prompt, ids in sides]
    reference = [0.0] * len(rows) if settings.loss in WITHOUT_REFERENCE else reference_logprobs(stage, learner, rows)
    couples = [
        pair_rows(sides[i][0], sides[i][1], sides[i + 1][1], (reference[i], reference[i + 1]))
        for i in range(0, len(sides), 2)
    ]
    plan = plan_steps([1] * len(couples), settings.batch_pairs, stage.seed, settings.epochs)
    loss = make_loss(settings)
    with Steps(stage, learner, len(plan)) as steps:
        for step in steps:
            chosen = weigh([couples[i] for i in plan[step]])
            sums = learner.gradient(chosen, loss)
            rate = learning_rate(settings.optimizer, step, len(plan))
            norm = steps.update(step, sums["loss"], rate)
            if norm is None:
                continue
            tokens = sum(len(row.ids) for pair in chosen for row in pair)
            steps.log(step, tokens, learning_rate=rate, gradient_norm=norm, **sums)
            steps.state |= {"last": sums, "tokens": steps.state.get("tokens", 0) + tokens}
            watch_chosen_side(stage.name, steps.state, sums["chosen_gain"], last=step == len(plan) - 1)
        state = dict(steps.state)
    learner.save_model(tokenizer, stage.output("model"))
    return {
        **counts,
        "pairs": len(pairs),
        "steps": len(plan),
        "tokens": state["tokens"],
        "chosen_logprob_fell": state["first_chosen_gain"] - state["last"]["chosen_gain"],
    }


def reference_logprobs(stage: Stage, learner: "Learner", rows: Sequence["Row"]) -> list[float]:
    """The summed log-probability of each row under the model as it is now; from disk where they are all there."""
    kept = stage.folder / "reference"
    there = learner.process_group.main and kept.exists() and any(kept.iterdir())
    found = learner.process_group.first([row["logprob"] for row in read_rows(kept)] if there else [])
    if len(found) != len(rows):
        found = []
        for at in range(0, len(rows), SCORED_AT_ONCE):
            found += [float(values.sum()) for values in learner.row_logprobs(list(rows[at : at + SCORED_AT_ONCE]))]
        if learner.process_group.main:
            write_rows(kept, ({"logprob": value} for value in found))
    return found


def watch_chosen_side(name: str, state: dict[str, Any], gain: float, last: bool) -> None:
    """Says once that right answers become less likely: in three steps on end, or in the last one.

    `gain` is over the reference, on the step's own pairs, in nats a token.
    """
    fallen = state.setdefault("first_chosen_gain", gain) - gain
    state["fallen_for"] = state.get("fallen_for", 0) + 1 if fallen > CHOSEN_MAY_FALL else 0
    if (state["fallen_for"] >= 3 or (last and state["fallen_for"])) and not state.get("fall_was_said"):
        state["fall_was_said"] = True
        say(
            f"warning: {name} makes its own chosen side less likely (by {fallen:.3f} nats a token): the model may be "
            "unlearning right answers. Lower optimizer.learning_rate, or set chosen_nll = 1.0."
        )


def student_pairs(
    stage: Stage, model: Any, tokenizer: Any, process_group: "ProcessGroup"
) -> tuple[list["Pair"], dict[str, Any]]:
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
            sampler(model, tokenizer, stage.parallel, process_group.count),
            problems,
            settings.samples,
            sampling,
            verifier,
            stage.folder / "rollouts.jsonl",
            f"{stage.name}: the student's rollouts",
            process_group=process_group,
        )
    pairs = [
        pair
        for problem, group in zip(problems, groups, strict=True)
        for pair in build_pairs(problem, group, settings.pairs_per_problem, stage.seed, settings.pairing)
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


def plan(stage: Stage) -> "Estimate":
    """What can be known beforehand; how many pairs the student's rollouts make is not, only their upper bound."""
    from math import ceil

    from whetstone.learner.cost import training_estimate, with_sampling

    settings: Settings = stage.settings
    bound = "at most "
    if settings.source == "student":
        half = settings.samples // 2
        a_problem = {"one": 1, "all": half * (settings.samples - half)}.get(settings.pairing, half)
        pairs = settings.sample_problems * min(settings.pairs_per_problem, a_problem)
    elif stage.inputs["pairs"].exists():
        pairs, bound = sum(1 for _ in read_rows(stage.inputs["pairs"])), ""
    else:
        pairs = settings.max_pairs
    pairs = min(pairs, settings.max_pairs or pairs)
    side = settings.max_tokens  # an answer's; the prompt is short beside it
    estimate = training_estimate(
        stage.inputs["model"],
        stage.model,
        stage.parallel,
        step_tokens=2 * side * settings.batch_pairs,
        row_tokens=2 * side,
        checkpoints=stage.run.keep_checkpoints,
        tokens=ceil(settings.epochs * pairs) * 2 * side if pairs else None,
        steps=ceil(settings.epochs * pairs / settings.batch_pairs) if pairs else None,
        passes=1 + 1 / (3 * settings.epochs),  # the reference's log-probabilities, once a pair
        bound="at most ",
        lines={"pairs": f"{bound}{pairs:,} of two answers of at most {side:,} tokens"} if pairs else {},
    )
    if settings.source == "teacher":
        return estimate
    rollouts = settings.sample_problems * settings.samples
    estimate.lines["rollouts"] = f"at most {rollouts:,} of at most {side:,} tokens"
    return with_sampling(estimate, stage.inputs["model"], stage.model, stage.parallel, rollouts * side, side)
