r"""What a row says, and the one crossing from a row to a `Problem` or to the reason why it is none.

A `ProblemSet` says how a row is read into a `Reading`. It refuses a row that gives no problem with one of few reasons:
`raise ValueError("reason: detail")`.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from whetstone.problems.table import BrokenRow, Row, cell, excerpt, has_cell, lone_surrogate
from whetstone.records import Problem
from whetstone.verify.extract import last_box


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
    identify: Callable[[str, int], str] | None = None,
) -> Problem | Shipped | Drop:
    """The problem of a row (with its worked solutions, if `traces`), or why it gives none.

    `identify(the row's own id, line)` names the problem; default: "source/id" or "source/line".
    """
    identity = f"{source}/{line}"
    if isinstance(row, BrokenRow):
        return Drop(source, line, identity, row.reason, row.detail, row.text)
    try:
        reading = _checked(layout.read(row))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        reason, detail = _why(error, row)
        return Drop(source, line, identity, reason, detail, excerpt(json.dumps(row, ensure_ascii=False, default=str)))
    identity = identify(reading.id, line) if identify else f"{source}/{reading.id or line}"
    solutions = tuple(filter(None, reading.traces)) if traces else ()
    if not reading.answer and not solutions:
        return Drop(source, line, identity, "empty answer", "", excerpt(reading.question))
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
    )
    return Shipped(problem, solutions) if solutions else problem


def _checked(reading: Reading) -> Reading:
    """Raises ValueError for a reading without a question, or with text that is not UTF-8."""
    if not reading.question.strip():
        raise ValueError("empty question")
    bad = lone_surrogate("\0".join((reading.question, reading.answer, *reading.traces)))
    if bad:
        raise ValueError(f"not UTF-8: {bad}")
    return reading


def _why(error: Exception, row: Row) -> tuple[str, str]:
    """(reason, detail) of an error in reading a row."""
    if isinstance(error, KeyError):
        return "missing column", f"this row has no {error}, but {', '.join(map(repr, row))}"
    if isinstance(error, ValueError):
        reason, _, detail = str(error).partition(": ")
        return reason, detail
    return "not as the layout says", f"{type(error).__name__}: {error}"  # a value of another type


# --- values ---


def text_of(value: Any, name: str = "") -> str:
    """A value as stripped text: "" for None, 43 for 43.0. Raises ValueError for what is neither text nor a finite number.

    >>> text_of(" a "), text_of(None), text_of(0), text_of(43.0), text_of(6.5)
    ('a', '', '0', '43', '6.5')
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"not text: {name or 'a column'} holds {_in_words(value)}, not text or a number")
    if not math.isfinite(value):
        raise ValueError(f"not text: {name or 'a column'} holds {value}, which is no number")
    return str(int(value)) if value == int(value) else str(value)


def _in_words(value: Any) -> str:
    names = {bool: "true or false", list: "a list", dict: "an object", bytes: "bytes"}
    return next((words for kind, words in names.items() if isinstance(value, kind)), f"a {type(value).__name__}")


def answer_of(value: Any, name: str = "") -> str:
    """The text of an answer, which may be a list of texts and numbers: several are joined with commas. Raises ValueError.

    >>> answer_of(["3"]), answer_of([1, 2.0]), answer_of("x")
    ('3', '1, 2', 'x')
    """
    if isinstance(value, list):
        return ", ".join(filter(None, (text_of(item, name) for item in value)))
    return text_of(value, name)


def question_of(value: Any, name: str = "") -> str:
    """The text of a question, which may be a chat of one turn, [{"role": "user", "content": "..."}]. Raises ValueError."""
    if not isinstance(value, list):
        return text_of(value, name)
    said = chat_turns(value)
    if len(said) != 1 or said[0][0] not in USERS:
        raise ValueError(
            f"not one question: {name or 'a column'} holds a chat of {len(said)} turns "
            f"({', '.join(role for role, _ in said)}), and a problem is what one user asks"
        )
    return said[0][1]


def text(row: Mapping[str, Any], column: str) -> str:
    """`text_of` a column. Raises KeyError if the row has none, ValueError with the column's name."""
    return text_of(cell(row, column), repr(column))


def optional(row: Mapping[str, Any], column: str | None) -> str:
    """`text_of` a column, "" if the row has none."""
    return text(row, column) if column is not None and has_cell(row, column) else ""


def level_of(value: Any) -> int | None:
    """The first number of a level: 3 for "Level 3"."""
    match = re.search(r"\d+", text_of(value))
    return int(match[0]) if match else None


# --- chats ---

USERS, ASSISTANTS = ("user", "human"), ("assistant", "gpt")


def chat_turns(messages: Any) -> list[tuple[str, str]]:
    """(role, text) of a chat in either notation, [{role, content}] or [{from, value}]. Raises ValueError."""
    if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
        raise ValueError("not a chat: a list of turns, each with role and content or from and value")
    return [(str(turn.get("role") or turn.get("from")), _turn_text(turn)) for turn in messages]


def _turn_text(turn: Mapping[str, Any]) -> str:
    """The text of a turn; its `reasoning_content` comes first, between <think> and </think>."""
    thoughts = text_of(turn.get("reasoning_content"), "a turn")
    content = text_of(turn.get("content") or turn.get("value"), "a turn")
    return f"<think>\n{thoughts}\n</think>\n\n{content}" if thoughts else content


def question_and_answer(messages: Any) -> tuple[str, str]:
    """(question, answer) of a chat of one turn each; a system turn is left aside. Raises ValueError."""
    said = [(role, content) for role, content in chat_turns(messages) if role != "system"]
    if len(said) != 2:
        raise ValueError("not one question and one answer: a chat of several turns is no single problem")
    (asker, question), (answerer, answer) = said
    if asker not in USERS or answerer not in ASSISTANTS:
        raise ValueError("not a question and its answer: the turns are not those of a user and an assistant")
    return question, answer


# --- boxes ---


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
    """What follows the last #### (GSM8K), without thousands separators; None for nothing."""
    _, hashes, answer = text.rpartition("####")
    answer = answer.strip()
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", answer):
        answer = answer.replace(",", "")
    return answer if hashes and answer else None
