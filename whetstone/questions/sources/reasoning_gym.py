"""Problems of reasoning-gym's generators (Apache-2.0), an extra: questions and answers only.

Its own scorers are never called: some evaluate the answer's text as Python, and some give credit to any text. Only tasks
whose answers our verifier reads under a declared policy are offered.
"""

from collections.abc import Iterator
from itertools import count, cycle
from typing import Any

from pydantic import Field, model_validator

from whetstone.questions.source import MadeSource
from whetstone.records import Problem
from whetstone.run.mistakes import suggestion

LICENCE = "Apache-2.0"
INSTALL = 'python -m pip install "whetstone[gym]"'

# task -> answer policy
TASKS = {
    "basic_arithmetic": "number",
    "chain_sum": "number",
    "simple_equations": "math",
    "gsm_symbolic": "number",
    "gcd": "integer",
    "lcm": "integer",
    "fraction_simplification": "math",
    "decimal_chain_sum": "number",
    "leg_counting": "integer",
    "products": "number",
    "count_primes": "integer",
    "dice": "math",
    "complex_arithmetic": "math",
    "simple_geometry": "number",
    "letter_counting": "integer",
    "spell_backward": "word",
    "family_relationships": "word",
}


class GymSource(MadeSource):
    """Problems made by reasoning-gym's generators."""

    tasks: tuple[str, ...] = Field(min_length=1, description="in turn")
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="of a task's generator, as in { chain_sum = { min_terms = 3 } }"
    )

    @property
    def title(self) -> str:
        return self.name or "reasoning-gym"

    @property
    def supply(self) -> str:
        return f"{', '.join(self.tasks)} have"

    def draw(self, seed: int) -> Iterator[Problem]:
        """Endless. Raises ValueError without the extra."""
        try:
            from reasoning_gym.factory import create_dataset
        except ImportError as error:
            raise ValueError(f'kind = "reasoning_gym" needs reasoning-gym: {INSTALL}') from error
        generators = {
            task: create_dataset(task, seed=seed, size=2**31 - 1, **self.options.get(task, {})) for task in self.tasks
        }
        for number, task in zip(count(), cycle(self.tasks), strict=False):
            item = generators[task][number // len(self.tasks)]
            answer = "" if item["answer"] is None else str(item["answer"]).strip()
            if answer:
                question = item["question"].strip()
                yield Problem("", question, answer.strip("$"), domain=task, licence=LICENCE, policy=TASKS[task])

    @model_validator(mode="after")
    def tasks_are_offered(self) -> "GymSource":
        for task in (*self.tasks, *self.options):
            if task not in TASKS:
                raise ValueError(
                    f"reasoning-gym's task {task!r} is not offered, as no declared policy compares its answers"
                    f"{suggestion(task, TASKS)} There are {', '.join(TASKS)}."
                )
        return self


SOURCE = GymSource
