"""The corpus stage on synthetic rollouts of 1,000 to 16,000 tokens, up to a million: rows/s by step, memory, linearity.

    python -m benchmarks corpus_scaling --json benchmarks/results/corpus_scaling.json
    python -m benchmarks corpus_scaling --rollouts 10000 100000 1000000 --processes 1 2 --folder FOLDER

Eight rollouts per problem with log-uniform lengths; a third are wrong, some repeat themselves, stop in mid-thought, or repeat
another. The whole stage runs as in a recipe, each case in a process of its own with `--processes` more (1: none), from Parquet
to Parquet, with a search for near duplicates; its steps are timed in CPU seconds. The tables' files must be the same for every
number of processes: exit status 1 if they are not. With WHETSTONE_DATA the test questions are those of MATH, GSM8K and AIME,
else synthetic. A FOLDER keeps what was made and measured, and another start goes on from there.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from math import exp, log
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks._measure import hardware, machine_speed, resident_memory, versions, write
from whetstone.corpus import build, label, part
from whetstone.corpus.contamination import TestQuestions
from whetstone.records import Problem, Trace, to_row
from whetstone.run import fanout
from whetstone.run.folder import Stage, hash_folder, read_json
from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings
from whetstone.run.tables import TableWriter, write_records
from whetstone.run.usage import measured, peak_memory

PER_PROBLEM = 8
SHORTEST, LONGEST = 1_000, 16_000  # tokens
CHARACTERS = 4  # per token
SENTENCES = 4_000  # different ones
TESTS = (("gsm8k/test.jsonl.gz", "question"), ("math/test.jsonl.gz", "problem"), ("aime24/test.jsonl.gz", "problem"))
_NOUNS = "apples books coins tiles roads lamps wheels boxes pages ropes cards stamps tables plates shells pens"
_VERBS = "adds takes counts shares doubles moves removes packs orders paints sorts sells collects compares checks"
NOUNS, VERBS = _NOUNS.split(), _VERBS.split()
STEPS = ("accept", "label", "duplicates", "contamination", "pairs", "near duplicate problems")


def questions(count: int, rng: random.Random) -> Iterator[str]:
    for _ in range(count):
        told = [
            f"{rng.choice(('Mia', 'Tom', 'Ada', 'Ben', 'Lea', 'Sam'))} {rng.choice(VERBS)} {rng.randint(2, 9999)} "
            f"{rng.choice(NOUNS)} and {rng.choice(VERBS)} {rng.randint(2, 99)} of the {rng.choice(NOUNS)}."
            for _ in range(rng.randint(2, 5))
        ]
        yield f"{' '.join(told)} How many {rng.choice(NOUNS)} are there in the end, and in how many {rng.choice(NOUNS)}?"


def sentences(rng: random.Random) -> list[str]:
    starts = ("So", "Then", "Wait,", "Let me check:", "Therefore", "Now", "Since that holds,", "Perhaps", "Hmm,")
    return [
        f"{rng.choice(starts)} one {rng.choice(VERBS)} {rng.randint(2, 999)} {rng.choice(NOUNS)}, which gives "
        f"{rng.randint(2, 999)} + {rng.randint(2, 999)} = {rng.randint(4, 1998)} {rng.choice(NOUNS)}."
        for _ in range(SENTENCES)
    ]


def rollouts(problem: Problem, pool: Sequence[str], rng: random.Random) -> Iterator[Trace]:
    earlier = ""
    mean = sum(map(len, pool)) / len(pool) + 1
    for index in range(PER_PROBLEM):
        tokens = exp(rng.uniform(log(SHORTEST), log(LONGEST)))
        thoughts = rng.choices(pool, k=int(tokens * CHARACTERS / mean))
        fate = rng.random()
        if fate < 0.02:  # repeats itself
            thoughts = thoughts[:20] * (len(thoughts) // 20 + 1)
        thought = earlier if 0.02 < fate < 0.04 and earlier else " ".join(thoughts)
        closed = "" if 0.04 < fate < 0.06 else "\n</think>\n\n"
        correct = rng.random() > 0.33
        text = f"<think>\n{thought}{closed}The answer is \\boxed{{{problem.answer if correct else '0'}}}."
        earlier = thought
        yield Trace(problem.id, index, text, "synthetic", correct, "equal" if correct else "different")


def tests() -> list[Problem]:
    folder = os.environ.get("WHETSTONE_DATA")
    if not folder:
        texts = questions(7000, random.Random(1))
        return [Problem(f"test/{n}", text, "0", "test", "synthetic") for n, text in enumerate(texts)]
    from whetstone.problems.table import read_table

    rows = [(path, row[column]) for path, column in TESTS for _, row in read_table(Path(folder) / path)]
    return [Problem(f"{path}/{n}", text, "0", "test", path.split("/")[0]) for n, (path, text) in enumerate(rows)]


def prepare(folder: Path, count: int, seed: int) -> int:
    """Writes `problems` and `rollouts`; returns the characters of all rollouts."""
    rng = random.Random(seed)
    pool = sentences(rng)
    texts = questions(count // PER_PROBLEM, rng)
    problems = [Problem(f"p{n}", text, str(rng.randint(1, 9999))) for n, text in enumerate(texts)]
    write_records(folder / "problems", [*tests(), *problems])
    characters = 0
    with TableWriter(folder / "rollouts") as table:
        for problem in problems:
            for trace in rollouts(problem, pool, rng):
                characters += len(trace.text)
                table.add(to_row(trace))
    return characters


class Clock:
    """CPU seconds of this process within wrapped functions, by step."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STEPS, 0.0)

    def wrap(self, step: str, function: Callable[..., Any], whole: Callable[[Any], Any] = lambda result: result):
        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.process_time()
            try:
                return whole(function(*arguments, **named))
            finally:
                self.seconds[step] += time.process_time() - begin

        return timed

    def add(self, other: dict[str, float]) -> None:
        for step, seconds in other.items():
            self.seconds[step] += seconds


