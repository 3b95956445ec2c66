"""The verifier that programs use: decides here what it can, and asks killable processes for the rest."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

from whetstone.records import Verdict
from whetstone.verify.equal import Ask, judge, same_short_numbers
from whetstone.verify.extract import extract, last_box, other_name
from whetstone.verify.policy import get_policy
from whetstone.verify.verdict_cache import Question, VerdictCache

if TYPE_CHECKING:
    from concurrent.futures import Future

SHORT = 36  # digits of two whole numbers that are compared at once
PERCENT = re.compile(r"%|\bper ?cent\b|\bpct\b", re.IGNORECASE)
AHEAD = 256  # answers that `check_many` reads further than the one whose verdict is waited for


class NeedsAlgebra(Exception):
    """Exact arithmetic does not decide it, and computer algebra is not to be asked now."""


class MathVerifier:
    """A `records.Verifier`: exact comparison here, computer algebra in `workers` killable processes.

    `deadline` is the processor time in seconds that computer algebra may take for one check, so that verdicts do not depend
    on how busy the machine is; in wall time it is at most five times as long, once the check has a process to itself.
    Processes start when first needed; most maths answers never need one. Any thread, event loop or forked child may use
    it; a spawned child gets one with processes of its own.
    """

    def __init__(self, workers: int = 1, deadline: float = 2.0):
        from whetstone.verify.workers import Workers

        if not deadline > 0:
            raise ValueError(
                f"deadline = {deadline}: no answer can be compared in no time. Use seconds above 0, say 2."
            )
        self.deadline = deadline
        self.pool = Workers(workers)
        self._remembered = VerdictCache()

    def __reduce__(self) -> tuple[type["MathVerifier"], tuple[int, float]]:
        return type(self), (self.pool.size, self.deadline)

    def check(self, text: str, gold: str, policy: str = "math") -> Verdict:
        """The verdict on a whole completion or a bare answer.

        Raises ValueError for an unknown policy, TypeError for a text or reference that is neither text nor number.
        """
        found = self._check_here(text, gold, policy)
        return found if isinstance(found, Verdict) else self._judge(found)

    def check_many(self, items: Iterable[tuple[str, str, str]], label: str = "") -> Iterator[Verdict]:
        """Verdicts on tuples (text, gold, policy) in order, each as soon as it and those before it are there.

        The entries are those of `check`, which raises the same errors; the policy must be there.

        Items are taken when verdicts are, at most AHEAD further: while the processes work on a hard answer, those after
        it are decided here. With a `label`, progress is shown.
        """
        if not label:
            yield from self._check_in_order(items)
            return
        from whetstone.run.progress import progress

        total = len(items) if hasattr(items, "__len__") else None
        right = undecided = 0
        with progress(total, label, unit="answers") as bar:
            for verdict in self._check_in_order(items):
                right += verdict.correct is True
                undecided += verdict.correct is None
                bar.advance(1, right=right, undecided=undecided)
                yield verdict

    async def check_async(self, text: str, gold: str, policy: str = "math") -> Verdict:
        """`check` without holding up the event loop: texts are read in one thread, hard answers wait in others.

        As many hard ones run at once as there are processes. Cancelled before it had one, a check never runs; a running
        one ends by its deadline.
        """
        from asyncio import wrap_future

        found = await wrap_future(self.pool.reader.submit(self._check_here, text, gold, policy))
        return found if isinstance(found, Verdict) else await wrap_future(self.pool.askers.submit(self._judge, found))

    def close(self) -> None:
        """Ends the processes; the verifier stays usable and starts new ones when needed."""
        self.pool.close()

    def __enter__(self) -> "MathVerifier":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def processes_started(self) -> int:
        """How many processes were started so far: above `workers`, the rest replaced ones that were killed."""
        return self.pool.started

    def _check_in_order(self, items: Iterable[tuple[str, str, str]]) -> Iterator[Verdict]:
        waiting: deque[Verdict | Question] = deque()
        asked: dict[Question, Future[Verdict]] = {}  # the same question is asked once, however many wait for it

        def first() -> Verdict:
            found = waiting.popleft()
            if isinstance(found, Verdict):
                return found
            verdict = asked[found].result()
            if found not in waiting:
                del asked[found]
            return verdict

        try:
            for item in items:
                found = self._check_here(*item)
                if isinstance(found, Question) and found not in asked:
                    asked[found] = self.pool.askers.submit(self._judge, found)
                waiting.append(found)
                while waiting and (len(waiting) > AHEAD or isinstance(waiting[0], Verdict) or asked[waiting[0]].done()):
                    yield first()
            while waiting:
                yield first()
        finally:
            for future in asked.values():
                future.cancel()

    def _check_here(self, text: str, gold: str, policy: str) -> Verdict | Question:
        """The verdict where this process alone can tell, else the question that computer algebra is to be asked."""
        found = self._read(text, gold, policy)
        if isinstance(found, Verdict):
            return found
        try:
            return self._judge(found, _later)
        except NeedsAlgebra:
            return found

    def _read(self, text: str, gold: str, policy: str) -> Verdict | Question:
        rules = get_policy(policy)
        if type(text) is not str or type(gold) is not str:
            text, gold = _as_text(text, "text"), _as_text(gold, "gold")
        answer, how = extract(text, rules)
        if answer is None:
            return Verdict(False, how)
        if how == "box" and answer.endswith("\\%") and not (last_box(text) or "").endswith("%"):
            answer = _without_percent_beside(answer, gold)
        # most answers, and the reward of every step of RL: before anything is remembered
        if answer.isdecimal() and gold.isdecimal() and rules.kind == "math" and len(answer) + len(gold) <= SHORT:
            return Verdict(True, "equal", answer) if int(answer) == int(gold) else Verdict(False, "different", answer)
        if how == "box" and "=" in gold and "=" not in answer and (name := other_name(text, gold)):
            answer = f"{name}={answer}"
        if rules.kind == "math" and len(gold) <= SHORT and (same := same_short_numbers(answer, gold)) is not None:
            return Verdict(True, "equal", answer) if same else Verdict(False, "different", answer)
        question = Question(answer, gold, policy)
        return self._remembered.get(question) or question

    def _judge(self, question: Question, ask: Ask | None = None) -> Verdict:
        verdict = judge(question.answer, question.gold, get_policy(question.policy), ask or self._asker())
        if verdict.correct is not None:  # a timeout may be the machine's, so it is tried again
            self._remembered.put(question, verdict)
        return verdict

    def _asker(self) -> Ask:
        """Asks computer algebra, within one deadline for all the questions of a check."""
        from whetstone.verify.workers import Budget

        budget = Budget(self.deadline)
        return lambda gold, answer: self.pool.same(gold, answer, budget)


def _without_percent_beside(answer: str, gold: str) -> str:
    """An answer whose percent sign stood beside its box: without it if the reference names no percent.

    The sign stays for a reference that only the percentage can be: 28 % for 0.28.
    """
    alone = answer.removesuffix("\\%")
    named = PERCENT.search(gold) or (len(gold) <= SHORT and same_short_numbers(alone, gold) is False)
    return answer if named else alone


def _as_text(value: object, name: str) -> str:
    """Texts, and numbers as one writes them. Raises TypeError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | Fraction | Decimal) and not isinstance(value, bool):
        return str(value)
    raise TypeError(
        f"{name} = {value!r:.60} is of type {type(value).__name__}: an answer is compared as text. Pass a str, or a number."
    )


def _later(gold: str, answer: str) -> bool:
    raise NeedsAlgebra


@lru_cache(maxsize=1)
def _shared() -> MathVerifier:
    return MathVerifier()


def verify(text: str, gold: str, policy: str = "math") -> Verdict:
    """One check with a verifier that the whole process shares.

    >>> verify(r"The answer is \\boxed{3}.", "3").correct
    True
    """
    return _shared().check(text, gold, policy)
