"""Full fine-tuning of Phi-4-mini's exact shape on one GPU: tokens per second, share of the peak, memory.

    python -m benchmarks gpu_sft --json benchmarks/results/gpu_sft.json
    python -m benchmarks gpu_sft --small              # the same code with a small model, on a CPU too

Random weights (3,836,021,760 of them, LongRoPE, tied head), AdamW in fp32, matrix products in bf16, rows of 16,384 tokens: one
sequence, or packed ones. A step is forward, backward, clipping and update. Also reported: the largest
tensor with a side as long as the vocabulary (the logits of a chunk, never of a row), and by how much the losses of a
small model differ between CPU and GPU. If `trl` can be imported, its SFTTrainer does the same steps.

On paper (learner/cost.py): fp32 weights, gradients and moments 61.4 GB, their bf16 copy 7.7 GB, the head 6.1 GB;
activations 79.5 GB, with each second layer's computed again 45.4 GB, with each layer's 8.9 GB. So on a card of 141 GB one
of the last two is needed.

The file is written after each case, so that a time limit loses only the current one.
"""

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks._measure import versions, write
from benchmarks._phi4_mini import (
    PHI_4_MINI,
    TINY,
    Shape,
    build,
    chosen_device,
    forget_peak,
    peak_memory,
    settle,
    timed,
    tried,
    where,
)
from whetstone import model as models
from whetstone.batch import Row, collate
from whetstone.learner.flops import Flops, peak
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import next_token_loss, token_mean
from whetstone.run.settings import OptimizerSettings, ParallelSettings


@dataclass(frozen=True)
class Size:
    shape: Shape
    row: int  # tokens
    warm: int  # steps before those that are measured
    steps: int


FULL = Size(PHI_4_MINI, row=16_384, warm=2, steps=6)
SMALL = Size(TINY, row=2_048, warm=1, steps=2)

# MFU that prime-rl publishes for models of this class on one node (its BENCHMARKS.md), the best figures found
PUBLISHED = {"16k": 0.147, "64k": 0.361}

# what is computed again in the backward pass, and what is compiled
WAYS = {
    "each layer again": {"activation_checkpointing": 1},
    "each second layer again": {"activation_checkpointing": 2},
    "each layer again, compiled": {"activation_checkpointing": 1, "compile": True},
    "each second layer again, compiled": {"activation_checkpointing": 2, "compile": True},
}


def one_sequence(size: Size) -> list[int]:
    return [size.row]


def packed(size: Size) -> list[int]:
    """Log-uniform lengths, a sixteenth to a half of the row, until it is full."""
    rng, lengths = random.Random(0), []
    while (left := size.row - sum(lengths)) > 0:
        lengths.append(min(left, round(size.row / 16 * 8 ** rng.random())))
    return lengths


def rows(lengths: Sequence[int], vocabulary: int, step: int) -> list[Row]:
    rng = random.Random(step)
    return list(token_mean([Row([rng.randrange(vocabulary) for _ in range(n)]) for n in lengths]))


class LargestLogits(TorchDispatchMode):
    """Records the most rows of any tensor of a step whose last dimension is the vocabulary."""

    def __init__(self, vocabulary: int):
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[override]
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary:
                self.rows = max(self.rows, tensor.numel() // self.vocabulary)
        return out


def measure(size: Size, device: str, lengths: Sequence[int], way: dict[str, Any], compute: str) -> dict[str, Any]:
    """Steps of training: tokens per second, share of the peak, peak memory, and the largest logits."""
    model = build(size.shape, device, size.row)
    parallel = ParallelSettings(device=device, compute=compute, micro_batch_tokens=size.row, forks=1, **way)
    learner = Learner(model, size.shape.vocabulary, parallel, OptimizerSettings(weight_decay=0.1))

    def step(number: int) -> float:
        batch = collate(rows(lengths, size.shape.vocabulary, number))
        loss = learner.forward_backward([batch], next_token_loss)["loss"]
        learner.step(1e-5)
        return loss

    with LargestLogits(size.shape.vocabulary) if not parallel.compile else nothing() as largest:
        first = step(0)
    for number in range(1, size.warm):
        step(number)
    forget_peak(device)
    taken, last = [], first
    for number in range(size.warm, size.warm + size.steps):
        with timed(device, taken):
            last = step(number)
    whole = collate(rows(lengths, size.shape.vocabulary, 0))
    done = Flops(model, size.shape.vocabulary).of(whole)  # recomputation left out
    most = peak(device, getattr(torch, compute))
    rates = sorted(sum(lengths) / s for s in taken)
    typical = rates[len(rates) // 2]
    return {
        "tokens_per_second": typical, "low": rates[0], "high": rates[-1],
        "mfu": done / sum(lengths) * typical / most,
        "peak_flops": most,
        "peak_memory": peak_memory(device),
        "logits_rows": largest.rows if largest else None,
        "first_loss": first, "last_loss": last,
    }  # fmt: skip


@contextmanager
def nothing() -> Iterator[None]:
    yield None


def agreement() -> dict[str, float]:
    """Losses of a small model on the same rows: GPU in fp32 and bf16 against CPU in fp32, the largest relative difference."""
    losses = {}
    for device, compute in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "bfloat16")):
        parallel = ParallelSettings(device=device, compute=compute, forks=1)
        model = build(SMALL.shape, "cpu", SMALL.row).to(device)
        learner = Learner(model, SMALL.shape.vocabulary, parallel)
        losses[f"{device} {compute}"] = [
            learner.forward_backward([collate(rows(packed(SMALL), SMALL.shape.vocabulary, n))], next_token_loss)["loss"]
            for n in range(4)
        ]
    first, *others = losses
    return {name: max(abs(a - b) / abs(a) for a, b in zip(losses[first], losses[name], strict=True)) for name in others}


