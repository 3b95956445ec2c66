"""Sample n answers per problem and grade each while the others still decode: for every room that samples.

The result is lists of Rollouts in the order of the problems and of their indices, whatever order they finished in. With a
journal the work survives a kill: problems are sampled in blocks of fixed composition, each finished block is synced, and a
resumed run samples only the missing blocks, each exactly as it would have been. On Ctrl-C the finished rollouts of the
current block are kept too; the rest of it is sampled later, the same except for rounding.

The processes of a process group sample together: each takes a share of the prompts and grades it, all are given the whole
result, and the first one keeps the journal. A rollout depends on the process that samples it by rounding at most.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from whetstone.prompting import BARE, Prompting
from whetstone.records import Completion, Generator, Problem, Rollout, Sampling, Verdict, Verifier, from_row, to_row
from whetstone.run.progress import progress
from whetstone.run.tables import Journal

if TYPE_CHECKING:
    from whetstone.decode.server_generator import ServerGenerator
    from whetstone.learner.parallel import ProcessGroup

T = TypeVar("T")
Key = tuple[str, int]  # a problem's id, and the index of one of its samples
MOSTLY = 0.5  # share of the rollouts above which a shortcoming is said
RIGHT_ROLLOUTS = "right_rollouts"  # the artifact with the rows of `right_rows`
AT_STOP = "kept_at_stop"  # marks the journal's rows of a block that Ctrl-C left unfinished


def sample_groups(
    generator: Generator, problems: Sequence[Problem], samples: int | Sequence[int], sampling: Sampling,
    verifier: Verifier, label: str = "", first: int = 0, known: Collection[tuple[str, int]] = (),
    finished: list[Rollout] | None = None, reward: Callable[[Problem, Rollout], float | None] | None = None,
    process_group: "ProcessGroup | None" = None, prompting: Prompting = BARE,
) -> list[list[Rollout]]:  # fmt: skip
    """P lists of G graded rollouts. `samples` is G, or one G per problem; `first` is the index of a problem's first rollout.

    With a `label`, progress is shown. Rollouts in `known`, as (problem id, index), are left out. On Ctrl-C, `finished` is
    filled with this process's rollouts that are done and graded. `reward` is called once per rollout, in the process that
    sampled it.
    """
    counts = [samples] * len(problems) if isinstance(samples, int) else list(samples)
    by_id = {problem.id: problem for problem in problems}
    keys_PG = [[(p.id, first + i) for i in range(count)] for p, count in zip(problems, counts, strict=True)]
    keys_PG = [[key for key in keys if key not in known] for keys in keys_PG]
    own = share_of([key for keys in keys_PG for key in keys], process_group)
    prompts = [prompting.prompt(by_id[name], index) for name, index in own]
    graded: list[tuple[Completion, Future[Verdict]]] = []

    def rollouts() -> list[Rollout]:
        return [as_rollout(completion, verdict.result(), sampling.temperature) for completion, verdict in graded]

    with ThreadPoolExecutor(1) as grader:
        try:
            with progress(len(prompts), label, unit="rollouts") if label else nullcontext() as bar:
                for completion in generator.generate(prompts, sampling):
                    problem = by_id[completion.problem_id]
                    verdict = grader.submit(verifier.check, completion.text, problem.answer, problem.policy)
                    graded.append((completion, verdict))
                    if bar:
                        bar.advance(1)
        except KeyboardInterrupt:
            if finished is not None:
                finished += rollouts()
            raise
        sampled = rollouts()
    if reward:
        sampled = [replace(rollout, reward=reward(by_id[rollout.problem_id], rollout)) for rollout in sampled]
    by_key = _by_key(gathered(sampled, process_group))
    return [[by_key[key] for key in keys] for keys in keys_PG]


def share_of(items: Sequence[T], process_group: "ProcessGroup | None") -> Sequence[T]:
    """This process's items. Shares differ in length by one at most; neighbours stay together, as they share a prompt."""
    if process_group is None:
        return items
    rank, count = process_group.rank, process_group.count
    return items[len(items) * rank // count : len(items) * (rank + 1) // count]


def gathered(items: list[T], process_group: "ProcessGroup | None") -> list[T]:
    """The items of all processes, by rank."""
    return items if process_group is None else [item for share in process_group.gather(items) for item in share]


def as_rollout(c: Completion, v: Verdict, temperature: float) -> Rollout:
    sampled = c.problem_id, c.index, c.prompt_ids, c.ids, c.logprobs, temperature, c.stop, c.text
    return Rollout(*sampled, v.correct, v.reason, v.answer)


def _by_key(rollouts: Iterable[Rollout]) -> dict[Key, Rollout]:
    return {(rollout.problem_id, rollout.index): rollout for rollout in rollouts}


def sample_journalled(
    generator: Generator, problems: Sequence[Problem], samples: int, sampling: Sampling, verifier: Verifier,
    journal: Path, label: str, block: int = 1024, process_group: "ProcessGroup | None" = None, prompting: Prompting = BARE,
) -> list[list[Rollout]]:  # fmt: skip
    """`sample_groups` that survives a kill: P lists of G = `samples` rollouts; `block` rollouts are sampled and synced at once.

    If one process of a group is stopped, the others end too, and the current block is lost.
    """
    size = max(1, block // samples)
    given = {"samples": samples, "sampling": sampling, "verifier": verifier, "process_group": process_group}
    sample = partial(sample_groups, generator, **given, prompting=prompting)
    with ExitStack() as stack:
        own = (
            stack.enter_context(Journal(journal, keep=_readable))
            if process_group is None or process_group.main
            else None
        )
        rows = gathered(own.rows if own else [], process_group)
        rollouts = _by_key(from_row(Rollout, row) for row in rows)
        kept_at_stop = {(row["problem_id"], row["index"]) for row in rows if row.get(AT_STOP)}
        blocks = [problems[i : i + size] for i in range(0, len(problems), size)]
        # A kill during the writing of a block can leave a part of it: the block is sampled again, to the same rollouts.
        missing = [part for part in blocks if not _complete(rollouts, part, samples)]
        done = len(problems) - sum(map(len, missing))
        with progress(len(problems) * samples, label, unit="rollouts", done=done * samples) as bar:
            for part in missing:
                finished: list[Rollout] = []
                try:
                    groups = sample(part, known=kept_at_stop, finished=finished)
                except KeyboardInterrupt:
                    if own:
                        own.append(to_row(rollout) | {AT_STOP: True} for rollout in finished)
                    raise
                sampled = [rollout for group in groups for rollout in group]
                if own:
                    own.append(map(to_row, sampled))
                rollouts |= _by_key(sampled)
                bar.advance(len(part) * samples, right=f"{share_right(rollouts.values()):.0%}")
    return _groups(rollouts, problems, samples)


def finished(journal: Path, problems: Sequence[Problem], samples: int) -> list[list[Rollout]] | None:
    """What `sample_journalled` has left in its journal: P lists of G rollouts; None if some are missing."""
    with Journal(journal, keep=_readable) as own:
        rollouts = _by_key(from_row(Rollout, row) for row in own.rows)
    return _groups(rollouts, problems, samples) if _complete(rollouts, problems, samples) else None


def _complete(rollouts: Mapping[Key, Rollout], problems: Sequence[Problem], samples: int) -> bool:
    return all((p.id, i) in rollouts for p in problems for i in range(samples))


def _groups(rollouts: Mapping[Key, Rollout], problems: Sequence[Problem], samples: int) -> list[list[Rollout]]:
    """P lists of G rollouts."""
    return [[rollouts[p.id, i] for i in range(samples)] for p in problems]


def sample_one_by_one(
    generator: "ServerGenerator", problems: Sequence[Problem], samples: int, sampling: Sampling, verifier: Verifier,
    journal: Path, label: str, prompting: Prompting = BARE,
) -> tuple[list[list[Rollout]], dict[tuple[str, int], int]]:  # fmt: skip
    """P lists of G graded samples of a server, and the tokens of each by its count. Each answer is synced as it comes, because
    it may have been paid for; a call after a kill asks for the missing ones.

    Raises ServerError if some stay unanswered: a score without them would be of other problems.
    """
    from whetstone.decode.server_generator import ServerError

    by_id = {problem.id: problem for problem in problems}
    with Journal(journal, keep=_counted) as own, progress(len(problems) * samples, label, unit="answers") as bar:
        rows = {(row["problem_id"], row["index"]): row for row in own.rows if row["problem_id"] in by_id}
        bar.advance(len(rows))
        missing = [(p, i) for p in problems for i in range(samples) if (p.id, i) not in rows]
        for completion in generator.generate([prompting.prompt(p, i) for p, i in missing], sampling):
            problem = by_id[completion.problem_id]
            verdict = verifier.check(completion.text, problem.answer, problem.policy)
            row = to_row(as_rollout(completion, verdict, sampling.temperature)) | {"tokens": completion.usage[1]}
            own.append([row])
            rows[completion.problem_id, completion.index] = row
            bar.advance(1)
    if generator.failed:
        raise ServerError(
            f"{label}: {len(generator.failed):,} of {len(problems) * samples:,} answers did not come, the first because "
            f"{generator.failed[0][1]}. What was answered is kept in {journal.parent}: run the same command again to ask for "
            "the others."
        )
    groups = [[from_row(Rollout, rows[p.id, i]) for i in range(samples)] for p in problems]
    return groups, {key: row["tokens"] for key, row in rows.items()}


def _counted(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a journal of a server's answers. Raises KeyError or TypeError if it is none."""
    from_row(Rollout, row)
    return row | {"tokens": int(row["tokens"])}


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a journal. Raises TypeError if no rollout can be made of it."""
    from_row(Rollout, row)
    return row


def ended_right(rollout: Rollout) -> bool:
    return rollout.correct is True and rollout.stop == "end"


def shown_row(problem: Problem, rollout: Rollout) -> dict[str, Any]:
    """A rollout as people read it, with its problem and verdict and without its ids."""
    return {
        "problem_id": problem.id,
        "index": rollout.index,
        "question": problem.question,
        "gold": problem.answer,
        "policy": problem.policy,
        "level": problem.level,
        "domain": problem.domain,
        "text": rollout.text,
        "answer": rollout.answer,
        "correct": rollout.correct,
        "reason": rollout.reason,
        "stop": rollout.stop,
        "tokens": len(rollout.ids),
    }


def right_rows(rollouts: Iterable[Rollout]) -> Iterator[dict[str, Any]]:
    """The right ones that ended by themselves, as `learner/conversation.py` reads them: for rejection fine-tuning."""
    for r in rollouts:
        if ended_right(r):
            yield {
                "problem_id": r.problem_id,
                "index": r.index,
                "text": r.text,
                "prompt_ids": r.prompt_ids,
                "ids": r.ids,
            }


def share_right(rollouts: Iterable[Rollout]) -> float:
    """The share of right ones among those that the verifier could decide; 0 if it decided none."""
    decided = [rollout.correct for rollout in rollouts if rollout.correct is not None]
    return sum(decided) / max(1, len(decided))


def shortcomings(rollouts: Sequence[Rollout], max_tokens: int) -> dict[str, str]:
    """What more than half of the rollouts lack, in words, with what to change: keys are `truncated` and `unanswered`."""
    shares = {"truncated": share_cut_off(rollouts), "unanswered": share_unanswered(rollouts)}
    words = {
        "truncated": f"were cut off at max_tokens = {max_tokens}. Raise it, choose easier problems (pool.levels), or "
        "fine-tune first, so that the student learns to finish (sft)",
        "unanswered": "end without an answer in a box. Fine-tune first (sft), lower the temperature, or ask for the box "
        "([prompt] after)",
    }
    return {lack: f"{shares[lack]:.0%} of the rollouts {words[lack]}." for lack in words if shares[lack] > MOSTLY}


def share_cut_off(rollouts: Sequence[Rollout]) -> float:
    return sum(rollout.stop == "length" for rollout in rollouts) / max(1, len(rollouts))


def share_unanswered(rollouts: Sequence[Rollout]) -> float:
    """The share of those that ended by themselves and give no answer that the verifier can read."""
    silent = (r.stop != "length" and r.reason.startswith("no answer") for r in rollouts)
    return sum(silent) / max(1, len(rollouts))
