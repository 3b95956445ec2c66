"""How far the sampler's log-probabilities are from the learner's, for each pair of number types, on GSM8K.

    python -m benchmarks sampler_gap --model FOLDER --json FILE

For each type of the sampler: rollouts of GSM8K problems at temperature 1, whose tokens the learner recomputes in each of its
types, from the same fp32 weights. `mean` and `largest` are |log-probability gaps| in nats per sampled token; RL warns above a
mean of 0.02 (`tripwires.sampler_gap`). `greedy`: the share of tokens on which the sampler's type and fp32 agree, over fp32's
own greedy answers. Types that the processor has no instructions for are emulated by torch: the rounding is the same, and no
speed is measured. Data: GSM8K's test file in WHETSTONE_DATA.
"""

import argparse
import gzip
import json
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from benchmarks._measure import hardware, versions, write
from whetstone import model as models
from whetstone.batch import Row
from whetstone.chat import ask
from whetstone.decode.engine import Engine
from whetstone.learner.learner import Learner
from whetstone.records import Completion, Prompt, Sampling
from whetstone.run.settings import ParallelSettings

SAMPLERS = ("float32", "bfloat16", "float16", "int8")
LEARNERS = ("float32", "bfloat16")


def questions(count: int) -> list[str]:
    path = Path(os.environ.get("WHETSTONE_DATA", "data")) / "gsm8k" / "test.jsonl.gz"
    if not path.exists():
        raise SystemExit(f"error: {path} is missing: set WHETSTONE_DATA to a folder with GSM8K.")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["question"] for line, _ in zip(lines, range(count), strict=False)]


def engine_of(folder: Path, kind: str) -> Engine:
    model, tokenizer = models.load(folder, "cpu", "float32" if kind == "int8" else kind)
    return Engine(model, tokenizer, int8=kind == "int8")


def gaps(learner: Learner, done: Sequence[Completion], temperature: float) -> dict[str, Any]:
    rows = [Row([*c.prompt_ids, *c.ids], prompt=len(c.prompt_ids)) for c in done]
    seen = learner.row_logprobs(rows, temperature)
    found = torch.cat([(s - torch.tensor(c.logprobs)).abs() for s, c in zip(seen, done, strict=True)])
    return {"tokens": len(found), "mean": float(found.mean()), "largest": float(found.max())}


def agreement(engine: Engine, greedy: Sequence[Completion]) -> float:
    """The share of the tokens of greedy answers that this engine would choose too, each after the answer so far."""
    starts = [(c, n) for c in greedy for n in range(0, len(c.ids), 8)]
    sequences = []
    for number, (answer, n) in enumerate(starts):
        sequence = engine.sequence(Prompt(str(number), 0, ask("p", "", 0).messages), Sampling(0.0, 1))
        sequence.prompt_ids = [*answer.prompt_ids, *answer.ids[:n]]
        sequences.append(sequence)
    decoding, same = engine.decode_sequences(sequences), 0
    while decoding.busy:
        for done in decoding.step():
            answer, n = starts[int(done.problem_id)]
            same += done.ids[0] == answer.ids[n]
    return same / len(starts)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128, help="of the longest rollout")
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS)
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=LEARNERS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    asked = [ask(f"p{i}", question, 0) for i, question in enumerate(questions(chosen.problems))]
    master, tokenizer = models.load(chosen.model)
    size = Engine(master, tokenizer).chat.size
    learners = {kind: Learner(master, size, ParallelSettings(compute=kind)) for kind in chosen.learners}
    greedy = list(Engine(master, tokenizer).generate(asked, Sampling(0.0, chosen.tokens)))
    result: dict[str, Any] = {"name": "sampler_gap", "date": date.today().isoformat(), "cases": []}
    for kind in chosen.samplers:
        engine = engine_of(chosen.model, kind)
        done = list(engine.generate(asked, Sampling(1.0, chosen.tokens, seed=1)))
        same = agreement(engine, greedy)
        for name, learner in learners.items():
            row = {"sampler": kind, "learner": name, **gaps(learner, done, 1.0), "greedy": same}
            result["cases"].append(row)
            print(
                f"sampler {kind:9} learner {name:9} {row['tokens']:,} tokens: mean {row['mean']:.2e}, largest "
                f"{row['largest']:.2e} nats; greedy tokens as in fp32 {same:.1%}",
                flush=True,
            )
            write(
                result | {"hardware": hardware(), "versions": versions(["whetstone", "torch", "transformers"])},
                chosen.json,
            )


if __name__ == "__main__":
    main()
