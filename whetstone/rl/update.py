"""The updates that a step's kept groups make.

With one update the ratio's denominator is the sampler's own log-probability, and no pass is made for it. With several the
same holds, as sampler and learner agree; `old_policy = "learner"` is for samplers that compute in another way: then the
learner scores the rollouts once before the first update, and the ratio starts at exactly 1.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from whetstone.rl.algorithm import Group

if TYPE_CHECKING:
    from whetstone.batch import Row
    from whetstone.learner.learner import Learner, Loss


@dataclass(frozen=True)
class Part:
    """The rows of a group, at the temperature they were sampled with."""

    rows: "list[Row]"
    temperature: float
    fresh: bool  # sampled by the weights that the learner has before the step's first update

    @property
    def tokens(self) -> int:
        return sum(len(row.ids) for row in self.rows)


def parts_of(kept: Sequence[Group], rows: "Sequence[list[Row]]", step: int) -> list[Part]:
    pairs = zip(kept, rows, strict=True)
    return [Part(part, group.temperature, group.step == step) for group, part in pairs if part]


def update(
    learner: "Learner",
    loss: "Loss",
    parts: Sequence[Part],
    apply: Callable[[float], float | None],
    updates: int = 1,
    passes: int = 1,
    old_policy: Literal["sampler", "learner"] = "sampler",
    order: str = "0",
    check: Callable[[float], None] = lambda gap: None,
) -> dict[str, float] | None:
    """All updates of a step: `passes` times over its parts, which each time are divided into `updates`.

    `loss` is observed (`loss.observed`); `apply` is given an update's loss and updates: the gradient's norm, or None where
    training goes back instead, and then so is what is returned. `check` is given the gap between sampler and learner before
    anything is updated. `order` seeds how groups are divided. Returns means over the updates.
    """
    if old_policy == "learner":
        score_old(learner, parts, several=updates * passes > 1)
    rows = [row for part in parts for row in part.rows]
    for row in rows if updates > 1 else ():
        row.weights = row.weights * updates  # each update is a step of full size
    totals: dict[str, float] = {}
    norms: list[float] = []
    gap: dict[str, float] = {}
    mark_fresh(parts)
    for chosen in (c for number in range(passes) for c in divided(len(parts), updates, f"{order}/{number}")):
        sums = gradient(learner, loss, [parts[i] for i in chosen])
        if not norms:
            gap = {"sampler_gap": sums["sampler_gap"] / sums["fresh"]} if sums["fresh"] else {}
            check(gap.get("sampler_gap", 0.0))
        norm = apply(sums["loss"])
        if norm is None:
            return None
        norms.append(norm)
        mark_fresh(parts, updated=True)
        totals = {name: totals.get(name, 0.0) + value for name, value in sums.items()}
    means = {name: totals[name] / totals["weight"] for name in ("entropy", "clipped", "kl") if name in totals}
    return {
        **means,
        **gap,
        "loss": totals["loss"] / len(norms),
        "gradient_norm": sum(norms) / len(norms),
    }


def mark_fresh(parts: Sequence[Part], updated: bool = False) -> None:
    """Tell rows that the learner's present weights sampled from those that older ones did."""
    for part in parts:
        for row in part.rows:
            row.segment["fresh"] = float(part.fresh and not updated)


def divided(count: int, updates: int, order: str) -> list[list[int]]:
    """Indices of groups for each of at most `updates` updates: at random, as evenly as can be."""
    indices = list(range(count))
    if updates > 1:
        random.Random(f"{order}/updates").shuffle(indices)
    return [indices[i::updates] for i in range(min(updates, count))]


def gradient(learner: "Learner", loss: "Loss", parts: Sequence[Part]) -> dict[str, float]:
    """Adds the gradient of those parts, those of one temperature together; the rollouts of a problem share its prompt."""
    from whetstone.batch import by_prompt

    budget = learner.parallel.micro_batch_tokens
    totals: dict[str, float] = {}
    for temperature in dict.fromkeys(part.temperature for part in parts):
        groups = [g for part in parts if part.temperature == temperature for g in by_prompt(part.rows, budget)]
        sums = learner.gradient(groups, loss, temperature)
        totals = {name: totals.get(name, 0.0) + value for name, value in sums.items()}
    return totals


def score_old(learner: "Learner", parts: Sequence[Part], several: bool) -> None:
    """The ratio is to the learner as it is now, for rows that its weights sampled. With one update that needs no pass:
    rows without `old` are scored against themselves.
    """
    needed = several or not all(part.fresh for part in parts)
    for part in parts:
        scored = learner.row_logprobs(part.rows, part.temperature) if part.fresh and needed else []
        for i, row in enumerate(part.rows):
            row.token["sampler"] = row.token["old"]
            if scored:
                row.token["old"] = scored[i].tolist()
            elif not needed:
                del row.token["old"]


def with_reference(reference: "Learner", kept: Sequence[Group]) -> list[Group]:
    """The groups, with the reference's log-probabilities at the temperatures they were sampled with."""
    from whetstone.batch import Row

    found: list[Group] = list(kept)
    for temperature in dict.fromkeys(group.temperature for group in kept):
        places = [
            (g, i)
            for g, group in enumerate(kept)
            if group.temperature == temperature
            for i in range(len(group.rollouts))
        ]
        sampled = [kept[g].rollouts[i] for g, i in places]
        rows = [Row([*r.prompt_ids, *r.ids], prompt=len(r.prompt_ids)) for r in sampled]
        scored: dict[int, list[list[float]]] = {}
        for (g, _), values in zip(places, reference.row_logprobs(rows, temperature), strict=True):
            scored.setdefault(g, []).append(values.tolist())
        for g, values in scored.items():
            found[g] = replace(kept[g], reference=values)
    return found
