"""Questions with options: the answer is a letter."""

import re
from string import ascii_uppercase

from whetstone.problems.chats import asked
from whetstone.problems.published import ProblemSet, scoring_set
from whetstone.problems.reading import Reading
from whetstone.problems.row import Row
from whetstone.problems.values import gold, items, optional, text, text_of

OPTION = re.compile(r"^\(?([A-J])\)\s*(.*)$", re.DOTALL)
CHOSEN = re.compile(
    r"(?i:(?:\b(?:answer|option|choice|ans)\b[^A-Za-z\n]{0,6}"
    r"(?:(?:is|will be|would be|must be|choice|option)\b[^A-Za-z\n]{0,4})*)"
    r"|correct option:?\s*|^)\(?(?-i:([A-E]))\)?(?![A-Za-z'’])",
    re.MULTILINE,
)


def aqua_rat(row: Row) -> Reading:
    matches = [OPTION.match(str(option)) for option in row["options"]]
    if not all(matches):
        raise ValueError("options are not A) … to E) …")
    answer = gold(row, "correct").upper()
    if answer not in [match[1] for match in matches]:
        raise ValueError("the correct letter is none of the options")
    shown = "\n".join(f"({match[1]}) {match[2]}" for match in matches)
    question = f"{text(row, 'question')}\n\nAnswer Choices: choose one letter.\n{shown}"
    return Reading(question, answer, (letter_in_box(text(row, "rationale")),))


def letter_in_box(rationale: str) -> str:
    """The rationale with the letter it says last, never one that it does not say, in a box."""
    letters = CHOSEN.findall(rationale)
    return f"{rationale}\n\nThe answer is $\\boxed{{\\text{{{letters[-1]}}}}}$." if letters else rationale


def mmlu(row: Row) -> Reading:
    choices = zip(ascii_uppercase, items(row["choices"]), strict=False)
    options = [
        f"{letter}. {choice if isinstance(choice, str) else text_of(choice, 'a choice')}" for letter, choice in choices
    ]
    question = "\n".join((text(row, "question"), *options))
    return Reading(question, ascii_uppercase[row["answer"]], domain=optional(row, "type"))


def gpqa(row: Row) -> Reading:
    system, question = asked(row["prompt"], "'prompt'")
    return Reading(question, gold(row, "final_answer"), system=system)


SETS = {
    "aqua_rat": ProblemSet(aqua_rat, "Apache-2.0", "choice", "deepmind/aqua_rat", "raw", test="aqua_rat/test.json.gz"),
    "mmlu_stem": scoring_set(mmlu, "MIT", "choice", test="mmlu_stem/test.jsonl.gz"),
    "gpqa_diamond": scoring_set(gpqa, "CC BY 4.0", "choice", test="gpqa_diamond/gpqa_diamond.json.gz"),
}
