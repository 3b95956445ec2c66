"""One answer from many completions: by majority vote, by the best score, or from a program before a chain of thought.

    vote = majority([completion.text for completion in completions], verifier)        # vote.answer, vote.share
    best = best_of(problem, completions, scorer)                                      # the completion scored highest
    answers = hybrid(generator, problems, Sampling(0.0), sandbox)                     # MAmmoTH: program first

Majority: Wang et al. 2022, arXiv 2203.11171. Differs from the paper: answers are compared by the verifier and not by their
spelling, so 1/2 and 0.5 are votes for one answer. Hybrid: Yue et al. 2023, arXiv 2309.05653.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from whetstone.prompting import BARE, Prompting
from whetstone.records import PROGRAM_REQUEST, Completion, Generator, Problem, Prompt, Sampling, Scorer, Verifier
from whetstone.verify import extract, get_policy
from whetstone.verify.program import Outcome, Sandbox


@dataclass(frozen=True, slots=True)
class Vote:
    """An answer, and which of the completions gave it.

    >>> Vote("1/2", (0, 1, 3), voters=4).share
    0.75
    """

    answer: str | None  # in its most frequent spelling, of equally frequent ones the first; None if there is no answer
    places: tuple[int, ...]  # of the completions that gave it
    voters: int  # completions with an answer, this or another

    @property
    def votes(self) -> int:
        return len(self.places)

    @property
    def share(self) -> float:
        return self.votes / max(1, self.voters)


def majority(texts: Sequence[str], verifier: Verifier, policy: str = "math") -> Vote:
    """The most frequent answer of whole completions; of equally frequent ones the one given first."""
    rules = get_policy(policy)
    votes = count_votes([extract(text, rules).answer for text in texts], verifier, policy)
    return votes[0] if votes else Vote(None, (), 0)


def count_votes(answers: Sequence[str | None], verifier: Verifier, policy: str = "math") -> list[Vote]:
    """The votes for each different answer, most votes first, then the one given first. None and "" are no votes.

    Two answers share a vote only if the verifier accepts each of them with the other as the reference; an undecided
    comparison joins nothing. Being accepted is not transitive: a bare 5 is accepted for 5 feet and for 5 inches, which
    differ. So an answer joins a group only if it is the same as every answer of the group, the most frequent spellings form
    groups first, and an answer that fits several groups joins none. n answers take at most n (n - 1) checks.
    """
    places: dict[str, list[int]] = {}
    for place, answer in enumerate(answers):
        if answer:
            places.setdefault(answer, []).append(place)
    same = _same(list(places), verifier, policy)
    groups: list[list[str]] = []
    for answer in sorted(places, key=lambda answer: (-len(places[answer]), len(same[answer]))):
        fitting = [group for group in groups if same[answer].issuperset(group)]
        if len(fitting) == 1:
            fitting[0].append(answer)
        else:
            groups.append([answer])
    voters = sum(map(len, places.values()))
    votes = [Vote(group[0], tuple(sorted(i for answer in group for i in places[answer])), voters) for group in groups]
    return sorted(votes, key=lambda vote: (-vote.votes, vote.places[0]))


def _same(answers: Sequence[str], verifier: Verifier, policy: str) -> dict[str, set[str]]:
    """Each of these distinct answers -> those that it is accepted for and that are accepted for it, itself included."""
    pairs = list(combinations(answers, 2))
    for _ in ("one direction", "the other, for the pairs that are left"):
        verdicts = verifier.check_many([(boxed(answer), gold, policy) for answer, gold in pairs])
        pairs = [(gold, answer) for (answer, gold), verdict in zip(pairs, verdicts, strict=True) if verdict.correct]
    same = {answer: {answer} for answer in answers}
    for one, other in pairs:
        same[one].add(other)
        same[other].add(one)
    return same


def boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def best_of(problem: Problem, completions: Sequence[Completion], scorer: Scorer) -> Completion:
    """The completion with the highest score; of equal ones the first.

    Raises ValueError without completions, and for a score that is not a number.
    """
    if not completions:
        raise ValueError(f"problem {problem.id}: there is no best of no completions. Sample at least one.")
    scores = [scorer(problem, completion.text) for completion in completions]
    for completion, score in zip(completions, scores, strict=True):
        if score != score:
            raise ValueError(
                f"problem {problem.id}, completion {completion.index}: the scorer gave {score}, which cannot be compared "
                "with other scores. Return a number for every completion."
            )
    return completions[max(range(len(scores)), key=scores.__getitem__)]


@dataclass(frozen=True, slots=True)
class Hybrid:
    """A problem's answer: from its program, or from a chain of thought if the program gave none."""

    problem_id: str
    answer: str | None
    by: str  # program | thought
    outcome: Outcome  # of the program
    program: Completion
    thought: Completion | None  # None if the program gave an answer


def hybrid(
    generator: Generator, problems: Sequence[Problem], sampling: Sampling, sandbox: Sandbox, prompting: Prompting = BARE
) -> list[Hybrid]:
    """MAmmoTH's hybrid decoding: a program, run in the sandbox; if it gives no answer, a chain of thought.

    Raises ValueError before anything is generated if this machine offers no isolation for programs.
    """
    sandbox.require()
    programs = _one_each(generator, [prompting.prompt(problem, 0, PROGRAM_REQUEST) for problem in problems], sampling)
    outcomes = {name: sandbox.run_text(completion.text) for name, completion in programs.items()}
    failed = [problem for problem in problems if outcomes[problem.id].answer is None]
    thoughts = _one_each(generator, [prompting.prompt(problem, 0) for problem in failed], sampling)
    answers = []
    for problem in problems:
        outcome, thought = outcomes[problem.id], thoughts.get(problem.id)
        answer = outcome.answer if thought is None else extract(thought.text, get_policy(problem.policy)).answer
        by = "program" if thought is None else "thought"
        answers.append(Hybrid(problem.id, answer, by, outcome, programs[problem.id], thought))
    return answers


def _one_each(generator: Generator, prompts: Sequence[Prompt], sampling: Sampling) -> dict[str, Completion]:
    """One completion per prompt, by problem id, in the order of the prompts."""
    if not prompts:
        return {}
    completions = {completion.problem_id: completion for completion in generator.generate(prompts, sampling)}
    return {prompt.problem_id: completions[prompt.problem_id] for prompt in prompts}
