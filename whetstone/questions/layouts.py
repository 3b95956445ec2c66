r"""The published sets whose columns are known: where question, answer and worked solution stand, under which licence.

A layout reads one row. What it cannot turn into a problem it refuses with one of few reasons (ValueError). Column names and
licences are those of the sets' own pages; a licence covers what the set's makers could license.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from whetstone.arithmetic.expression import as_value, evaluate, numbers, parse, render
from whetstone.arithmetic.number_words import mentions
from whetstone.questions.asdiv import read_formula
from whetstone.questions.sources import find_answer, last_box

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a row says."""

    question: str
    answer: str  # "" where the set ships none
    traces: tuple[str, ...] = ()  # worked solutions, as completions
    level: int | None = None
    domain: str = ""
    licence: str = ""  # where it differs from row to row
    policy: str = ""  # likewise
    formula: str = ""  # that gives the answer, where the set tells its steps


@dataclass(frozen=True, slots=True)
class Layout:
    read: Callable[[Row], Reading]
    columns: tuple[str, ...]  # that every row must have
    licence: str
    hub: str = ""  # name on the Hugging Face Hub, and which configuration
    configuration: str | None = None
    policy: str = "math"
    evaluation: bool = False  # made for scoring: refused as training data

    def __call__(self, row: Row) -> Reading:
        """Raises ValueError with the reason for a row that gives no problem."""
        absent = [name for name in self.columns if name not in row]
        if absent:
            raise ValueError(f"missing column: this row has no {', '.join(map(repr, absent))}")
        reading = self.read(row)
        if not reading.question.strip():
            raise ValueError("empty question")
        return reading


# --- pieces that several sets share ---


