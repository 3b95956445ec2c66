"""A GRPO update of Phi-4-mini's exact shape on one GPU: share of the peak (MFU), seconds, memory; and the cost of sampling.

    python -m benchmarks gpu_rl --json benchmarks/results/gpu_rl.json
    python -m benchmarks gpu_rl --small               # the same code with a small model, on a CPU too

Random weights (3,836,021,760 of them, LongRoPE, tied head), matrix products in bf16. Groups of ragged rollouts go through
GRPO's own credit and `rl/update.py`, as a training step's do: advantages, the sampler's log-probabilities, micro-batches of
at most 16,384 tokens, clipping, AdamW. `one row`: 4 groups of 4 rollouts that fill one micro-batch. `long`: 2 groups of 2, of
2,048 to 16,384 tokens. MFU counts forward and backward of all tokens, once, the prompt that rollouts share once, too
(learner/flops.py), by the whole update's time. The target is 30 %, the aim 40 %; the best published figure for such a model at
16 k tokens is 13.9 %.

Drawing: 4 groups of 4 rollouts of 128 tokens by the in-process engine, from a copy of the learner's weights in bf16 where
they are fp32, as the RL stage has it, and by how much its log-probabilities differ from the learner's (nats per token, on
average; random weights give every token some 1e-5, whose log-probability is as far off as its logit). The copy stays there
while updates are made.

fp32 weights, gradients and moments take 61.4 GB, with bf16 copies and head some 83 GB before activations (learner/cost.py): a
card of 80 GB has room for the update in bf16 weights only, which is a case of its own. What does not fit is listed as such.
"""

import argparse
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks._measure import versions, write
from benchmarks._phi4_mini import (
    PHI_4_MINI,
    TINY,
    Shape,
    build,
    chosen_device,
    engine_over,
    forget_peak,
    peak_memory,
    random_ids,
    release,
    timed,
    tried,
    where,
)
from whetstone.batch import Row
from whetstone.chat import ask
from whetstone.decode.sampling import draws
from whetstone.decode.sequence import Sequence as Sampled
from whetstone.learner.flops import peak
from whetstone.learner.learner import Learner
from whetstone.records import Problem, Rollout, Sampling
from whetstone.rl.algorithm import Algorithm, Group, Setup
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.loss import observed
from whetstone.rl.update import batches_of, credited, gradient
from whetstone.run.settings import ParallelSettings

TARGET, AIM, PUBLISHED = 0.30, 0.40, 0.139  # MFU
RATE = 1e-7  # small: rollouts stay those of a policy near the learner's
SHORTEST = 8  # times shorter than the longest rollout, at most


@dataclass(frozen=True)
class Size:
    shape: Shape
    row: int  # tokens of a micro-batch, and of the longest sequence
    prompt: int  # tokens
    drawn: int  # tokens of each rollout that is drawn
    warm: int  # updates before those that are measured
    steps: int


FULL = Size(PHI_4_MINI, row=16_384, prompt=128, drawn=128, warm=2, steps=5)
SMALL = Size(TINY, row=1_024, prompt=16, drawn=8, warm=1, steps=2)

# weights' type, what is computed again in the backward pass, and whether layers are compiled
WAYS: dict[str, dict[str, Any]] = {
    "fp32 weights, each layer again": {"activation_checkpointing": 1},
    "fp32 weights, each layer again, compiled": {"activation_checkpointing": 1, "compile": True},
    "fp32 weights, each second layer again, compiled": {"activation_checkpointing": 2, "compile": True},
    "fp32 weights, all kept, compiled": {"compile": True},
    "bf16 weights, each layer again": {"dtype": torch.bfloat16, "activation_checkpointing": 1},
    "bf16 weights, all kept, compiled": {"dtype": torch.bfloat16, "compile": True},
}


def one_row(size: Size) -> list[list[int]]:
    """Answer lengths of 4 groups of 4 that, with their prompts, fill one micro-batch."""
    shares = ragged(16)
    room = size.row - 16 * size.prompt
    lengths = [max(1, int(room * share / sum(shares))) for share in shares]
    lengths[0] += room - sum(lengths)
    return [lengths[i : i + 4] for i in range(0, 16, 4)]


