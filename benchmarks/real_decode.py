"""Decoding with a pretrained model: our engine beside vLLM's CPU build, llama.cpp and `generate`, one core each.

    make bench-env
    python -m benchmarks real_decode --json benchmarks/results/real_decode.json
    python -m benchmarks real_decode --only "batch 1," --tokens 32 --repeats 1     # a part, in a minute

SmolLM2-135M-Instruct (`--model`; a random model of its shape without it), questions of GSM8K as prompts in the model's own
template. One prompt, greedy, and 32 and 128 prompts at temperature 0.7: `even`, each with an answer of --tokens, and
`ragged`, answers of a twelfth of that to twice as many, log-uniform. Nothing ends before its length, and both sides write
equally many tokens. Each repeat asks other questions, so no cache of prompts knows them; what is common to all prompts is
shared by vLLM, as by default.

float32 always; bfloat16 if this CPU multiplies it faster than float32; our weights of 8 bits beside llama.cpp's. All sides have
their weights loaded and packed before anything is measured, as servers have. llama.cpp decodes one prompt at a time and is
measured at batch 1 alone: in F32 and F16 (BF16 if the CPU has it) and in Q8_0. `generate` has the faster of its two caches. All
sides take turns in one run; the rate is tokens per CPU second. A case is kept as soon as it is measured, and a second call goes
on where the first one ended.
"""

import math
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from benchmarks._measure import Work, beside, in_turns
from benchmarks._piped import BENCH, VLLM, Piped, installed
from benchmarks._real import Cases, model_folder, number_types, options, problems, wanted
from benchmarks._scripted import Script

BATCHES = (1, 32, 128)
LAWS = ("even", "ragged")
TOKENS = 200
WARM = 4  # tokens of an answer before anything is measured
TEMPERATURE = 0.7
REPEATS = 3
KEPT = "4"  # GB of keys and values that vLLM may hold


