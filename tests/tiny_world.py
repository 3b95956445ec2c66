"""A model that half knows how to add, its corpus and its problems: what training rooms read, made in seconds."""

import json
from pathlib import Path

from tests.scripted import TINY, stage
from whetstone import midtrain
from whetstone import model as models
from whetstone.records import Pair, Problem, to_row
from whetstone.run.tables import write_records, write_rows

SUMS = [(a, b) for a in range(4) for b in range(4)]


def answer(a: int, b: int, slip: int = 0) -> str:
    return f"<think>\n{a}+{b}\n</think>\nThe answer is \\boxed{{{a + b + slip}}}."


def corpus_row(a: int, b: int, split: str = "train") -> dict:
    return {"problem_id": f"{a}+{b}", "question": f"Compute {a} + {b}.", "text": answer(a, b), "split": split}


def problem(a: int, b: int) -> Problem:
    return Problem(f"{a}+{b}", f"Compute {a} + {b}.", str(a + b), level=1)


def write_world(folder: Path) -> dict[str, Path]:
    """Folders of an untrained model, a corpus, its subset, problems, teacher pairs and prompts."""
    made = {name: folder / name for name in ("model", "corpus", "subset", "problems", "pairs", "prompts")}
    rows = [corpus_row(a, b) for a, b in SUMS]
    write_rows(made["corpus"], [*rows, corpus_row(1, 2, "validation"), corpus_row(3, 3, "validation")])
    write_rows(made["subset"], rows[:8])
    write_records(made["problems"], [problem(a, b) for a, b in SUMS])
    write_rows(made["prompts"], [to_row(problem(a, b)) | {"pass_rate": 0.5} for a, b in SUMS])
    pairs = [
        Pair(f"{a}+{b}", f"Compute {a} + {b}.", answer(a, b), answer(a, b, slip=1), source="teacher")
        for a, b in SUMS[:8]
    ]
    write_records(made["pairs"], pairs)
    models.save(*models.build_tiny(TINY, [f"{r['question']} {r['text']}" for r in rows], seed=0), made["model"])
    return made


def teach(folder: Path, world: dict[str, Path], epochs: float) -> Path:
    """The model after so many passes over the corpus: 15 leave it right about every third time."""
    settings = midtrain.Settings(kind="midtrain", epochs=epochs, batch_tokens=128, max_length=128, patience=0)
    midtrain.run(stage(folder, settings, corpus=world["corpus"], model=world["model"]))
    return folder / "model"


def logged(folder: Path, name: str) -> list:
    """A number of every step that has it, from metrics.jsonl."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row[name] for row in rows if name in row]
