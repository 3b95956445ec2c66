"""CPU seconds per token of two processes that train together, compared with one process: forked replicas, DDP, FSDP2.

Whole optimizer steps: collating, forward, backward, adding gradients up, clipping, AdamW. One thread per process. Starting the
processes and the first step are not timed. A ratio is tokens per CPU second of two over that of one: 0.87 means that a token
costs 1.15 times as much.
"""

import argparse
import multiprocessing
import os
import random
import socket
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks._measure import Case, Work, compare, write
from whetstone import model as models
from whetstone.batch import Row
from whetstone.learner.learner import Learner
from whetstone.learner.next_token import next_token_loss, token_mean
from whetstone.run.settings import ModelSettings, ParallelSettings

REPEATS = 3
WARM_UP = 512  # tokens
MODELS = {  # (shape, tokens of an optimizer step, steps of a repeat)
    "0.65 M, 512 tokens": (ModelSettings(layers=3, hidden=128, mlp=384, heads=4, kv_heads=2), 512, 6),
    "0.65 M, 4096 tokens": (ModelSettings(layers=3, hidden=128, mlp=384, heads=4, kv_heads=2), 4096, 1),
    "5 M, 4096 tokens": (ModelSettings(layers=6, hidden=256, mlp=704, heads=8, kv_heads=8), 4096, 1),
}
WAYS = {  # the last two are made for GPUs
    "replicas": {"forks": 2},
    "ddp": {"processes": 2, "shard": "ddp"},
    "fsdp": {"processes": 2, "shard": "fsdp"},
}
TARGET = 1 / 1.15  # of the replicas, with steps of 4096 tokens


def learner(shape: ModelSettings, **parallel: object) -> Learner:
    model, _ = models.build_tiny(shape, ["a text"], seed=0)
    return Learner(model, model.config.vocab_size, ParallelSettings(device="cpu", **{"forks": 1, **parallel}))


def step_of(tokens: int, step: int) -> list[list[Row]]:
    """Rows of 32 to 512 ids, log-uniform, with about `tokens` tokens together."""
    rng, rows, used = random.Random(step), [], 0
    while used < tokens:
        length = min(int(32 * 16 ** rng.random()), tokens - used + 32)
        rows.append(Row([rng.randrange(250) for _ in range(length)]))
        used += length
    return [[row] for row in token_mean(rows)]


def train(trained: Learner, data: Sequence[list[list[Row]]]) -> int:
    for groups in data:
        trained.gradient(groups, next_token_loss)
        trained.step(1e-4)
    return sum(len(row.ids) for groups in data for (row,) in groups)


def in_this_process(shape: ModelSettings, tokens: int, steps: int, **parallel: object) -> Work:
    """Alone, or with forked replicas."""
    trained = learner(shape, **parallel)
    train(trained, [step_of(WARM_UP, 0)])
    data = [step_of(tokens, 1 + step) for step in range(steps)]

    def work() -> int:
        done = train(trained, data)
        trained.close()
        return done

    return work


def in_group(shape: ModelSettings, tokens: int, steps: int, **parallel: object) -> Work:
    """Two processes of torch.distributed over gloo, which wait for requests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe() for _ in range(2)]
    processes = [
        fork.Process(target=_member, args=(rank, port, pipes[rank][1], shape, tokens, steps, parallel))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for ours, _ in pipes:
        ours.recv()

    def work() -> int:
        for ours, _ in pipes:
            ours.send("go")
        done = [ours.recv() for ours, _ in pipes]
        for process in processes:
            process.join()
        return done[0]

    return work


def _member(
    rank: int, port: int, pipe: Connection, shape: ModelSettings, tokens: int, steps: int, parallel: dict[str, object]
) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    trained = learner(shape, **parallel)
    train(trained, [step_of(WARM_UP, 0)])
    data = [step_of(tokens, 1 + step) for step in range(steps)]
    pipe.send("ready")
    pipe.recv()
    pipe.send(train(trained, data))


def case(model: str, way: str) -> Case:
    shape, tokens, steps = MODELS[model]
    start: Callable[..., Work] = in_this_process if way == "replicas" else in_group
    return Case(
        f"{model}, {way}",
        "tokens",
        lambda: start(shape, tokens, steps, **WAYS[way]),
        lambda: in_this_process(shape, tokens, steps),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="of dividing a step (default: all)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cases = [case(model, way) for model in MODELS for way in chosen.ways]
    result = compare("learner_processes", cases, chosen.repeats, ["whetstone", "torch", "transformers"])
    print("\nCPU seconds per token, as a multiple of one process's:")
    for row in result["cases"]:
        print(f"{row['case']:32} {1 / row['ratio']:.2f} [{1 / row['high']:.2f}, {1 / row['low']:.2f}]")
    aimed = [row for row in result["cases"] if row["case"].endswith("4096 tokens, replicas")]
    worst = min(row["ratio"] for row in aimed)
    print(f"replicas, steps of 4096 tokens: {1 / worst:.2f}; the aim is at most {1 / TARGET:.2f}")
    write(result, chosen.json)


if __name__ == "__main__":
    main()
