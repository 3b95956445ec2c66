"""Which rollouts the report shows: the same problems across stages, so that the change can be read."""

from typing import Any

from whetstone.report.read import RunRecord

CHARACTERS = 6000  # longest text shown whole


def choose_problems(
    run: RunRecord, stages: list[str], benchmark: str, count: int = 6
) -> list[dict[str, dict[str, Any]]]:
    """For each chosen problem, stage -> its first rollout.

    Problems are sorted by the pattern of right and wrong over the stages. Patterns take turns, the frequent ones first, so
    that what usually happened, what never worked and what got lost all show; within a pattern the first problem by id.
    """
    answers: dict[str, dict[str, dict[str, Any]]] = {}
    for stage in stages:
        for row in run.generations(stage, benchmark):
            answers.setdefault(str(row["problem_id"]), {})[stage] = row
    patterns: dict[tuple[Any, ...], list[str]] = {}
    for problem_id in sorted(answers):
        found = answers[problem_id]
        patterns.setdefault(tuple(found[s]["correct"] if s in found else None for s in stages), []).append(problem_id)
    queues = sorted(patterns.values(), key=lambda ids: (-len(ids), ids[0]))
    chosen: list[str] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return [answers[problem_id] for problem_id in chosen]


def split_thinking(text: str) -> tuple[str, str]:
    """(thinking, what follows); an unclosed block is all thinking."""
    if len(text) > CHARACTERS:
        half = CHARACTERS // 2
        text = f"{text[:half]}\n… {len(text) - CHARACTERS:,} characters …\n{text[-half:]}"
    before, opened, rest = text.partition("<think>")
    if not opened:
        return "", text.strip()
    thinking, _, final = rest.partition("</think>")
    return thinking.strip(), (before + final).strip()