def long(size: Size) -> list[list[int]]:
    """Answer lengths of 2 groups of 2; the longest sequence is a micro-batch of its own."""
    lengths = [max(1, round(share * (size.row - size.prompt))) for share in (1.0, *ragged(3))]
    return [lengths[:2], lengths[2:]]


def ragged(count: int) -> list[float]:
    """Log-uniform between 1 / SHORTEST and 1."""
    rng = random.Random(0)
    return [SHORTEST ** (rng.random() - 1) for _ in range(count)]


WORK = {"one row": one_row, "long": long}


def groups(learner: Learner, size: Size, lengths: Sequence[Sequence[int]]) -> list[Group]:
    """Random rollouts of these lengths with the learner's own log-probabilities; every second one is right."""
    rng = random.Random(1)
    starts = random_ids(len(lengths), size.prompt, size.shape.vocabulary)
    ids = [[[rng.randrange(size.shape.vocabulary) for _ in range(n)] for n in group] for group in lengths]
    rows = [Row([*starts[g], *own], prompt=size.prompt) for g, group in enumerate(ids) for own in group]
    scored = iter(learner.row_logprobs(rows))
    drawn = []
    for g, group in enumerate(ids):
        rollouts = [
            Rollout(
                str(g), i, starts[g], own, next(scored).tolist(), 1.0, "end", "", i % 2 == 0, reward=1.0 - i % 2 * 2
            )
            for i, own in enumerate(group)
        ]
        drawn.append(Group(Problem(str(g), "", ""), rollouts))
    return drawn


def updates(learner: Learner, size: Size, device: str, lengths: Sequence[Sequence[int]], most: float) -> dict[str, Any]:
    """Updates as the loop makes them; rollouts get new log-probabilities before each, which is not timed."""
    algorithm: Algorithm = grpo(Setup([], len(lengths), len(lengths[0]), lambda problem, rollout: rollout.reward))
    loss = observed(algorithm.loss)
    taken: list[float] = []
    gaps: list[float] = []
    for step in range(size.warm + size.steps):
        if step == size.warm:
            forget_peak(device)
            taken.clear()
        kept = groups(learner, size, lengths)
        before = dict(learner.work)
        with timed(device, taken):
            (batch,) = batches_of(credited(algorithm, kept, kept), step=0, updates=1, passes=1, order="0")
            sums = gradient(learner, loss, batch)
            norm = learner.step(RATE)
        gaps.append(sums["sampler_gap"] / sums["fresh"])
    tokens, flops = (learner.work[name] - before[name] for name in ("tokens", "flops"))
    seconds = statistics.median(taken)
    return {
        "seconds": seconds, "fastest": min(taken), "slowest": max(taken),
        "tokens": int(tokens), "tokens_per_second": tokens / seconds,
        "flops": flops, "mfu": flops / seconds / most, "peak_flops": most,
        "peak_memory": peak_memory(device), "loss": sums["loss"], "gradient_norm": norm,
        "largest_gap_to_its_own_scores": max(gaps),
    }  # fmt: skip


def draw(learner: Learner, policy: Any, size: Size, device: str) -> dict[str, Any]:
    """Groups sampled by the engine: tokens per second, seconds to publish the weights, and its gap to the learner."""
    publishing: list[float] = []
    with timed(device, publishing):
        learner.publish(policy)
    engine = engine_over(policy, size.shape.vocabulary)
    starts = random_ids(4, size.prompt, size.shape.vocabulary)

    def drawn(length: int, into: list[float]) -> list[Any]:
        sampling = Sampling(max_tokens=length)
        sequences = [
            Sampled(ask(str(g), "", i), start, sampling, draws(0, str(g), i))
            for g, start in enumerate(starts)
            for i in range(4)
        ]
        decoding, done = engine.decode_sequences(sequences), []
        with timed(device, into):
            while decoding.busy:
                done += decoding.step()
        return done

    drawn(2, [])  # kernels are made and loaded when they are first needed
    taken: list[float] = []
    done = drawn(size.drawn, taken)
    scored = learner.row_logprobs([Row([*one.prompt_ids, *one.ids], prompt=size.prompt) for one in done])
    apart = [
        abs(a - b)
        for one, own in zip(done, scored, strict=True)
        for a, b in zip(one.logprobs, own.tolist(), strict=True)
    ]
    count = sum(len(one.ids) for one in done)
    return {
        "rollouts": len(done), "tokens": count, "seconds": taken[0], "tokens_per_second": count / taken[0],
        "publish_seconds": publishing[0],
        "gap_to_the_learner": statistics.mean(apart),
    }  # fmt: skip