def text_of(value: Any) -> str:
    """A cell as stripped text: "" for none, 43 for 43.0. Raises ValueError for what is neither text nor a number."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"not text: {type(value).__name__} where text or a number should be")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def boxed(solution: str) -> str:
    answer = last_box(solution)
    if answer is None:
        raise ValueError("no answer found: the solution has no complete box")
    return answer


def with_box(solution: str, answer: str) -> str:
    """A solution that says its answer in a box, as all completions here do."""
    return solution if last_box(solution) else f"{solution}\n\nThe answer is $\\boxed{{{answer}}}$."


THOUGHT = re.compile(
    r"<\|begin_of_thought\|>(?P<thought>.*?)<\|end_of_thought\|>\s*<\|begin_of_solution\|>(?P<solution>.*?)"
    r"(?:<\|end_of_solution\|>|\Z)",
    re.DOTALL,
)


def thinking(completion: str) -> str:
    """A completion with its thinking between <think> and </think>, whatever marks the set uses."""
    found = THOUGHT.search(completion)
    if found:
        return f"<think>\n{found['thought'].strip()}\n</think>\n\n{found['solution'].strip()}"
    return completion.strip()


def turns(messages: Any) -> tuple[str, str]:
    """(last question, its answer) of a chat: [{role, content}] or [{from, value}]. Raises ValueError."""
    if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
        raise ValueError("not a chat: a list of turns, each with role and content or from and value")
    said = [(turn.get("role") or turn.get("from"), turn.get("content") or turn.get("value")) for turn in messages]
    said = [(role, text) for role, text in said if role != "system"]
    if len(said) != 2:
        raise ValueError("not one question and one answer: a chat of several turns is no single problem")
    (asker, question), (answerer, answer) = said
    if asker not in ("user", "human") or answerer not in ("assistant", "gpt"):
        raise ValueError("not a question and its answer: the turns are not those of a user and an assistant")
    return text_of(question), text_of(answer)


def level_of(value: Any) -> int | None:
    found = re.search(r"\d+", text_of(value))
    return int(found[0]) if found else None


# --- schoolbook and competition sets ---

UNTOLD = frozenset({*range(13), 24, 30, 52, 60, 100, 365, 1000})  # numbers that everyday words stand for
CALCULATOR = re.compile(r"<<[^<>]*>>")


def stepwise_formula(solution: str, question: str, answer: str) -> str:
    """GSM8K's annotated steps (<<48/2=24>><<48+24=72>>) as one formula that gives the answer; "" where they do not join.

    A step joins where its value occurs once in the later ones and is not itself a number of the question: otherwise nothing
    says which 24 is meant, or one would stay behind as if it were told. Nor may the formula hold a large number that the
    question does not tell: it would be the result of a step that is not annotated.
    """
    steps = [found[2:-2] for found in CALCULATOR.findall(solution)]
    try:
        written = [list(numbers(parse(step.partition("=")[0]))) for step in steps]
        values = [as_value(Fraction(step.rpartition("=")[2])) for step in steps]
        for place, value in enumerate(values):
            if sum(later.count(value) for later in written[place + 1 :]) > 1:
                return ""
        formula = read_formula("; ".join(steps), question)
        told = {mention.value for mention in mentions(question)} | UNTOLD
        return render(formula) if evaluate(formula) == Fraction(answer) and set(numbers(formula)) <= told else ""
    except (ValueError, ZeroDivisionError):
        return ""


def gsm8k(row: Row) -> Reading:
    solution, question = text_of(row["answer"]), text_of(row["question"])
    answer = find_answer(solution, "after_hashes")
    if answer is None:
        raise ValueError("no answer found: nothing follows ####")
    worked = CALCULATOR.sub("", solution.rpartition("####")[0]).strip()
    formula = stepwise_formula(solution, question, answer)
    return Reading(question, answer, (with_box(worked, answer),), formula=formula)


def math(row: Row) -> Reading:
    solution = text_of(row["solution"])
    answer = boxed(solution)
    return Reading(
        text_of(row["problem"]), answer, (solution,), level_of(row.get("level")), text_of(row.get("type")).lower()
    )


def problem_and_answer(row: Row) -> Reading:
    solution = text_of(row.get("solution"))
    answer = text_of(row["answer"])
    domain = text_of(row.get("subject") or row.get("type")).lower()
    traces = (solution,) if solution and last_box(solution) else ()
    return Reading(text_of(row["problem"]), answer, traces, level_of(row.get("level")), domain)


OPTION = re.compile(r"^\(?([A-J])\)\s*(.*)$", re.DOTALL)


def aqua_rat(row: Row) -> Reading:
    options = row["options"]
    if not isinstance(options, list) or not all(OPTION.match(str(option)) for option in options):
        raise ValueError("options are not A) … to E) …")
    shown = "\n".join("({}) {}".format(*OPTION.match(str(option)).groups()) for option in options)
    answer = text_of(row["correct"]).upper()
    if answer not in [str(option).lstrip("(")[0] for option in options]:
        raise ValueError("the correct letter is none of the options")
    question = f"{text_of(row['question'])}\n\nAnswer Choices: choose one letter.\n{shown}"
    return Reading(question, answer, (letter_in_box(text_of(row["rationale"])),))


CHOSEN = re.compile(
    r"(?i:(?:\b(?:answer|option|choice|ans)\b[^A-Za-z\n]{0,6}"
    r"(?:(?:is|will be|would be|must be|choice|option)\b[^A-Za-z\n]{0,4})*)"
    r"|correct option:?\s*|^)\(?(?-i:([A-E]))\)?(?![A-Za-z'’])",
    re.MULTILINE,
)


def letter_in_box(rationale: str) -> str:
    """The rationale with the letter it says last, never one that it does not say, in a box."""
    said = CHOSEN.findall(rationale)
    return f"{rationale}\n\nThe answer is $\\boxed{{\\text{{{said[-1]}}}}}$." if said else rationale


def body_and_question(row: Row) -> Reading:
    """SVAMP (Body, Question, Answer) and ASDiv's table (body, question, answer "9 (apples)")."""
    named = {name.lower(): value for name, value in row.items()}
    answer = re.sub(r"\s*\([^()]*\)$", "", text_of(named["answer"]))
    body = text_of(named["body"])
    question = f"{body}{'' if body.endswith(('.', '?', '!', ',')) else '.'} {text_of(named['question'])}".strip()
    kind = named.get("type") or named.get("solution_type")
    return Reading(" ".join(question.split()), answer.replace(",", ""), domain=text_of(kind).lower())


def mawps(row: Row) -> Reading:
    """The set comes with spaces before its punctuation: "8 apples ." """
    question = re.sub(r" (?=[.,?!;:%](?: |$))|(?<=\$) | (?='s\b)", "", text_of(row["input"]))
    return Reading(question, text_of(row["target"]), domain=text_of(row.get("type")).lower())


