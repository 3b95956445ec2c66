"""Tokens that fine-tuning a pretrained model trains on per CPU second: our stage beside TRL's best setting.

    make bench-env
    python -m benchmarks real_sft --json benchmarks/results/real_sft.json
    python -m benchmarks real_sft --step-tokens 1024 --repeats 1 --settings "packed, one row a pass"     # a part

SmolLM2-135M-Instruct (`--model`; a random model of its shape without it), GSM8K's training problems in its template, the loss
on the answers, fp32 weights, one thread. Ours is the whole `sft` stage. A trial of one step each finds TRL's best setting of
four: rows of 1,024 tokens packed best-fit-decreasing, one or two in a pass; conversations as they are, one or eight in a pass.
None computes activations again. Each loop has a process of its own, and they take turns. Tokens are those of prompts and
answers, on both sides; padding is not counted.

float32 always; bf16 products (`bf16=True`, `compute = "bfloat16"`) if this CPU multiplies that type faster. Beside the rates:
how many tokens the model's matrix products alone would allow, forward and backward, the head's for the answers' tokens only.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import _sft_loops as loops
from benchmarks._measure import Work, beside, in_turns, rates
from benchmarks._paced import Paced
from benchmarks._real import Cases, in_bench_environment, model_folder, number_types, options, wanted
from benchmarks._real_work import Gsm8k, answer_share, products
from benchmarks.sft_vs_trl import flops, products_per_second

REPEATS = 3
STEP_TOKENS = 4096
ROW = Gsm8k.LONGEST  # tokens of a packed row
CONVERSATION = 256  # tokens of a usual one, of which the peer's unpacked step is counted
MICRO_BATCH_TOKENS = 2048
PACKED = {"packing": True}
SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {  # tokens of a pass, SFTConfig's settings
    "packed, one row a pass": (ROW, PACKED | {"per_device_train_batch_size": 1}),
    "packed, two rows a pass": (2 * ROW, PACKED | {"per_device_train_batch_size": 2}),
    "unpacked, one row a pass": (CONVERSATION, {"per_device_train_batch_size": 1}),
    "unpacked, eight rows a pass": (8 * CONVERSATION, {"per_device_train_batch_size": 8}),
}


def peer(folder: Path, name: str, dtype: str, work: Gsm8k, step_tokens: int) -> Paced:
    tokens, settings = SETTINGS[name]
    more = {"gradient_accumulation_steps": max(1, step_tokens // tokens), "gradient_checkpointing": False}
    return Paced(loops.trl, folder, "sdpa", settings | more | {"bf16": dtype == "bfloat16"}, work)


@contextmanager
def closing(one: Paced) -> Iterator[Paced]:
    try:
        yield one
    finally:
        one.close()


def trial(names: Sequence[str], start: Callable[[str, Path], Paced]) -> dict[str, float]:
    """Tokens per CPU second of each setting in its second step, one after the other: memory is for one."""
    if len(names) == 1:
        return {names[0]: 0.0}
    found = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder, closing(start(name, Path(folder))) as running:
            found[name] = rates(running.steps(1))[0]
            print(f"TRL {name}: {found[name]:.1f} tokens/CPU s in a trial of one step", flush=True)
    return found


def ceiling(dtype: str, work: Gsm8k) -> dict[str, Any]:
    """What the matrix products alone allow: the layers' for all tokens, the head's for those of answers."""
    layers, head = products(json.loads((work.folder / "config.json").read_text()))
    share = answer_share(work)
    per_token = flops(layers) + share * flops([head])
    speed, at_head = (products_per_second(dtype, seconds=2, products=part) for part in (layers, [head]))
    seconds = flops(layers) / speed + share * flops([head]) / at_head
    return {
        "gflop_per_token": per_token / 1e9, "answer_share": share, "layers_gflop_per_cpu_s": speed / 1e9,
        "head_gflop_per_cpu_s": at_head / 1e9, "tokens_per_cpu_s": 1 / seconds,
    }  # fmt: skip


def measure(dtype: str, work: Gsm8k, chosen: Any, cases: Cases, settings: Mapping[str, Any]) -> None:
    tried = trial(chosen.settings, lambda name, folder: peer(folder, name, dtype, work, settings["step_tokens"]))
    best = max(tried, key=tried.__getitem__)
    with (
        tempfile.TemporaryDirectory() as aside,
        closing(
            Paced(loops.ours, made(aside, "ours"), dtype, chosen.micro_batch_tokens, work, settings["step_tokens"])
        ) as ours,
        closing(peer(made(aside, "peer"), best, dtype, work, settings["step_tokens"])) as theirs,
    ):
        before = ceiling(dtype, work)
        sides: dict[str, Callable[[], Work]] = {"ours": lambda: ours.steps(1), "peer": lambda: theirs.steps(1)}
        if chosen.settle:
            for one in (ours, theirs):
                one.steps(1)()  # allocators and thread pools settle
        measured = in_turns(sides, chosen.repeats)
        after = ceiling(dtype, work)
    row = beside(case_name(dtype), "tokens", measured["ours"], measured["peer"])
    allowed = (before["tokens_per_cpu_s"] + after["tokens_per_cpu_s"]) / 2
    cases.add(
        row, settings, chosen.repeats, peer_setting=best, peer_trial=tried,
        matrix_products=after | {"tokens_per_cpu_s": allowed, "our_share": row["ours"] / allowed},
        peak_memory_mb={"ours": ours.peak_memory_mb, "peer": theirs.peak_memory_mb},
        startup_to_first_step={"ours": ours.startup, "peer": theirs.startup},
    )  # fmt: skip
    print(
        f"the matrix products alone allow {allowed:.0f} tokens/CPU s, of which ours reaches {row['ours'] / allowed:.0%}; "
        f"peak {ours.peak_memory_mb:,.0f} MB, TRL's {theirs.peak_memory_mb:,.0f} MB"
    )


def made(parent: str, name: str) -> Path:
    folder = Path(parent) / name
    folder.mkdir()
    return folder


def case_name(dtype: str) -> str:
    return f"{dtype}, TRL's best setting"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, REPEATS)
    parser.add_argument("--step-tokens", type=int, default=STEP_TOKENS)
    parser.add_argument("--micro-batch-tokens", type=int, default=MICRO_BATCH_TOKENS, help="ours; the peer's is a pass")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="TRL's, to choose from")
    parser.add_argument("--settle", action="store_true", help="a second step before those that are measured")
    chosen = parser.parse_args(arguments)
    in_bench_environment("real_sft")
    settings = {"step_tokens": chosen.step_tokens}
    asked = wanted(chosen.only)
    with tempfile.TemporaryDirectory() as aside:
        folder, model = model_folder(chosen.model, Path(aside) / "random")
        cases = Cases("real_sft", chosen.json, model, ["whetstone", "torch", "transformers", "trl"], chosen.again)
        for dtype in number_types():
            if asked(case_name(dtype)) and not cases.has(case_name(dtype), settings):
                measure(dtype, Gsm8k(folder.absolute()), chosen, cases, settings)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
