"""Completion tokens that GRPO samples and trains on per CPU second: our RL stage beside TRL's GRPOTrainer.

    make bench-env
    .venv-bench/bin/python -m benchmarks grpo_vs_trl --json benchmarks/results/grpo_vs_trl.json

A Qwen 2 of 5 million parameters with random weights, 16 prompts with 8 answers each, of 16 to 256 tokens, log-uniform: a
script sets the lengths for both. One update per step, one thread, rewards of +1 and -1 by the answer's number. Ours is the
whole `rl` stage: drawing, sampling, grading by the verifier, credit, the update, metrics. TRL samples with `generate`, with
a dynamic or a static cache, and computes only the reward; it trains without activation checkpointing, 32 padded
answers in a pass or 8.

Each loop has a process of its own and they take turns. The peer's first step, which is not timed, trains on the rollouts of
our first: the two gradient norms must agree within 1e-3 (bfloat16: 3e-2), or nothing is measured.

Of our step's CPU seconds: `draw` prompts, `generate` (with `grade`, which runs beside it), `wait` for what is not graded
yet, `credit`, `update`, `log`.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import _grpo_loops as loops
from benchmarks._measure import Case, compare, write
from benchmarks._paced import ONE_THREAD, Paced, must_agree
from benchmarks.dpo_vs_trl import AGREEMENT, made
from benchmarks.sft_vs_trl import bfloat16_speed

TARGET, AIM = 2.5, 4.0  # times the peer
REPEATS = 3
MICRO_BATCH_TOKENS = 1024
PEERS: dict[str, dict[str, Any]] = {  # GRPOConfig's settings
    "TRL, 32 a pass": {"per_device_train_batch_size": 32},
    "TRL, 8 a pass, static cache": {"per_device_train_batch_size": 8, "cache_implementation": "static"},
}


@contextmanager
def started(
    folder: Path, dtype: str, micro_batch_tokens: int,
    peers: Mapping[str, dict[str, Any]] = PEERS, work: tuple[Any, ...] = (), answers: int = loops.STEP.answers,
) -> Iterator[dict[str, Paced]]:  # fmt: skip
    """Every loop, waiting after its first step. `work` is what the loops take beyond their own work of random weights."""
    running: dict[str, Paced] = {}
    try:
        running["ours"] = Paced(loops.ours, made(folder / "ours"), dtype, micro_batch_tokens, *work)
        for name, settings in peers.items():
            more = settings | {"gradient_accumulation_steps": answers // settings["per_device_train_batch_size"]}
            running[name] = Paced(loops.trl, made(folder / name), dtype, folder / "ours" / "first.json", more, *work)
            must_agree(running["ours"], running[name], name, AGREEMENT[dtype])
        yield running
    finally:
        for one in running.values():
            one.close()


def by_phase(one: Paced) -> dict[str, float]:
    """Median CPU and wall seconds of the steps after the first."""
    steps = one.seen[1:]
    names = [
        name for name in dict.fromkeys(name for step in steps for name in step) if name.endswith(("_cpu", "_wall"))
    ]
    return {name: statistics.median(step.get(name, 0.0) for step in steps) for name in names}


def run(dtypes: Sequence[str], repeats: int, micro_batch_tokens: int) -> dict[str, Any]:
    """The benchmark's JSON object."""
    results, starts, memory, norms, phases = [], {}, {}, {}, {}
    for dtype in dtypes:
        with (
            tempfile.TemporaryDirectory() as folder,
            started(Path(folder), dtype, micro_batch_tokens) as running,
        ):
            cases = [
                Case(
                    f"{dtype}, {name}",
                    "tokens",
                    lambda running=running: running["ours"].steps(1),
                    lambda running=running, name=name: running[name].steps(1),
                )
                for name in PEERS
            ]
            results.append(compare("grpo_vs_trl", cases, repeats, ["torch", "transformers", "trl"]))
            for name, one in running.items():
                starts[f"{dtype}, {name}"] = one.startup
                memory[f"{dtype}, {name}"] = one.peak_memory_mb
                norms[f"{dtype}, {name}"] = one.seen[0]["gradient_norm"]
                phases[f"{dtype}, {name}"] = by_phase(one)
    cases = [row for result in results for row in result["cases"]]
    speeds = [result["machine_speed"] for result in results]
    return results[-1] | {
        "cases": cases,
        "ratio": min(row["ratio"] for row in cases),
        "machine_speed": speeds[0] | {"after": speeds[-1]["after"]},
        "seconds_a_step_by_phase": phases,
        "startup_to_first_step": starts,
        "peak_memory_mb": memory,
        "first_gradient_norm": norms,
        "our_micro_batch_tokens": micro_batch_tokens,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="a step of each loop")
    parser.add_argument("--micro-batch-tokens", type=int, default=MICRO_BATCH_TOKENS, help="ours; the peer's is a pass")
    parser.add_argument("--dtypes", nargs="+", choices=list(AGREEMENT), help="left out: those that are worth it here")
    chosen = parser.parse_args(arguments)
    if find_spec("trl") is None:
        sys.exit(
            "error: TRL is not installed in this environment: `make bench-env` makes one that has it, then run "
            ".venv-bench/bin/python -m benchmarks grpo_vs_trl"
        )
    os.environ.update(ONE_THREAD)
    dtypes = chosen.dtypes or (["float32", "bfloat16"] if bfloat16_speed() > 1 else ["float32"])
    result = run(dtypes, chosen.repeats, chosen.micro_batch_tokens)
    write(result, chosen.json)
    for name, spent in result["seconds_a_step_by_phase"].items():
        parts = [
            f"{part.removesuffix('_cpu')} {seconds:.2f}" for part, seconds in spent.items() if part.endswith("_cpu")
        ]
        print(f"{name}, CPU seconds per step: {', '.join(parts)}")
    print(f"worst case: {result['ratio']:.2f} x (target {TARGET}, aim {AIM})")


if __name__ == "__main__":
    main()