def olympiadbench(row: Row) -> Reading:
    if text_of(row.get("error")):
        raise ValueError("the answer is a tolerance: it cannot be compared exactly")
    answers = [str(answer).strip().strip("$").strip() for answer in row["final_answer"] or ()]
    if not answers:
        raise ValueError("empty answer")
    context = text_of(row.get("context"))
    question = f"{context}\n\n{text_of(row['question'])}" if context else text_of(row["question"])
    solutions = tuple(with_box(text_of(s), ", ".join(answers)) for s in row.get("solution") or () if text_of(s))
    return Reading(question, ", ".join(answers), solutions, domain=text_of(row.get("subfield")).lower())


# --- sets with model-written traces ---


def openmathinstruct(row: Row) -> Reading:
    traces = (text_of(row["generated_solution"]),)
    return Reading(
        text_of(row["problem"]), text_of(row["expected_answer"]), traces, domain=text_of(row.get("problem_source"))
    )


def numinamath(row: Row) -> Reading:
    solution = text_of(row["solution"])
    answer = text_of(row.get("answer"))
    if answer.lower() in ("proof", "notfound") or text_of(row.get("question_type")).lower() == "proof":
        raise ValueError("a proof: there is no answer to compare")
    if "No" in (row.get("problem_is_valid"), row.get("solution_is_valid")):
        raise ValueError("marked as not valid by the set itself")
    answer = answer or boxed(solution)
    domain = text_of(row.get("problem_type") or row.get("source")).lower()
    return Reading(text_of(row["problem"]), answer, (solution,) if last_box(solution) else (), domain=domain)


def openr1_math(row: Row) -> Reading:
    generations = row.get("generations") or ()
    complete = row.get("is_reasoning_complete") or [True] * len(generations)
    traces = tuple(thinking(text_of(g)) for g, whole in zip(generations, complete, strict=False) if whole)
    reading = numinamath(row)
    return Reading(reading.question, reading.answer, traces, domain=reading.domain)


def chat(row: Row) -> Reading:
    """One question and one answer of a chat; with a reference answer where the row has one, else with none."""
    if row.get("problem") and row.get("deepseek_reasoning"):  # OpenThoughts, configuration "metadata"
        trace = f"<think>\n{text_of(row['deepseek_reasoning'])}\n</think>\n\n{text_of(row.get('deepseek_solution'))}"
        question, domain = text_of(row["problem"]), text_of(row.get("domain"))
        truth = last_box(text_of(row.get("ground_truth_solution"))) or ""
        return Reading(question, truth, (trace,), domain=domain)
    question, answer = turns(row.get("messages") or row.get("conversations"))
    return Reading(question, text_of(row.get("answer")), (thinking(answer),), domain=text_of(row.get("domain")))


DAPO_BEFORE = re.compile(r"\ASolve the following math problem step by step\..*?answer to the problem\.\s*", re.DOTALL)
DAPO_AFTER = re.compile(r'\s*Remember to put your answer on its own line after "Answer:"\.?\s*\Z')


def dapo_math(row: Row) -> Reading:
    prompt = row["prompt"]
    asked = prompt[-1].get("content") if isinstance(prompt, list) and prompt else prompt
    truth = row["reward_model"]
    answer = truth.get("ground_truth") if isinstance(truth, dict) else row.get("answer")
    question = DAPO_AFTER.sub("", DAPO_BEFORE.sub("", text_of(asked)))
    return Reading(question, text_of(answer))


def big_math(row: Row) -> Reading:
    domain = row.get("domain")
    first = domain[0] if isinstance(domain, list) and domain else domain
    return Reading(text_of(row["problem"]), text_of(row["answer"]), domain=text_of(first))


def said_last(response: str) -> tuple[str, str]:
    """What comes before the last "The answer is" (or ####, which MetaMathQA writes too), and the answer. ValueError."""
    for mark in ("The answer is", "####"):
        worked, found, rest = response.rpartition(mark)
        answer = rest.removeprefix(":").strip().removesuffix(".").strip("$ ")
        if found and answer:
            return re.sub(r"\n####[^\n]*\s*\Z", "", worked).strip(), answer
    raise ValueError('no answer found: the response does not end in "The answer is"')


def metamathqa(row: Row) -> Reading:
    worked, answer = said_last(text_of(row["response"]))
    return Reading(text_of(row["query"]), answer, (with_box(worked, answer),), domain=text_of(row["type"]).lower())


PROGRAM = re.compile(
    r"\s*(?:Let's write a (?:Python )?program(?: to solve it)?\.|Please write a .{0,30}program.*)\s*\Z", re.I
)
NON_COMMERCIAL_PARTS = ("camel",)  # MathInstruct's parts under other licences than MIT, by their file's name
UNSTATED_PARTS = ("gsm_rft",)


