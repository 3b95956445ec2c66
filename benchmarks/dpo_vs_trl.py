"""Tokens that DPO trains on per CPU second: our stage beside TRL's DPOTrainer, on the same ragged pairs in the same steps.

    make bench-env
    .venv-bench/bin/python -m benchmarks dpo_vs_trl --json benchmarks/results/dpo_vs_trl.json

A Qwen 2 of 5 million parameters with random weights, prompts of 32 to 256 ids, answers of 32 to 768, eight pairs per step, one
thread. Ours is the whole `dpo` stage (pairs from disk, clipping, schedule, metrics, progress). TRL runs without activation
checkpointing, which is slower; eight padded pairs in a pass, and one pair in a pass with eight accumulated, which pads
least and is its fastest (`padding_free` is switched off in TRL 1.16). With the reference's pass in both, and with its
log-probabilities known in both, as in every epoch but the first. A pair's prompt counts twice, padding does not.

Each loop has a process of its own and they take turns. Their gradient norms in the first step, which is not timed, must
agree within 1e-3 (bfloat16: 3e-2), or nothing is measured.

float32 always; bfloat16 if the CPU multiplies it faster than float32.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import _dpo_loops as loops
from benchmarks._measure import Case, compare, write
from benchmarks._paced import ONE_THREAD, Paced, must_agree
from benchmarks.sft_vs_trl import bfloat16_speed

TARGETS, AIM = {"reference in both": 2.2, "reference known": 2.7}, 4.0  # times the peer
AGREEMENT = {"float32": 1e-3, "bfloat16": 3e-2}  # of gradient norms, relative
REPEATS = 3
STEPS = 2  # of each loop a repeat
MICRO_BATCH_TOKENS = 1024
PEERS: dict[str, dict[str, Any]] = {  # DPOConfig's settings; every step is eight pairs
    "TRL, eight pairs a pass": {"per_device_train_batch_size": 8},
    "TRL, one pair a pass": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
}


@contextmanager
def started(
    folder: Path, dtype: str, cached: bool, micro_batch_tokens: int,
    peers: Mapping[str, dict[str, Any]] = PEERS, work: tuple[Any, ...] = (),
) -> Iterator[dict[str, Paced]]:  # fmt: skip
    """Every loop, waiting after its first step. `work` is what the loops take beyond their own work of random weights."""
    running: dict[str, Paced] = {}
    try:
        running["ours"] = Paced(loops.ours, made(folder / "ours"), dtype, micro_batch_tokens, cached, *work)
        for name, settings in peers.items():
            more = settings | {"gradient_checkpointing": False}
            running[name] = Paced(loops.trl, made(folder / name), dtype, cached, more, *work)
            must_agree(running["ours"], running[name], name, AGREEMENT[dtype])
        yield running
    finally:
        for one in running.values():
            one.close()


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def run(dtypes: Sequence[str], repeats: int, steps: int, micro_batch_tokens: int) -> dict[str, Any]:
    """The benchmark's JSON object."""
    results, starts, memory, norms = [], {}, {}, {}
    for dtype in dtypes:
        for reference in TARGETS:
            with (
                tempfile.TemporaryDirectory() as folder,
                started(Path(folder), dtype, reference == "reference known", micro_batch_tokens) as running,
            ):
                for one in running.values():
                    one.steps(1)()  # allocators settle
                cases = [
                    Case(
                        f"{dtype}, {reference}, {name}",
                        "tokens",
                        lambda running=running: running["ours"].steps(steps),
                        lambda running=running, name=name: running[name].steps(steps),
                    )
                    for name in PEERS
                ]
                results.append(compare("dpo_vs_trl", cases, repeats, ["torch", "transformers", "trl"]))
                for name, one in running.items():
                    starts[f"{dtype}, {reference}, {name}"] = one.startup
                    memory[f"{dtype}, {reference}, {name}"] = one.peak_memory_mb
                    norms[f"{dtype}, {reference}, {name}"] = one.seen[0]["gradient_norm"]
    cases = [row for result in results for row in result["cases"]]
    speeds = [result["machine_speed"] for result in results]
    return (
        results[-1]
        | {
            "cases": cases,
            "ratio": min(row["ratio"] for row in cases),
            "machine_speed": speeds[0] | {"after": speeds[-1]["after"]},
            "startup_to_first_step": starts,  # includes the reference's pass over all pairs if its log-probabilities are reused
            "peak_memory_mb": memory,
            "first_gradient_norm": norms,
            "our_micro_batch_tokens": micro_batch_tokens,
        }
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each loop a repeat")
    parser.add_argument("--micro-batch-tokens", type=int, default=MICRO_BATCH_TOKENS, help="ours; the peer's is a pass")
    parser.add_argument("--dtypes", nargs="+", choices=list(AGREEMENT), help="left out: those that are worth it here")
    chosen = parser.parse_args(arguments)
    if find_spec("trl") is None:
        sys.exit(
            "error: TRL is not installed in this environment: `make bench-env` makes one that has it, then run "
            ".venv-bench/bin/python -m benchmarks dpo_vs_trl"
        )
    os.environ.update(ONE_THREAD)
    dtypes = chosen.dtypes or (["float32", "bfloat16"] if bfloat16_speed() > 1 else ["float32"])
    result = run(dtypes, chosen.repeats, chosen.steps, chosen.micro_batch_tokens)
    write(result, chosen.json)
    for reference, target in TARGETS.items():
        for name in PEERS:
            ratio = min(r["ratio"] for r in result["cases"] if reference in r["case"] and r["case"].endswith(name))
            print(f"{reference}, {name}: {ratio:.2f} x (target {target}, aim {AIM})")


if __name__ == "__main__":
    main()
