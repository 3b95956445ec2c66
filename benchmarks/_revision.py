"""One revision's end of `revisions`: PYTHONPATH names that revision's tree.

Each argument is NAME=FOLDER, a model. `{"do": "train", "model", "rows"}` and `{"do": "decode", "model", "batch", "steps"}`
answer `{"tokens"}`.
"""

import os
import random
import sys
from functools import cache
from pathlib import Path
from typing import Any

FOLDERS = dict(argument.split("=", 1) for argument in sys.argv[1:])
SHORTEST, LONGEST = 32, 512  # of a row
RATE = 1e-6


def without_avx512() -> None:
    """Before other modules import these by name."""
    from whetstone.run import cpu

    for name in ("has_bf16_products", "has_bf16_vectors", "has_wide_vectors"):
        setattr(cpu, name, lambda: False)


@cache
def learner_of(name: str) -> Any:
    from whetstone import model as models
    from whetstone.learner.learner import Learner
    from whetstone.run.settings import ParallelSettings

    model, tokenizer = models.load(Path(FOLDERS[name]))
    return Learner(model, len(tokenizer), ParallelSettings(device="cpu", forks=1))


@cache
def engine_of(name: str) -> Any:
    from whetstone import model as models
    from whetstone.decode.engine import Engine

    return Engine(*models.load(Path(FOLDERS[name])))


def train(work: dict[str, Any]) -> int:
    from whetstone.batch import Row
    from whetstone.learner.next_token import next_token_loss, token_mean

    learner, rng = learner_of(work["model"]), random.Random(0)
    lengths = [round(SHORTEST * (LONGEST / SHORTEST) ** rng.random()) for _ in range(work["rows"])]
    rows = [Row([rng.randrange(10, 400) for _ in range(length)], prompt=1) for length in lengths]
    learner.gradient([[row] for row in token_mean(rows)], next_token_loss)
    learner.step(RATE)
    return sum(lengths)


def decode(work: dict[str, Any]) -> int:
    from whetstone.chat import ask
    from whetstone.records import Sampling

    engine, batch, steps = engine_of(work["model"]), work["batch"], work["steps"]
    never = tuple((stop, -float("inf")) for stop in engine.chat.stops)
    prompts = [ask("p", "What is 12 + 84?", index) for index in range(batch)]
    decoding = engine.decode(prompts, Sampling(max_tokens=steps + 1, bias=never))
    while decoding.busy:
        decoding.step()
    return batch * steps


if __name__ == "__main__":
    from _peer_pipe import serve, take_output

    pipe = take_output()
    if os.environ.get("WHETSTONE_WITHOUT_AVX512"):
        without_avx512()
    doing = {"train": train, "decode": decode}
    serve(pipe, lambda work: {"tokens": doing[work["do"]](work)})
