"""Does training on a million rows cost the same per token as on a thousand? Tokens per CPU second, memory, time of preparation.

    python -m benchmarks learner_scaling --json benchmarks/results/learner_scaling.json

For each size a process of its own prepares a synthetic corpus as mid-training does (tokenised into a store on disk, packed
best-fit-decreasing, all steps planned) and trains a small model for some steps at the start, in the middle and at the end
of the corpus. The processes take turns, so that other work on the machine disturbs all alike; a rate is compared with the
mean of its round. Memory is the highest resident set of the process, memory-mapped pages included.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, machine_speed, versions, write
from whetstone import midtrain
from whetstone.run.folder import Stage
from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings
from whetstone.run.tables import write_rows

SIZES = (1_000, 100_000, 1_000_000)
POSITIONS = ("start", "middle", "end")
STEPS = 50  # at each position
SEQUENCE_LENGTH = 128
BATCH_TOKENS = 64  # a packed row is a step, so that 1,000 rows make 150 steps
SHAPE = ModelSettings(layers=2, hidden=64, mlp=128, heads=2, kv_heads=1, vocabulary=320, context=512)


def corpus(rows: int) -> Iterator[dict[str, Any]]:
    """Sums of two or three numbers, about 27 tokens each: short, so that a million are made quickly."""
    rng = random.Random(rows)
    for number in range(rows):
        terms = [rng.randrange(1, 1000) for _ in range(rng.randint(2, 3))]
        question = f"Compute {' + '.join(map(str, terms))}."
        yield {"problem_id": f"p{number}", "question": question, "text": f"It is {sum(terms)}.", "split": "train"}


class Training:
    """A model, and one corpus prepared for it."""

    def __init__(self, rows: int, folder: Path):
        from whetstone import model as models
        from whetstone.chat import Chat
        from whetstone.learner.learner import Learner

        self.folder, self.count = folder, rows
        texts = (f"{row['question']} {row['text']}" for row in corpus(1000))
        model, tokenizer = models.build_tiny(SHAPE, texts, seed=0)
        self.chat = Chat(tokenizer)
        self.learner = Learner(model, self.chat.size, ParallelSettings(device="cpu", forks=1))

    def prepare(self) -> dict[str, float]:
        """CPU seconds of each part; without making the corpus."""
        from whetstone.batch import pack
        from whetstone.learner.order import plan_steps
        from whetstone.learner.tokenise import tokenise

        settings = midtrain.Settings(
            kind="midtrain", name="midtrain", batch_tokens=BATCH_TOKENS, max_length=SEQUENCE_LENGTH
        )
        inputs = {"corpus": self.folder / "corpus"}
        run = RunSettings(name=self.folder.name, folder=self.folder.parent)
        stage = Stage(
            "midtrain", "midtrain", self.folder, settings, inputs, run, SHAPE, self.learner.parallel, ScoreSettings()
        )
        clock = [time.process_time()]
        found = tokenise(stage, inputs["corpus"], self.chat, responses_only=False)
        self.rows = found["train"]
        clock.append(time.process_time())
        self.rooms = pack(self.rows.lengths, SEQUENCE_LENGTH)
        clock.append(time.process_time())
        self.plan = plan_steps(self.rooms.sizes(self.rows.lengths), BATCH_TOKENS, seed=0, epochs=1)
        clock.append(time.process_time())
        parts = zip(("tokenise", "pack", "plan"), clock, clock[1:], strict=False)
        return {name: end - begin for name, begin, end in parts}

    def train(self, first: int, steps: int) -> dict[str, float]:
        """Tokens, and CPU seconds: all, and those of finding and reading the rows."""
        from whetstone.learner.next_token import next_token_loss, token_mean

        tokens, reading, begin = 0, 0.0, time.process_time()
        for step in range(first, first + steps):
            fetch = time.process_time()
            chosen = token_mean([self.rows[i] for room in self.plan[step] for i in self.rooms[room]])
            reading += time.process_time() - fetch
            tokens += sum(len(row.ids) for row in chosen)
            self.learner.gradient([[row] for row in chosen], next_token_loss)
            self.learner.step(1e-3)
        return {"tokens": tokens, "cpu": time.process_time() - begin, "reading": reading}

    def first_step(self, position: str, steps: int) -> int:
        last = len(self.plan) - steps
        assert last >= 0, f"{self.count} rows make {len(self.plan)} steps: too few for {steps}"
        return {"start": 0, "middle": last // 2, "end": last}[position]


def memory() -> dict[str, float]:
    """MB of this process: the highest resident set so far, and what of it is its own and what is mapped files."""
    names = {"VmHWM": "peak", "RssAnon": "own", "RssFile": "mapped"}
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[field].split()[0]) / 1024 for field, name in names.items()}


def serve(rows: int, folder: Path, pipe: Connection) -> None:
    """The process of one size: prepares, then trains at the requested positions."""
    import torch

    torch.set_num_threads(1)
    training = Training(rows, folder)
    told: dict[str, Any] = {"memory": {"start": memory()}}
    told["prepare"] = training.prepare()
    told["memory"]["prepared"] = memory()
    told["steps"], told["tokens"] = len(training.plan), int(training.rows.lengths.sum(dtype="int64"))
    told["row_of_tokens"], told["packed_rows"] = told["tokens"] / rows, len(training.rooms)
    pipe.send(told)
    while (asked := pipe.recv()) is not None:
        position, steps = asked
        pipe.send(training.train(training.first_step(position, steps), steps) | {"memory": memory()})


def measure(sizes: Sequence[int], steps: int, repeats: int, folder: Path) -> list[dict[str, Any]]:
    """Each size's numbers with its rounds: one per repeat and position, the sizes in turns."""
    from benchmarks.learner_scaling import serve  # imported by name, so that a new process can find it

    context = get_context("spawn")
    found, pipes, children = [], [], []
    try:
        for rows in sizes:
            place = folder / f"{rows}"
            write_rows(place / "corpus", corpus(rows))
            ours, theirs = context.Pipe()
            child = context.Process(target=serve, args=(rows, place, theirs))
            child.start()
            theirs.close()
            children.append(child)
            pipes.append(ours)
            found.append({"rows": rows, "rounds": {position: [] for position in POSITIONS}} | ours.recv())
            print(prepared_line(found[-1]), flush=True)
        order = [(i, position) for i in range(len(sizes)) for position in POSITIONS]
        for repeat in range(repeats + 1):  # the first warms up
            for i, position in order if repeat % 2 == 0 else order[::-1]:
                pipes[i].send((position, steps))
                told = pipes[i].recv()
                if repeat:
                    found[i]["rounds"][position].append(told)
                found[i]["memory"]["trained"] = told["memory"]
    finally:
        for pipe, child in zip(pipes, children, strict=True):
            if child.is_alive():
                pipe.send(None)
            child.join()
    return found