def mathinstruct(row: Row) -> Reading:
    part = text_of(row["source"]).lower()
    licence = "CC BY-NC 4.0" if any(name in part for name in NON_COMMERCIAL_PARTS) else ""
    licence = "not stated" if any(name in part for name in UNSTATED_PARTS) else licence
    if "/pot/" in part or PROGRAM.search(text_of(row["instruction"])):
        raise ValueError("a program of thought: its answer is what the program prints, which the row does not say")
    worked, answer = said_last(text_of(row["output"]))
    policy = "choice" if re.fullmatch("[A-E]", answer) else ""
    return Reading(
        text_of(row["instruction"]),
        answer,
        (with_box(worked, answer),),
        licence=licence,
        policy=policy,
    )


LAYOUTS: dict[str, Layout] = {
    "gsm8k": Layout(gsm8k, ("question", "answer"), "MIT", "openai/gsm8k", "main", "number"),
    "math": Layout(math, ("problem", "solution"), "MIT", "EleutherAI/hendrycks_math", "algebra"),
    "math500": Layout(problem_and_answer, ("problem", "answer"), "MIT", "HuggingFaceH4/MATH-500", evaluation=True),
    "aime": Layout(problem_and_answer, ("problem", "answer"), "not stated", "gneubig/aime-1983-2024", policy="aime"),
    "aime24": Layout(
        problem_and_answer,
        ("problem", "answer"),
        "Apache-2.0",
        "HuggingFaceH4/aime_2024",
        policy="aime",
        evaluation=True,
    ),
    "amc23": Layout(
        problem_and_answer, ("problem", "answer"), "not stated", "AI-MO/aimo-validation-amc", evaluation=True
    ),
    "aqua_rat": Layout(
        aqua_rat, ("question", "options", "rationale", "correct"), "Apache-2.0", "deepmind/aqua_rat", "raw", "choice"
    ),
    "asdiv_table": Layout(body_and_question, ("body", "question", "answer"), "CC BY-NC 4.0", policy="number"),
    "mawps": Layout(mawps, ("input", "target"), "MIT", policy="number"),
    "svamp": Layout(body_and_question, ("Body", "Question", "Answer"), "MIT", "ChilleD/SVAMP", policy="number"),
    "olympiadbench": Layout(
        olympiadbench,
        ("question", "final_answer"),
        "Apache-2.0",
        "Hothan/OlympiadBench",
        "OE_TO_maths_en_COMP",
        evaluation=True,
    ),
    "openmathinstruct2": Layout(
        openmathinstruct,
        ("problem", "generated_solution", "expected_answer"),
        "CC BY 4.0",
        "nvidia/OpenMathInstruct-2",
    ),
    "numinamath": Layout(numinamath, ("problem", "solution"), "Apache-2.0", "AI-MO/NuminaMath-CoT"),
    "openr1_math": Layout(
        openr1_math,
        ("problem", "solution", "answer", "generations"),
        "Apache-2.0",
        "open-r1/OpenR1-Math-220k",
        "default",
    ),
    "openthoughts": Layout(chat, (), "Apache-2.0", "open-thoughts/OpenThoughts-114k", "metadata"),
    "bespoke_stratos": Layout(chat, ("conversations",), "Apache-2.0", "bespokelabs/Bespoke-Stratos-17k"),
    "dapo_math": Layout(
        dapo_math, ("prompt", "reward_model"), "Apache-2.0", "BytedTsinghua-SIA/DAPO-Math-17k", policy="integer"
    ),
    "big_math": Layout(big_math, ("problem", "answer"), "Apache-2.0", "SynthLabsAI/Big-Math-RL-Verified"),
    "metamathqa": Layout(metamathqa, ("type", "query", "response"), "MIT", "meta-math/MetaMathQA"),
    "mathinstruct": Layout(mathinstruct, ("source", "instruction", "output"), "MIT", "TIGER-Lab/MathInstruct"),
    "chat": Layout(chat, (), "not stated"),
}

_NON_COMMERCIAL = re.compile(r"\bNC\b|non-?commercial", re.IGNORECASE)


def is_non_commercial(licence: str) -> bool:
    """Whether a licence forbids commercial use by its name.

    >>> is_non_commercial("CC BY-NC 4.0"), is_non_commercial("CC BY 4.0")
    (True, False)
    """
    return bool(_NON_COMMERCIAL.search(licence))
