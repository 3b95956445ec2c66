"""Everything that a GPU has to show, in ten minutes: tests, fine-tuning at Phi-4-mini's shape, decoding, SmolLM2.

    python -m benchmarks gpu_all --json benchmarks/results/gpu_all.json
    python -m benchmarks gpu_all --small              # the same code with small models, on a CPU too

In this order, each in a process of its own with a time limit, so that one that hangs or fails costs no other its time:

- tests: `pytest tests/test_on_a_gpu.py`, a whole recipe on the GPU
- sft: gpu_sft, rows of 16,384 tokens (target: 45 % MFU; the best published for the class on one node: 14.7 % at 16 k, 36.1 %
  at 64 k)
- decode: gpu_decode, 32 and 256 sequences of 4,096 tokens
- smollm2: fine-tuning SmolLM2-135M (`--model`; random weights without it) on GSM8K's rows, tokens per second and MFU

FILE is written after each part, with what the part itself has kept by then if it was stopped. A part's time that was not used
goes to those after it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._measure import versions, write
from benchmarks._phi4_mini import chosen_device, forget_peak, peak_memory, timed, where
from benchmarks._real import model_folder, write_random
from benchmarks._real_work import Gsm8k

MINUTES = 10.0
RESERVE = 15.0  # seconds of the whole for the start and the end
TARGET = 0.45  # MFU of fine-tuning at Phi-4-mini's shape
SAID = 2000  # characters of a part's output that are kept
ROWS = 2000
WARM, STEPS = 2, 6
MICRO_BATCH_TOKENS = 16_384
SMALL = {"num_hidden_layers": 2, "hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1,
         "head_dim": 32, "intermediate_size": 192, "vocab_size": 1000}  # fmt: skip


@dataclass(frozen=True)
class Part:
    name: str
    share: float  # of the time
    words: tuple[str, ...]  # of the command, after the interpreter


PARTS = (
    Part("tests", 0.36, ("-m", "pytest", "-q", "-x", "tests/test_on_a_gpu.py")),
    Part("sft", 0.32, ("-m", "benchmarks", "gpu_sft", "--way", "each second layer again")),
    Part("decode", 0.20, ("-m", "benchmarks", "gpu_decode", "--peer", "dynamic")),
    Part("smollm2", 0.12, ("-m", "benchmarks", "gpu_all", "--only", "smollm2", "--inside")),
)
FULL = {
    "sft": ("--steps", "4", "--way", "each second layer again, compiled"),
    "decode": ("--sequences", "32", "256", "--contexts", "4096"),
}
SMALLER = {"sft": ("--small", "--steps", "1"), "decode": ("--small", "--sequences", "2", "--contexts", "64", "--steps", "2"),
           "smollm2": ("--small",)}  # fmt: skip


def limits(parts: Sequence[Part], left: float) -> dict[str, float]:
    """Seconds of each part if all use up theirs."""
    total = sum(part.share for part in parts)
    return {part.name: left * part.share / total for part in parts}


def run_part(part: Part, limit: float, more: Sequence[str], aside: Path) -> dict[str, Any]:
    """What it wrote, its exit status, seconds and the end of its output. It is killed, with its children, at its limit."""
    file = aside / f"{part.name}.json"
    words = [sys.executable, *part.words, *more]
    if part.name != "tests":
        words += ["--json", str(file)]
    begin, log = time.monotonic(), aside / f"{part.name}.log"
    with log.open("w") as out:
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status: int | str = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = f"stopped after {limit:.0f} s"
            os.killpg(process.pid, 9)
            process.wait()
    told = {"status": status, "seconds": round(time.monotonic() - begin, 1), "said": log.read_text()[-SAID:]}
    return told | ({"result": json.loads(file.read_text())} if file.exists() else {})


def smollm2(folder: Path, device: str) -> dict[str, Any]:
    """Steps of fine-tuning in micro-batches of whole conversations laid end to end: tokens per second and MFU."""
    import torch

    from whetstone import model as models
    from whetstone.batch import Row, collate
    from whetstone.learner.flops import Flops, peak
    from whetstone.learner.learner import Learner
    from whetstone.learner.next_token import next_token_loss, token_mean
    from whetstone.run.settings import ParallelSettings

    compute = "bfloat16" if device == "cuda" else "float32"
    tokens = MICRO_BATCH_TOKENS if device == "cuda" else 1024
    model, _ = models.load(folder, device)
    size = model.config.vocab_size
    learner = Learner(model, size, ParallelSettings(device=device, compute=compute, micro_batch_tokens=tokens, forks=1))
    rows = [Row([*prompt, *answer], prompt=len(prompt)) for prompt, answer in Gsm8k(folder).conversations(ROWS)]
    taken: list[float] = []
    done = flops = 0
    for number in range(WARM + STEPS):
        start, rows_of_step = number * 97 % len(rows), []
        while sum(len(row.ids) for row in rows_of_step) < tokens - 512:
            rows_of_step.append(rows[(start + len(rows_of_step)) % len(rows)])
        batch = collate(list(token_mean(rows_of_step)))
        if number == WARM:
            forget_peak(device)
        with timed(device, taken):
            loss = learner.forward_backward([batch], next_token_loss)["loss"]
            learner.step(1e-5)
        if number >= WARM:
            done += sum(len(row.ids) for row in rows_of_step)
            flops += Flops(model, size).of(batch)
    seconds = sum(taken[WARM:])
    return {
        "tokens_per_second": done / seconds, "mfu": flops / seconds / peak(device, getattr(torch, compute)),
        "peak_memory": peak_memory(device), "last_loss": loss, "tokens_a_step": done / STEPS, "steps": STEPS,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything together")
    parser.add_argument("--small", action="store_true", help="small models, on the CPU if there is no GPU")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="SmolLM2 as a plain folder")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="only these parts")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    begin = time.monotonic()
    device = chosen_device(chosen.small)
    with tempfile.TemporaryDirectory() as aside:
        if chosen.inside:
            folder = Path(aside) / "model"
            if chosen.small:
                folder, model = write_random(folder, **SMALL), {"weights": "random", "name": "small"}
            else:
                folder, model = model_folder(chosen.model, folder)
            write(smollm2(folder, device) | {"model": model}, chosen.json)
            return
        parts = [part for part in PARTS if not chosen.only or part.name in chosen.only]
        result: dict[str, Any] = {
            "name": "gpu_all", **where(device), "target_mfu": TARGET, "parts": {},
            "versions": versions(["torch", "transformers"]),
        }  # fmt: skip
        for number, part in enumerate(parts):
            left = chosen.minutes * 60 - RESERVE - (time.monotonic() - begin)
            more = list((SMALLER if chosen.small else FULL).get(part.name, ()))
            more += ["--model", str(chosen.model)] if chosen.model and part.name == "smollm2" else []
            told = run_part(part, limits(parts[number:], left)[part.name], more, Path(aside))
            result["parts"][part.name] = told
            result["seconds"] = round(time.monotonic() - begin, 1)
            write(result, chosen.json)
            print(f"--- {part.name}: status {told['status']}, {told['seconds']} s\n{told['said'][-600:]}", flush=True)


if __name__ == "__main__":
    main()
