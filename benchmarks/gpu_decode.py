"""Decoding with Phi-4-mini's exact shape on one GPU, beside transformers' `generate` and what the memory allows.

    python -m benchmarks gpu_decode --json benchmarks/results/gpu_decode.json
    python -m benchmarks gpu_decode --small           # the same code with a small model, on a CPU too

Random weights in bf16 (LongRoPE, tied head), 1, 32 and 256 sequences of 1 k and 4 k tokens: prompts are run, then steps of
one token for each sequence are timed, one by one, drawing at temperature 1. A prompt of its own for each sequence: none is
shared. Cases that do not fit into the card's memory are listed.

The bound: a step reads all weights once, and keys and values of every token before; no kernel is faster than these bytes by
the memory's bandwidth, which is measured here (the best of a sum and of a copy) and, for a card with a data sheet,
known. Shares are of the measured one.

The peer is `generate` on the same ids with attention by SDPA, as long answers. Of its caches (dynamic, static, and static
with the step compiled into a CUDA graph, transformers' own choice on a GPU) the fastest that works counts; its step is the
difference between a long and a short answer. A setting that fails is listed with its error.

The file is written after each case, so that a time limit loses only the current one.
"""

import argparse
import itertools
import statistics
from collections.abc import Iterator, Sequence
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
from whetstone import model as models
from whetstone.chat import ask
from whetstone.decode.kv_cache import BLOCK, KVCache, blocks_for
from whetstone.decode.sampling import draws
from whetstone.decode.sequence import Sequence as Sampled
from whetstone.learner.accelerators import known
from whetstone.records import Sampling


@dataclass(frozen=True)
class Size:
    shape: Shape
    sequences: tuple[int, ...]
    contexts: tuple[int, ...]  # tokens of prompt and answer together
    prefill: int  # prompt tokens in one step of ours
    warm: int  # steps before those that are measured: a shape is captured when it comes for the third time
    steps: int
    probe: int  # bytes that the bandwidth is measured with


FULL = Size(PHI_4_MINI, (1, 32, 256), (1024, 4096), prefill=8192, warm=4, steps=32, probe=2 << 30)
SMALL = Size(TINY, (1, 4), (64, 128), prefill=96, warm=1, steps=4, probe=64 << 20)

ROOM = 1 << 30  # bytes left for a step beside weights and cache: logits, gathered keys and values of a layer
CACHES: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "static": {"cache_implementation": "static", "disable_compile": True},
    "static, compiled": {"cache_implementation": "static"},
}


# --- the bound


