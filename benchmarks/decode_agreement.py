"""The decoding engine's promises, counted: it agrees with transformers, with the learner, and with itself in other batches.

    python -m benchmarks decode_agreement --json benchmarks/results/decode_agreement.json

greedy     200 ragged prompts on small random Phi-3, Qwen2 and Llama models: the share with exactly the tokens of `generate`,
           and how close the two likeliest tokens were at the first difference
beams      100 prompts, all modes of early stopping: the share with transformers' answers, the largest difference of scores
learner    log-probabilities of sampled tokens, recomputed by the learner at several temperatures, in fp32 and bf16
frequency  chi-square of sampled first tokens against the exact distribution
neighbours 10,000 samples in fixed row blocks, in two orders and batch sizes: how many differ in any bit; and in the fast
           mode, how many tokens differ from those, and how near the draw was to the border of two tokens
groups     prompt tokens that are computed for groups of 8 answers, compared with one answer each
budget     10,000 requests with a cache of 2 MiB: blocks in use, answers, memory
"""

import argparse
import os
import random
import time
from collections.abc import Callable, Sequence
from datetime import date
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from benchmarks._measure import hardware, resident_memory, versions, write
from whetstone import model as models
from whetstone.attention import ATTENTION
from whetstone.batch import Row
from whetstone.chat import ask
from whetstone.decode.beam_search import Beams, beam_search
from whetstone.decode.engine import Engine
from whetstone.decode.sampling import draws
from whetstone.learner.learner import Learner
from whetstone.records import Prompt, Sampling
from whetstone.run.settings import ModelSettings, ParallelSettings

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
KINDS = ("Phi3", "Qwen2", "Llama")
TEMPERATURES = (0.6, 1.0, 1.7)
TOKENS = 24  # of a greedy answer


def tokenizer() -> Any:
    return models.train_tokenizer([f"Compute {i} plus {i * 7}, then the rest of {i * 8}." for i in range(999)], 300)


def random_model(kind: str, words: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(words), bos_token_id=0, eos_token_id=0, pad_token_id=0, tie_word_embeddings=True, **SHAPE
    )
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for p in model.parameters():  # wider than the default, so that logits differ visibly
        if p.dim() > 1:
            p.data.mul_(3.0)
    model.set_attn_implementation(ATTENTION)
    return model.eval()


def prompts(count: int, samples: int = 1, most: int = 60) -> list[Prompt]:
    """Ragged: one to `most` digits."""
    draw = random.Random(0)
    texts = ["".join(draw.choices("0123456789+", k=draw.randint(1, most))) for _ in range(count)]
    return [ask(f"p{i}", text, g) for i, text in enumerate(texts) for g in range(samples)]


def plain(model: Any, words: Any) -> Any:
    """The same weights with transformers' own attention."""
    with TemporaryDirectory() as folder:
        models.save(model, words, Path(folder))
        return type(model).from_pretrained(folder, dtype=model.dtype).eval()


@torch.no_grad()
def greedy(count: int) -> dict[str, Any]:
    words = tokenizer()
    results = {}
    for kind in KINDS:
        model = random_model(kind, words)
        engine, peer = Engine(model, words), plain(model, words)
        asked = prompts(count)
        ours = {c.problem_id: c for c in engine.generate(asked, Sampling(0.0, TOKENS))}
        same, margins = 0, []
        for prompt in asked:
            done = ours[prompt.problem_id]
            ids = torch.tensor([done.prompt_ids])
            out = peer.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False,
                eos_token_id=list(engine.chat.stops), pad_token_id=0,
            )  # fmt: skip
            theirs = out[0, ids.shape[1] :].tolist()
            if done.ids == theirs:
                same += 1
                continue
            at = next(i for i, (a, b) in enumerate(zip(done.ids, theirs, strict=False)) if a != b)
            logits = peer(torch.tensor([[*done.prompt_ids, *theirs[:at]]])).logits[0, -1]
            best = logits.topk(2).values
            margins.append(float(best[0] - best[1]))
        results[kind] = {"prompts": count, "same": same / count, "margins": margins}
        print(
            f"greedy      {kind:6} {same} of {count} as generate; margins at the first difference: {margins or 'none'}",
            flush=True,
        )
    return results


def beams(count: int) -> dict[str, Any]:
    """In fp32 a sum of 16 log-probabilities near -60 is rounded by 1e-5 on either side. transformers sums in fp32 always:
    the float64 scores are compared with the same sum over one forward pass, too."""
    results = {str(dtype).removeprefix("torch."): _beams(count, dtype) for dtype in (torch.float32, torch.float64)}
    for name, part in results.items():
        print(
            f"beams       {name}: {part['same']:.0%} of {count} as generate; scores differ by at most "
            f"{part['largest_difference']:.1e}, {part['largest_relative']:.1e} of a score, and by "
            f"{part['largest_from_one_pass']:.1e} from one forward pass",
            flush=True,
        )
    return results


