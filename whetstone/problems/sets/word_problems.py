"""Word problems whose answer is a number."""

import re

from whetstone.problems.formulas import CALCULATOR, annotated_formula, annotated_steps
from whetstone.problems.published import ProblemSet, scoring_set
from whetstone.problems.reading import Reading, after_hashes, with_box
from whetstone.problems.row import Row
from whetstone.problems.values import gold, optional, text


def gsm8k(row: Row) -> Reading:
    """The solution's annotated steps are equations, which give a formula if they join into one."""
    solution, question = text(row, "answer"), text(row, "question")
    answer = after_hashes(solution)
    if answer is None:
        raise ValueError("no answer found: nothing follows ####")
    worked = CALCULATOR.sub("", solution.rpartition("####")[0]).strip()
    steps = annotated_steps(solution)
    formula = annotated_formula(steps, question, answer)
    return Reading(question, answer, (with_box(worked, answer),), formula=formula, equations="; ".join(steps))


def gsm_hard(row: Row) -> Reading:
    return Reading(text(row, "input"), gold(row, "target"))


def mawps(row: Row) -> Reading:
    """The set comes with spaces before its punctuation: "8 apples ." """
    question = re.sub(r" (?=[.,?!;:%](?: |$))|(?<=\$) | (?='s\b)", "", text(row, "input"))
    return Reading(question, gold(row, "target"), domain=optional(row, "type").lower())


def body_and_question(row: Row) -> Reading:
    """SVAMP (Body, Question, Answer) and ASDiv's table (body, question, answer "9 (apples)")."""
    lower = {name.lower(): value for name, value in row.items()}
    answer = re.sub(r"\s*\([^()]*\)$", "", gold(lower, "answer"))
    body = text(lower, "body")
    stop = "" if not body or re.search('[.?!,]["”]?$', body) else "."
    question = f"{body}{stop} {text(lower, 'question')}"
    domain = optional(lower, "type") or optional(lower, "solution_type")
    return Reading(" ".join(question.split()), answer.replace(",", ""), domain=domain.lower())


SETS = {
    "gsm8k": ProblemSet(gsm8k, "MIT", "number", "openai/gsm8k", "main", test="gsm8k/test.jsonl.gz"),
    "gsm_hard": scoring_set(
        gsm_hard, "Apache-2.0", "number", "reasoning-machines/gsm-hard", test="gsm_hard/gsmhardv2.jsonl.gz"
    ),
    "mawps": ProblemSet(mawps, "MIT", "number", test="mawps/test.jsonl.gz"),
    "asdiv": ProblemSet(body_and_question, "CC BY-NC 4.0", "number", test="asdiv/test.jsonl.gz"),
    "svamp": ProblemSet(body_and_question, "MIT", "number", "ChilleD/SVAMP"),
}
