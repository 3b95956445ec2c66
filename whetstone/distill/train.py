"""Distillation: the student learns from its own text, at every token of which the teacher's distribution is the target.

Agarwal et al. 2024 (GKD), arXiv 2306.13649; with the reverse KL, Gu et al. 2024 (MiniLLM), arXiv 2306.08543. The teacher has
the student's vocabulary. It is a model in this process, whose logits and the student's are compared chunk by chunk, or a server
that lists its most likely tokens (learner/divergence.py). `on_policy` below 1 takes some steps from a corpus's text or from the
teacher's, as GKD's λ does. With `target = "majority"` there is no teacher (majority.py).

No gradient flows through sampling: each text is a constant, as in GKD.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from whetstone.distill import majority
from whetstone.distill.settings import Settings
from whetstone.distill.teacher import teacher_of
from whetstone.learner.schedule import learning_rate
from whetstone.pool import pool_of, stop_on_mismatch
from whetstone.records import Problem, Rollout, Sampling, Verifier
from whetstone.run.folder import Stage
from whetstone.run.room import PROMPT_TOKENS, TRAINING, Estimate, Input, Room
from whetstone.run.tables import write_rows
from whetstone.sample import sample_groups, share_cut_off, share_right
from whetstone.window import Window

if TYPE_CHECKING:
    import torch

    from whetstone.batch import Batch, Row
    from whetstone.distill.teacher import Teacher
    from whetstone.learner.learner import Learner
    from whetstone.learner.steps import Steps
    from whetstone.learner.student import Student


def run(stage: Stage) -> dict[str, Any]:
    from whetstone.batch import by_prompt
    from whetstone.learner.next_token import token_mean
    from whetstone.learner.parallel import join
    from whetstone.learner.steps import Steps
    from whetstone.learner.student import load
    from whetstone.verify import MathVerifier

    settings: Settings = stage.settings
    student = load(stage)
    voted = settings.target == "majority"
    teacher = None if voted else teacher_of(stage, student, join(stage.parallel, student.model.device.type))
    learner = learner_of(stage, student, teacher)
    loss_of_rows = majority.loss if voted else loss
    with MathVerifier() as verifier, Steps(stage, learner, settings.steps) as steps:
        source = Source(stage, student, learner, teacher, verifier, steps)
        for step in steps:
            rows, metrics = source.rows(step)
            if not rows:
                steps.log(step, 0, **metrics)
                continue
            weighted = by_prompt(token_mean(rows), stage.parallel.micro_batch_tokens)
            sums = learner.gradient(weighted, loss_of_rows, settings.temperature)
            gap = sums.get("sampler_gap", 0.0)
            stop_on_mismatch(step, gap, settings.sampler_tolerance, "the text would be another model's")
            rate = learning_rate(settings.optimizer, step, settings.steps)
            norm = steps.update(step, sums["loss"], rate)
            if norm is None:  # training goes back to a checkpoint
                continue
            tokens = sum(len(row.ids) for row in rows)
            steps.log(step, tokens, learning_rate=rate, gradient_norm=norm, **metrics, **sums)
            steps.state["tokens"] = steps.state.get("tokens", 0) + tokens
            steps.state["last"] = sums["loss"]
            steps.state.setdefault("first", sums["loss"])
        state = dict(steps.state)
    if "tokens" not in state:
        _refuse_untrained(stage)
    student.save(learner)
    name = "loss" if voted else "divergence"
    return {
        "prompts": len(source.problems),
        "steps": settings.steps,
        "tokens": state["tokens"],
        f"{name}_at_first": state["first"],
        f"{name}_at_last": state["last"],
        **({"teacher_tokens": state["teacher_tokens"]} if "teacher_tokens" in state else {}),
    }


def _refuse_untrained(stage: Stage) -> None:
    settings: Settings = stage.settings
    if settings.target == "majority":
        raise ValueError(
            f"{stage.name}: no prompt had an answer that {settings.agreement:.0%} of its {settings.samples} rollouts gave. "
            "Lower agreement, raise samples, or take prompts that the student half knows (pool.levels)."
        )
    raise ValueError(f"{stage.name}: no step had a text to learn from: the teacher wrote none that ended (max_tokens).")


def learner_of(stage: Stage, student: "Student", teacher: "Teacher | None") -> "Learner":
    from whetstone.learner.divergence import Distilled
    from whetstone.learner.learner import Learner

    if teacher is None:
        return student.learner()
    settings: Settings = stage.settings
    root = Distilled(student.model, student.chat.size, teacher.model, settings.divergence, settings.beta)
    return Learner(student.model, student.chat.size, stage.parallel, settings.optimizer, root)


class Source:
    """The rows of each step, a function of the seed, the step and the student's weights."""

    def __init__(
        self, stage: Stage, student: "Student", learner: "Learner", teacher: "Teacher | None", verifier: Verifier,
        steps: "Steps",
    ):  # fmt: skip
        from whetstone.decode.forked_generator import sampler

        self.stage, self.student, self.learner, self.teacher = stage, student, learner, teacher
        self.verifier, self.steps, self.settings = verifier, steps, stage.settings
        group = learner.process_group
        self.policy = student.sampler(copied=group.sharded)
        self.engine = steps.watched(sampler(self.policy, student.tokenizer, stage.parallel, group.count))
        window = Window(student.chat, student.context, self.settings.max_tokens, student.prompting)
        self.problems, dropped = pool_of(stage.inputs["prompts"], self.settings.pool, f"{stage.seed}/prompts", window)
        write_rows(stage.folder / "dropped_prompts", dropped)
        self.texts = text_rows(stage, student)
        if teacher:
            teacher.begin(steps.state, self.problems[0])

    def rows(self, step: int) -> "tuple[list[Row], dict[str, float]]":
        chosen = drawn(self.problems, self.settings.prompts_per_step, self.stage.seed, step)
        seed = self.stage.seed * 1_000_003 + step + 1
        metrics: dict[str, float] = {}
        if writes(self.settings.on_policy, step):
            rows, metrics = self._of_student(chosen, seed)
        elif self.settings.text == "teacher" and self.teacher:
            self.steps.phase("teacher")
            rows, metrics = self.teacher.written(chosen, seed)
        else:
            rows = drawn(self.texts, self.settings.prompts_per_step, self.stage.seed, step)
        if not self.teacher or not rows:
            return rows, metrics
        self.steps.phase("teacher")
        rows, facts = self.teacher.scored(rows, self.steps.state)
        return rows, metrics | facts

    def _of_student(self, chosen: Sequence[Problem], seed: int) -> "tuple[list[Row], dict[str, float]]":
        settings, group = self.settings, self.learner.process_group
        self.steps.phase("publish")
        self.learner.publish(self.policy)
        sampling = Sampling(settings.temperature, settings.max_tokens, seed=seed)
        groups = sample_groups(
            self.engine, chosen, settings.samples, sampling, self.verifier,
            process_group=group, prompting=self.student.prompting,
        )  # fmt: skip
        rollouts = [rollout for part in groups for rollout in part]
        metrics = described(rollouts)
        if settings.target == "majority":
            counted = majority.elect(chosen, groups, self.verifier, settings.agreement) if group.main else None
            elected = group.first(counted)
            rollouts, metrics = elected.rollouts, metrics | elected.metrics
        return rows_of(rollouts), metrics