@torch.no_grad()
def _beams(count: int, dtype: torch.dtype) -> dict[str, Any]:
    words = tokenizer()
    model = random_model("Qwen2", words).to(dtype)
    engine, peer = Engine(model, words), plain(model, words)
    engine.chat.stops += tuple(range(7, len(words), 12))  # enough that some are reached
    modes = [Beams(4, 12, 1.0, False, 2), Beams(3, 16, 2.0, "never", 2), Beams(4, 16, -0.5, True, 2)]
    asked = prompts(count)
    same, worst, relative, from_one_pass = 0, 0.0, 0.0, 0.0
    for i, prompt in enumerate(asked):
        settings = modes[i % 3]
        (answers,) = beam_search(engine, [prompt], settings)
        ids = torch.tensor([answers[0].completion.prompt_ids])
        out = peer.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=settings.max_tokens, do_sample=False,
            num_beams=settings.beams, num_return_sequences=2, length_penalty=settings.length_penalty,
            early_stopping=settings.early_stopping, eos_token_id=list(engine.chat.stops), pad_token_id=0,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        rows = out.sequences[:, ids.shape[1] :].tolist()
        same += all(row[: len(a.completion.ids)] == a.completion.ids for row, a in zip(rows, answers, strict=True))
        for a, theirs in zip(answers, out.sequences_scores.tolist(), strict=True):
            worst = max(worst, abs(a.score - theirs))
            relative = max(relative, abs(a.score / theirs - 1))
            own = a.completion
            logits = peer(torch.tensor([[*own.prompt_ids, *own.ids]])).logits[0, len(own.prompt_ids) - 1 : -1]
            summed = logits.log_softmax(-1).gather(-1, torch.tensor(own.ids)[:, None]).sum()
            from_one_pass = max(from_one_pass, abs(a.score - float(summed) / len(own.ids) ** settings.length_penalty))
    return {
        "prompts": count,
        "same": same / count,
        "largest_difference": worst,
        "largest_relative": relative,
        "largest_from_one_pass": from_one_pass,
    }


def learner(count: int) -> dict[str, Any]:
    results = {}
    for dtype in (torch.float32, torch.bfloat16):
        words = tokenizer()
        model = random_model("Phi3", words).to(dtype)
        for temperature in TEMPERATURES:
            done = list(Engine(model, words).generate(prompts(count, 4), Sampling(temperature, 40)))
            rows = [Row([*c.prompt_ids, *c.ids], prompt=len(c.prompt_ids)) for c in done]
            seen = Learner(model, len(words), ParallelSettings()).row_logprobs(rows, temperature)
            gaps = torch.cat([(s - torch.tensor(c.logprobs)).abs() for s, c in zip(seen, done, strict=True)])
            name = f"{str(dtype).removeprefix('torch.')} at {temperature}"
            results[name] = {"tokens": len(gaps), "mean": float(gaps.mean()), "largest": float(gaps.max())}
            print(
                f"learner     {name:16} {len(gaps):,} tokens: mean {gaps.mean():.1e}, largest {gaps.max():.1e}",
                flush=True,
            )
    return results


@torch.no_grad()
def frequency(samples: int) -> dict[str, Any]:
    words = tokenizer()
    model = random_model("Llama", words)
    engine = Engine(model, words)
    results = {}
    for temperature in TEMPERATURES:
        asked = [ask("p", "Compute 1 plus 2", g) for g in range(samples)]
        done = list(engine.generate(asked, Sampling(temperature, 1)))
        counts = torch.tensor([c.ids[0] for c in done]).bincount(minlength=len(words)).double()
        logits = model(torch.tensor([done[0].prompt_ids]), use_cache=False).logits[0, -1, : len(words)]
        expected = samples * (logits.double() / temperature).softmax(-1)
        rare = expected < 5  # counted as one
        seen = torch.cat([counts[~rare], counts[rare].sum()[None]])
        wanted = torch.cat([expected[~rare], expected[rare].sum()[None]]).clamp(min=1e-9)
        chi = float(((seen - wanted) ** 2 / wanted).sum())
        freedom = len(wanted) - 1
        p = float(torch.special.gammaincc(torch.tensor(freedom / 2.0), torch.tensor(chi / 2)))
        results[str(temperature)] = {"samples": samples, "chi_square": chi, "freedom": freedom, "p": p}
        print(
            f"frequency   at {temperature}: chi-square {chi:.1f} with {freedom} degrees of freedom, p = {p:.2f}",
            flush=True,
        )
    return results


