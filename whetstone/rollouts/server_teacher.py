"""A teacher behind a server: asked in rounds, each answer a journal line as it comes, nothing paid for twice."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from whetstone.decode.server_generator import Spent
from whetstone.records import NO_REFERENCE, Completion, Problem
from whetstone.rollouts.journal import Done, Line, line
from whetstone.rollouts.mammoth import ProgramGrader
from whetstone.rollouts.rounds import Rounds, Tally
from whetstone.run.tables import Journal


class ServerTeacher:
    """The lines of a server's answers, programs too if there is a grader for them.

    `answered` holds, by problem, the completions of an earlier run that were not verified.
    """

    def __init__(
        self, rounds: Rounds, answered: Mapping[str, Sequence[Completion]], programs: ProgramGrader | None = None
    ):
        self.rounds, self.answered, self.programs = rounds, answered, programs
        self.server, self.spent = rounds.generator.settings, rounds.generator.spent

    @property
    def stopped(self) -> str:
        """Why the server is asked no more, "" while it is."""
        return self.rounds.generator.stopped

    def lines(self, problems: Sequence[Problem], done: Mapping[str, Sequence[Done]]) -> Iterator[Line]:
        asked = [problem for problem in problems if problem.answer]
        yield from (line(problem.id, reason=NO_REFERENCE) for problem in problems if not problem.answer)
        known = {problem.id: dict(v for row in done.get(problem.id, ()) for v in row.verdicts) for problem in asked}
        most = self.rounds.plan.most  # programs have higher indices
        tallies = {name: Tally({i: v[i] for i in v if i < most}) for name, v in known.items()}
        before = [completion for problem in asked for completion in self.answered.get(problem.id, ())]
        yield from self.rounds.lines(asked, tallies, before)
        if self.programs:
            written = {(name, index) for name, verdicts in known.items() for index in verdicts}
            rounds = self.rounds
            how = rounds.generator, rounds.sampling, rounds.teacher, written, rounds.prompting
            for trace, usage in self.programs.asked(asked, *how):
                yield line(trace.problem_id, [trace], usage=list(usage))
            rounds.note_failures(tallies)
        for name, tally in tallies.items():
            if tally.failed:
                yield line(name, reason=f"the server failed: {tally.failed}", failures=tally.failures)

    def cost(self) -> dict[str, str]:
        """For the progress line."""
        money = self.spent.money(self.server)
        tokens = {"tokens": f"{self.spent.tokens_in + self.spent.tokens_out:,}"}
        return tokens | ({"cost": f"{money:.2f}"} if money else {})

    def summary(self) -> dict[str, Any]:
        spent = self.spent
        tokens = {
            "tokens_in": spent.tokens_in,
            "tokens_out": spent.tokens_out,
            "answers whose tokens are estimated": spent.estimated,
        }
        return {"stopped": self.stopped, **tokens, "money": round(spent.money(self.server), 6)}


def unverified(row: dict[str, Any], verified: Collection[tuple[str, int]]) -> Completion | None:
    """The completion of a line of the answers' journal; None if it has a verdict already."""
    if (row["problem_id"], row["index"]) in verified:
        return None
    return Completion(row["problem_id"], row["index"], row["text"], row["stop"], usage=tuple(row["usage"]))


def take_answers(journal: Journal, spent: Spent) -> dict[str, list[Completion]]:
    """The unverified completions of a journal, by problem, taken out of it. Their tokens are spent already."""
    answered: dict[str, list[Completion]] = {}
    for completion in filter(None, journal.rows):
        answered.setdefault(completion.problem_id, []).append(completion)
        spent.add(*completion.usage)
    journal.rows.clear()
    return answered
