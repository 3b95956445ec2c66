"""The settings of a `reward` stage."""

from typing import Literal

from pydantic import Field, model_validator

from whetstone.pairing import Pairing
from whetstone.pool import PoolSettings, StudentSettings
from whetstone.run.settings import CheckpointEvery, EpochSettings, Optimizer, OptimizerSettings
from whetstone.run.settings import Settings as Table


class PreferenceFile(Table):
    """A file of preference pairs, of one turn or several, in one of the usual layouts."""

    path: str = Field(description="a file, a folder of parts or a pattern (docs/your_data.md); may hold $VARIABLES, ~")
    name: str = Field("", description="of the set; default: the name of the file's folder")


class Settings(StudentSettings, EpochSettings):
    source: Literal["student", "rollouts", "pairs", "files"] = Field(
        "student",
        description="what is learnt from: right and wrong rollouts of the model itself or of the rollouts stage; the pairs of "
        "a corpus or dpo stage; preference files",
    )
    preferences: tuple[PreferenceFile, ...] = Field((), description='with source = "files": ready preference pairs')
    pool: PoolSettings = Field(PoolSettings(prompts=400), description="which prompts the model tries")
    pairs_per_problem: int = Field(4, gt=0, description="pairs of one problem, at most")
    pairing: Pairing = Field("length_matched", description="which rollouts are paired (pairing.py)")
    loss: Literal["bradley_terry", "logistic"] = Field(
        "bradley_terry",
        description="pairs: which side is better; or each answer by itself: is it right? (outcome verifier)",
    )
    margin: float = Field(0.0, ge=0, description="bradley_terry: by how much the chosen side must be ahead")
    centring: float = Field(0.01, ge=0, description="bradley_terry: weight of the squared sum of a pair's rewards")
    max_length: int = Field(1024, gt=1, le=2**30, description="tokens of prompt and answer; longer ones are left out")
    held_out: float = Field(0.1, ge=0, lt=1, description="share of the problems that are judged and not trained on")
    batch_pairs: int = Field(32, gt=0, description="pairs, or with logistic loss answers, per optimizer step")
    optimizer: Optimizer = OptimizerSettings(learning_rate=1e-5, schedule="linear", warmup=0.1)
    checkpoint_every: CheckpointEvery = 20

    @model_validator(mode="after")
    def _files_where_they_are_read(self) -> "Settings":
        if self.source == "files" and not self.preferences:
            raise ValueError('source = "files" has no file: name one as [[stage.preferences]] path = "…"')
        if self.preferences and self.source != "files":
            raise ValueError(f'[[stage.preferences]] is read with source = "files" only, and it is "{self.source}"')
        if self.loss == "logistic" and self.margin:
            raise ValueError(f'margin = {self.margin} belongs to loss = "bradley_terry". Leave it out')
        if self.source == "student" and self.pool.samples < 2:
            raise ValueError(
                f"pool.samples = {self.pool.samples}: right and wrong rollouts of one prompt are compared. Set 2 or more"
            )
        return self
