"""Which prompts RL trains on: those that the model solves sometimes, found by trying them before the first step.

Their rollouts also check the sampler against the learner before the first step: both must give the same log-probabilities.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from whetstone.pool import pool_of, stop_on_mismatch
from whetstone.prompting import Prompting
from whetstone.records import Completion, Generator, Problem, Rollout, Sampling, Verifier
from whetstone.rl.settings import Settings
from whetstone.rl.stabilisers.prompt_optimization import length_spread
from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.progress import say
from whetstone.run.tables import write_rows
from whetstone.sample import sample_groups, sample_journalled, share_right, shortcomings
from whetstone.window import UNASKABLE, Window

if TYPE_CHECKING:
    from whetstone.learner.learner import Learner
    from whetstone.learner.parallel import ProcessGroup

PROBE = 8  # prompts whose rollouts the learner scores before the first step
PROBE_SAMPLES = 2  # rollouts of each, if no prompt is tried
WRONG_GRADIENT = "the policy gradient would be that of another policy"  # if sampler and learner differ


def choose_prompts(
    stage: Stage, generator: Generator, learner: "Learner", verifier: Verifier, window: Window
) -> tuple[list[Problem], dict[str, Any]]:
    """(the prompts, facts for the manifest): chosen once, and read from `prompts.json` when the stage is resumed.

    Raises ValueError if fewer than two prompts are left, or if sampler and learner differ.
    """
    settings, process_group = stage.settings, learner.process_group
    candidates, unaskable = pool_of(stage.inputs["prompts"], settings.pool, f"{stage.seed}/candidates", window)
    done = stage.folder / "prompts.json"
    if known := process_group.first(read_json(done, needed=["kept", "facts"]) if done.exists() else None):
        kept = set(known["kept"])
        return [p for p in candidates if p.id in kept], known["facts"]
    groups = sampled(stage, generator, verifier, candidates, process_group, window.prompting)
    lacks = shortcomings([rollout for group in groups for rollout in group], settings.max_tokens)
    pool, counts, unfit_ones = candidates, {"untried": len(candidates)}, []
    if settings.pool.samples:
        pool, counts, unfit_ones = chosen(stage, candidates, groups)
    probed = [r for group in groups[:PROBE] for r in group]
    gap = sampler_gap(probed, learner, probed[0].temperature)
    stop_on_mismatch(0, gap, settings.sampler_tolerance, WRONG_GRADIENT)
    if unaskable:
        counts |= {UNASKABLE: len(unaskable)}
    facts = {"candidates": counts, "probe_gap": gap, "shortcomings": list(lacks)}
    if process_group.main:
        no_numbers = {"accuracy": None, "spread": None}
        write_rows(stage.output("dropped"), [*unfit_ones, *(row | no_numbers for row in unaskable)])
        write_json(done, {"kept": [p.id for p in pool], "facts": facts})
    counted = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
    say(f"   {len(pool)} of {len(candidates)} prompts kept ({counted}); sampler-learner gap {gap:.1e}")
    for words in lacks.values():
        say(f"warning: {stage.name}: {words}")
    return pool, facts


def sampled(
    stage: Stage, generator: Generator, verifier: Verifier, candidates: Sequence[Problem], processes: "ProcessGroup",
    prompting: Prompting,
) -> list[list[Rollout]]:  # fmt: skip
    """Rollouts of all candidates at temperature 1, kept in a journal. If none is to be tried, a few at the temperature of
    training, only to compare sampler and learner.
    """
    settings, samples = stage.settings, stage.settings.pool.samples
    sampling = Sampling(1.0 if samples else settings.temperature, settings.max_tokens, seed=stage.seed)
    shared = {"process_group": processes, "prompting": prompting}
    if not samples:
        return sample_groups(generator, candidates[:PROBE], PROBE_SAMPLES, sampling, verifier, **shared)
    journal, label = stage.folder / "candidates.jsonl", f"{stage.name}: candidate prompts"
    return sample_journalled(generator, candidates, samples, sampling, verifier, journal, label, **shared)


def chosen(
    stage: Stage, candidates: Sequence[Problem], groups: Sequence[Sequence[Rollout]]
) -> tuple[list[Problem], dict[str, int], list[dict[str, Any]]]:
    """(the candidates that are kept, how many are kept and dropped for each reason, rows of the dropped ones)."""
    pool, dropped, counts = [], [], Counter[str]()
    for problem, rollouts in zip(candidates, groups, strict=True):
        reason = unfit(stage.settings, rollouts)
        counts[reason or "kept"] += 1
        if reason:
            numbers = {"accuracy": share_right(rollouts), "spread": length_spread(rollouts)}
            dropped.append({"problem_id": problem.id, "reason": reason, "detail": "", **numbers})
        else:
            pool.append(problem)
    if len(pool) < 2:
        of_each = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        lacks = shortcomings([rollout for group in groups for rollout in group], stage.settings.max_tokens)
        raise ValueError(
            f"{stage.name}: {len(pool)} of {len(candidates)} candidate prompts are left ({of_each}): RL needs two or "
            "more prompts that the model solves sometimes, but not nearly always. "
            + "".join(f"{words} " for words in lacks.values())
            + "Choose pool.levels nearer to what it can do, more prompts (pool.prompts) or rollouts of each (pool.samples), "
            "or fine-tune first (sft)."
        )
    return pool, dict(counts), dropped


def unfit(settings: Settings, rollouts: Sequence[Rollout]) -> str:
    """Why a prompt with these rollouts is dropped; empty: it is kept. Undecided rollouts do not count."""
    if all(r.correct is None for r in rollouts):
        return "undecided"
    if settings.pool.solvable and share_right(rollouts) == 0:
        return "never solved"
    return next((why for s in settings.chosen_stabilisers if (why := s.unfit(rollouts))), "")


def sampler_gap(sampled: Sequence[Rollout | Completion], learner: "Learner", temperature: float) -> float:
    """Mean absolute difference between the sampler's and the learner's log-probabilities, in nats per token."""
    from whetstone.batch import answer_row

    rows = [answer_row(r.prompt_ids, r.ids) for r in sampled]
    scored = learner.row_logprobs(rows, temperature)
    gaps = [
        abs(float(a) - b)
        for values, r in zip(scored, sampled, strict=True)
        for a, b in zip(values, r.logprobs, strict=True)
    ]
    return sum(gaps) / max(1, len(gaps))
