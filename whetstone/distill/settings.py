"""The settings of a `distill` stage."""

from typing import Literal

from pydantic import Field, model_validator

from whetstone.decode.server_settings import ScoringServer
from whetstone.pool import PoolSettings, StudentSettings
from whetstone.run.settings import CheckpointEvery, Optimizer, OptimizerSettings, changed


class Settings(StudentSettings):
    target: Literal["teacher", "majority"] = Field(
        "teacher", description="the teacher's distribution; or the student's own rollouts that give its majority answer"
    )
    teacher_model: str = Field(
        "", description="a model folder, run or hub name; left out: the stage named by `teacher`"
    )
    teacher_server: ScoringServer | None = Field(
        None, description="a server that scores the student's tokens, in the place of a model in this process"
    )
    divergence: Literal["reverse", "forward", "jensen_shannon"] = Field(
        "reverse", description="KL of the student to the teacher, of the teacher to the student, or between both"
    )
    beta: float = Field(0.5, gt=0, lt=1, description="jensen_shannon: the teacher's share in the mixture")
    on_policy: float = Field(
        1.0, ge=0, le=1, description="share of the steps on the student's own text; the others are on `text`"
    )
    text: Literal["data", "teacher"] = Field(
        "data", description="of steps that are not on the student's own: the corpus's, or what the teacher writes"
    )
    agreement: float = Field(0.5, gt=0, le=1, description="majority: least share of a prompt's answers that must agree")
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
    def _what_is_set_is_used(self) -> "Settings":
        if "beta" in self.model_fields_set and self.divergence != "jensen_shannon":
            raise ValueError(f'beta = {self.beta} belongs to divergence = "jensen_shannon". Leave it out')
        if self.text != "data" and self.on_policy == 1:
            raise ValueError(
                f'text = "{self.text}" is of steps that are not on the student\'s own text: set on_policy below 1'
            )
        if self.teacher_model and self.teacher_server:
            raise ValueError("teacher_model and teacher_server are two teachers: leave one out")
        return self

    @model_validator(mode="after")
    def _a_server_compares_at_temperature_1(self) -> "Settings":
        if self.teacher_server and self.temperature != 1:
            raise ValueError(
                f"temperature = {self.temperature} with teacher_server: a server gives log-probabilities at temperature 1, and "
                "those of the tokens that it does not list cannot be known at another. Leave temperature out"
            )
        return self

    @model_validator(mode="after")
    def _a_majority_is_of_several_and_has_no_teacher(self) -> "Settings":
        if self.target == "teacher":
            if "agreement" in changed(self):
                raise ValueError(f'agreement = {self.agreement} belongs to target = "majority". Leave it out')
            return self
        of_teacher = {"teacher_model", "teacher_server", "divergence", "on_policy", "text"}
        if name := next((name for name in changed(self) if name in of_teacher), ""):
            raise ValueError(
                f'{name} belongs to target = "teacher": with "majority" the student is its own. Leave it out'
            )
        if self.samples < 3:
            raise ValueError(f"samples = {self.samples}: a majority needs at least 3 rollouts per prompt, better 8")
        return self
