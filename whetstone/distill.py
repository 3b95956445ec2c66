"""On-policy distillation: the student writes, and at every token that it wrote the teacher's whole distribution is the target.

Agarwal et al. 2024 (GKD), arXiv 2306.13649; with the reverse KL, Gu et al. 2024 (MiniLLM), arXiv 2306.08543. The teacher is a
model folder with the student's vocabulary, held in this process; its logits and the student's are compared chunk by chunk
(learner/divergence.py). `on_policy` below 1 takes some steps from the text of a corpus, as GKD's λ does.

No gradient flows through sampling: each text is a constant, as in GKD.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from whetstone.learner.schedule import learning_rate
from whetstone.pool import PoolSettings, StudentSettings, pool_of, stop_on_mismatch
from whetstone.records import Rollout, Sampling
from whetstone.run.folder import Stage
from whetstone.run.progress import say
from whetstone.run.room import PROMPT_TOKENS, TRAINING, Estimate, Input, Room
from whetstone.run.settings import CheckpointEvery, Optimizer, OptimizerSettings
from whetstone.run.tables import write_rows
from whetstone.sample import sample_groups, share_cut_off, share_right
from whetstone.window import Window

if TYPE_CHECKING:
    import torch

    from whetstone.batch import Batch, Row
    from whetstone.learner.student import Student


class Settings(StudentSettings):
    teacher_model: str = Field(
        "", description="a model folder, run or hub name; left out: the stage named by `teacher`"
    )
    divergence: Literal["reverse", "forward", "jensen_shannon"] = Field(
        "reverse", description="KL of the student to the teacher, of the teacher to the student, or between both"
    )
    beta: float = Field(0.5, gt=0, lt=1, description="jensen_shannon: the teacher's share in the mixture")
    on_policy: float = Field(
        1.0, ge=0, le=1, description="share of the steps on the student's own text; the others are on `data`"
    )
    steps: int = Field(50, gt=0, le=10**8, description="samplings, each with one update")
    prompts_per_step: int = Field(32, gt=0, le=10**6, description="prompts of one step, or conversations of `data`")
    samples: int = Field(1, gt=0, le=10**6, description="rollouts per prompt")
    pool: PoolSettings = Field(PoolSettings(prompts=1024), description="which prompts are used")
    max_length: int = Field(
        1024, gt=1, le=2**30, description="tokens of a conversation of `data`; longer ones are left out"
    )
    sampler_tolerance: float = Field(
        0.05, gt=0, description="mean |log-probability gap| to the learner that stops training"
    )
    optimizer: Optimizer = OptimizerSettings(learning_rate=1e-4, warmup=0.1)
    checkpoint_every: CheckpointEvery = 10

    @model_validator(mode="after")
    def _beta_is_used(self) -> "Settings":
        if "beta" in self.model_fields_set and self.divergence != "jensen_shannon":
            raise ValueError(f'beta = {self.beta} belongs to divergence = "jensen_shannon". Leave it out')
        return self


def run(stage: Stage) -> dict[str, Any]:
    from whetstone.batch import by_prompt
    from whetstone.decode.forked_generator import sampler
    from whetstone.learner.divergence import Distilled
    from whetstone.learner.learner import Learner
    from whetstone.learner.next_token import token_mean
    from whetstone.learner.steps import Steps
    from whetstone.learner.student import load
    from whetstone.verify import MathVerifier

    settings: Settings = stage.settings
    student = load(stage)
    root = Distilled(student.model, student.chat.size, teacher_of(stage, student), settings.divergence, settings.beta)
    learner = Learner(student.model, student.chat.size, stage.parallel, settings.optimizer, root)
    process_group = learner.process_group
    policy = student.sampler(copied=process_group.sharded)
    engine = sampler(policy, student.tokenizer, stage.parallel, process_group.count)
    window = Window(student.chat, student.context, settings.max_tokens, student.prompting)
    problems, dropped = pool_of(stage.inputs["prompts"], settings.pool, f"{stage.seed}/prompts", window)
    write_rows(stage.folder / "dropped_prompts", dropped)
    texts = text_rows(stage, student)
    with MathVerifier() as verifier, Steps(stage, learner, settings.steps) as steps:
        for step in steps:
            metrics: dict[str, float] = {}
            if writes(settings.on_policy, step):
                steps.phase("publish")
                learner.publish(policy)
                chosen = drawn(problems, settings.prompts_per_step, stage.seed, step)
                sampling = Sampling(settings.temperature, settings.max_tokens, seed=stage.seed * 1_000_003 + step + 1)
                groups = sample_groups(
                    steps.watched(engine), chosen, settings.samples, sampling, verifier,
                    process_group=process_group, prompting=student.prompting,
                )  # fmt: skip
                rollouts = [rollout for group in groups for rollout in group]
                rows, metrics = rows_of(rollouts), described(rollouts)
            else:
                rows = drawn(texts, settings.prompts_per_step, stage.seed, step)
            weighted = by_prompt(token_mean(rows), stage.parallel.micro_batch_tokens)
            sums = learner.gradient(weighted, loss, settings.temperature)
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
    student.save(learner)
    return {
        "prompts": len(problems),
        "steps": settings.steps,
        "tokens": state["tokens"],
        "divergence_at_first": state["first"],
        "divergence_at_last": state["last"],
    }


def teacher_of(stage: Stage, student: "Student") -> Any:
    """The teacher, in the type of the weights. Raises ValueError if its vocabulary is not the student's."""
    from whetstone import model as models
    from whetstone.chat import Chat

    settings: Settings = stage.settings
    source = settings.teacher_model or stage.inputs.get("teacher")
    if source is None:
        raise ValueError(
            f'{stage.name} has no teacher: set teacher_model = "FOLDER", or teacher = "STAGE" for a stage above.'
        )
    model, tokenizer = models.load(source, student.model.device.type, stage.model.dtype, stage.longest)
    ours, theirs = student.tokenizer.get_vocab(), tokenizer.get_vocab()
    if ours != theirs:
        other = next((token for token in ours if theirs.get(token) != ours[token]), None)
        where = f"{other!r} is {ours[other]} here and {theirs.get(other)} there" if other else "it has more tokens"
        raise ValueError(
            f"{stage.name}: the teacher {source} has another vocabulary than the student ({where}), and its probabilities "
            "are compared token by token. Take a teacher of the same family; with another one, let it write text instead: a "
            'rollouts stage with teacher = "server", then sft.'
        )
    chat = Chat(tokenizer, model.generation_config.eos_token_id)
    if chat.fingerprint() != student.chat.fingerprint():
        say(f"{stage.name}: the teacher's chat template or ends differ; it reads the student's prompts as they are")
    say(f"{stage.name}: teacher from {source}: {models.parameters(model):,} parameters")
    return model


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

    if stage.settings.on_policy == 1:
        return []
    found = tokenise(stage, stage.inputs["data"], student.chat, context=student.context, prompting=student.prompting)
    found.refuse_empty(stage, stage.inputs["data"])
    return found["train"].at_most(found.longest)


def plan(stage: Stage) -> Estimate:
    from whetstone.learner.cost import Beside, training_estimate, with_sampling

    settings: Settings = stage.settings
    rollouts = settings.steps * settings.prompts_per_step * settings.samples
    estimate = training_estimate(
        stage,
        step_tokens=settings.prompts_per_step * settings.samples * settings.max_tokens,
        row_tokens=settings.max_tokens,
        tokens=rollouts * settings.max_tokens,
        steps=settings.steps,
        passes=4 / 3,  # the teacher's forward pass, if it is of the student's size
        bound="at most ",
        steps_bound="",
        lines={"rollouts": f"at most {rollouts:,} of at most {settings.max_tokens:,} tokens"},
        beside=Beside(samples=True),
    )
    return with_sampling(estimate, stage, rollouts * settings.max_tokens, settings.max_tokens)


def check(settings: Settings) -> None:
    """Before any stage runs. Raises FileNotFoundError or ValueError if the teacher's folder cannot be used."""
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
        "data": Input(("corpus", "subset"), used=lambda s: s.on_policy < 1, description="with on_policy below 1"),
    },
    gives=("model",),
    uses=TRAINING,
    trains=True,
    longest=lambda settings: PROMPT_TOKENS + settings.max_tokens,
)
