"""Which prompts RL trains on: candidates that the model solves sometimes, found by trying them before the first step.

Their rollouts also serve as the start-up probe of sampler against learner: the two must agree on what was sampled.
"""

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from whetstone.records import Generator, Problem, Rollout, Sampling, Verifier
from whetstone.rl.choose import most_accurate, stabilisers
from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.progress import say
from whetstone.run.tables import read_records, write_rows

if TYPE_CHECKING:
    from whetstone.learner.learner import Learner
    from whetstone.learner.parallel import ProcessGroup

PROBE = 8  # prompts whose rollouts are scored by the learner before the first step
PROBE_SAMPLES = 2  # of each, where no candidate is tried


def choose_prompts(
    stage: Stage, generator: Generator, learner: "Learner", verifier: Verifier, check: Callable[[float], None]
) -> tuple[list[Problem], dict[str, Any]]:
    """(the prompts, facts for the manifest). `check` is given the gap between sampler and learner."""
    settings, process_group = stage.settings, learner.process_group
    candidates = candidates_of(stage)
    done = stage.folder / "prompts.json"
    if known := process_group.first(read_json(done) if done.exists() else None):
        kept = set(known["kept"])
        return [p for p in candidates if p.id in kept], known["facts"]
    if settings.candidate_samples:
        groups = tried(stage, generator, verifier, candidates, process_group)
        pool, counts, dropped = chosen(stage, candidates, groups)
        if process_group.main:
            write_rows(stage.output("dropped"), dropped)
    else:
        groups = probed(stage, generator, verifier, candidates, process_group)
        pool, counts = candidates, {"untried": len(candidates)}
    gap = probe([r for group in groups[:PROBE] for r in group], learner)
    check(gap)
    facts = {"candidates": counts, "probe_gap": gap}
    if process_group.main:
        write_json(done, {"kept": [p.id for p in pool], "facts": facts})
    say(f"   {len(pool)} of {len(candidates)} prompts kept: {counts}; sampler-learner gap {gap:.1e}")
    return pool, facts


def candidates_of(stage: Stage) -> list[Problem]:
    settings = stage.settings
    levels, domains = settings.candidate_levels, settings.candidate_domains
    found = [
        p
        for p in read_records(Problem, stage.inputs["prompts"])
        if (levels is None or p.level in levels) and (domains is None or p.domain in domains)
    ]
    random.Random(f"{stage.seed}/candidates").shuffle(found)
    if not found:
        raise ValueError(
            f"{stage.name}: no prompt of levels {levels or 'any'} and domains {domains or 'any'} in "
            f"{stage.inputs['prompts']}. Name other candidate_levels or candidate_domains."
        )
    return found[: settings.candidates]


def tried(
    stage: Stage, generator: Generator, verifier: Verifier, candidates: Sequence[Problem], process_group: "ProcessGroup"
) -> list[list[Rollout]]:
    """`candidate_samples` rollouts of each candidate, at temperature 1; kept in a journal."""
    from whetstone.sample import sample_journalled

    return sample_journalled(
        generator,
        candidates,
        stage.settings.candidate_samples,
        Sampling(1.0, stage.settings.max_tokens, seed=stage.seed),
        verifier,
        stage.folder / "candidates.jsonl",
        f"{stage.name}: candidate prompts",
        process_group=process_group,
    )


def probed(
    stage: Stage, generator: Generator, verifier: Verifier, candidates: Sequence[Problem], process_group: "ProcessGroup"
) -> list[list[Rollout]]:
    """A few rollouts, at the temperature of training, for the probe alone."""
    from whetstone.sample import sample_groups

    sampling = Sampling(stage.settings.temperature, stage.settings.max_tokens, seed=stage.seed)
    return sample_groups(generator, candidates[:PROBE], PROBE_SAMPLES, sampling, verifier, process_group=process_group)


def chosen(
    stage: Stage, candidates: Sequence[Problem], groups: Sequence[Sequence[Rollout]]
) -> tuple[list[Problem], dict[str, int], list[dict[str, Any]]]:
    """(candidates that can teach something, how many of them there are and are not, the others with their reason)."""
    from whetstone.rl.stabilisers.prompt_optimization import optimise_prompts

    settings = stage.settings
    threshold = most_accurate(settings)
    uniform = "prompt_optimization" in stabilisers(settings)
    pool, dropped, counts = optimise_prompts(
        candidates, groups, settings.length_spread, threshold, uniform, settings.solvable
    )
    if len(pool) < 2:
        raise ValueError(
            f"{stage.name}: {len(pool)} of {len(candidates)} candidate prompts are left ({dict(counts)}): RL needs prompts "
            f"that the model solves sometimes but at most {threshold:.0%} of the time. Choose candidate_levels "
            "nearer to what it can do, or more candidates."
        )
    return pool, dict(counts), dropped


def probe(rollouts: Sequence[Rollout], learner: "Learner") -> float:
    """Mean absolute difference between the sampler's and the learner's log-probabilities, nats a token."""
    from whetstone.batch import Row

    rows = [Row([*r.prompt_ids, *r.ids], prompt=len(r.prompt_ids)) for r in rollouts]
    seen = learner.row_logprobs(rows, rollouts[0].temperature)
    gaps = [
        abs(float(a) - b)
        for values, r in zip(seen, rollouts, strict=True)
        for a, b in zip(values, r.logprobs, strict=True)
    ]
    return sum(gaps) / max(1, len(gaps))
