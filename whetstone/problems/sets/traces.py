"""Training sets with solutions written by models, and what RL is trained on."""

import re
from dataclasses import replace

from whetstone.problems.chats import asked, completion_of, conversation, refuse_more, refuse_untaught, system_beside
from whetstone.problems.published import ProblemSet
from whetstone.problems.reading import Reading, boxed, last_box, with_box
from whetstone.problems.row import Row, cell, listed
from whetstone.problems.thoughts import thinking
from whetstone.problems.values import (
    answer_of,
    gold,
    has_value,
    items,
    optional,
    optional_gold,
    plain_text_of,
    text,
    text_of,
)

NOT_STATED = ("notfound", "not found", "unknown")  # as NuminaMath says that a problem has no answer


def openmathinstruct(row: Row) -> Reading:
    traces = (text(row, "generated_solution"),)
    return Reading(text(row, "problem"), gold(row, "expected_answer"), traces, domain=optional(row, "problem_source"))


def numinamath(row: Row) -> Reading:
    solution, answer = text(row, "solution"), optional_gold(row, "answer")
    if "proof" in (answer.lower().rstrip("."), optional(row, "question_type").lower()):
        raise ValueError("a proof: there is no answer to compare")
    if answer.lower().rstrip(".") in NOT_STATED:
        raise ValueError(f"empty answer: 'answer' holds {answer!r}")
    for column in ("problem_is_valid", "solution_is_valid"):
        if has_value(row, column) and (said := optional(row, column)) != "Yes":
            raise ValueError(f"marked as not valid by the set itself: {column!r} holds {said!r}")
    domain = (optional(row, "problem_type") or optional(row, "source")).lower()
    traces = (solution,) if last_box(solution) else ()
    return Reading(text(row, "problem"), answer or boxed(solution), traces, domain=domain)


def openr1_math(row: Row) -> Reading:
    generations = items(row.get("generations"))
    texts = [plain_text_of(generation, "'generations'") for generation in generations]
    ends = items(row.get("is_reasoning_complete")) if has_value(row, "is_reasoning_complete") else [True] * len(texts)
    if len(ends) != len(texts) or not all(isinstance(end, bool) for end in ends):
        wanted = f"true or false for each of the {len(texts)} in 'generations'"
        raise ValueError(f"not marks of what is complete: 'is_reasoning_complete' holds {ends!r:.80}, and not {wanted}")
    traces = tuple(thinking(said, "'generations'") for said, end in zip(texts, ends, strict=True) if end)
    reading = numinamath(row)
    return Reading(reading.question, reading.answer, traces, domain=reading.domain)


def chat(row: Row) -> Reading:
    """One question and one answer, in `messages`, `conversations`, or `prompt` and `completion` as text or chats; the reference
    answer is the row's `answer`, a system message its `system`, if it has one and the chat has none. What a row holds in two
    of them must say the same.
    """
    chats = {
        name: conversation(row[name], repr(name))
        for name in ("messages", "conversations")
        if has_value(row, name) and row[name] != []
    }
    there = [name for name in ("prompt", "completion") if has_value(row, name)]
    if not chats and len(there) < 2:
        raise ValueError(
            f"not a chat: the row has nothing in messages, conversations, or prompt and completion. It has {listed(row)}"
        )
    system, question, said = next(iter(chats.values()), ("", "", ""))
    prompted = asked(row["prompt"], "'prompt'") if "prompt" in there else (system, question)
    completed = completion_of(row["completion"], "'completion'") if "completion" in there else said
    chats["prompt"] = (prompted[0] or system, prompted[1], completed)
    if len(set(chats.values())) > 1:
        raise ValueError(f"two chats: the row holds one in {' and another in '.join((*list(chats)[:-1], *there))}")
    system, question, said = chats["prompt"]
    said = thinking(said)
    refuse_more(row, "the row", said)
    refuse_untaught(row, "the row")
    answer, system = optional_gold(row, "answer"), system_beside(row, system)
    return Reading(question, answer, (said,), domain=optional(row, "domain"), system=system)


def own_marks(row: Row) -> Reading:
    """A chat whose system message asks for the set's own marks around thoughts, which `thinking` replaces by ours."""
    return replace(chat(row), system="")


