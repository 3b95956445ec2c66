"""MetaMath's rephrasing (Yu et al. 2023, arXiv 2309.12284): a model says a question in other words; the answer stays.

Any Generator does it, from a few examples like the paper's. The paper keeps a rephrased question if answers to it agree with
the original's; here the rollouts stage verifies every answer. A rephrasing that lost or gained a number, or only repeats the
question, is dropped before it is answered.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from whetstone.arithmetic.number_words import mentions
from whetstone.problems.reading import Drop
from whetstone.problems.row import excerpt
from whetstone.questions.register import refusal
from whetstone.questions.splits import normalise
from whetstone.records import Generator, Message, Problem, Prompt, Sampling
from whetstone.run.progress import progress
from whetstone.run.tables import Journal

ASKED = """\
Rephrase the question of a mathematics problem: say the same in other words, keep every number and every condition, and do \
not answer it. Write the rephrased question and nothing else.

Question: Angelo and Melanie want to plan how many hours they should study together for their test next week. They have 2 \
chapters of their textbook to study and 4 worksheets to memorize. They want to dedicate 3 hours to each chapter and 1.5 hours \
to each worksheet. How many hours will they study?
Rephrased: Angelo and Melanie must get through 2 chapters and 4 worksheets before next week's test. If every chapter takes \
them 3 hours and every worksheet 1.5 hours, how much time in hours do they study altogether?

Question: Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left in total?
Rephrased: There are 32 chocolates that belong to Leah and 42 that belong to her sister. After the two have eaten 35 of them, \
what is the number of chocolates that remain?

Question: {question}
Rephrased:"""


def rephrased(
    problems: Sequence[Problem], generator: Generator, count: int, sampling: Sampling, journal: Path
) -> Iterator[Problem | Drop]:
    """`count` rephrasings of each problem in the order of the problems, or a Drop for each that cannot be used.

    Completions are journalled as they come, and not asked for again.
    """
    texts = _completions(problems, generator, count, sampling, journal)
    failed = {(prompt.problem_id, prompt.index): why for prompt, why in getattr(generator, "failed", ())}
    for problem in problems:
        for index in range(count):
            text = texts.get((problem.id, index))
            why = "the model gave no answer" if text is None else why_not(problem.question, text)
            if why:
                detail = failed.get((problem.id, index), "") if text is None else excerpt(text)
                yield refusal(problem, f"metamath: {why}", detail)
                continue
            yield replace(
                problem,
                id=f"{problem.id}/rephrased-{index + 1}",
                question=tidy(text),
                formula="",  # the numbers may be in another order
                origin=problem.origin or problem.id,
            )


def _completions(
    problems: Sequence[Problem], generator: Generator, count: int, sampling: Sampling, path: Path
) -> dict[tuple[str, int], str]:
    """The completion of each (problem id, index) that has one."""
    with Journal(path) as journal:
        texts = {(row["id"], row["index"]): row["text"] for row in journal.rows}
        prompts = (
            Prompt(p.id, index, (Message("user", ASKED.format(question=p.question)),))
            for p in problems
            for index in range(count)
            if (p.id, index) not in texts
        )
        with progress(len(problems) * count, "rephrasing", unit="questions", done=len(texts)) as bar:
            for completion in generator.generate(prompts, sampling):
                texts[completion.problem_id, completion.index] = completion.text
                journal.append([{"id": completion.problem_id, "index": completion.index, "text": completion.text}])
                bar.advance(1)
    return texts


def tidy(text: str) -> str:
    """The question in a completion: what follows its thinking, without a label and on one line.

    >>> tidy("<think>hm</think> Rephrased: How many are\\nleft?")
    'How many are left?'
    """
    text = text.rpartition("</think>")[2].strip()
    return " ".join(text.removeprefix("Rephrased:").split())


def why_not(question: str, text: str) -> str:
    """What is wrong with a rephrasing; "" for nothing.

    >>> why_not("Tom has 2 pens and buys 3. How many?", "Tom owns two pens and buys 3 more. How many are there?")
    ''
    """
    new = tidy(text)
    if not new:
        return "an empty rephrasing"
    if len(new) > 4 * len(question) + 200:
        return "a rephrasing that goes on and on"
    if normalise(new) == normalise(question):
        return "a rephrasing that repeats the question"
    if _numbers(new) != _numbers(question):
        return "a rephrasing with other numbers"
    return ""


def _numbers(text: str) -> Counter:
    return Counter(mention.value for mention in mentions(text))
