"""Sample n answers a problem and grade each while the others still decode: for every room that samples.

The result is lists of Rollouts in the order of the problems and of their index, whatever order they finished in. With a
journal the work survives a kill: problems go through the generator in blocks of fixed composition, a finished block is
synced, and a resumed run samples only the missing blocks, each exactly as it would have been. Ctrl-C keeps what is finished
of the block at hand, too: only the rest of it is sampled then, the same as it would have been but for rounding.

Several processes that train together (`process_group`) sample together: each takes a share of what is asked, and grades
it; all are given the whole result, and the first one keeps the journal. Who samples a rollout changes it by rounding at most.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from whetstone.chat import ask
from whetstone.records import Completion, Generator, Problem, Rollout, Sampling, Verdict, Verifier, from_row, to_row
from whetstone.run.progress import progress
from whetstone.run.tables import Journal

if TYPE_CHECKING:
    from whetstone.learner.parallel import ProcessGroup

T = TypeVar("T")
AT_STOP = "kept_at_stop"  # marks the rows of a journal that Ctrl-C left of an unfinished block


def sample_groups(
    generator: Generator,
    problems: Sequence[Problem],
    samples: int | Sequence[int],
    sampling: Sampling,
    verifier: Verifier,
    label: str = "",
    first: int = 0,
    known: Collection[tuple[str, int]] = (),
    finished: list[Rollout] | None = None,
    reward: Callable[[Problem, Rollout], float | None] | None = None,
    process_group: "ProcessGroup | None" = None,
) -> list[list[Rollout]]:
    """P lists of G graded rollouts. `samples` is G, or one G a problem; `first` is the index of a problem's first rollout.

    With a `label`, progress is shown. Those `known`, (problem, index), are left out. On Ctrl-C, `finished` is filled with
    the rollouts that are done and graded, of several processes this one's. A `reward` is asked once a rollout, in the
    process that sampled it.
    """
    counts = [samples] * len(problems) if isinstance(samples, int) else list(samples)
    gold = {p.id: p for p in problems}
    wanted = [[(p.id, first + i) for i in range(n)] for p, n in zip(problems, counts, strict=True)]
    asked = share_of([key for keys in wanted for key in keys if key not in known], process_group)
    prompts = [ask(name, gold[name].question, i) for name, i in asked]
    graded: list[tuple[Completion, Future[Verdict]]] = []

    def rollouts() -> list[Rollout]:
        return [as_rollout(done, verdict.result(), sampling.temperature) for done, verdict in graded]

    with ThreadPoolExecutor(1) as grader:

        def collect(completions: Iterable[Completion], advance) -> None:
            for done in completions:
                problem = gold[done.problem_id]
                graded.append((done, grader.submit(verifier.check, done.text, problem.answer, problem.policy)))
                advance(1)

        completions = generator.generate(prompts, sampling)
        try:
            if label:
                with progress(len(prompts), label, unit="rollouts") as bar:
                    collect(completions, bar.advance)
            else:
                collect(completions, lambda n: None)
        except KeyboardInterrupt:
            if finished is not None:
                finished += rollouts()
            raise
        mine = rollouts()
    if reward:
        mine = [replace(r, reward=reward(gold[r.problem_id], r)) for r in mine]
    by_key = {(r.problem_id, r.index): r for r in gathered(mine, process_group)}
    return [[by_key[key] for key in keys if key not in known] for keys in wanted]


def share_of(items: Sequence[T], process_group: "ProcessGroup | None") -> Sequence[T]:
    """This process's part, as long as every other's but for one: neighbours stay together, for they share a prompt."""
    if process_group is None:
        return items
    return items[
        len(items) * process_group.rank // process_group.count : len(items)
        * (process_group.rank + 1)
        // process_group.count
    ]


def gathered(items: list[T], process_group: "ProcessGroup | None") -> list[T]:
    """Those of all processes, by rank."""
    return items if process_group is None else [item for theirs in process_group.gather(items) for item in theirs]


def as_rollout(done: Completion, verdict: Verdict, temperature: float) -> Rollout:
    return Rollout(
        done.problem_id,
        done.index,
        done.prompt_ids,
        done.ids,
        done.logprobs,
        temperature,
        done.stop,
        done.text,
        verdict.correct,
        verdict.reason,
        verdict.answer,
    )


def sample_journalled(
    generator: Generator,
    problems: Sequence[Problem],
    samples: int,
    sampling: Sampling,
    verifier: Verifier,
    journal: Path,
    label: str,
    block: int = 1024,
    process_group: "ProcessGroup | None" = None,
) -> list[list[Rollout]]:
    """`sample_groups` that survives a kill. `block` is how many rollouts are sampled, and kept, together.

    Of several processes the first keeps the journal. One that is stopped ends the others with it: the block at hand is lost.
    """
    size = max(1, block // samples)
    with ExitStack() as stack:
        kept = stack.enter_context(Journal(journal)) if process_group is None or process_group.main else None
        rows = gathered(kept.rows if kept else [], process_group)
        found = {(r.problem_id, r.index): r for r in (from_row(Rollout, row) for row in rows)}
        kept_at_stop = {(row["problem_id"], row["index"]) for row in rows if row.get(AT_STOP)}
        blocks = [problems[i : i + size] for i in range(0, len(problems), size)]
        # A kill while a block is written can leave a part of it: that block is sampled again, to the same rollouts.
        missing = [part for part in blocks if any((p.id, i) not in found for p in part for i in range(samples))]
        done = len(problems) - sum(map(len, missing))
        with progress(len(problems) * samples, label, unit="rollouts", done=done * samples) as bar:
            for part in missing:
                stopped: list[Rollout] = []
                try:
                    fresh = sample_groups(
                        generator,
                        part,
                        samples,
                        sampling,
                        verifier,
                        known=kept_at_stop,
                        finished=stopped,
                        process_group=process_group,
                    )
                except KeyboardInterrupt:
                    if kept:
                        kept.append(to_row(r) | {AT_STOP: True} for r in stopped)
                    raise
                if kept:
                    kept.append(to_row(r) for group in fresh for r in group)
                found |= {(r.problem_id, r.index): r for group in fresh for r in group}
                bar.advance(len(part) * samples, right=f"{share_right(found.values()):.0%}")
    return [[found[p.id, i] for i in range(samples)] for p in problems]


def share_right(rollouts: Iterable[Rollout]) -> float:
    """Of those that the verifier could decide; 0 where it could decide none."""
    decided = [r.correct for r in rollouts if r.correct is not None]
    return sum(decided) / max(1, len(decided))
