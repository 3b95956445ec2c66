"""Rollouts to read: the same problems across stages, which shows the change."""

import re
from html import escape
from itertools import chain, zip_longest
from typing import Any

from whetstone.chat import with_opening
from whetstone.report.numbers import places, section
from whetstone.report.read import RunRecord

CHARACTERS = 6000  # a longer text is shortened in the middle
SHOWN = 6  # problems
LONG = 360  # characters; a longer final text is folded

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # an untrained model samples any character

VERDICTS = {True: ("right", "up"), False: ("wrong", "down"), None: ("undecided", "quiet")}


def rollouts(run: RunRecord) -> str:
    if not run.benchmarks:
        return ""
    stages = [name for name, _, kind in places(run) if kind != "control"]
    problems = choose_problems(run, stages, run.benchmarks[0])
    if not problems:
        return ""
    intro = (
        "<p>The first sample of every stage on the same problems. They are chosen by the pattern of right and wrong over the "
        "stages (the usual one, never right, lost again), not by how well they read.</p>"
    )
    return section("rollouts", "Examples", intro, *(_problem(stages, answers) for answers in problems))


def choose_problems(
    run: RunRecord, stages: list[str], benchmark: str, count: int = SHOWN
) -> list[dict[str, dict[str, Any]]]:
    """For each chosen problem, stage -> its first rollout.

    Problems are grouped by the pattern of right and wrong over the stages. Patterns take turns, frequent ones first. Within a
    pattern, problems come in the order of their ids.
    """
    answers: dict[str, dict[str, dict[str, Any]]] = {}
    for stage in stages:
        for row in run.first_rollouts(stage, benchmark):
            answers.setdefault(str(row["problem_id"]), {})[stage] = row
    patterns: dict[tuple[Any, ...], list[str]] = {}
    for problem_id in sorted(answers):
        by_stage = answers[problem_id]
        pattern = tuple(by_stage[stage]["correct"] if stage in by_stage else None for stage in stages)
        patterns.setdefault(pattern, []).append(problem_id)
    queues = sorted(patterns.values(), key=lambda ids: (-len(ids), ids[0]))
    turns = chain.from_iterable(zip_longest(*queues))
    return [answers[problem_id] for problem_id in turns if problem_id is not None][:count]


def _problem(stages: list[str], answers: dict[str, dict[str, Any]]) -> str:
    row = next(iter(answers.values()))
    facts = [f"answer {row['gold']}", f"level {row['level']}" if row.get("level") else "", row.get("domain") or ""]
    details = " · ".join(escape(str(fact)) for fact in facts if fact)
    cards = "".join(_answer(stage, answers[stage]) for stage in stages if stage in answers)
    question = f'<p class="maths">{escape(str(row["question"]))}</p><span class="note">{details}</span>'
    return f'<article>{question}<div class="answers">{cards}</div></article>'


def _answer(stage: str, row: dict[str, Any]) -> str:
    thinking, final = split_thinking(UNPRINTABLE.sub("\ufffd", str(row["text"])))
    verdict, colour = VERDICTS[row["correct"]]
    facts = [row.get("reason"), f"{row.get('tokens', 0)} tokens", "" if row.get("stop") == "end" else "cut off"]
    details = escape(" · ".join(fact for fact in facts if fact))
    folded = ""
    if thinking:
        summary = f"thinking, {len(thinking):,} characters"
        folded = f'<details><summary>{summary}</summary><pre class="thinking maths">{escape(thinking)}</pre></details>'
    nothing = "nothing after the thinking" if thinking else "nothing"
    shown = _final(final) if final else f'<pre><span class="quiet">{nothing}</span></pre>'
    return (
        f'<div class="answer"><div class="who"><b>{escape(stage)}</b><span class="chip {colour}">{verdict}</span>'
        f'<span class="quiet">{details}</span></div>{folded}{shown}</div>'
    )


def _final(text: str) -> str:
    """A long one is folded: what an untrained model writes would make a tall card beside empty ones."""
    whole = f'<pre class="maths">{escape(text)}</pre>'
    if len(text) <= LONG:
        return whole
    return f"<pre>{escape(text[: LONG // 2])}…</pre><details><summary>all {len(text):,} characters</summary>{whole}</details>"


def split_thinking(text: str) -> tuple[str, str]:
    """(thinking, what follows); an unclosed block is all thinking.

    >>> split_thinking("2+3=5</think>It is 5.")  # the prompt opened it
    ('2+3=5', 'It is 5.')
    """
    before, opened, rest = with_opening(text).partition("<think>")
    if not opened:
        return "", _shortened(text.strip())
    thinking, _, final = rest.partition("</think>")
    return _shortened(thinking.strip()), _shortened((before + final).strip())


def _shortened(text: str) -> str:
    if len(text) <= CHARACTERS:
        return text
    half = CHARACTERS // 2
    return f"{text[:half]}\n… {len(text) - CHARACTERS:,} characters left out …\n{text[-half:]}"