def bytes_a_token(shape: Shape, width: int) -> int:
    """Of keys and values, in all layers, for numbers of `width` bytes."""
    return 2 * shape.layers * shape.kv_heads * (shape.hidden // shape.heads) * width


def bytes_a_step(weights: int, tokens: int, a_token: int) -> int:
    """Bytes that a step must read: the weights once, and keys and values of all `tokens` of all sequences."""
    return weights + tokens * a_token


def bandwidth(device: str, size: int) -> float:
    """Bytes per second between memory and processor: the best of a sum (read) and of a copy (read and written)."""
    source = torch.ones(size // 2, dtype=torch.bfloat16 if device == "cuda" else torch.float16, device=device)
    numbers, target = source.view(torch.float32), torch.empty_like(source)
    reads: list[float] = []
    copies: list[float] = []
    for _ in range(6):
        with timed(device, reads):
            numbers.sum()
        with timed(device, copies):
            target.copy_(source)
    return max(size / min(reads), 2 * size / min(copies))


# --- ours


def answer_tokens(size: Size, sequences: int, context: int) -> int:
    """Of the first sequence until the last step that is measured: it decodes while the prompts of others are run."""
    return -(-sequences * context // size.prefill) + 1 + size.warm + size.steps


def cache_needed(model: Any, size: Size, sequences: int, context: int) -> int:
    """Bytes of keys and values of so many sequences, in whole blocks, with one more for each."""
    shape, dtype = size.shape, next(model.parameters()).dtype
    block = KVCache.bytes_per_block(shape.layers, shape.kv_heads, shape.hidden // shape.heads, dtype)
    return sequences * (blocks_for(context) + 1) * block


def too_large(needed: int, free: int | None) -> str:
    """Why a case cannot be run; "" if weights, keys and values fit."""
    if free is None or needed + ROOM <= free:
        return ""
    return f"does not fit: {needed / 1e9:.1f} GB of keys and values, {free / 1e9:.1f} GB free"


def ours(model: Any, size: Size, device: str, sequences: int, context: int) -> dict[str, Any]:
    """Prefill, then steps: tokens per second, milliseconds per step, the tokens that each step's attention reads."""
    needed = cache_needed(model, size, sequences, context)
    answer = answer_tokens(size, sequences, context)
    sampling = Sampling(max_tokens=answer + 1)
    sampled = [
        Sampled(ask(str(i), "", 0), ids, sampling, draws(0, str(i), 0))
        for i, ids in enumerate(random_ids(sequences, context - answer - 1, size.shape.vocabulary))
    ]
    engine = engine_over(
        model, size.shape.vocabulary, max_batch=sequences, cache_bytes=needed, prefill_tokens=size.prefill
    )
    forget_peak(device)
    decoding = engine.decode_sequences(sampled)
    prefill: list[float] = []
    while not all(sequence.ids for sequence in sampled):
        with timed(device, prefill):
            decoding.step()
    for _ in range(size.warm):
        decoding.step()
    taken: list[float] = []
    tokens = []
    for _ in range(size.steps):
        tokens.append(sum(sequence.length for sequence in sampled))
        with timed(device, taken):
            decoding.step()
    assert not decoding.scheduler.preemptions, "a sequence was sent back: this is no step of all sequences"
    assert all(sequence.cached == sequence.length - 1 for sequence in sampled), (
        "a prompt was still run in a measured step"
    )
    blocks = decoding.scheduler.blocks
    return {
        "step_seconds": statistics.median(taken), "fastest_step": min(taken), "slowest_step": max(taken),
        "tokens_read": statistics.mean(tokens),
        "prompt_tokens": sum(len(sequence.prompt_ids) for sequence in sampled), "prefill_seconds": sum(prefill),
        "peak_memory": peak_memory(device), "cache_bytes": needed, "block": BLOCK,
        "kernels": blocks.cache.kernels is not None,
        "shapes_captured": len(blocks.graphs.graphs) if blocks.graphs else 0,
    }  # fmt: skip


# --- the peer


def theirs(model: Any, size: Size, device: str, sequences: int, context: int, chosen: Sequence[str]) -> dict[str, Any]:
    """`generate` in each of the chosen settings; the fastest one's step, and all of them by name."""
    model.set_attn_implementation("sdpa")
    try:
        found = {
            name: peer_tried(model, size, device, sequences, context, CACHES[name])
            for name in chosen
            if device == "cuda" or "compiled" not in name  # transformers compiles on accelerators alone
        }
    finally:
        model.set_attn_implementation(models.ATTENTION)
    worked = {name: one["step_seconds"] for name, one in found.items() if "step_seconds" in one}
    if not worked:
        return {"failed": "no setting worked", "settings": found}
    best = min(worked, key=worked.__getitem__)
    return found[best] | {"setting": best, "settings": found}


def peer_tried(
    model: Any, size: Size, device: str, sequences: int, context: int, settings: dict[str, Any]
) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        try:
            return peer(model, size, device, sequences, context, settings)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # any failure of its compiler: that setting is listed with the error
            return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}

    return tried(work)


@torch.no_grad()
def peer(model: Any, size: Size, device: str, sequences: int, context: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Seconds per step, from a long and a short answer. The first call of each length compiles and is not timed."""
    short, long = 2, 2 + size.steps
    ids = torch.tensor(random_ids(sequences, context - long, size.shape.vocabulary), device=device)

    # a static cache is never shorter than one before: not that of another case's context, but the long answer's for both
    vars(model).pop("_previous_max_cache_length", None)

    def run(answer: int, into: list[float]) -> None:
        with timed(device, into):
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0,
                max_new_tokens=answer, min_new_tokens=answer, eos_token_id=None, pad_token_id=0, **settings,
            )  # fmt: skip
        assert out.shape[1] == ids.shape[1] + answer

    for answer in (long, short):
        run(answer, [])
    forget_peak(device)
    times: dict[int, list[float]] = {short: [], long: []}
    for _ in range(2):
        for answer, into in times.items():
            run(answer, into)
    step = (min(times[long]) - min(times[short])) / (long - short)
    return {
        "step_seconds": step,
        "prefill_seconds": min(times[short]) - (short - 1) * step,  # the first token is the prompt's
        "tokens_read": sequences * (context - size.steps / 2),
        "peak_memory": peak_memory(device),
    }


# --- together


def case(
    name: str, sequences: int, ours: dict[str, Any], theirs: dict[str, Any], weights: int, a_token: int, speed: float
) -> dict[str, Any]:
    """Rates, and each side's share of the bound of what its own steps read at `speed` bytes per second."""
    sides: dict[str, dict[str, Any]] = {"details": dict(ours), "peer_details": dict(theirs)}
    for side in sides.values():
        if "step_seconds" in side:
            bound = bytes_a_step(weights, side["tokens_read"], a_token) / speed
            side |= {"bound_step_seconds": bound, "share_of_bound": bound / side["step_seconds"]}
            side["tokens_per_second"] = sequences / side["step_seconds"]
    mine, other = (side.get("tokens_per_second") for side in sides.values())
    ratios = {}
    if mine and other:
        slow, fast = ours["slowest_step"], ours["fastest_step"]
        ratios = {"ratio": mine / other, "low": sequences / slow / other, "high": sequences / fast / other}
    return {"case": name, "ours": mine, "peer": other, "unit": "tokens/s", **ratios, **sides}


def run(size: Size, device: str, peers: Sequence[str], keep: Path | None) -> dict[str, Any]:
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    speed = bandwidth(device, size.probe)
    release()
    sheet = known(torch.cuda.get_device_name()) if device == "cuda" else None
    model = build(size.shape, device, max(size.contexts), dtype).eval().requires_grad_(False)
    weights, a_token = models.parameters(model) * dtype.itemsize, bytes_a_token(size.shape, dtype.itemsize)
    result: dict[str, Any] = {
        "name": "gpu_decode",
        **where(device),
        "weight_bytes": weights, "bytes_a_token": a_token,
        "peers": list(peers), "bandwidth": speed, "bandwidth_by_data_sheet": sheet.bandwidth if sheet else None,
        "cases": [], "ratio": None, "repeats": size.steps,
        "versions": versions(["torch", "transformers"]) | {"cuda": torch.version.cuda},
    }  # fmt: skip
    few = replace(size, warm=0, steps=1)
    ours(model, few, device, 2, min(size.contexts))  # kernels are made and loaded when they are first needed
    print(f"bandwidth {speed / 1e9:,.0f} GB/s" + (f" of {sheet.bandwidth / 1e9:,.0f}" if sheet else ""))
    for row in cases(model, size, device, peers, weights, a_token, speed):
        result["cases"].append(row)
        result["ratio"] = min((one["ratio"] for one in result["cases"] if "ratio" in one), default=None)
        print(line(row), flush=True)
        write(result, keep)
    return result


def cases(
    model: Any, size: Size, device: str, peers: Sequence[str], weights: int, a_token: int, speed: float
) -> Iterator[dict[str, Any]]:
    for sequences, context in itertools.product(size.sequences, size.contexts):
        name = f"{sequences} x {context:,} tokens"
        release()
        free = torch.cuda.mem_get_info()[0] if device == "cuda" else None
        if reason := too_large(cache_needed(model, size, sequences, context), free):
            yield case(name, sequences, {"failed": reason}, {}, weights, a_token, speed)
            continue
        mine = tried(lambda n=sequences, c=context: ours(model, size, device, n, c))
        other = theirs(model, size, device, sequences, context, peers) if peers else {}
        yield case(name, sequences, mine, other, weights, a_token, speed)


def line(row: dict[str, Any]) -> str:
    mine, other = row["details"], row["peer_details"]
    if "failed" in mine:
        beside = f"   generate: {row['peer']:,.0f} tokens/s ({other['setting']})" if row["peer"] else ""
        return f"{row['case']:18} {mine['failed']}{beside}"
    memory = "" if mine["peak_memory"] is None else f"   {mine['peak_memory'] / 1e9:.1f} GB"
    told = (
        f"{row['case']:18} {row['ours']:10,.0f} tokens/s   {1e3 * mine['step_seconds']:8.2f} ms per step   "
        f"{mine['share_of_bound']:6.1%} of the bound   prefill {mine['prompt_tokens'] / mine['prefill_seconds']:,.0f} "
        f"tokens/s{memory}"
    )
    if "ratio" not in row:
        return told + (f"   generate: {other['failed']}" if "failed" in other else "")
    return told + f"   {row['ratio']:.2f} x generate ({other['setting']})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small model, on the CPU if there is no GPU")
    parser.add_argument("--sequences", type=int, nargs="+", help="decoded at once")
    parser.add_argument("--contexts", type=int, nargs="+", help="tokens of prompt and answer together")
    parser.add_argument("--steps", type=int, help="measured steps of each case")
    parser.add_argument("--without-peer", action="store_true", help="only our side")
    parser.add_argument("--peer", action="append", choices=CACHES, help="generate so, only; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    device = chosen_device(chosen.small)
    size = SMALL if chosen.small else FULL
    size = replace(
        size,
        sequences=tuple(chosen.sequences or size.sequences),
        contexts=tuple(chosen.contexts or size.contexts),
        steps=chosen.steps or size.steps,
    )
    for sequences, context in itertools.product(size.sequences, size.contexts):
        if (least := answer_tokens(size, sequences, context) + 2) > context:
            parser.error(
                f"{sequences} sequences of {context} tokens need {least} for their answers alone: ask for longer."
            )
    run(size, device, [] if chosen.without_peer else chosen.peer or list(CACHES), chosen.json)


if __name__ == "__main__":
    main()
