"""Tokens that fine-tuning trains on per CPU second: our stage beside TRL's SFTTrainer, on ragged rows.

    make bench-env
    .venv-bench/bin/python -m benchmarks sft_vs_trl --json benchmarks/results/sft_vs_trl.json

A Qwen 2 of 5 million parameters with random weights, rows of 32 to 1,024 ids, one thread. Ours is the whole `sft` stage
(rows from disk, clipping, schedule, metrics, progress), the same in every case; micro-batches of 1,024 tokens keep its
activations in the cache. TRL runs at its defaults except for the number type (8 padded rows, activation checkpointing), packed
best-fit-decreasing without checkpointing, and packed so with one row in each forward pass instead of two: TRL lays the rows
of a pass end to end and masks all of them against each other, so one at a time is its fastest. TRL with our attention is
measured too. Padding is not counted. Each loop has a process of its own and they take turns.

float32 always; bfloat16 if the CPU multiplies it faster than float32.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import _ragged as ragged
from benchmarks import _sft_loops as loops
from benchmarks._measure import Case, compare, line, measure, write
from benchmarks._paced import ONE_THREAD, Paced

TARGET, AIM = 2.5, 3.5  # times the peer at its best
CEILING_TARGET = {"float32": 0.60, "bfloat16": 0.28}  # share of the matrix products' own speed
REPEATS = 5
STEPS = 2  # of each loop a repeat
MICRO_BATCH_TOKENS = 1024
WITH_OUR_ATTENTION = "TRL packed, one row a pass, with our attention"
PACKED = {"packing": True, "gradient_checkpointing": False}
PEERS: dict[str, dict[str, Any]] = {  # SFTConfig's settings; every step is about 2,048 tokens
    "TRL at its defaults": {},
    "TRL packed, two rows a pass": {**PACKED, "per_device_train_batch_size": 2},
    "TRL packed, one row a pass": {**PACKED, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2},
}


def products_per_second(
    dtype: str, tokens: int = MICRO_BATCH_TOKENS, seconds: float = 1.0,
    products: Sequence[tuple[int, int]] = ragged.PRODUCTS,
) -> float:  # fmt: skip
    """FLOP per CPU second of the model's own matrix products, forward and both of backward: the ceiling of any training."""
    import torch

    torch.set_num_threads(1)
    kind = getattr(torch, dtype)
    shapes = [
        (torch.randn(tokens, i).to(kind), torch.randn(o, i).to(kind), torch.randn(tokens, o).to(kind))
        for i, o in dict.fromkeys(products)
    ]
    counts = [products.count(shape) for shape in dict.fromkeys(products)]
    done, spent = 0, 0.0
    while spent < seconds:
        for (x, weight, gradient), count in zip(shapes, counts, strict=True):
            start = time.process_time()
            for _ in range(count):
                x @ weight.T, gradient @ weight, gradient.T @ x
            spent += time.process_time() - start
        done += flops(products) * tokens
    return done / spent


def flops(products: Sequence[tuple[int, int]]) -> int:
    """Of a token through these products, forward and backward."""
    return sum(6 * inputs * outputs for inputs, outputs in products)


def bfloat16_speed() -> float:
    """Speed compared with float32, by one small product: the model's own take minutes if the type is emulated."""
    import torch

    torch.set_num_threads(1)
    spent = {}
    for kind in (torch.float32, torch.bfloat16):
        a = torch.randn(256, 256).to(kind)
        a @ a
        start = time.process_time()
        for _ in range(4):
            a @ a
        spent[kind] = time.process_time() - start
    return spent[torch.float32] / spent[torch.bfloat16]


@contextmanager
def started(folder: Path, dtype: str, micro_batch_tokens: int) -> Iterator[dict[str, Paced]]:
    """Every loop, waiting after its first step."""
    running: dict[str, Paced] = {}
    asked = {name: (loops.trl, "sdpa", settings) for name, settings in PEERS.items()}
    asked[WITH_OUR_ATTENTION] = (loops.trl, loops.BY_SEGMENT, PEERS["TRL packed, one row a pass"])
    try:
        running["ours"] = Paced(loops.ours, folder / "ours", dtype, micro_batch_tokens)
        for name, (loop, attention, settings) in asked.items():
            running[name] = Paced(loop, folder / name, attention, settings | {"bf16": dtype == "bfloat16"})
        yield running
    finally:
        for one in running.values():
            one.close()


