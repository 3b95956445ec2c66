"""Decoded tokens per second on all cores: our engine beside vLLM's CPU build, the peer to beat.

    make bench-env
    python -m benchmarks decode_vs_vllm --json benchmarks/results/decode_vs_vllm.json

A Qwen2-class model of 5 million random parameters. Two workloads: `even` (prompts of 64 ids, answers of 128) and `ragged` (32
to 256 ids, answers of 16 to 256, log-uniform); both sides write equally many tokens. Both schedule by themselves and sample at
temperature 1. Ours: one process per core with one thread each. vLLM: a scheduler and a worker with one thread per core, in
the number type and mode (eager or compiled) that a trial found fastest; it is stopped while ours runs.

There are two ratios: tokens per CPU second of all processes, and tokens per wall second with all cores. The smaller one
counts.
"""

import argparse
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from benchmarks._measure import hardware, machine_speed, own_cpu, versions, write
from benchmarks._piped import VLLM as PYTHON
from benchmarks._piped import Piped, installed
from benchmarks.decode_vs_generate import Script, build, matmul_seconds, tokenizer
from whetstone import model as models
from whetstone.attention import ATTENTION
from whetstone.chat import ask
from whetstone.decode.engine import Engine
from whetstone.decode.forked_generator import ForkedGenerator
from whetstone.records import Sampling
from whetstone.run.processes import cores

MODEL = "Qwen2 5 M"
BATCHES = (128, 256)
TARGET = 1.0
REPEATS = 5
EVEN = (64, 128)  # ids of a prompt, tokens of an answer
PROMPT, ANSWER = (32, 256), (16, 256)
TRIAL = 64  # prompts by which vLLM's settings are compared
LAWS = ("even", "ragged")


def work(law: str, count: int, seed: int, chat: Any) -> tuple[list[Any], list[list[int]], list[int]]:
    """Prompts, their ids, and the lengths of their answers."""
    draw = random.Random(seed)
    template = len(chat.prompt_ids(ask("0", "", 0).messages))
    low, high = map(math.log, ANSWER)
    sizes = [EVEN[0] if law == "even" else draw.randint(*PROMPT) for _ in range(count)]
    texts = ["".join(draw.choices("0123456789", k=size - template)) for size in sizes]
    prompts = [ask(str(i), text, 0) for i, text in enumerate(texts)]
    lengths = [EVEN[1] if law == "even" else round(math.exp(draw.uniform(low, high))) for _ in range(count)]
    return prompts, [chat.prompt_ids(prompt.messages) for prompt in prompts], lengths


