"""The settings of a corpus stage."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from whetstone.corpus.contamination import ContaminationSettings
from whetstone.corpus.files import PairFile
from whetstone.corpus.subset import SubsetSettings
from whetstone.run.settings import StageSettings


class Settings(StageSettings):
    levels: list[int] | None = Field(None, description="levels that are taught (corpus, subset, pairs); None: all")
    languages: list[str] | None = Field(None, description='of the questions that are taught, as in ["en"]; None: all')
    reserve: float = Field(0, ge=0, lt=1, description="share of train problems kept for pairs and prompts, not taught")
    traces_per_problem: int | None = Field(None, ge=1, description="traces for mid-training, the first ones; None: all")
    validation_problems: int = Field(64, ge=0, description="held-out problems of the validation loss; 0: all")
    unverified: bool = Field(False, description="teach traces without a reference answer too (imported chats)")
    max_repetition: float = Field(0.6, ge=0, le=1, description="highest share of repeated 16-word windows in a trace")
    max_characters: int = Field(0, ge=0, description="longest trace; 0: any length")
    near_traces: float = Field(0, ge=0, le=1, description="likeness at which the later of two traces goes; 0: off")
    near_duplicates: float = Field(0, ge=0, le=1, description="the same for two problems; 0: off")
    contamination: ContaminationSettings = Field(ContaminationSettings(), description="training against test questions")
    subset: SubsetSettings = Field(SubsetSettings(), description="the compact subset for supervised fine-tuning")
    pairs_per_problem: int = Field(1, ge=0, description="right/wrong pairs per problem; a trace serves in one pair")
    imported_pairs: tuple[PairFile, ...] = Field((), description="ready preference pairs that are added to `pairs`")
    prompt_levels: list[int] | None = Field(None, description="levels of the RL prompts; None: all")

    MOVED: ClassVar[Mapping[str, str]] = {
        **{f"subset_{key}": f"subset.{key}" for key in ("problems", "traces", "by")},
        **{key: f"contamination.{key}" for key in ("against", "look_alikes")},
        "limo_solved": "subset.solved",
        "subset_balance": "subset.by",
        "limo_length": SubsetSettings.MOVED["half_length"],
        "contamination_near": "contamination.near",
        "contamination_ngram": ContaminationSettings.MOVED["ngram"],
        "match_length": "fixed: traces whose lengths are closest are always paired",
    }
