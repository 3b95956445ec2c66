"""Ask a Generator about problems in rounds: more rollouts for a problem with few right ones, none if enough are right.

The paper's predecessor samples again for problems whose rollouts were rejected. Here the first round asks for `samples`, and
while fewer than `enough` of a problem's rollouts are right, each further round asks for as many again, up to `most`.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from whetstone.decode.server_generator import ServerGenerator
from whetstone.prompting import Prompting
from whetstone.records import CUT_OFF, Completion, Problem, Prompt, Sampling, Trace, Verifier
from whetstone.rollouts.journal import Line, line
from whetstone.run.tables import Journal


@dataclass(frozen=True)
class Plan:
    samples: int  # rollouts per problem in the first round
    enough: int  # right rollouts after which no more are asked for; 0: one round
    most: int  # rollouts per problem

    def more(self, asked: int, right: int) -> int:
        """How many rollouts of a problem the next round asks for.

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
    """What is known of one problem. Once a rollout has failed, no more are asked for."""

    verdicts: dict[int, bool] = field(default_factory=dict)  # index of a rollout -> is it right?
    failed: str = ""  # why
    failures: int = 0  # how many rollouts failed

    @property
    def right(self) -> int:
        return sum(self.verdicts.values())


@dataclass(frozen=True)
class Rounds:
    """Verified traces of problems, one journal line each, as they come.

    With a judge, `answers` keeps the completions that wait for it on disk, and the verifier is given the question too.
    """

    generator: ServerGenerator
    verifier: Verifier
    plan: Plan
    sampling: Sampling
    teacher: str  # the name in the traces
    prompting: Prompting
    answers: Journal | None

    def lines(
        self, problems: Sequence[Problem], tallies: dict[str, Tally], answered: Sequence[Completion]
    ) -> Iterator[Line]:
        """Rounds until every problem has enough rollouts.

        `tallies` holds earlier verdicts and is kept up to date; `answered` are earlier completions without a verdict.
        """
        by_id = {problem.id: problem for problem in problems}
        yield from self._verified(by_id, answered, tallies)
        while prompts := [prompt for problem in problems for prompt in self._wanted(problem, tallies[problem.id])]:
            yield from self._verified(by_id, self._kept(self.generator.generate(prompts, self.sampling)), tallies)
            self.note_failures(tallies)
            if self.generator.stopped:
                return

    def note_failures(self, tallies: dict[str, Tally]) -> None:
        """Moves the prompts that failed from the generator to the tallies."""
        for prompt, reason in self.generator.failed:
            tallies[prompt.problem_id].failed = reason
            tallies[prompt.problem_id].failures += 1
        self.generator.failed.clear()

    def _wanted(self, problem: Problem, tally: Tally) -> list[Prompt]:
        if tally.failed:
            return []
        count = self.plan.more(len(tally.verdicts), tally.right)
        free = (index for index in range(self.plan.most + self.plan.samples) if index not in tally.verdicts)
        indices = (index for index, _ in zip(free, range(count), strict=False))
        return [self.prompting.prompt(problem, index) for index in indices]

    def _kept(self, completions: Iterable[Completion]) -> Iterator[Completion]:
        for completion in completions:
            if self.answers is not None:
                self.answers.append([asdict(completion)])
            yield completion

    def _verified(
        self, by_id: dict[str, Problem], completions: Iterable[Completion], tallies: dict[str, Tally]
    ) -> Iterator[Line]:
        waiting: deque[Completion] = deque()
        failures: list[Exception] = []

        def items() -> Iterator[tuple[str, ...]]:
            try:
                for completion in completions:
                    problem = by_id[completion.problem_id]
                    waiting.append(completion)
                    item = (completion.text, problem.answer, problem.policy)
                    yield item if self.answers is None else (*item, problem.question)
            except Exception as failure:  # raised below, after the answers that came before it are verified
                failures.append(failure)

        for verdict in self.verifier.check_many(items()):
            done = waiting.popleft()
            tallies[done.problem_id].verdicts[done.index] = verdict.correct is True
            reason = verdict.reason if done.stop == "end" else f"{verdict.reason}; {CUT_OFF}"
            trace = Trace(done.problem_id, done.index, done.text, self.teacher, verdict.correct, reason)
            yield line(done.problem_id, [trace], usage=list(done.usage))
        if failures:
            raise failures[0]
