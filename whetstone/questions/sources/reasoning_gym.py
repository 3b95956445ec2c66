"""Problems of reasoning-gym's generators (Apache-2.0), an extra: questions and answers only.

Its own scorers are never called: some evaluate the answer's text as Python, and some give credit to any text. Only tasks
whose answers our verifier reads under a declared policy are offered.
"""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from whetstone.questions.source import MadeSource, installed
from whetstone.records import Problem
from whetstone.run.mistakes import install_hint, suggestion

LICENCE = "Apache-2.0"

BY_POLICY = {
    "number": "basic_arithmetic chain_sum gsm_symbolic decimal_chain_sum products simple_geometry",
    "integer": "gcd lcm leg_counting count_primes letter_counting",
    "math": "simple_equations fraction_simplification dice complex_arithmetic",
    "word": "spell_backward family_relationships",
}
TASKS = {task: policy for policy, tasks in BY_POLICY.items() for task in tasks.split()}


class GymSource(MadeSource):
    """Problems made by reasoning-gym's generators."""

    tasks: dict[str, dict[str, Any]] = Field(
        min_length=1,
        description="in turn; a list, or with their generators' options, as in { chain_sum = { min_terms = 3 } }",
    )

    MOVED: ClassVar[Mapping[str, str]] = {"options": "in tasks, as in tasks = { chain_sum = { min_terms = 3 } }"}

    @property
    def has_formulas(self) -> bool:
        return False

    def check(self) -> None:
        if not installed("reasoning_gym"):
            raise ValueError(f'kind = "reasoning_gym" needs reasoning-gym: {install_hint("gym")}')

    def draw(self, seed: int) -> Iterator[Problem]:
        """Endless. Raises ValueError without the extra."""
        try:
            from reasoning_gym.factory import create_dataset
        except ImportError as error:
            raise ValueError(f'kind = "reasoning_gym" needs reasoning-gym: {install_hint("gym")}') from error
        generators = {
            task: create_dataset(task, seed=seed, size=2**31 - 1, **options) for task, options in self.tasks.items()
        }
        for number in count():
            for task, generator in generators.items():
                item = generator[number]
                answer = "" if item["answer"] is None else str(item["answer"]).strip()
                if answer:
                    question = item["question"].strip()
                    yield Problem("", question, answer.strip("$"), domain=task, licence=LICENCE, policy=TASKS[task])

    @field_validator("tasks", mode="before")
    @classmethod
    def names_are_tasks_without_options(cls, tasks: Any) -> Any:
        return {name: {} for name in tasks} if isinstance(tasks, list | tuple) else tasks

    @model_validator(mode="after")
    def tasks_are_offered(self) -> "GymSource":
        for task in self.tasks:
            if task not in TASKS:
                raise ValueError(
                    f"reasoning-gym's task {task!r} is not offered, as no declared policy compares its answers"
                    f"{suggestion(task, TASKS)} There are {', '.join(TASKS)}."
                )
        return self


SOURCE = GymSource
