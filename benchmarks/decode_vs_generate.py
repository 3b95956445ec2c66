"""Decoded tokens per CPU second: our engine beside transformers' `generate` at its best setting, ragged prompts and answers.

    python -m benchmarks decode_vs_generate --json benchmarks/results/decode_vs_generate.json

Random weights: a 5 M-parameter Qwen2-class model, and the tiny Phi-class one of the recipes. Prompts of 32 to 256 tokens;
answers of 16 to 256, log-uniform, with lengths set by a script for both sides. A case of batch B is B prompts
(four for batch 1). `generate` gets them in one left-padded call, which goes on until the longest answer ends; the engine drops
answers that end. `generate` samples without warpers and runs with the dtype and cache that a trial found fastest; bfloat16
is tried if this machine multiplies matrices faster in it. One thread.
"""

import argparse
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from benchmarks._measure import Case, Work, compare, own_cpu, write
from benchmarks._scripted import Script
from whetstone import model as models
from whetstone.attention import ATTENTION
from whetstone.chat import ask
from whetstone.decode.engine import Engine
from whetstone.records import Prompt, Sampling
from whetstone.run.settings import ModelSettings

BATCHES = (1, 32, 128, 256)
TARGETS = {1: 1.5, 32: 2.5, 128: 2.5, 256: 2.5}
PROMPT = (32, 256)  # tokens
ANSWER = (16, 256)
TRIAL_ROWS, TRIAL_TOKENS = 32, 6
CACHES = ("dynamic", "static")
SHAPES = {
    "Qwen2 5 M": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 704},
    "Phi-3 0.65 M": None,
}


def tokenizer() -> Any:
    texts = [f"{i} plus {i * 7} is {i * 8}, so the answer is {i * 8}." for i in range(2000)]
    return models.train_tokenizer(texts, 512)


def build(name: str, words: Any, attention: str) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    if SHAPES[name] is None:
        model, _ = models.build_tiny(ModelSettings(), [f"{i} plus {i * 7} is {i * 8}" for i in range(2000)], seed=0)
        model.set_attn_implementation(attention)
        return model.eval()
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(words),
        num_key_value_heads=8,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        attn_implementation=attention,
        **SHAPES[name],
    )
    return Qwen2ForCausalLM(config).eval()


def work(count: int, seed: int) -> tuple[list[Prompt], list[int]]:
    """Prompts and the lengths of their answers."""
    draw = random.Random(seed)
    low, high = map(math.log, ANSWER)
    digits = ["".join(draw.choices("0123456789", k=draw.randint(*PROMPT) - 3)) for _ in range(count)]
    return [ask(str(i), text, 0) for i, text in enumerate(digits)], [
        round(math.exp(draw.uniform(low, high))) for _ in range(count)
    ]


def ours(engine: Engine, prompts: Sequence[Prompt], lengths: Sequence[int]) -> Work:
    def run() -> int:
        sampling = Sampling(max_tokens=ANSWER[1])
        done = engine.generate(prompts, sampling, lambda p: Script(lengths[int(p.problem_id)]))
        return sum(len(completion.ids) for completion in done)

    return run


def matmul_seconds(dtype: torch.dtype) -> float:
    """CPU seconds of a product of the benchmark's size, the fastest of a few."""
    a, b = torch.randn(256, 256).to(dtype), torch.randn(256, 704).to(dtype)
    seconds_of = []
    for _ in range(5):
        start = time.process_time()
        a @ b
        seconds_of.append(time.process_time() - start)
    return min(seconds_of)


class Generate:
    """The peer: plain transformers."""

    def __init__(self, name: str, words: Any, chat: Any):
        self.models = {"float32": build(name, words, "sdpa")}
        if matmul_seconds(torch.bfloat16) < matmul_seconds(torch.float32):
            self.models["bfloat16"] = build(name, words, "sdpa").to(torch.bfloat16)
        self.chat = chat

    def best(self, batch: int) -> tuple[str, str]:
        """The fastest setting, by a trial of a few rows and tokens."""
        prompts, _ = work(min(batch, TRIAL_ROWS), seed=99)
        rate = {}
        for setting in [(dtype, cache) for dtype in self.models for cache in CACHES]:
            self.run(prompts, [TRIAL_TOKENS] * len(prompts), setting)()  # warm
            start = own_cpu()
            rate[setting] = self.run(prompts, [TRIAL_TOKENS] * len(prompts), setting)() / (own_cpu() - start)
        return max(rate, key=rate.__getitem__)

    def run(
        self, prompts: Sequence[Prompt], lengths: Sequence[int], setting: tuple[str, str], together: int = 0
    ) -> Work:
        dtype, cache = setting
        together = together or len(prompts)

        def run() -> int:
            for i in range(0, len(prompts), together):
                self._call(prompts[i : i + together], lengths[i : i + together], dtype, cache)
            return sum(lengths)

        return run

    @torch.no_grad()
    def _call(self, prompts: Sequence[Prompt], lengths: Sequence[int], dtype: str, cache: str) -> None:
        from transformers import StoppingCriteria, StoppingCriteriaList

        class Scripted(StoppingCriteria):
            def __init__(self, ends: Sequence[int]):
                self.ends = torch.tensor(ends)

            def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
                return input_ids.shape[1] >= self.ends

        rows = [self.chat.prompt_ids(prompt.messages) for prompt in prompts]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        more = {"cache_implementation": "static"} if cache == "static" else {}
        self.models[dtype].generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=max(lengths),
            eos_token_id=None,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([Scripted([width + n for n in lengths])]),
            disable_compile=True,
            **more,
        )


