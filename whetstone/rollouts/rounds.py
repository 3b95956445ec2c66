"""Ask a Generator about problems in rounds: more rollouts where few are right, none where enough are.

The paper's predecessor sends problems whose rollouts were rejected back for resampling; here the first round asks `samples`,
and while fewer than `enough` of a problem's are right, each further round asks as many again, up to `most`.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from whetstone.records import Completion, Generator, Message, Problem, Prompt, Sampling, Trace, Verifier, to_row
from whetstone.run.tables import Journal


@dataclass(frozen=True)
class Plan:
    samples: int  # rollouts of the first round
    enough: int  # right rollouts after which no more are asked; 0: one round
    most: int  # rollouts of one problem

    def more(self, asked: int, right: int) -> int:
        """How many rollouts the next round asks of a problem.

        >>> plan = Plan(samples=8, enough=2, most=30)
        >>> plan.more(0, 0), plan.more(8, 2), plan.more(8, 1), plan.more(16, 0), plan.more(30, 1)
        (8, 0, 8, 14, 0)
        """
        if asked < self.samples:
            return self.samples - asked
        if right >= self.enough:
            return 0
        return max(0, min(asked, self.most - asked))


@dataclass
class Tally:
    """What is known of one problem. `failed` rollouts are not asked again."""

    verdicts: dict[int, bool] = field(default_factory=dict)  # index of a rollout -> is it right?
    failed: str = ""  # why
    failures: int = 0  # how many

    @property
    def indices(self) -> set[int]:
        return set(self.verdicts)

    @property
    def right(self) -> int:
        return sum(self.verdicts.values())

    def below(self, index: int) -> "Tally":
        """Of the rollouts with lower indices alone."""
        return Tally(
            {place: right for place, right in self.verdicts.items() if place < index}, self.failed, self.failures
        )


class Rounds:
    """Verified traces of problems, one journal line each, as they come. `stopped` says why no more is asked, if so."""

    def __init__(
        self,
        generator: Generator,
        verifier: Verifier,
        plan: Plan,
        sampling: Sampling,
        teacher: str,
        instruction: str = "",
        answers: Journal | None = None,
    ):
        self.generator, self.verifier, self.plan, self.sampling = generator, verifier, plan, sampling
        self.teacher, self.instruction = teacher, instruction
        self.answers = answers  # with a judge: what is answered and waits for the judge, who is told the question

    @property
    def stopped(self) -> str:
        return getattr(self.generator, "stopped", "")

    def lines(
        self, problems: Sequence[Problem], tallies: dict[str, Tally], answered: Sequence[Completion] = ()
    ) -> Iterator[dict[str, Any]]:
        """Rounds until every problem has what it needs; `tallies` holds what was done before, and is kept up.

        `answered` was answered before, and not verified.
        """
        by_id = {problem.id: problem for problem in problems}
        if answered:
            yield from self._verified(by_id, answered, tallies)
        while prompts := [prompt for problem in problems for prompt in self._wanted(problem, tallies[problem.id])]:
            yield from self._verified(by_id, self._kept(self.generator.generate(prompts, self.sampling)), tallies)
            for prompt, reason in _take_failed(self.generator):
                tallies[prompt.problem_id].failed = reason
                tallies[prompt.problem_id].failures += 1
            if self.stopped:
                return

    def _wanted(self, problem: Problem, tally: Tally) -> list[Prompt]:
        if tally.failed:
            return []
        count = self.plan.more(len(tally.indices), tally.right)
        free = (index for index in range(self.plan.most + self.plan.samples) if index not in tally.indices)
        question = f"{problem.question}\n\n{self.instruction}" if self.instruction else problem.question
        return [
            Prompt(problem.id, index, (Message("user", question),))
            for index, _ in zip(free, range(count), strict=False)
        ]

    def _kept(self, completions: Iterable[Completion]) -> Iterator[Completion]:
        for done in completions:
            if self.answers is not None:
                self.answers.append([asdict(done)])
            yield done

    def _verified(
        self, by_id: dict[str, Problem], completions: Iterable[Completion], tallies: dict[str, Tally]
    ) -> Iterator[dict[str, Any]]:
        waiting: deque[Completion] = deque()
        failures: list[Exception] = []

        def items() -> Iterator[tuple[str, ...]]:
            try:
                for done in completions:
                    problem = by_id[done.problem_id]
                    waiting.append(done)
                    item = (done.text, problem.answer, problem.policy)
                    yield item if self.answers is None else (*item, problem.question)
            except Exception as failure:  # what was answered before it is verified first
                failures.append(failure)

        for verdict in self.verifier.check_many(items()):
            done = waiting.popleft()
            tallies[done.problem_id].verdicts[done.index] = verdict.correct is True
            reason = verdict.reason if done.stop == "end" else f"{verdict.reason}; cut off at the token limit"
            trace = Trace(done.problem_id, done.index, done.text, self.teacher, verdict.correct, reason)
            yield {"problem_id": done.problem_id, "traces": [to_row(trace)], "reason": "", "usage": list(done.usage)}
        if failures:
            raise failures[0]


def _take_failed(generator: Generator) -> list[tuple[Prompt, str]]:
    failed = getattr(generator, "failed", [])
    taken = list(failed)
    failed.clear()
    return taken
