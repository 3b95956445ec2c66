"""The `[prompt]` table of a recipe, which commands have as options: what stands around a question."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from whetstone.run.settings import Settings

MOST_EXAMPLES = 100


class Example(Settings):
    """A question with its answer, which a model is shown before the question that it is asked."""

    question: str = Field(description="as the question of a problem: `before` and `after` are put around it")
    answer: str = Field(description="the whole text that the model should write, with its box if it has one")

    @field_validator("question", "answer")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("it is empty, and an example is a question with its answer")
        return text


class ExampleFile(Settings):
    """Examples from the first rows of a file."""

    file: str = Field(description="with the columns question and answer, in any format of docs/your_data.md")
    count: int = Field(0, ge=0, le=MOST_EXAMPLES, description="rows from the beginning; 0: all")
    set: str = Field(
        "", description="read as this published set, whose worked solution is the answer; default: the two columns"
    )


class PromptSettings(Settings):
    """What stands around the question wherever a problem is put to a model: training rows, rollouts, scores, DPO, RL. A text
    without white space at its joint gets a line of its own. What is left out is as the model was trained; a model from
    elsewhere is asked for a box (a letter in multiple choice), a model made from nothing only the question.
    """

    system: str | None = Field(None, description="system message, before that of the problem's own row")
    before: str | None = Field(None, description="text before the question")
    after: str | None = Field(None, description='text after the question; "" asks for no form of the answer')
    examples: tuple[Example, ...] | ExampleFile | None = Field(
        None, description='few-shot: [[prompt.examples]] tables, or { file = "…", count = 4 }; [] for none'
    )
    thinking: bool | None = Field(
        None, description="sets the template's own switch (enable_thinking); None: the template's default"
    )

    @field_validator("examples")
    @classmethod
    def _are_few(cls, examples: Any) -> Any:
        if isinstance(examples, tuple) and len(examples) > MOST_EXAMPLES:
            raise ValueError(f"there are {len(examples)} examples, and {MOST_EXAMPLES} are allowed. Leave some out")
        return examples

    def given(self) -> Mapping[str, Any]:
        """The settings that are not left out, as JSON values."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value is not None}


AS_TRAINED = PromptSettings()  # nothing is given


def prompt_given(
    system: str | None, before: str | None, after: str | None, examples: str | None, thinking: bool | None
) -> PromptSettings:
    """What the options of a command give. Raises ValueError for a wrong count of examples."""
    shots = examples_option(examples) if examples else None if examples is None else ()
    return PromptSettings(system=system, before=before, after=after, examples=shots, thinking=thinking)


def examples_option(text: str) -> ExampleFile:
    """`FILE` or `FILE:COUNT`, as a command line names examples.

    >>> examples_option("shots.jsonl:4").count, examples_option("C:/shots.jsonl").file
    (4, 'C:/shots.jsonl')
    """
    file, colon, count = text.rpartition(":")
    if not (colon and count.isascii() and count.isdecimal()):
        return ExampleFile(file=text)
    if not 1 <= int(count) <= MOST_EXAMPLES:
        raise ValueError(f"--examples {text}: {count} rows. Write FILE:COUNT with 1 to {MOST_EXAMPLES} rows.")
    return ExampleFile(file=file, count=int(count))
