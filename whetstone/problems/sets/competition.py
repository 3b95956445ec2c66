"""Competition and college problems with a written answer."""

from whetstone.problems.published import ProblemSet, scoring_set
from whetstone.problems.reading import Reading, boxed, last_box, with_box
from whetstone.problems.row import Row
from whetstone.problems.values import answer_of, gold, items, level_of, optional, text, text_of


def math(row: Row) -> Reading:
    solution = text(row, "solution")
    return Reading(
        text(row, "problem"), boxed(solution), (solution,), level_of(row.get("level")), optional(row, "type").lower()
    )


def with_answer(row: Row) -> Reading:
    solution = optional(row, "solution")
    domain = (optional(row, "subject") or optional(row, "type")).lower()
    traces = (solution,) if last_box(solution) else ()
    return Reading(text(row, "problem"), gold(row, "answer"), traces, level_of(row.get("level")), domain)


def gaokao(row: Row) -> Reading:
    return Reading(text(row, "question"), gold(row, "answer"))


def olympiadbench(row: Row) -> Reading:
    """One problem of the competition part states its answer up to a tolerance; it is compared exactly all the same."""
    answer = answer_of([_without_dollars(text_of(answer, "'final_answer'")) for answer in items(row["final_answer"])])
    if not answer:
        raise ValueError("empty answer")
    context = optional(row, "context")
    question = f"{context}\n\n{text(row, 'question')}" if context else text(row, "question")
    solutions = filter(None, (text_of(solution, "'solution'") for solution in items(row.get("solution"))))
    traces = tuple(with_box(solution, answer) for solution in solutions)
    return Reading(question, answer, traces, domain=optional(row, "subfield").lower())


def _without_dollars(answer: str) -> str:
    r"""The formula alone of an answer that is one; `$69$,$84$` stays.

    >>> _without_dollars("$2^{1009}$"), _without_dollars("$69$,$84$")
    ('2^{1009}', '$69$,$84$')
    """
    inner = answer.removeprefix("$").removesuffix("$").strip()
    return answer if "$" in inner else inner


SETS = {
    "math": ProblemSet(
        math, "MIT", hub="EleutherAI/hendrycks_math", configuration="algebra", test="math/test.jsonl.gz"
    ),
    "math500": scoring_set(with_answer, "MIT", hub="HuggingFaceH4/MATH-500", test="math500/test.jsonl.gz"),
    "aime": ProblemSet(with_answer, policy="aime", hub="gneubig/aime-1983-2024"),
    "aime24": scoring_set(with_answer, "Apache-2.0", "aime", "HuggingFaceH4/aime_2024", test="aime24/test.jsonl.gz"),
    "deepscaler": ProblemSet(with_answer, "MIT", hub="agentica-org/DeepScaleR-Preview-Dataset"),
    "amc23": scoring_set(with_answer, hub="AI-MO/aimo-validation-amc", test="amc23/test.jsonl.gz"),
    "minerva_math": scoring_set(math, test="minerva_math/test.jsonl.gz"),
    "olympiadbench": scoring_set(
        olympiadbench,
        "Apache-2.0",
        "math",
        "Hothan/OlympiadBench",
        "OE_TO_maths_en_COMP",
        test="olympiadbench/test.jsonl.gz",
    ),
    "gaokao2023en": scoring_set(gaokao, test="gaokao2023en/test.jsonl.gz", unanswered=2),
}