@contextmanager
def timed_steps(clock: Clock) -> Iterator[None]:
    places = [
        (part, "reason_to_drop", "accept", None),
        (part, "mark_duplicates", "duplicates", list),
        (part, "make_pairs", "pairs", None),
        (TestQuestions, "match", "contamination", None),
        *((label, name, "label", None) for name in ("pass_rate", "level", "domain", "school", "language")),
        (part, "quality", "label", None),
    ]
    plain = [getattr(owner, name) for owner, name, _, _ in places]
    try:
        for (owner, name, step, whole), function in zip(places, plain, strict=True):
            setattr(owner, name, clock.wrap(step, function, whole or (lambda result: result)))
        yield
    finally:
        for (owner, name, _, _), function in zip(places, plain, strict=True):
            setattr(owner, name, function)


@dataclass(frozen=True)
class Timed:
    """`work` with the seconds of its steps, and the peak of memory of the process that did it."""

    work: Callable[[Any], Any]

    def __call__(self, given: Any) -> tuple[Any, dict[str, float], int]:
        clock = Clock()
        with timed_steps(clock):
            made = self.work(given)
        return made, clock.seconds, peak_memory()


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of the call in a new process, whose memory does not include earlier work."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def case(count: int, processes: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """What was measured, now or before in this folder."""
    place = folder / f"{count}"
    made, found = place / "made.json", place / f"measured-{processes}.json"
    if not made.exists():
        write({"characters": alone(prepare, place, count, seed)}, made)
    if not found.exists():
        write(alone(measure, place, count, read_json(made)["characters"], processes), found)
    return read_json(found)


def measure(folder: Path, count: int, characters: int, processes: int) -> dict[str, Any]:
    """The stage on what `prepare` wrote."""
    settings = build.Settings(kind="corpus", near_duplicates=0.8, near_traces=0.8)
    stage = Stage(
        "corpus",
        "corpus",
        folder / "corpus",
        settings,
        {"problems": folder / "problems", "rollouts": folder / "rollouts"},
        RunSettings(name="scaling"),
        ModelSettings(),
        ParallelSettings(forks=processes),
        ScoreSettings(),
    )
    clock, at_start, peaks = Clock(), resident_memory(), [0]

    def fan_out(work: Callable[[Any], Any], parts: Iterable[Any], parallel: ParallelSettings) -> Iterator[Any]:
        for made, seconds, peak in fanout.fan_out(Timed(work), parts, parallel):
            clock.add(seconds)
            peaks.append(peak)
            yield made

    near = clock.wrap("near duplicate problems", build.near_duplicate_problems)
    with mock.patch.multiple(build, fan_out=fan_out, near_duplicate_problems=near), measured() as used:
        summary = build.run(stage)
    steps = {
        step: {"cpu_seconds": round(s, 2), "rows_per_cpu_second": round(count / s) if s else None}
        for step, s in clock.seconds.items()
    }
    rest = used["cpu_seconds"] - sum(clock.seconds.values())
    steps["reading, writing and the rest"] = {"cpu_seconds": round(rest, 2), "rows_per_cpu_second": round(count / rest)}
    return {
        "rollouts": count,
        "processes": processes,
        "gigabytes": round(characters / 1e9, 3),
        "cpu_seconds": used["cpu_seconds"],
        "wall_seconds": used["wall_seconds"],
        "rows_per_cpu_second": count / used["cpu_seconds"],
        "rows_per_wall_second": count / used["wall_seconds"],
        "memory_at_start_mb": at_start / 1e6,
        "peak_memory_mb": used["peak_memory"] / 1e6,
        "peak_memory_of_others_mb": max(peaks) / 1e6 if processes > 1 else 0.0,
        "steps": steps,
        "rows": {name: summary[name] for name in ("corpus", "subset", "pairs", "prompts", "dropped")},
        "drops": summary["drops"],
        "sha256": hash_folder(stage.folder),
    }


def run(counts: Sequence[int], processes: Sequence[int], folder: Path | None = None) -> dict[str, Any]:
    before = machine_speed()
    cases = []
    with tempfile.TemporaryDirectory() as name:
        for count in counts:
            for number in processes:
                cases.append(case(count, number, folder or Path(name)))
                show(cases[-1])
    first, last = cases[0], cases[-1]
    ratio = last["rows_per_cpu_second"] / first["rows_per_cpu_second"]
    print(
        f"\nfrom {first['rollouts']:,} to {last['rollouts']:,} rollouts the rate is {ratio:.2f} times, the peak of memory "
        f"{last['peak_memory_mb'] / first['peak_memory_mb']:.2f} times"
    )
    return {
        "name": "corpus_scaling",
        "cases": cases,
        "rate_ratio": ratio,
        "memory_ratio": last["peak_memory_mb"] / first["peak_memory_mb"],
        "same_for_any_number_of_processes": same_files(cases),
        "versions": versions(["numpy", "numba", "pyarrow"]),
        "hardware": hardware(),
        "machine_speed": {"before": before, "after": machine_speed(), "unit": "million loop steps/CPU s"},
        "date": str(date.today()),
    }


def same_files(cases: Sequence[dict[str, Any]]) -> bool:
    """Whether the cases of as many rollouts left the same files."""
    return len({(one["rollouts"], one["sha256"]) for one in cases}) == len({one["rollouts"] for one in cases})


def show(one: dict[str, Any]) -> None:
    print(
        f"\n{one['rollouts']:,} rollouts, {one['gigabytes']:.2f} GB of text, {one['processes']} processes: "
        f"{one['cpu_seconds']:.0f} CPU s, {one['rows_per_cpu_second']:,.0f} rows per CPU second, {one['wall_seconds']:.0f} s; "
        f"{one['peak_memory_mb']:,.0f} MB at the peak, {one['memory_at_start_mb']:,.0f} of them before the first row, "
        f"{one['peak_memory_of_others_mb']:,.0f} MB in each other process"
    )
    for step, cost in one["steps"].items():
        print(f"    {step:30} {cost['cpu_seconds']:>9.1f} CPU s {cost['rows_per_cpu_second'] or 0:>10,} rows/CPU s")
    print(f"    {one['rows']}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rollouts", type=int, nargs="+", default=[10_000, 100_000], help="default: 10,000 and 100,000"
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="default: 1 and 2")
    parser.add_argument("--folder", type=Path, help="keep data and results here, and go on from what is there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    from benchmarks import corpus_scaling  # imported by name, so that the processes can find it

    found = corpus_scaling.run(chosen.rollouts, chosen.processes, chosen.folder)
    write(found, chosen.json)
    if not found["same_for_any_number_of_processes"]:
        parser.exit(1, "error: the files depend on the number of processes.\n")


if __name__ == "__main__":
    main()