def openthoughts(row: Row) -> Reading:
    """The configuration "metadata" has columns of its own, the others a chat."""
    if not (row.get("problem") and row.get("deepseek_reasoning")):
        return own_marks(row)
    solution = optional(row, "deepseek_solution")
    trace = thinking(f"<think>\n{text(row, 'deepseek_reasoning')}\n</think>\n\n{solution}", "'deepseek_solution'")
    truth = last_box(optional(row, "ground_truth_solution")) or ""
    return Reading(text(row, "problem"), truth, (trace,), domain=optional(row, "domain"))


DAPO_BEFORE = re.compile(r"\ASolve the following math problem step by step\..*?answer to the problem\.\s*", re.DOTALL)
DAPO_AFTER = re.compile(r'\s*Remember to put your answer on its own line after "Answer:"\.?\s*\Z')


def dapo_math(row: Row) -> Reading:
    system, said = asked(row["prompt"], "'prompt'")
    question = DAPO_AFTER.sub("", DAPO_BEFORE.sub("", said))
    answer = answer_of(cell(row, "reward_model.ground_truth"), "'reward_model.ground_truth'")
    return Reading(question, answer, system=system)


def big_math(row: Row) -> Reading:
    domain = row.get("domain")
    first = domain[0] if isinstance(domain, list) and domain else domain
    return Reading(text(row, "problem"), gold(row, "answer"), domain=text_of(first))


def stated_last(row: Row, column: str) -> tuple[str, str]:
    """What comes before the last "The answer is" (or ####, which MetaMathQA writes too), and the answer. Raises ValueError."""
    response = text(row, column)
    for mark in ("The answer is", "####"):
        worked, mark_there, rest = response.rpartition(mark)
        answer = rest.removeprefix(":").strip().removesuffix(".").strip("$ ")
        if mark_there and re.search(r"\n|[.!?]\s", answer):
            raise ValueError(f'no answer found: {column!r} goes on after "{mark}"')
        if mark_there and answer:
            return re.sub(r"\n####[^\n]*\s*\Z", "", worked).strip(), answer
    raise ValueError(f'no answer found: {column!r} does not end in "The answer is"')


def metamathqa(row: Row) -> Reading:
    worked, answer = stated_last(row, "response")
    return Reading(text(row, "query"), answer, (with_box(worked, answer),), domain=text(row, "type").lower())


PROGRAM = re.compile(
    r"\s*(?:Let's write a (?:Python )?program(?: to solve it)?\.|Please write a .{0,30}program.*)\s*\Z", re.I
)
PART_LICENCES = {"camel": "CC BY-NC 4.0", "gsm_rft": "not stated"}  # of MathInstruct's parts, by their file's name


def mathinstruct(row: Row) -> Reading:
    part = text(row, "source").lower()
    licence = next((licence for name, licence in PART_LICENCES.items() if name in part), "")
    if "/pot/" in part or PROGRAM.search(text(row, "instruction")):
        raise ValueError("a program of thought: its answer is what the program prints, which the row does not say")
    worked, answer = stated_last(row, "output")
    policy = "choice" if re.fullmatch("[A-E]", answer) else ""
    return Reading(text(row, "instruction"), answer, (with_box(worked, answer),), licence=licence, policy=policy)


SETS = {
    "openmathinstruct2": ProblemSet(openmathinstruct, "CC BY 4.0", hub="nvidia/OpenMathInstruct-2"),
    "numinamath": ProblemSet(numinamath, "Apache-2.0", hub="AI-MO/NuminaMath-CoT"),
    "openr1_math": ProblemSet(openr1_math, "Apache-2.0", hub="open-r1/OpenR1-Math-220k", configuration="default"),
    "openthoughts": ProblemSet(
        openthoughts, "Apache-2.0", hub="open-thoughts/OpenThoughts-114k", configuration="metadata"
    ),
    "bespoke_stratos": ProblemSet(own_marks, "Apache-2.0", hub="bespokelabs/Bespoke-Stratos-17k"),
    "dapo_math": ProblemSet(dapo_math, "Apache-2.0", "integer", "BytedTsinghua-SIA/DAPO-Math-17k"),
    "big_math": ProblemSet(big_math, "Apache-2.0", hub="SynthLabsAI/Big-Math-RL-Verified"),
    "metamathqa": ProblemSet(metamathqa, "MIT", hub="meta-math/MetaMathQA"),
    "mathinstruct": ProblemSet(mathinstruct, "MIT", hub="TIGER-Lab/MathInstruct"),
    "chat": ProblemSet(chat),
}