def peer(size: Size, device: str, lengths: Sequence[int], compute: str) -> dict[str, Any]:
    """TRL's SFTTrainer with its own settings for such work: bf16, activation checkpointing, a batch of one row.

    A row of several sequences is given as TRL's own packing gives it: flat, with their lengths beside.
    """
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    model = build(size.shape, device, size.row)
    model.set_attn_implementation("flash_attention_2" if find_spec("flash_attn") else "sdpa")
    count = size.warm + size.steps
    table = [[i for row in rows(lengths, size.shape.vocabulary, step) for i in row.ids] for step in range(count)]
    data = Dataset.from_dict({"input_ids": table, "seq_lengths": [list(lengths)] * count})
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            settle(device)
            ends.append(time.perf_counter())

    settings = SFTConfig(
        output_dir=mkdtemp(), max_steps=count, per_device_train_batch_size=1, bf16=compute == "bfloat16",
        padding_free=True, gradient_checkpointing=True, learning_rate=1e-5, max_length=None, report_to=[], save_strategy="no",
        logging_strategy="no", use_cpu=device == "cpu", dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
    )  # fmt: skip
    SFTTrainer(model, settings, train_dataset=data, processing_class=_no_tokenizer(), callbacks=[Clock()]).train()
    seconds = [b - a for a, b in zip(ends[size.warm - 1 :], ends[size.warm :], strict=False)]
    return {"tokens_per_second": sum(lengths) / sorted(seconds)[len(seconds) // 2]}


def _no_tokenizer() -> Any:
    return models.train_tokenizer(["a"], 300)


def run(size: Size, device: str, ways: Sequence[str], with_peer: bool, keep: Path | None = None) -> dict[str, Any]:
    """The benchmark's JSON object, written to `keep` after each case."""
    compute = "bfloat16" if device == "cuda" else "float32"
    result: dict[str, Any] = {
        "name": "gpu_sft",
        **where(device),
        "cases": [], "mfu": None, "ratio": None, "published": PUBLISHED,
        "repeats": size.steps, "cpu_and_gpu_losses_differ_by": None,
        "versions": versions(["torch", "transformers", *(["trl"] if with_peer else [])]),
    }  # fmt: skip
    for what, lengths in (("one sequence", one_sequence(size)), ("packed", packed(size))):
        theirs = tried(lambda lengths=lengths: peer(size, device, lengths, compute)) if with_peer else {}
        for way in ways:
            found = tried(lambda lengths=lengths, way=way: measure(size, device, lengths, WAYS[way], compute))
            ours, other = found.get("tokens_per_second"), theirs.get("tokens_per_second")
            ratio = {key: found[name] / other if ours and other else None for key, name in
                     (("ratio", "tokens_per_second"), ("low", "low"), ("high", "high"))} if ours else {}  # fmt: skip
            case = {"case": f"{what} of {size.row:,}: {way}", "ours": ours, "peer": other, "unit": "tokens/s", **ratio}
            result["cases"].append(case | {"details": found, "peer_details": theirs, "segments": len(lengths)})
            print(line(case, found), flush=True)
            best = [case for case in result["cases"] if case["ours"]]
            result["mfu"] = max((case["details"]["mfu"] for case in best), default=None)
            result["ratio"] = min((case["ratio"] for case in best if case.get("ratio")), default=None)
            write(result, keep)
    if device == "cuda":
        result["cpu_and_gpu_losses_differ_by"] = agreement()
        write(result, keep)
    return result


def line(case: dict[str, Any], found: dict[str, Any]) -> str:
    if "failed" in found:
        return f"{case['case']:55} {found['failed']}"
    memory = "" if found["peak_memory"] is None else f"   {found['peak_memory'] / 1e9:6.1f} GB"
    logits = "" if found["logits_rows"] is None else f"   largest logits {found['logits_rows']:,} rows"
    beside = f"   {case['ratio']:.2f} x TRL" if case.get("ratio") else ""
    return f"{case['case']:55} {case['ours']:10,.0f} tokens/s   {found['mfu']:6.1%} MFU{memory}{logits}{beside}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small model, on the CPU if there is no GPU")
    parser.add_argument("--steps", type=int, help="measured steps of each case")
    parser.add_argument("--way", action="append", choices=WAYS, help="only so; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    device = chosen_device(chosen.small)
    size = SMALL if chosen.small else FULL
    with_peer = find_spec("trl") is not None
    if not with_peer:
        print("trl is not installed here: only our side is measured")
    size = replace(size, steps=chosen.steps or size.steps)
    result = run(size, device, chosen.way or list(WAYS), with_peer, chosen.json)
    if result["cpu_and_gpu_losses_differ_by"]:
        told = ", ".join(f"{name} {share:.1e}" for name, share in result["cpu_and_gpu_losses_differ_by"].items())
        print(f"losses of a small model, against the CPU in fp32: {told}")


if __name__ == "__main__":
    main()