def measure(size: Size, device: str, way: dict[str, Any], work: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The draw, then the updates of each kind of work, with one learner."""
    settings = dict(way)
    dtype = settings.pop("dtype", torch.float32)
    compute = "bfloat16" if device == "cuda" else "float32"
    parallel = ParallelSettings(device=device, compute=compute, micro_batch_tokens=size.row, forks=1, **settings)
    model = policy = build(size.shape, device, size.row, dtype)
    sampled = getattr(torch, parallel.sampling_dtype(device, str(dtype).removeprefix("torch.")))
    if sampled != dtype:
        policy = build(size.shape, device, size.row, sampled).requires_grad_(False)
    learner = Learner(model, size.shape.vocabulary, parallel)
    most = peak(device, getattr(torch, compute))
    results = {"draw": tried(lambda: draw(learner, policy, size, device))}
    for name in work:
        results[name] = tried(lambda name=name: updates(learner, size, device, WORK[name](size), most))
        learner.clear()  # of what did not fit
    return results


def run(size: Size, device: str, ways: Sequence[str], work: Sequence[str], keep: Path | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": "gpu_rl",
        **where(device),
        "cases": [], "draws": {}, "mfu": None, "target": TARGET, "aim": AIM, "published": PUBLISHED, "ratio": None,
        "repeats": size.steps, "versions": versions(["torch", "transformers"]) | {"cuda": torch.version.cuda},
    }  # fmt: skip
    for way in ways:
        results = tried(lambda way=way: measure(size, device, WAYS[way], work))
        release()
        if "failed" in results:  # not even the weights
            results = dict.fromkeys(["draw", *work], results)
        result["draws"][way] = results["draw"]
        print(draw_line(way, results["draw"]), flush=True)
        for name in work:
            result["cases"].append(case(f"{name}: {way}", results[name]))
            print(line(result["cases"][-1]), flush=True)
        result["mfu"] = max((row["details"]["mfu"] for row in result["cases"] if row["ours"]), default=None)
        write(result, keep)
    return result


def case(name: str, results: dict[str, Any]) -> dict[str, Any]:
    return {
        "case": name, "ours": results.get("tokens_per_second"), "peer": None, "unit": "tokens/s",
        "reaches_target": "mfu" in results and results["mfu"] >= TARGET, "details": results,
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    results = row["details"]
    if "failed" in results:
        return f"{row['case']:50} {results['failed']}"
    memory = "" if results["peak_memory"] is None else f"   {results['peak_memory'] / 1e9:.1f} GB"
    return (
        f"{row['case']:50} {results['tokens']:7,} tokens in {results['seconds']:7.2f} s   {results['mfu']:6.1%} MFU "
        f"(target {TARGET:.0%}, aim {AIM:.0%})   {row['ours']:,.0f} tokens/s{memory}"
    )


def draw_line(way: str, results: dict[str, Any]) -> str:
    name = f"draw: {way}"
    if "failed" in results:
        return f"{name:50} {results['failed']}"
    return (
        f"{name:50} {results['tokens']:7,} tokens in {results['seconds']:7.2f} s   {results['tokens_per_second']:,.0f} tokens/s"
        f"   {results['gap_to_the_learner']:.1e} nats from the learner"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small model, on the CPU if there is no GPU")
    parser.add_argument("--steps", type=int, help="measured updates of each case")
    parser.add_argument("--way", action="append", choices=WAYS, help="only so; repeatable")
    parser.add_argument("--work", action="append", choices=WORK, help="only this; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    device = chosen_device(chosen.small)
    size = SMALL if chosen.small else FULL
    size = replace(size, steps=chosen.steps or size.steps)
    run(size, device, chosen.way or list(WAYS), chosen.work or list(WORK), chosen.json)


if __name__ == "__main__":
    main()
