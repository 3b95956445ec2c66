"""Tokens that fine-tuning a pretrained model trains on per CPU second, and its memory: an adapter beside all weights (ours).

    python -m benchmarks real_adapters --json benchmarks/results/real_adapters.json

The work is that of real_sft: SmolLM2-135M-Instruct (`--model`; a random model of its shape without it), GSM8K's training
problems, fp32, one thread, the whole `sft` stage. "Ours" is LoRA of rank 16 beside all linear layers, with the frozen weights
as they are or in 4 bits (QLoRA, if bitsandbytes is installed); "peer" trains all weights. Each has a process of its own, and
they take turns. Memory is the peak of the process, libraries included.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks import _sft_loops as loops
from benchmarks._measure import Work, beside, in_turns
from benchmarks._paced import Paced
from benchmarks._real import Cases, model_folder, options, wanted
from benchmarks._real_work import Gsm8k
from benchmarks.real_sft import closing, made
from whetstone.run.settings import AdapterSettings

REPEATS = 3
STEP_TOKENS = 1024
ADAPTERS = {
    "LoRA, rank 16": AdapterSettings(rank=16),
    "QLoRA, rank 16": AdapterSettings(rank=16, weights="nf4"),
}


def measure(name: str, work: Gsm8k, step_tokens: int, repeats: int, cases: Cases) -> None:
    with tempfile.TemporaryDirectory() as aside:

        def loop(side: str, adapter: AdapterSettings | None) -> Paced:
            return Paced(loops.ours, made(aside, side), "float32", step_tokens, work, step_tokens, adapter)

        with closing(loop("ours", ADAPTERS[name])) as ours, closing(loop("peer", None)) as whole:
            sides: dict[str, Callable[[], Work]] = {"ours": lambda: ours.steps(1), "peer": lambda: whole.steps(1)}
            measured = in_turns(sides, repeats)
    peaks = {"ours": ours.peak_memory_mb, "peer": whole.peak_memory_mb}
    row = beside(name, "tokens", measured["ours"], measured["peer"])
    cases.add(row, {"step_tokens": step_tokens}, repeats, peak_memory_mb=peaks)
    print(f"peak memory {peaks['ours']:,.0f} MB; all weights {peaks['peer']:,.0f} MB", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, REPEATS)
    parser.add_argument("--step-tokens", type=int, default=STEP_TOKENS)
    chosen = parser.parse_args(arguments)
    asked = wanted(chosen.only)
    with tempfile.TemporaryDirectory() as aside:
        folder, model = model_folder(chosen.model, Path(aside) / "random")
        packages = ["whetstone", "torch", "transformers", "peft"]
        cases = Cases("real_adapters", chosen.json, model, packages, chosen.again)
        for name, adapter in ADAPTERS.items():
            if adapter.weights == "nf4" and find_spec("bitsandbytes") is None:
                cases.missing(name, "bitsandbytes is not installed")
            elif asked(name) and not cases.has(name, {"step_tokens": chosen.step_tokens}):
                measure(name, Gsm8k(folder.absolute()), chosen.step_tokens, chosen.repeats, cases)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
