r"""Is a text's answer right? Exact, bounded in time and memory, safe from any thread.

    from whetstone.verify import MathVerifier, verify

    verify(r"… so \boxed{\frac{1}{2}}", "0.5")            # Verdict(correct=True, reason="equal", answer=r"\frac{1}{2}")

    with MathVerifier(workers=2, deadline=2.0) as verifier:
        verdicts = verifier.check_many([(text, gold, "math"), …])

A verdict's `correct` is None when nobody could decide (a timeout, a crash, an unreadable reference): count such an
answer, never score it as wrong. How an answer is found is in `extract.py`, what counts as equal in `policy.py` and
`equal.py`. Integers, fractions, roots, polynomials, tuples, sets, intervals and equations are decided by exact
arithmetic in this process; what needs computer algebra is asked of processes that are killed at the deadline.
"""

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from whetstone.records import Verdict
from whetstone.verify.equal import Ask, judge
from whetstone.verify.extract import extract, percent_after_box
from whetstone.verify.policy import POLICIES, Policy, get_policy

if TYPE_CHECKING:
    from whetstone.verify.workers import Workers

__all__ = ["POLICIES", "MathVerifier", "Policy", "extract", "get_policy", "verify"]

MOST_REMEMBERED = 100_000  # verdicts; then all are forgotten
POOL_LOCK = threading.Lock()


class MathVerifier:
    """A `records.Verifier`: exact comparison here, computer algebra in `workers` killable processes.

    `deadline` is the wall time in seconds that computer algebra may take for one check. Processes start when first
    needed; most maths answers never need one.
    """

    def __init__(self, workers: int = 1, deadline: float = 2.0):
        if workers < 1:
            raise ValueError(f"workers = {workers}: comparing hard answers needs a process. Use 1 or more.")
        if deadline <= 0:
            raise ValueError(
                f"deadline = {deadline}: no answer can be compared in no time. Use seconds above 0, say 2."
            )
        self.workers = workers
        self.deadline = deadline
        self.pool: Workers | None = None  # started when first needed
        self._remembered: dict[tuple[str, str, str], Verdict] = {}

    def check(self, text: str, gold: str, policy: str = "math") -> Verdict:
        """The verdict on a whole completion or a bare answer. Raises only for an unknown policy."""
        rules = get_policy(policy)
        answer, how = extract(text, rules)
        if answer is None:
            return Verdict(False, how)
        if how == "box" and "%" in gold and percent_after_box(text):
            answer += "\\%"
        key = (answer, gold, policy)
        verdict = self._remembered.get(key)
        if verdict is None:
            verdict = judge(answer, gold, rules, self._asker())
            if verdict.correct is not None:  # a timeout may be the machine's, so it is tried again
                self._remember(key, verdict)
        return verdict

    def check_many(self, items: Sequence[tuple[str, str, str]]) -> list[Verdict]:
        """Verdicts on (text, gold, policy) in order; hard ones share the processes."""
        if self.workers == 1 or len(items) < 2:
            return [self.check(*item) for item in items]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(self.workers) as threads:
            return list(threads.map(lambda item: self.check(*item), items))

    def close(self) -> None:
        """Ends the processes; the verifier stays usable and starts new ones when needed."""
        if self.pool is not None:
            self.pool.close()

    def __enter__(self) -> "MathVerifier":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _asker(self) -> Ask:
        """Asks computer algebra, within one deadline for all the questions of a check."""
        budget = None

        def ask(gold: str, answer: str) -> bool:
            nonlocal budget
            from whetstone.verify.workers import Budget

            budget = budget or Budget(self.deadline)
            return self._started_pool().same(gold, answer, budget)

        return ask

    @property
    def processes_started(self) -> int:
        """How many processes were started so far: above `workers`, the rest replaced ones that were killed."""
        return self.pool.started if self.pool is not None else 0

    def _started_pool(self) -> "Workers":
        if self.pool is None:
            from whetstone.verify.workers import Workers

            with POOL_LOCK:
                if self.pool is None:
                    self.pool = Workers(self.workers)
        return self.pool

    def _remember(self, key: tuple[str, str, str], verdict: Verdict) -> None:
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered = {}
        self._remembered[key] = verdict


@lru_cache(maxsize=1)
def _shared() -> MathVerifier:
    return MathVerifier()


def verify(text: str, gold: str, policy: str = "math") -> Verdict:
    """One check with a verifier that the whole process shares.

    >>> verify(r"The answer is \\boxed{3}.", "3").correct
    True
    """
    return _shared().check(text, gold, policy)
