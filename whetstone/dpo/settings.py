"""The settings of a `dpo` stage."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from whetstone.pairing import Pairing
from whetstone.pool import PoolSettings, StudentSettings
from whetstone.run.settings import CheckpointEvery, EpochSettings, Optimizer, OptimizerSettings


class Settings(StudentSettings, EpochSettings):
    source: Literal["student", "teacher"] = Field("student", description="whose rollouts are paired")
    pool: PoolSettings = Field(PoolSettings(prompts=400), description="which prompts the student tries")
    pairs_per_problem: int = Field(2, gt=0, description="pairs of one problem, at most")
    pairing: Pairing | Literal["reward_model"] = Field(
        "length_matched",
        description="which of the student's rollouts are paired (pairing.py); reward_model: by the model of a reward stage",
    )
    max_pairs: int = Field(0, ge=0, description="pairs in all, at most; 0: no limit")
    loss: Literal["sigmoid", "sigmoid_norm", "robust", "ipo", "simpo"] = Field(
        "sigmoid", description="DPO's own is sigmoid; sigmoid_norm, ipo and simpo take log-probabilities per token"
    )
    beta: float = Field(0.1, gt=0, le=1000, description="how strongly the policy is held to the reference")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="share of pairs believed to be swapped")
    target_margin: float = Field(0.0, ge=0, description="simpo: its gamma, the margin that is asked for")
    chosen_nll: float = Field(0.0, ge=0, description="weight of the chosen side's cross-entropy")
    batch_pairs: int = Field(32, gt=0, description="pairs per optimizer step")
    optimizer: Optimizer = OptimizerSettings(learning_rate=3e-5, schedule="linear", warmup=0.1)
    checkpoint_every: CheckpointEvery = 20

    MOVED: ClassVar[Mapping[str, str]] = {
        **EpochSettings.MOVED,
        "length_normalised": 'loss = "sigmoid_norm", which is DPO per token',
        "sample_problems": "pool.prompts",
        "sample_levels": "pool.levels",
        "samples": "pool.samples",
    }

    @model_validator(mode="after")
    def _loss_has_what_is_set(self) -> "Settings":
        if self.loss == "robust" and not self.label_smoothing:
            raise ValueError(
                'loss = "robust" corrects for a known share of swapped pairs, and label_smoothing = 0 says there is none. '
                'Set label_smoothing, 0.1 for instance, or loss = "sigmoid"'
            )
        if self.label_smoothing and self.loss in ("ipo", "simpo"):
            raise ValueError(
                f"label_smoothing = {self.label_smoothing} belongs to the losses sigmoid, sigmoid_norm and robust, not to "
                f'"{self.loss}". Leave it out'
            )
        if self.target_margin and self.loss != "simpo":
            raise ValueError(f'target_margin = {self.target_margin} belongs to loss = "simpo". Leave it out')
        return self

    @model_validator(mode="after")
    def _only_the_students_rollouts_are_paired_here(self) -> "Settings":
        if self.pairing == "reward_model" and self.source == "teacher":
            raise ValueError(
                'pairing = "reward_model" ranks the student\'s rollouts, and source = "teacher" takes pairs that are made. '
                'Set source = "student"'
            )
        return self

    @model_validator(mode="after")
    def _a_pair_needs_two_rollouts(self) -> "Settings":
        if self.source == "student" and self.pool.samples < 2:
            raise ValueError(
                f"pool.samples = {self.pool.samples}: a pair is a right and a wrong rollout of one prompt. Set 2 or more"
            )
        return self
