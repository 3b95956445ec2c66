"""Tokens that DPO trains a pretrained model on per CPU second: our stage beside TRL's DPOTrainer, on the same pairs.

    make bench-env
    python -m benchmarks real_dpo --json benchmarks/results/real_dpo.json
    python -m benchmarks real_dpo --pairs 2 --repeats 1 --only "known, TRL, one pair"     # a part

SmolLM2-135M-Instruct (`--model`; a random model of its shape without it), problems of GSM8K with their own solution and another
problem's, one thread, eight pairs a step. As in dpo_vs_trl: the reference in both or known in both, TRL with all pairs in one
pass or one in each, no activation checkpointing, and the first step's gradient norms must agree.

float32 always; bfloat16 if this CPU multiplies it faster than float32.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks._measure import beside, in_turns
from benchmarks._real import Cases, in_bench_environment, model_folder, number_types, options, wanted
from benchmarks._real_work import Gsm8k
from benchmarks.dpo_vs_trl import STEPS, TARGETS, started

REPEATS = 3
PAIRS = 8
MICRO_BATCH_TOKENS = 2048


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, REPEATS)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="a step")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each loop a repeat")
    parser.add_argument("--micro-batch-tokens", type=int, default=MICRO_BATCH_TOKENS, help="ours; the peer's is a pass")
    chosen = parser.parse_args(arguments)
    in_bench_environment("real_dpo")
    settings = {"pairs": chosen.pairs, "steps": chosen.steps}
    asked = wanted(chosen.only)
    peers = {
        "TRL, all pairs in one pass": {"per_device_train_batch_size": chosen.pairs},
        "TRL, one pair a pass": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": chosen.pairs},
    }
    with tempfile.TemporaryDirectory() as aside:
        folder, model = model_folder(chosen.model, Path(aside) / "random")
        cases = Cases("real_dpo", chosen.json, model, ["whetstone", "torch", "transformers", "trl"], chosen.again)
        for dtype, reference in [(dtype, reference) for dtype in number_types() for reference in TARGETS]:
            names = {name: f"{dtype}, {reference}, {name}" for name in peers}
            names = {n: case for n, case in names.items() if asked(case) and not cases.has(case, settings)}
            if not names:
                continue
            known, work = reference == "reference known", (Gsm8k(folder.absolute()), chosen.pairs)
            with (
                tempfile.TemporaryDirectory() as place,
                started(
                    Path(place), dtype, known, chosen.micro_batch_tokens, {n: peers[n] for n in names}, work
                ) as running,
            ):
                sides = {name: (lambda one=one: one.steps(chosen.steps)) for name, one in running.items()}
                rates = in_turns(sides, chosen.repeats)
                for name, case in names.items():
                    both = {"ours": running["ours"], "peer": running[name]}
                    cases.add(
                        beside(case, "tokens", rates["ours"], rates[name]), settings, chosen.repeats,
                        peak_memory_mb={side: one.peak_memory_mb for side, one in both.items()},
                        startup_to_first_step={side: one.startup for side, one in both.items()},
                        first_gradient_norm={side: one.seen[0]["gradient_norm"] for side, one in both.items()},
                    )  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