def prepared_line(one: dict[str, Any]) -> str:
    microseconds = {name: 1e6 * cpu / one["rows"] for name, cpu in one["prepare"].items()}
    parts = ", ".join(f"{name} {value:.2f}" for name, value in microseconds.items())
    return (
        f"{one['rows']:>9,} rows  {one['row_of_tokens']:.0f} tokens per row, {one['steps']:,} steps   "
        f"CPU microseconds per row: {parts}"
    )


def summarise(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Each case's rate, and its median share of the mean rate of its round; `spread` is the highest share by the lowest."""
    repeats = len(found[0]["rounds"][POSITIONS[0]])
    rate = {
        (one["rows"], position): [told["tokens"] / told["cpu"] for told in one["rounds"][position]]
        for one in found
        for position in POSITIONS
    }
    means = [statistics.mean(rates[repeat] for rates in rate.values()) for repeat in range(repeats)]
    cases = []
    for (rows, position), rates in rate.items():
        share = statistics.median(one / mean for one, mean in zip(rates, means, strict=True))
        cases.append(
            {
                "case": f"{rows:,} rows, {position}",
                "ours": statistics.median(rates),
                "unit": "tokens/CPU s",
                "share": share,
                "low": min(rates),
                "high": max(rates),
            }
        )
    every = [told for one in found for rounds in one["rounds"].values() for told in rounds]
    peaks = {one["rows"]: one["memory"]["trained"]["peak"] for one in found}
    return {
        "cases": cases,
        "spread": max(case["share"] for case in cases) / min(case["share"] for case in cases),
        "reading_share": statistics.median(told["reading"] / told["cpu"] for told in every),
        "peak_memory_growth_mb": peaks[max(peaks)] - peaks[min(peaks)],
        "sizes": [{name: value for name, value in one.items() if name != "rounds"} for one in found],
    }


def run(sizes: Sequence[int], steps: int, repeats: int) -> dict[str, Any]:
    before = machine_speed()
    with tempfile.TemporaryDirectory() as folder:
        summary = summarise(measure(sizes, steps, repeats, Path(folder)))
    for case in summary["cases"]:
        print(f"{case['case']:24} {case['ours']:>10,.0f} {case['unit']}   {case['share']:.3f} of the mean")
    for one in summary["sizes"]:
        told = "   ".join(
            f"{when} {mb['peak']:.0f} (own {mb['own']:.0f}, mapped {mb['mapped']:.0f})"
            for when, mb in one["memory"].items()
        )
        print(f"{one['rows']:>9,} rows  MB of memory: {told}")
    print(
        f"fastest by slowest case {summary['spread']:.3f}   peak memory grows by {summary['peak_memory_growth_mb']:.0f} MB   "
        f"finding and reading the rows is {summary['reading_share']:.2%} of a step"
    )
    return {
        "name": "learner_scaling",
        **summary,
        "steps": steps,
        "repeats": repeats,
        "model": SHAPE.model_dump(mode="json"),
        "versions": versions(["torch", "tokenizers", "numpy", "pyarrow"]),
        "hardware": hardware(),
        "machine_speed": {"before": before, "after": machine_speed(), "unit": "million loop steps/CPU s"},
        "date": date.today().isoformat(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows of each corpus")
    parser.add_argument("--steps", type=int, default=STEPS, help="at each position")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    if sys.platform != "linux":
        sys.exit("error: memory is read from /proc, which is Linux's: run it there.")
    write(run(chosen.sizes, chosen.steps, chosen.repeats), chosen.json)


if __name__ == "__main__":
    main()