def loss(
    divergence: "torch.Tensor", logprobs: "torch.Tensor", entropy: "torch.Tensor", batch: "Batch"
) -> "tuple[torch.Tensor, dict[str, float]]":
    """(loss, sums) of (N,) each: the mean divergence per token, and how far the sampler is from the learner."""
    weights = batch.weights
    sums = {"entropy": float((weights * entropy).sum())}
    if "sampler" in batch.token:
        sums["sampler_gap"] = float((weights * (logprobs - batch.token["sampler"]).abs()).sum())
    return (weights * divergence).sum(), sums


def writes(share: float, step: int) -> bool:
    """Whether the student writes in this step: evenly spaced, so that any number of steps has about its `share`.

    >>> [writes(0.5, step) for step in range(4)]
    [False, True, False, True]
    """
    return int((step + 1) * share) > int(step * share)


def drawn(items: Sequence[Any], count: int, seed: int, step: int) -> list[Any]:
    """The step's items of an endless walk that is shuffled in each epoch. A function of (seed, step); none comes twice."""
    from whetstone.learner.order import order

    count = min(count, len(items))
    places = (divmod(at, len(items)) for at in range(step * count, (step + 1) * count))
    chosen = dict.fromkeys(int(order(len(items), seed, epoch)[i]) for epoch, i in places)
    return [items[i] for i in chosen]