@dataclass(frozen=True)
class Peer:
    """How a peer is started, and what it needs."""

    name: str
    python: Path
    script: str
    arguments: tuple[str, ...]
    package: str
    batches: tuple[int, ...] = BATCHES

    def start(self, folder: Path) -> Piped:
        environment = {
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": KEPT,
            "VLLM_CPU_OMP_THREADS_BIND": str(min(os.sched_getaffinity(0))),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        script = Path(__file__).with_name(self.script)
        return Piped([str(self.python), str(script), str(folder), *self.arguments], environment)


def peers(kind: str, types: Sequence[str]) -> Iterator[Peer]:
    """Those that are measured beside ours in the number type `kind`."""
    here = Path(sys.executable)
    if kind == "int8":
        yield Peer("llama.cpp Q8_0", BENCH, "_llama_peer.py", ("Q8_0",), "llama-cpp-python", (1,))
        return
    yield Peer(f"generate {kind}", here, "_generate_peer.py", (kind,), "transformers")
    for mode in ("eager", "compiled"):
        yield Peer(f"vllm-cpu {kind} {mode}", VLLM, "_vllm_peer.py", (kind, mode, "prefixes"), "vllm-cpu")
    stored = ("F16", *(("BF16",) if "bfloat16" in types else ()), "Q8_0")
    for each in ("F32", *stored) if kind == "float32" else stored:
        yield Peer(f"llama.cpp {each}", BENCH, "_llama_peer.py", (each,), "llama-cpp-python", (1,))


def lengths_of(law: str, batch: int, tokens: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    low, high = math.log(max(1, tokens // 12)), math.log(2 * tokens)
    return [tokens if law == "even" else round(math.exp(draw.uniform(low, high))) for _ in range(batch)]


class Turns:
    """The same work for every side of a repeat, and other work for the next."""

    def __init__(self, engine: Any, law: str, batch: int, tokens: int):
        self.engine, self.law, self.batch, self.tokens = engine, law, batch, tokens
        self.temperature = TEMPERATURE if batch > 1 else 0.0
        self.rows = problems(10**6)
        self.calls: dict[str, int] = {}

    def work(self, repeat: int) -> tuple[list[Any], list[int]]:
        from whetstone.chat import ask

        first = repeat * self.batch
        asked = [self.rows[(first + i) % len(self.rows)]["question"] for i in range(self.batch)]
        prompts = [ask(str(i), question, 0) for i, question in enumerate(asked)]
        return prompts, lengths_of(self.law, self.batch, self.tokens, repeat)

    def next(self, side: str) -> tuple[list[Any], list[int]]:
        """The side's next repeat; the first one's questions have warmed it."""
        self.calls[side] = self.calls.get(side, 0) + 1
        return self.work(self.calls[side])

    def ours(self) -> Work:
        prompts, lengths = self.next("ours")
        return lambda: self.checked(self.decoded(prompts, lengths), lengths)

    def decoded(self, prompts: Sequence[Any], lengths: Sequence[int]) -> int:
        from whetstone.records import Sampling

        sampling = Sampling(temperature=self.temperature, max_tokens=max(lengths))
        done = self.engine.generate(prompts, sampling, lambda prompt: Script(lengths[int(prompt.problem_id)]))
        return sum(len(completion.ids) for completion in done)

    def asked(self, prompts: Sequence[Any], lengths: Sequence[int]) -> dict[str, Any]:
        ids = [self.engine.chat.prompt_ids(prompt.messages) for prompt in prompts]
        return {"prompts": ids, "lengths": list(lengths), "temperature": self.temperature}

    def theirs(self, name: str, peer: Piped) -> Callable[[], Work]:
        def prepare() -> Work:
            prompts, lengths = self.next(name)
            asked = self.asked(prompts, lengths)
            return lambda: self.checked(peer.ask(asked)["tokens"], lengths)

        return prepare

    @staticmethod
    def checked(done: int, lengths: Sequence[int]) -> int:
        if done != sum(lengths):
            raise RuntimeError(f"{done} tokens were written where {sum(lengths)} were asked for: no rate follows.")
        return done

    def warm(self, peer: Piped | None = None) -> dict[str, Any]:
        prompts, _ = self.work(0)
        few = [WARM] * self.batch
        if peer is None:
            return {"tokens": self.decoded(prompts, few)}
        return peer.ask(self.asked(prompts, few) | {"warm": True})


def groups(batches: Sequence[int], laws: Sequence[str]) -> Iterator[tuple[int, str]]:
    """One prompt has one length: it is only measured with even ones."""
    yield from ((batch, law) for batch in batches for law in laws if batch > 1 or law == "even")


def measure(
    kind: str, folder: Path, found: Sequence[Peer], chosen: Any, cases: Cases, asked: Callable[[str], bool]
) -> None:
    """Every case of ours in one number type that is asked for and not kept yet."""
    from whetstone.decode.engine import Engine
    from whetstone.model import load

    engine: Any = None
    started: dict[str, Piped] = {}
    settings = {"tokens": chosen.tokens}
    with ExitStack() as stack:
        for batch, law in groups(chosen.batches, chosen.laws):
            names = {
                peer: name
                for peer in found
                if batch in peer.batches
                and asked(name := f"{kind}, batch {batch}, {law}, {peer.name}")
                and not cases.has(name, settings)
            }
            if not names:
                continue
            if engine is None:
                int8 = kind == "int8"
                engine = Engine(*load(folder, "cpu", "float32" if int8 else kind), int8=int8)
                stack.enter_context(engine.runner.weights_made())
            turns = Turns(engine, law, batch, chosen.tokens)
            turns.warm()
            told = {}
            for peer in names:
                if peer.name not in started:
                    started[peer.name] = peer.start(folder)
                    stack.callback(started[peer.name].close)
                told[peer.name] = turns.warm(started[peer.name]).get("cache")
            sides: Mapping[str, Callable[[], Work]] = {"ours": turns.ours} | {
                peer.name: turns.theirs(peer.name, started[peer.name]) for peer in names
            }
            rates = in_turns(sides, chosen.repeats)
            for peer, name in names.items():
                cache = {"peer_cache": told[peer.name]} if told[peer.name] else {}
                cases.add(beside(name, "tokens", rates["ours"], rates[peer.name]), settings, chosen.repeats, **cache)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, REPEATS)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of an even answer")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), choices=BATCHES)
    parser.add_argument("--laws", nargs="+", default=list(LAWS), choices=LAWS)
    chosen = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    asked = wanted(chosen.only)
    with tempfile.TemporaryDirectory() as aside, torch.no_grad():
        folder, model = model_folder(chosen.model, Path(aside) / "random")
        cases = Cases("real_decode", chosen.json, model, ["whetstone", "torch", "transformers"], chosen.again)
        types = number_types()
        for kind in (*types, "int8"):
            found = []
            for peer in peers(kind, types):
                version = installed(peer.python, peer.package)
                if version is None:
                    cases.missing(peer.name, f"{peer.python} has no {peer.package}: `make bench-env` installs it")
                    continue
                cases.result["versions"][peer.package] = version
                found.append(peer)
            measure(kind, folder, found, chosen, cases, asked)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
