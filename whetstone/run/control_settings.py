"""The `[controls]` table of a recipe."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from whetstone.run.prompt_settings import PromptSettings
from whetstone.run.settings import Settings

StageNames: TypeAlias = bool | tuple[str, ...]


class ControlSettings(Settings):
    """What stages have to beat: controls, each beside the stage that it questions (docs/controls.md). `true` makes a control of
    every stage that it usually fits, and says where it cannot; a list names the stages.
    """

    prompt: StageNames = Field(
        False, description="no training, the best of several prompts; of a stage that trains `[model] path` if true"
    )
    midtraining: StageNames = Field(
        False, description="as many tokens of mid-training instead; of sft if true, by name also of dpo and rl"
    )
    rejection: StageNames = Field(False, description="fine-tuning on the right rollouts of dpo and rl instead")
    random_reward: StageNames = Field(False, description="rl with verdicts drawn at random")
    learning_rate: dict[Literal["midtraining", "rejection"], Annotated[float, Field(gt=0, le=10)]] = Field(
        {}, description="of a control; left out: its stage's"
    )
    problems: int = Field(
        0, ge=0, description="problems of each set that controls are scored on, at most; 0: as `[scores]` says"
    )
    prompts: tuple[PromptSettings, ...] = Field(
        (),
        description="candidates for `prompt`, beside the recipe's own; left out: a box is asked for; `shots` examples",
    )
    shots: int = Field(4, ge=1, le=16, description="training rows that are shown as examples, if `prompts` is left out")
    held_out: int = Field(200, ge=1, description="validation problems on which the prompt is chosen, at most")
