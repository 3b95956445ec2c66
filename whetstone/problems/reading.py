r"""What a row says, and the one crossing from a row to a `Problem` or to the reason why it is none.

A `ProblemSet` says how a row is read into a `Reading`. It refuses a row that gives no problem with one of few reasons:
`raise ValueError("reason: detail")`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from whetstone.problems.row import BrokenRow, Row, as_json, columns_of, excerpt, hidden, listed, lone_surrogate
from whetstone.problems.values import gold, optional, text
from whetstone.records import Problem
from whetstone.run.mistakes import suggestion
from whetstone.verify.extract import last_box
from whetstone.verify.policy import POLICIES

__all__ = ["Drop", "ProblemSet", "Reading", "Shipped", "gold", "last_box", "optional", "read_problem", "text"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a row says."""

    question: str
    answer: str  # "" if the row has none
    traces: tuple[str, ...] = ()  # worked solutions, as completions
    level: int | None = None
    domain: str = ""
    licence: str = ""  # of this row, if it differs from the layout's
    policy: str = ""  # likewise
    formula: str = ""  # an arithmetic expression that gives the answer, if the row tells the steps
    id: str = ""  # the row's own name
    system: str = ""  # a system message before the question
    equations: str = ""  # that the row's solution annotates, separated by semicolons


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """How the rows of a user's file or a published set are read, and what is known of it.

    Column names and licences are those of the set's own page; a licence covers what the set's makers could license.
    """

    read: Callable[[Row], Reading]  # raises ValueError("reason: detail") for a row that gives no problem, or KeyError
    licence: str = "not stated"
    policy: str = "math"  # the answer policy of its problems
    hub: str = ""  # its name on the Hugging Face Hub
    configuration: str | None = None  # of the set there
    for_scoring: bool = False  # refused as training data
    test: str = ""  # file below $WHETSTONE_DATA that scores are of; "": it is no set to score on
    unanswered: int = 0  # rows of that file to which the set itself gives no answer


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that did not become a problem, and why."""

    source: str
    line: int | None  # of the file; None for a problem that was made
    id: str
    reason: str  # one of few, so that reasons can be counted
    detail: str = ""
    text: str = ""  # an excerpt
    file: str = ""  # of several


@dataclass(frozen=True, slots=True)
class Shipped:
    """A problem with the worked solutions that came with it."""

    problem: Problem
    traces: tuple[str, ...]


def read_problem(
    row: Row | BrokenRow,
    line: int,
    layout: ProblemSet,
    source: str,
    traces: bool = True,
    file: str = "",
    identify: Callable[[str, str], str] | None = None,
) -> Problem | Shipped | Drop:
    """The problem of a row (with its worked solutions, if `traces`), or why it gives none.

    `identify(the row's own id, place)` names the problem; default: "source/id" or "source/place". The place is the line, and of
    several files "file/line".
    """
    place = f"{file}/{line}" if file else f"{line}"
    identity = f"{source}/{place}"
    if isinstance(row, BrokenRow):
        return Drop(source, line, identity, row.reason, row.detail, row.text, file)
    try:
        reading = _checked(layout.read(row))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        reason, detail = _why(error, row)
        return Drop(source, line, identity, reason, detail, excerpt(as_json(row)), file)
    identity = identify(reading.id, place) if identify else f"{source}/{reading.id or place}"
    solutions = tuple(filter(None, reading.traces)) if traces else ()
    if not reading.answer and not solutions:
        return Drop(source, line, identity, "empty answer", "", excerpt(reading.question), file)
    problem = Problem(
        id=identity,
        question=reading.question.strip(),
        answer=reading.answer,
        level=reading.level,
        domain=reading.domain,
        source=source,
        licence=reading.licence or layout.licence,
        policy=reading.policy or layout.policy,
        formula=reading.formula,
        system=reading.system,
        equations=reading.equations,
    )
    return Shipped(problem, solutions) if solutions else problem


def _checked(reading: Reading) -> Reading:
    """Raises ValueError for a reading without a question, with text that is not UTF-8, or with an unknown policy."""
    if not reading.question.strip():
        raise ValueError("empty question")
    said = reading.system, reading.question, reading.answer, *reading.traces
    texts = *said, reading.id, reading.domain, reading.formula, reading.equations, reading.licence
    bad = lone_surrogate("\0".join(texts))
    if bad:
        raise ValueError(f"not UTF-8: {bad}")
    if reading.policy and reading.policy not in POLICIES:
        raise ValueError(f"unknown policy: {excerpt(reading.policy)}{suggestion(reading.policy, POLICIES)}")
    return reading


def _why(error: Exception, row: Row) -> tuple[str, str]:
    """(reason, detail) of an error in reading a row."""
    if isinstance(error, KeyError):
        names = list(columns_of(row))
        likely = suggestion(error.args[0], names).removesuffix(".")
        return "missing column", f"this row has no {error}, but {listed(names)}{likely}{hidden(row, error.args[0])}"
    if isinstance(error, ValueError):
        reason, _, detail = str(error).partition(": ")
        return reason, detail
    return "not as the layout says", f"{type(error).__name__}: {error}"  # a value of another type


# --- answers in solutions ---


def boxed(solution: str) -> str:
    """The answer in the last box of a solution. Raises ValueError."""
    answer = last_box(solution)
    if answer is None:
        raise ValueError("no answer found: the solution has no complete box")
    return answer


def with_box(solution: str, answer: str) -> str:
    """A solution that says its answer in a box, as all completions here do."""
    return solution if last_box(solution) else f"{solution}\n\nThe answer is $\\boxed{{{answer}}}$."


def after_hashes(text: str) -> str | None:
    """The line after the last #### (GSM8K), without thousands separators; None if there is none, or more than it."""
    _, hashes, answer = text.rpartition("####")
    answer = answer.strip()
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", answer):
        answer = answer.replace(",", "")
    return answer if hashes and answer and "\n" not in answer else None