class Vllm(Piped):
    """The peer with one thread per core."""

    def __init__(self, folder: Path, dtype: str, mode: str):
        everywhere = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        environment = {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": everywhere,
            "OMP_NUM_THREADS": str(cores()),
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        script = Path(__file__).with_name("_vllm_peer.py")
        super().__init__([str(PYTHON), str(script), str(folder), dtype, mode], environment)

    def run(self, ids: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
        return self.ask({"prompts": ids, "lengths": lengths})["tokens"]


@contextmanager
def running(folder: Path, dtype: str, mode: str) -> Iterator[Vllm]:
    peer = Vllm(folder, dtype, mode)
    try:
        yield peer
    finally:
        peer.close()


def rates(run: Any, tokens: int) -> tuple[float, float]:
    """Tokens per CPU second and per wall second."""
    cpu, wall = own_cpu(), time.perf_counter()
    done = run()
    cpu, wall = own_cpu() - cpu, time.perf_counter() - wall
    assert done == tokens, f"{done} tokens were written, {tokens} were asked for"
    return tokens / cpu, tokens / wall


def fastest(folder: Path, chat: Any) -> tuple[str, str, dict[str, float]]:
    """vLLM's number type and mode with the most tokens per wall second."""
    dtypes = ["float32"]
    if matmul_seconds(torch.bfloat16) < matmul_seconds(torch.float32):
        dtypes.append("bfloat16")
    _, ids, lengths = work("even", TRIAL, 99, chat)
    measured = {}
    for setting in [(dtype, mode) for dtype in dtypes for mode in ("eager", "compiled")]:
        with running(folder, *setting) as peer:
            peer.run(ids, [4] * TRIAL)  # warm
            measured[setting] = rates(lambda p=peer: p.run(ids, lengths), sum(lengths))[1]
        print(f"vLLM in {setting[0]}, {setting[1]}: {measured[setting]:,.0f} tokens per second", flush=True)
    best = max(measured, key=measured.__getitem__)
    return *best, {" ".join(setting): rate for setting, rate in measured.items()}


def compare(law: str, batch: int, repeats: int, engine: Engine, peer: Vllm) -> dict[str, Any]:
    prompts, ids, lengths = work(law, batch, batch, engine.chat)
    ours_all = ForkedGenerator(engine, cores())
    sampling = Sampling(max_tokens=max(lengths))

    def ours() -> int:
        done = ours_all.generate(prompts, sampling, lambda prompt: Script(lengths[int(prompt.problem_id)]))
        return sum(len(completion.ids) for completion in done)

    sides = {"ours": ours, "peer": lambda: peer.run(ids, lengths)}
    measured: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": []}
    for repeat in range(repeats + 1):
        for side in list(sides) if repeat % 2 else list(sides)[::-1]:
            rate = rates(sides[side], sum(lengths))
            if repeat:  # the first warms
                measured[side].append(rate)
    cpu, wall = (sorted(a[i] / b[i] for a, b in zip(measured["ours"], measured["peer"], strict=True)) for i in (0, 1))
    median = {side: [statistics.median(rate[i] for rate in rates) for i in (0, 1)] for side, rates in measured.items()}
    row = {
        "case": f"{law}, batch {batch}",
        "ours": median["ours"][0],
        "peer": median["peer"][0],
        "unit": "tokens/CPU s",
        "ratio": statistics.median(cpu),
        "low": cpu[0],
        "high": cpu[-1],
        "ours_per_wall_second": median["ours"][1],
        "peer_per_wall_second": median["peer"][1],
        "wall_ratio": statistics.median(wall),
        "wall_low": wall[0],
        "wall_high": wall[-1],
    }
    print(
        f"{row['case']:18} {row['ours']:7,.0f} {row['peer']:7,.0f} tokens/CPU s {row['ratio']:6.2f} x "
        f"[{row['low']:.2f}, {row['high']:.2f}]   wall {median['ours'][1]:7,.0f} {median['peer'][1]:7,.0f} per second "
        f"{row['wall_ratio']:6.2f} x [{row['wall_low']:.2f}, {row['wall_high']:.2f}]",
        flush=True,
    )
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=list(LAWS))
    chosen = parser.parse_args(arguments)
    if not PYTHON.exists():
        parser.exit(1, f"error: {PYTHON} is missing: `make bench-env` installs the peers.\n")
    torch.set_num_threads(1)
    words = tokenizer()
    model = build(MODEL, words, ATTENTION)
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        folder = Path(name)
        models.save(model, words, folder)
        engine = Engine(model, words)
        list(engine.generate([ask("0", "1", 0)], Sampling(max_tokens=2)))  # the first call compiles
        dtype, mode, trial = fastest(folder, engine.chat)
        before = machine_speed()
        with running(folder, dtype, mode) as peer:
            rows = [
                compare(law, batch, chosen.repeats, engine, peer) for law in chosen.laws for batch in chosen.batches
            ]
    result = {
        "name": "decode_vs_vllm",
        "cases": rows,
        "ratio": min(min(row["ratio"], row["wall_ratio"]) for row in rows),
        "repeats": chosen.repeats,
        "peer_setting": f"{dtype} {mode}",
        "peer_trial_tokens_per_second": trial,
        "versions": versions(["whetstone", "torch", "transformers"]) | {"vllm-cpu": installed(PYTHON, "vllm-cpu")},
        "hardware": hardware(),
        "machine_speed": {"before": before, "after": machine_speed(), "unit": "million loop steps/CPU s"},
        "date": time.strftime("%Y-%m-%d"),
    }
    write(result, chosen.json)
    print(f"worst case, by CPU or wall time: {result['ratio']:.2f} x (target {TARGET})")


if __name__ == "__main__":
    main()
