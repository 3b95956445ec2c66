"""What runs inside a worker process: math-verify and sympy, with guards on what they accept.

math-verify reads the text; its own comparison rounds, so it takes 1/2004! for 1/2006!. Here two formulas are equal if sympy
makes their difference 0, and different if their values differ. Imported by no one but a worker: it brings sympy with it.
"""

import contextlib
import gc
import os
import re
import signal
import sys
import time
from functools import lru_cache
from typing import Any

from whetstone.run.processes import fork
from whetstone.verify.exact import TooLarge
from whetstone.verify.numeric import POINTS, values_at
from whetstone.verify.wire import PATIENCE, first_readable, readable, receive, send

IDLE_CHECK_SECONDS = 5
DIGITS, AGREEING = 30, 12  # digits that sympy evaluates, and those in which two values must differ to be different
TOKENS = re.compile(r"\\[A-Za-z]+|\\.|\d+|\S", re.DOTALL)
MOST_TOKENS = 200
DEEPEST = 8
UNEVALUATED = frozenset(("\\sum", "\\prod", "\\int", "\\iint", "\\oint", "\\lim"))
FINITE = re.compile(r"\\(?:sum|prod)_\{[A-Za-z]=-?\d{1,3}\}\^(?:\{\d{1,3}\}|\d)")
WORK = dict.fromkeys(UNEVALUATED, 2) | {
    "\\Gamma": 2, "\\choose": 2, "\\binom": 1, "\\begin": 3.5, "\\det": 2, "\\lfloor": 1, "\\lceil": 1, "!": 1, "^": 0.5,
}  # fmt: skip
MOST_WORK = 4
MOST_DIGITS = 4  # of a number beside any of these
CRASHED = {"problem": "crashed"}
TIMEOUT = {"problem": "timeout"}
KILLED = {"problem": "killed"}  # by a signal that others sent: no fault of the question
DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)(?![\d.])")


def serve() -> None:
    """Passes questions from standard input to a forked child until the input ends or the parent is gone.

    A child that is late or has died is replaced by another fork in milliseconds, where a new process would first have to
    import sympy for a second.
    """
    replies, questions = os.dup(1), os.dup(0)
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 0)
    os.dup2(quiet, 1)
    parent = os.getppid()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    sys.setrecursionlimit(3_000)
    import math_verify  # noqa: F401
    import sympy  # noqa: F401

    _cap_memory()
    # What the first questions import is shared, too
    answer(r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}")
    gc.collect()
    gc.freeze()
    child = _Forked(questions, replies)
    send(replies, {"ready": True})
    while True:
        if not readable(questions, IDLE_CHECK_SECONDS):
            if os.getppid() != parent:
                return
            continue
        question = receive(questions)
        if question is None:
            return
        reply = child.asked(question, stop=questions)
        if reply == CRASHED:  # an earlier question may have spoiled it; a question that ends a process does so again
            child = _Forked(questions, replies)
            reply = child.asked(question, stop=questions)
        if reply is None:
            return
        send(replies, reply)
        if not child.alive:
            child = _Forked(questions, replies)


class _Forked:
    """A child that answers questions, and can be killed."""

    def __init__(self, *not_for_it: int):
        theirs, self.questions = os.pipe()
        self.replies, ours = os.pipe()
        self.alive = True

        def work() -> None:
            for descriptor in (self.questions, self.replies, *not_for_it):
                os.close(descriptor)
            _answer_all(theirs, ours)

        self.pid = fork("verifier", work)
        os.close(theirs)
        os.close(ours)

    def asked(self, question: dict[str, Any], stop: int) -> dict[str, Any] | None:
        """Its reply, or the problem with it; None if the input `stop` ended first. Anything but a plain reply kills it."""
        reply: dict[str, Any] | None = TIMEOUT
        try:
            wait = question["seconds"] * PATIENCE
            deadline = time.monotonic() + wait
            send(self.questions, question)
            if first_readable((self.replies, stop), wait) == self.replies:
                reply = receive(self.replies, deadline + 1) or CRASHED
            elif time.monotonic() < deadline:
                reply = None
        except TimeoutError:
            pass
        except OSError:
            reply = CRASHED
        if reply is None or reply.get("problem") in ("timeout", "crashed", "out of memory"):
            status = self._end()
            ended_by = os.WTERMSIG(status) if reply == CRASHED and os.WIFSIGNALED(status) else None
            if ended_by == signal.SIGPROF:
                return TIMEOUT
            if ended_by in (signal.SIGKILL, signal.SIGTERM):
                return KILLED
        return reply

    def _end(self) -> int:
        """Kills it and returns its wait status, which stays as it was if it had ended before."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.questions)
        os.close(self.replies)
        self.alive = False
        return status


def _answer_all(questions: int, replies: int) -> None:
    """The child's work: until the input ends. The kernel ends it when its processor time is used up, whatever it does then,
    or when nobody is left to kill it."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    while (question := receive(questions)) is not None:
        seconds = question["seconds"]
        began = time.process_time()
        signal.setitimer(signal.ITIMER_REAL, seconds * PATIENCE + 1)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        reply = answer(question["gold"], question["answer"])
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        send(replies, reply | {"seconds": time.process_time() - began})