def run(dtypes: Sequence[str], repeats: int, steps: int, micro_batch_tokens: int) -> dict[str, Any]:
    """The benchmark's JSON object."""
    results, beside, ceilings, starts, memory = [], [], {}, {}, {}
    for dtype in dtypes:
        with tempfile.TemporaryDirectory() as folder, started(Path(folder), dtype, micro_batch_tokens) as running:
            ceiling = [products_per_second(dtype)]

            def case(name: str, dtype: str = dtype, running: dict[str, Paced] = running) -> Case:
                ours, peer = running["ours"], running[name]
                return Case(f"{dtype}, {name}", "tokens", lambda: ours.steps(steps), lambda: peer.steps(steps))

            for one in running.values():
                one.steps(1)()  # the second step is not yet like the later ones: allocators and thread pools settle
            results.append(
                compare("sft_vs_trl", [case(name) for name in PEERS], repeats, ["torch", "transformers", "trl"])
            )
            beside.append(measure(case(WITH_OUR_ATTENTION), repeats))
            print(line(beside[-1]), flush=True)
            ceiling.append(products_per_second(dtype))
            ceilings[dtype] = statistics.mean(ceiling)
            starts |= {f"{dtype}, {name}": one.startup for name, one in running.items()}
            memory |= {f"{dtype}, {name}": one.peak_memory_mb for name, one in running.items()}
    cases = [row for result in results for row in result["cases"]]
    speeds = [result["machine_speed"] for result in results]
    return results[-1] | {
        "cases": cases,
        "ratio": min(row["ratio"] for row in cases),
        "machine_speed": speeds[0] | {"after": speeds[-1]["after"]},
        "beside": beside,
        "matrix_products": {
            dtype: {
                "gflop_per_cpu_s": flops / 1e9,
                "tokens_per_cpu_s": flops / ragged.FLOPS_PER_TOKEN,
                "our_share": statistics.median(row["ours"] for row in cases if row["case"].startswith(dtype))
                * ragged.FLOPS_PER_TOKEN
                / flops,
            }
            for dtype, flops in ceilings.items()
        },
        "startup_to_first_step": starts,
        "our_micro_batch_tokens": micro_batch_tokens,
        "compile_s": 0.0,  # nothing is compiled
        "peak_memory_mb": memory,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each loop a repeat")
    parser.add_argument("--micro-batch-tokens", type=int, default=MICRO_BATCH_TOKENS, help="ours; the peer's is a row")
    chosen = parser.parse_args(arguments)
    if find_spec("trl") is None:
        sys.exit(
            "error: TRL is not installed in this environment: `make bench-env` makes one that has it, then run "
            ".venv-bench/bin/python -m benchmarks sft_vs_trl"
        )
    os.environ.update(ONE_THREAD)
    fast = bfloat16_speed()
    skipped = []
    if fast <= 1:
        reason = f"this CPU multiplies bfloat16 at {fast:.3f} times the speed of float32: nobody would train in it here"
        skipped = [{"case": f"bfloat16, {name}", "reason": reason} for name in PEERS]
        print(f"bfloat16 is skipped: {reason}", flush=True)
    dtypes = ["float32"] if skipped else ["float32", "bfloat16"]
    result = run(dtypes, chosen.repeats, chosen.steps, chosen.micro_batch_tokens) | {"skipped": skipped}
    for name, start in result["startup_to_first_step"].items():
        memory = result["peak_memory_mb"][name]
        print(f"{name:60} first step after {start['cpu_s']:.1f} CPU s ({start['wall_s']:.1f} s), peak {memory:,.0f} MB")
    for dtype, found in result["matrix_products"].items():
        print(
            f"{dtype}: the model's matrix products alone {found['gflop_per_cpu_s']:.0f} GFLOP/CPU s = "
            f"{found['tokens_per_cpu_s']:,.0f} tokens/CPU s; ours reaches {found['our_share']:.0%} "
            f"(target {CEILING_TARGET[dtype]:.0%})"
        )
    write(result, chosen.json)
    print(f"worst case: {result['ratio']:.2f} x (target {TARGET}, aim {AIM})")


if __name__ == "__main__":
    main()