def ceiling(model: Any, prompts: Sequence[int], lengths: Sequence[int], batch: int) -> float:
    """CPU seconds of the work's matrix products and of reading its keys and values, each as fast as this machine does it
    now: products with each step's number of rows, and a plain sum over memory.

    `prompts` and `lengths`: tokens of each; `batch` of them are decoded together.
    """
    product = product_seconds(model)
    config = model.config
    a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * 4
    a_token *= getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    seconds, kept = 0.0, 0
    for i in range(0, len(prompts), batch):
        asked = list(zip(prompts[i : i + batch], lengths[i : i + batch], strict=True))
        seconds += product(sum(prompt for prompt, _ in asked))
        for step in range(1, max(length for _, length in asked)):
            live = [prompt + step for prompt, length in asked if length > step]
            seconds += product(len(live))
            kept += sum(live)
    return seconds + kept * a_token / read_speed()


def product_seconds(model: Any) -> Callable[[int], float]:
    """Rows -> CPU seconds of the model's linear layers and head, from a table of measured row counts."""
    weights = [m.weight.T.contiguous() for m in model.modules() if isinstance(m, torch.nn.Linear)]
    seconds_of = {}
    for rows in (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024):
        inputs = {size: torch.randn(rows, size) for size in {weight.shape[0] for weight in weights}}
        best = math.inf
        for _ in range(5):
            start = time.process_time()
            for weight in weights:
                inputs[weight.shape[0]] @ weight
            best = min(best, time.process_time() - start)
        seconds_of[rows] = best
    counts = list(seconds_of)

    def seconds(rows: int) -> float:
        if rows >= counts[-1]:
            return seconds_of[counts[-1]] * rows / counts[-1]
        above = next(i for i, count in enumerate(counts) if count >= rows)
        if counts[above] == rows:
            return seconds_of[rows]
        low, high = counts[above - 1], counts[above]
        return seconds_of[low] + (seconds_of[high] - seconds_of[low]) * (rows - low) / (high - low)

    return seconds


def read_speed(size: int = 32 << 20) -> float:
    """Bytes per CPU second of a sum over more memory than the caches hold."""
    numbers = torch.ones(size // 4)
    best = math.inf
    for _ in range(5):
        start = time.process_time()
        numbers.sum()
        best = min(best, time.process_time() - start)
    return size / best


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    chosen = parser.parse_args(arguments)
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    words = tokenizer()
    cases, settings, built, needed = [], {}, {}, {}
    for name in chosen.models:
        built[name] = build(name, words, ATTENTION)
        for batch in chosen.batches:
            engine = Engine(built[name], words, max_batch=batch)
            peer = Generate(name, words, engine.chat)
            case = f"{name}, batch {batch}"
            settings[case] = best = peer.best(batch)
            prompts, lengths = work(max(4, batch), seed=batch)
            needed[case] = [len(engine.chat.prompt_ids(prompt.messages)) for prompt in prompts], lengths, batch
            list(engine.generate(prompts[:2], Sampling(max_tokens=4)))  # warm
            cases.append(
                Case(
                    case,
                    "tokens",
                    lambda e=engine, p=prompts, n=lengths: ours(e, p, n),
                    lambda g=peer, p=prompts, n=lengths, s=best, b=batch: g.run(p, n, s, b),
                )
            )
    with torch.no_grad():
        result = compare("decode_vs_generate", cases, chosen.repeats, ["whetstone", "torch", "transformers"])
        for row in result["cases"]:
            prompts, lengths, batch = needed[row["case"]]
            row["peer_setting"] = " ".join(settings[row["case"]])
            model = built[row["case"].partition(", ")[0]]
            row["share_of_ceiling"] = ceiling(model, prompts, lengths, batch) * row["ours"] / sum(lengths)
            print(
                f"{row['case']:24} generate ran in {row['peer_setting']}; matrix products and reading keys and values "
                f"take {row['share_of_ceiling']:.0%} of our time"
            )
    write(result, chosen.json)
    missed = [
        row["case"]
        for row, batch in zip(result["cases"], chosen.batches * len(chosen.models), strict=True)
        if row["ratio"] < TARGETS.get(batch, 1.5)
    ]
    print(f"worst case: {result['ratio']:.2f} x; below their targets: {', '.join(missed) or 'none'}")


if __name__ == "__main__":
    main()
