"""Decoding steps from packed weights, fp32 and int8, against the same steps with the products of torch's BLAS.

    python -m benchmarks packed_decode --model FOLDER --json FILE

Only steps that decode are timed, after the prompt has run: `batch` answers to one question, one thread, tokens per CPU second.
`peer` is the same engine with `F.linear` in fp32.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from benchmarks._measure import Case, Work, compare, write
from whetstone import model as models
from whetstone.chat import ask
from whetstone.decode import fused_forward
from whetstone.decode.engine import Engine
from whetstone.records import Prompt, Sampling

PACKED = fused_forward.PACKED_BYTES


def steps_of(engine: Engine, batch: int, steps: int, packed_bytes: int) -> Callable[[], Work]:
    """A decoding of which `steps` steps of `batch` sequences are timed; `packed_bytes` 0: nothing is packed."""

    def prepare() -> Work:
        fused_forward.PACKED_BYTES = packed_bytes
        asked: list[Prompt] = [ask("p", "What is 12 + 84?", index) for index in range(batch)]
        decoding = engine.decode(asked, Sampling(max_tokens=steps + 2, bias=never_end(engine)))
        decoding.step()

        def work() -> int:
            for _ in range(steps):
                decoding.step()
            return steps * batch

        return work

    return prepare


def never_end(engine: Engine) -> tuple[tuple[int, float], ...]:
    return tuple((stop, -float("inf")) for stop in engine.chat.stops)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model, tokenizer = models.load(chosen.model)
    engines = {"fp32": Engine(model, tokenizer), "int8": Engine(model, tokenizer, int8=True)}
    cases = [
        Case(
            f"batch {batch}, {name}",
            "tokens",
            steps_of(engine, batch, chosen.steps, PACKED),
            steps_of(engines["fp32"], batch, chosen.steps, 0),
        )
        for batch in chosen.batch
        for name, engine in engines.items()
    ]
    write(compare("packed_decode", cases, chosen.repeats, ["whetstone", "torch", "transformers"]), chosen.json)


if __name__ == "__main__":
    main()
