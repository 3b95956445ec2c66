"""The settings of an `rl` stage."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from whetstone.pool import PoolSettings, StudentSettings
from whetstone.rl.correction import CorrectionSettings
from whetstone.rl.kl import KLSettings
from whetstone.rl.registry import STABILISERS, AnyAlgorithm, AnyStabiliser
from whetstone.rl.reward import file_of
from whetstone.rl.tripwires import Tripwires
from whetstone.run.refused_keys import named_twice
from whetstone.run.settings import (
    CheckpointEvery,
    Optimizer,
    OptimizerSettings,
    Spikes,
    SpikeSettings,
)

BIASED = ("top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "length_penalty")
OF_ALGORITHM = 'an option of the algorithm: algorithm = { name = "…", … }'
OF_STABILISERS = "an option of the stabilisers prompt_optimization and reward_rebalancing"


class RLPoolSettings(PoolSettings):
    """The prompts that are tried before the first step, and which of them are trained on."""

    solvable: bool = Field(True, description="whether prompts that no rollout solved are dropped")

    MOVED: ClassVar[Mapping[str, str]] = {"threshold": OF_STABILISERS}


class Settings(StudentSettings):
    algorithm: AnyAlgorithm = Field(
        "grpo", validate_default=True, description="a name, or a table with name and options"
    )
    stabilisers: tuple[AnyStabiliser, ...] | None = Field(
        None, description="names, or tables with names and options; None: the paper's three with grpo, else none"
    )
    steps: int = Field(20, gt=0, le=10**8, description="samplings, each with its updates")
    rollouts: int = Field(0, ge=0, description="the stage ends with the step that reaches this number; 0: no limit")
    prompts_per_step: int = Field(32, gt=0, le=10**6, description="groups of one step")
    samples: int = Field(8, gt=1, le=10**6, description="rollouts per prompt")
    updates: int = Field(1, gt=0, description="optimizer updates that the groups of a step are divided into")
    passes: int = Field(1, gt=0, le=10**4, description="times that each rollout is trained on")
    old_policy: Literal["sampler", "learner"] = Field(
        "sampler", description="the denominator of the ratio (rl/update.py); with a correction, the learner"
    )
    staleness: int = Field(
        0, ge=0, le=64, description="steps by which the weights that sample are older: with servers, training then does not "
        'wait for them (rl/ahead.py); above 0, correction is { kind = "truncate" } if it is left out',
    )  # fmt: skip
    correction: CorrectionSettings = Field(
        CorrectionSettings(), description="importance weights against a sampler that differs from the learner"
    )
    reward: str | dict[str, float] = Field(
        "plus_minus_one",
        description="plus_minus_one, zero_one, format, reward_model, `file.py:function`, or a table of weights",
    )
    random_verdicts: float | None = Field(
        None, gt=0, lt=1, description="share of rollouts that count as right, drawn at random: a control"
    )
    kl: KLSettings = Field(KLSettings(), description="penalty on moving away from the model the stage began with")
    entropy_bonus: float = Field(0.0, ge=0, le=1000, description="reward per nat of a token's entropy")
    pool: RLPoolSettings = Field(RLPoolSettings(), description="which prompts are trained on")
    keep_rollouts: bool = Field(
        True, description="keep what is sampled as a table to read: `rollouts/` in the folder of the stage"
    )
    sampler_tolerance: float = Field(
        0.05, gt=0, description="mean |log-probability gap| to the learner that stops training"
    )
    tripwires: Tripwires = Field(Tripwires(), description="limits that are watched in every step")
    optimizer: Optimizer = OptimizerSettings(learning_rate=2e-4)
    checkpoint_every: CheckpointEvery = 5
    spikes: Spikes = SpikeSettings(spike="ignore")  # the size of a policy's loss means nothing

    MOVED: ClassVar[Mapping[str, str]] = {
        **StudentSettings.MOVED,
        **dict.fromkeys(("clip_low", "clip_high", "baseline", "rounds", "soft_tokens", "mask_overlong"), OF_ALGORITHM),
        "average": 'the algorithm: rollouts weigh the same in "grpo", tokens in "dapo"',
        "kl_coefficient": "kl.coefficient",
        "kl_estimator": "kl.estimator",
        "kl_in": "kl.estimator: k1 is part of the reward, the others of the loss",
        "candidates": "pool.prompts",
        "candidate_levels": "pool.levels",
        "candidate_domains": "pool.domains",
        "candidate_samples": "pool.samples",
        "solvable": "pool.solvable",
        "threshold": OF_STABILISERS,
        "length_spread": 'stabilisers = [{ name = "prompt_optimization", length_spread = … }]',
        "oversample": 'stabilisers = [{ name = "reward_rebalancing", oversample = … }]',
        "anneal_to": 'stabilisers = [{ name = "temperature_annealing", to = … }]',
        "covariance_share": 'stabilisers = [{ name = "clip_cov", share = … }]',
    }

    @model_validator(mode="before")
    @classmethod
    def _sampling_is_that_of_the_policy(cls, values: Any) -> Any:
        if biased := [name for name in BIASED if name in (values if isinstance(values, dict) else {})]:
            raise ValueError(
                f"{biased[0]} = {values[biased[0]]!r} is refused: text that is sampled with {biased[0]} does not follow the "
                "policy's own distribution. RL would credit it as if it did, and the ratio and the gradient would be biased. "
                "Leave it out; the sampling of scores is set in [scores]"
            )
        return values

    @model_validator(mode="before")
    @classmethod
    def _older_weights_are_corrected(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("staleness") and "correction" not in values:
            return values | {"correction": {"kind": "truncate"}}
        return values

    @model_validator(mode="after")
    def _stabilisers_are_there_once(self) -> "Settings":
        if twice := named_twice([stabiliser.name for stabiliser in self.stabilisers or ()]):
            raise ValueError(f"stabilisers names {twice!r} twice. Name it once")
        return self

    @model_validator(mode="after")
    def _rewards_are_known(self) -> "Settings":
        for name in self.rewards:
            file_of(name)
        if not self.reward:
            raise ValueError("reward names nothing: there is nothing to learn from. Leave it out for plus_minus_one")
        return self

    @model_validator(mode="after")
    def _random_verdicts_are_rewarded_alone(self) -> "Settings":
        if self.random_verdicts is not None and self.reward not in ("plus_minus_one", "zero_one"):
            raise ValueError(
                f"random_verdicts = {self.random_verdicts} with reward = {self.reward!r}: other rewards read the answer. Leave "
                "reward out for plus_minus_one, or set zero_one"
            )
        return self

    @property
    def rewards(self) -> list[str]:
        """The names of the rewards."""
        return [self.reward] if isinstance(self.reward, str) else list(self.reward)

    @property
    def chosen_stabilisers(self) -> tuple[AnyStabiliser, ...]:
        """Those that the recipe lists, or else those that come with the algorithm."""
        if self.stabilisers is not None:
            return self.stabilisers
        return tuple(map(STABILISERS.read, self.algorithm.stabilisers))
