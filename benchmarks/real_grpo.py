"""Completion tokens that GRPO samples and trains a pretrained model on per CPU second: our RL stage beside TRL's GRPOTrainer.

    make bench-env
    python -m benchmarks real_grpo --json benchmarks/results/real_grpo.json
    python -m benchmarks real_grpo --prompts 2 --samples 4 --longest 48 --repeats 1     # a part

SmolLM2-135M-Instruct (`--model`; a random model of its shape without it), questions of GSM8K, 16 prompts a step with 8 answers
each, whose lengths a script sets for both: 16 to 256 tokens, log-uniform. As in grpo_vs_trl: one update a step, one thread,
TRL samples with `generate`, and the peer's first step trains on our first rollouts, where the gradient norms must agree.

float32 always; bfloat16 if this CPU multiplies it faster than float32.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks._grpo_loops import STEP, Step
from benchmarks._measure import beside, in_turns
from benchmarks._real import Cases, in_bench_environment, model_folder, number_types, options, wanted
from benchmarks._real_work import Gsm8k
from benchmarks.grpo_vs_trl import by_phase, started

REPEATS = 3
MICRO_BATCH_TOKENS = 2048
PASS = 8  # answers of the peer's smaller pass


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, REPEATS)
    parser.add_argument("--prompts", type=int, default=STEP.prompts, help="a step")
    parser.add_argument("--samples", type=int, default=STEP.samples, help="answers to each prompt")
    parser.add_argument("--longest", type=int, default=STEP.longest, help="tokens of an answer")
    parser.add_argument("--micro-batch-tokens", type=int, default=MICRO_BATCH_TOKENS, help="ours; the peer's is a pass")
    chosen = parser.parse_args(arguments)
    in_bench_environment("real_grpo")
    size = Step(chosen.prompts, chosen.samples, min(STEP.shortest, chosen.longest), chosen.longest)
    settings = {"prompts": size.prompts, "samples": size.samples, "longest": size.longest}
    asked = wanted(chosen.only)
    peers = {
        f"TRL, {min(32, size.answers)} a pass": {"per_device_train_batch_size": min(32, size.answers)},
        f"TRL, {PASS} a pass, static cache": {"per_device_train_batch_size": PASS, "cache_implementation": "static"},
    }
    with tempfile.TemporaryDirectory() as aside:
        folder, model = model_folder(chosen.model, Path(aside) / "random")
        cases = Cases("real_grpo", chosen.json, model, ["whetstone", "torch", "transformers", "trl"], chosen.again)
        for dtype in number_types():
            names = {name: f"{dtype}, {name}" for name in peers}
            names = {n: case for n, case in names.items() if asked(case) and not cases.has(case, settings)}
            if not names:
                continue
            given = {name: peers[name] for name in names}
            with (
                tempfile.TemporaryDirectory() as place,
                started(
                    Path(place), dtype, chosen.micro_batch_tokens, given, (Gsm8k(folder.absolute()), size), size.answers
                ) as running,
            ):
                sides = {name: (lambda one=one: one.steps(1)) for name, one in running.items()}
                rates = in_turns(sides, chosen.repeats)
                for name, case in names.items():
                    both = {"ours": running["ours"], "peer": running[name]}
                    cases.add(
                        beside(case, "tokens", rates["ours"], rates[name]), settings, chosen.repeats,
                        seconds_a_step_by_phase={side: by_phase(one) for side, one in both.items()},
                        peak_memory_mb={side: one.peak_memory_mb for side, one in both.items()},
                        startup_to_first_step={side: one.startup for side, one in both.items()},
                        first_gradient_norm={side: one.seen[0]["gradient_norm"] for side, one in both.items()},
                    )  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