def _cap_memory() -> None:
    try:
        import resource

        cap = int(os.environ.get("WHETSTONE_WORKER_MEMORY", 1 << 30))
        resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # macOS has no such limit; the deadline still holds


def answer(gold: str, given: str) -> dict[str, Any]:
    """`{"equal": bool}` or `{"problem": reason}`. An answer that leaves more unevaluated than its reference is wrong."""
    try:
        if require_small(given) - require_small(gold):
            return {"equal": False}
        wanted = parsed(gold)
        if wanted is None:
            return {"problem": "reference answer unreadable"}
        found = parsed(given)
        if found is None:
            return {"problem": "unreadable answer"}
        equal = same(wanted, found)
        return {"problem": "not decided by computer algebra"} if equal is None else {"equal": equal}
    except TooLarge as error:
        return {"problem": f"too large to evaluate: {error}"}
    except MemoryError:
        return {"problem": "out of memory"}
    except RecursionError:
        return {"problem": "unreadable answer"}
    except Exception as error:  # the text is untrusted and sympy raises anything: the one broad catch, reason kept
        return {"problem": f"not decided: {type(error).__name__}"}


def require_small(text: str) -> set[str]:
    """TooLarge for what math-verify would take long over, be it only to read: it evaluates while it reads.

    Returns the integrals, limits and long sums in the text, to be compared only with others.
    """
    tokens = TOKENS.findall(text)
    if len(tokens) > MOST_TOKENS:
        raise TooLarge(f"{len(tokens)} signs are too many for computer algebra")
    depth = deepest = 0
    for token in tokens:
        depth += (token in "{([") - (token in "})]")
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        raise TooLarge("nested too deeply for computer algebra")
    work = sum(WORK.get(token, 0) for token in tokens)
    if work > MOST_WORK:
        raise TooLarge("several sums, integrals, factorials or the like")
    if work and any(token[0].isdecimal() and len(token) > MOST_DIGITS for token in tokens):
        raise TooLarge("a sum, integral, factorial or the like with large numbers")
    return UNEVALUATED.intersection(TOKENS.findall(FINITE.sub("", text)))


@lru_cache(maxsize=256)
def parsed(text: str) -> Any:
    """The sympy object of a LaTeX text, decimals as exact fractions; None where there is none."""
    from math_verify import LatexExtractionConfig, parse

    exact = DECIMAL.sub(lambda found: f"\\frac{{{int(found[1] + found[2])}}}{{{10 ** len(found[2])}}}", text)
    # only as LaTeX: its plain-number fallback takes 48 out of `48{/h}52{/h}`
    for candidate in parse(f"${exact}$", extraction_config=[LatexExtractionConfig()], parsing_timeout=None):
        if not isinstance(candidate, str):
            return candidate
    return None


def same(gold: Any, given: Any) -> bool | None:
    """Two formulas: True if sympy makes their difference 0, False if their values differ, None if neither."""
    import sympy

    if not isinstance(gold, sympy.Expr) or not isinstance(given, sympy.Expr):
        return None
    gold, given = (side.subs({s: sympy.Symbol(str(s), real=True) for s in side.free_symbols}) for side in (gold, given))
    names = sorted({str(s) for s in gold.free_symbols | given.free_symbols})
    if _differ(gold, given, names):
        return False
    difference = gold.doit() - given.doit()
    if difference == 0 or (simple := sympy.simplify(difference)) == 0:
        return True
    closed = not simple.has(sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Float)
    return False if closed and simple.is_number and abs(sympy.N(simple, 60)) > sympy.Float(10, 60) ** -40 else None


def _differ(gold: Any, given: Any, names: list[str]) -> bool:
    """Do their values differ at a point?"""
    import sympy

    for upper, lower in POINTS[:2] if names else POINTS[:1]:
        point = values_at(names, upper, lower)
        values = [
            sympy.N(
                side.subs({s: sympy.Rational(*point[str(s)].as_integer_ratio()) for s in side.free_symbols}), DIGITS
            )
            for side in (gold, given)
        ]
        if not all(value.is_number and value.is_finite for value in values):
            continue
        size = max(abs(value) for value in values)
        if abs(values[0] - values[1]) > size * sympy.Float(10, DIGITS) ** -AGREEING:
            return True
    return False
