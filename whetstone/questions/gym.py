"""Problems of reasoning-gym's generators (Apache-2.0), an extra: questions and answers only.

Its own scorers are never called: some evaluate the answer's text as Python, and some give credit to any text. Only tasks
whose answers our verifier reads under a declared policy are offered.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from itertools import count, cycle
from typing import Any, Literal

from pydantic import Field, model_validator

from whetstone.questions.sources import SPLITS, require_benchmark
from whetstone.records import Problem
from whetstone.run.settings import Settings

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


class GymSource(Settings):
    """Problems made by reasoning-gym's generators."""

    kind: Literal["reasoning_gym"]
    tasks: tuple[str, ...] = Field(min_length=1)  # in turn
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict
    )  # of a task's generator, as in { chain_sum = { min_terms = 3 } }
    train: int = Field(default=0, ge=0)  # how many
    validation: int = Field(default=0, ge=0)  # how many
    test: int = Field(default=0, ge=0)  # how many
    benchmark: str = ""  # name of the problem set that the test problems are scored in
    name: str = "reasoning-gym"  # of the source
    test_seed: int = 0  # the test problems are the same in every run, whatever its seed

    @property
    def title(self) -> str:
        return self.name

    @property
    def splits(self) -> frozenset[str]:
        return frozenset(split for split in SPLITS if getattr(self, split) > 0)

    @model_validator(mode="after")
    def can_be_made(self) -> "GymSource":
        require_benchmark(self.test > 0, self.benchmark, 'kind = "reasoning_gym"')
        for task in (*self.tasks, *self.options):
            if task not in TASKS:
                near = get_close_matches(task, TASKS, n=1)
                meant = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(
                    f"reasoning-gym's task {task!r} is not offered: its answers cannot be compared under a declared "
                    f"policy.{meant} There are {', '.join(TASKS)}."
                )
        if not self.splits:
            raise ValueError("this reasoning-gym source makes nothing: say how many problems, as in train = 2000.")
        return self


def generate(source: GymSource, seed: int) -> Iterator[Problem]:
    """Endless problems of the source's tasks in turn, a function of the seed. Raises ValueError without the extra."""
    try:
        from reasoning_gym.factory import create_dataset
    except ImportError as error:
        raise ValueError(f'kind = "reasoning_gym" needs reasoning-gym: {INSTALL}') from error
    made = {
        task: create_dataset(task, seed=seed, size=2**31 - 1, **source.options.get(task, {})) for task in source.tasks
    }
    for number, task in zip(count(), cycle(source.tasks), strict=False):
        item = made[task][number // len(source.tasks)]
        answer = item["answer"]
        if answer is None or not str(answer).strip():
            continue
        yield Problem(
            "",
            item["question"].strip(),
            str(answer).strip().strip("$"),
            domain=task,
            licence=LICENCE,
            policy=TASKS[task],
        )