def rows_of(rollouts: Sequence[Rollout]) -> "list[Row]":
    from whetstone.batch import answer_row

    return [answer_row(r.prompt_ids, r.ids, token={"sampler": r.logprobs}) for r in rollouts if r.ids]


def described(rollouts: Sequence[Rollout]) -> dict[str, float]:
    count = max(1, len(rollouts))
    return {
        "accuracy": share_right(rollouts),
        "truncated": share_cut_off(rollouts),
        "response_length": sum(len(r.ids) for r in rollouts) / count,
    }


def text_rows(stage: Stage, student: "Student") -> "Sequence[Row]":
    """The rows of `data`; none if all text is the student's own. Raises ValueError if none can be used."""
    from whetstone.learner.tokenise import tokenise

    if stage.settings.on_policy == 1 or stage.settings.text == "teacher":
        return []
    found = tokenise(stage, stage.inputs["data"], student.chat, context=student.context, prompting=student.prompting)
    found.refuse_empty(stage, stage.inputs["data"])
    return found["train"].at_most(found.longest)


def plan(stage: Stage) -> Estimate:
    from whetstone.learner.cost import Beside, training_estimate, with_sampling

    settings: Settings = stage.settings
    teacher, student = _parameters(stage)
    beside = Beside(samples=True, teacher=teacher)
    rollouts = settings.steps * settings.prompts_per_step * settings.samples
    estimate = training_estimate(
        stage,
        step_tokens=settings.prompts_per_step * settings.samples * settings.max_tokens,
        row_tokens=settings.max_tokens,
        tokens=rollouts * settings.max_tokens,
        steps=settings.steps,
        passes=1 + teacher / (3 * student),  # with a teacher's forward pass
        bound="at most ",
        steps_bound="",
        lines={"rollouts": f"at most {rollouts:,} of at most {settings.max_tokens:,} tokens"},
        beside=beside,
    )
    return with_sampling(estimate, stage, rollouts * settings.max_tokens, settings.max_tokens, beside)


def _parameters(stage: Stage) -> tuple[int, int]:
    """(of the teacher in this process, of the student); 0 of no teacher, and as many as the student if it is not known."""
    from whetstone.learner.shape import shape_of

    settings: Settings = stage.settings
    student = shape_of(stage.model_source, stage.model)
    own = student.parameters if student else 1
    if settings.teacher_server or settings.target == "majority":
        return 0, own
    teacher = shape_of(settings.teacher_model or stage.inputs.get("teacher"), stage.model)
    return teacher.parameters if teacher else own, own


def check(settings: Settings) -> None:
    """Before any stage runs. Raises FileNotFoundError or ValueError if the teacher cannot be used."""
    if settings.teacher_server:
        settings.teacher_server.require_variables()
    if settings.teacher_model:
        from whetstone.model_folder import check_model

        check_model(settings.teacher_model)


ROOM = Room(
    settings=Settings,
    run=run,
    plan=plan,
    check=check,
    inputs={
        "model": Input(("model",), or_path=True),
        "prompts": Input(("prompts", "problems")),
        "teacher": Input(("model",), optional=True, only_named=True, description="a stage that trained the teacher"),
        "data": Input(
            ("corpus", "subset"),
            used=lambda s: s.on_policy < 1 and s.text == "data",
            description="with on_policy below 1",
        ),
    },
    gives=("model",),
    models=lambda settings: [settings.teacher_model] if settings.teacher_model else [],
    uses=TRAINING,
    trains=True,
    longest=lambda settings: PROMPT_TOKENS + settings.max_tokens,
)