@torch.no_grad()
def neighbours(count: int) -> dict[str, Any]:
    texts = [f"{a}+{b}" for a in range(40) for b in range(40)]
    model, words = models.build_tiny(
        ModelSettings(layers=2, hidden=64, mlp=96, heads=2, kv_heads=1, vocabulary=300, context=256), texts, seed=0
    )
    asked, sampling = prompts(count // 8, 8), Sampling(max_tokens=12, seed=7)

    def run(order: Sequence[Prompt], **engine: Any) -> dict[tuple[str, int], Any]:
        return {(c.problem_id, c.index): c for c in Engine(model, words, **engine).generate(order, sampling)}

    one = run(asked, row_block=16, max_batch=256)
    shuffled = random.Random(1).sample(asked, len(asked))
    other = run(shuffled, row_block=16, max_batch=40)
    differ = sum((one[k].ids, one[k].logprobs) != (other[k].ids, other[k].logprobs) for k in one)
    fast = run(asked)
    tokens = sum(len(c.ids) for c in one.values())
    borders = [_border(model, words, one[k], fast[k], sampling) for k in one if one[k].ids != fast[k].ids]
    print(f"neighbours  {len(one):,} samples, {tokens:,} tokens in row blocks: {differ} differ in any bit", flush=True)
    print(
        f"            fast mode: {len(borders)} flips; distance of the draw to the border {borders or '-'}", flush=True
    )
    return {"samples": len(one), "tokens": tokens, "differ_in_row_blocks": differ, "flips_in_fast_mode": borders}


def _border(model: Any, words: Any, one: Any, fast: Any, sampling: Sampling) -> float:
    """At the first token that differs: how far the draw was from the nearest border between two tokens."""
    at = next(i for i, (a, b) in enumerate(zip(one.ids, fast.ids, strict=False)) if a != b)
    ids = torch.tensor([[*one.prompt_ids, *one.ids[:at]]])
    logits = model(ids, use_cache=False).logits[0, -1, : len(words)]
    draw = next(islice(draws(sampling.seed, one.problem_id, one.index), at, None))
    return float((logits.double().softmax(-1).cumsum(-1) - draw).abs().min())


@torch.no_grad()
def groups(count: int) -> dict[str, Any]:
    """Prompt tokens and time for groups of 8 answers, compared with one answer each."""
    words = tokenizer()
    engine = Engine(random_model("Qwen2", words), words, max_batch=8 * count, prefill_tokens=1 << 20)
    results = {}
    for samples in (1, 8):
        asked = [ask(p.problem_id, p.messages[0].content * 8, p.index) for p in prompts(count, samples)]
        decoding = engine.decode(asked, Sampling(max_tokens=2))
        lengths = {waiting.prompt.problem_id: len(waiting.prompt_ids) for waiting in decoding.scheduler.waiting}
        start = time.process_time()
        planned = decoding.scheduler.schedule()
        run = sum(n for _, n in planned[0]) + len(planned[1])
        decoding.scheduler.schedule = lambda planned=planned: planned
        decoding.step()
        results[samples] = {
            "prompt_tokens": sum(lengths.values()),
            "tokens_run": run,
            "cpu_seconds": time.process_time() - start,
        }
    one, eight = results[1], results[8]
    print(
        f"groups      {count} prompts of {one['prompt_tokens']:,} tokens: {one['tokens_run']:,} run for one answer each, "
        f"{eight['tokens_run']:,} for eight; {eight['cpu_seconds'] / one['cpu_seconds']:.2f} x the time",
        flush=True,
    )
    return {"one": one, "eight": eight}


@torch.no_grad()
def budget(count: int) -> dict[str, Any]:
    """`count` requests with a cache for a few: blocks in use, answers, and growth of memory."""
    words = tokenizer()
    model = random_model("Qwen2", words)
    engine = Engine(model, words, cache_bytes=2 << 20)
    asked = prompts(count // 4, 4)
    before = resident_memory()
    decoding = engine.decode(asked, Sampling(max_tokens=100, seed=3))
    queued = resident_memory()
    seen, most, answers = {}, 0, 0
    while decoding.busy:
        for done in decoding.step():
            seen[done.problem_id, done.index] = len(done.ids)
            answers += 1
        blocks = decoding.scheduler.blocks
        most = max(most, blocks.capacity - blocks.free)
    cache = blocks.cache
    used = (cache.keys.nbytes + cache.values.nbytes) * most // cache.capacity
    result = {
        "requests": count,
        "answered": len(seen),
        "answered_twice": answers - len(seen),
        "budget_bytes": engine.runner.cache_bytes,
        "most_used_bytes": used,
        "sent_back": decoding.scheduler.preemptions,
        "mb_to_queue": (queued - before) / 1e6,
        "mb_to_decode": (resident_memory() - queued) / 1e6,
    }
    print(
        f"budget      {count:,} requests, {len(seen):,} answered, {result['answered_twice']} twice; cache {used:,} of "
        f"{engine.runner.cache_bytes:,} bytes, {result['sent_back']:,} sent back; memory +{result['mb_to_queue']:.0f} MB to "
        f"queue, +{result['mb_to_decode']:.0f} MB to decode",
        flush=True,
    )
    return result


PARTS: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {
    "greedy": (greedy, 200),
    "beams": (beams, 100),
    "learner": (learner, 40),
    "frequency": (frequency, 20_000),
    "neighbours": (neighbours, 10_000),
    "groups": (groups, 40),
    "budget": (budget, 10_000),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--share", type=float, default=1.0, help="do only so much of each, for a quick look")
    chosen = parser.parse_args(arguments)
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"name": "decode_agreement", "date": date.today().isoformat()}
    for name in chosen.only:
        part, count = PARTS[name]
        result[name] = part(max(8, round(count * chosen.share)))
    result |= {"hardware": hardware(), "versions": versions(["whetstone", "torch", "transformers"])}
    write(result, chosen.json)


if __name__ == "__main__":
    main()
