"""Generations that other harnesses saved, as rows of ours (`measure.as_row`), with their verdicts in `theirs`.

lm-eval      samples_TASK_DATE.jsonl (--log_samples): a row per document and filter; the texts are in `resps`
lighteval    details_TASK_DATE.parquet (--save-details): a row per document, with `model_response` (before 0.11: `predictions`)
evalchemy    results_DATE.json: `examples` of each task, with `model_outputs` or `model_output`

The reference answer and the question are read as our own description of the set says, if the task is one of a known set and
its reader fits; else from the target that the harness compared with.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from whetstone.problems.reading import Reading, after_hashes, last_box
from whetstone.problems.row import BrokenRow
from whetstone.problems.sets import known_sets
from whetstone.problems.table import read_table
from whetstone.run.mistakes import first_few
from whetstone.run.names import fitting_name

Row = dict[str, Any]
DATE = re.compile(r"_\d{4}-\d\d-\d\dT[\d.:-]+$")
QUESTIONS = ("question", "problem", "prompt", "input", "query")  # where a document has its question
ACCEPTED = "samples_*.jsonl of lm-eval (--log_samples), details_*.parquet of lighteval, results_*.json of evalchemy"
# Task names of harnesses that do not begin with ours
ALIASES = {
    **dict.fromkeys(("math_500", "hendrycks_math500", "minerva_math500", "MATH500"), "math500"),
    **dict.fromkeys(("aime_2024", "AIME24"), "aime24"),
    **dict.fromkeys(("gpqa:diamond", "GPQADiamond"), "gpqa_diamond"),
    **dict.fromkeys(("aime_2025", "AIME25"), "aime25"),
    "AMC23": "amc23",
}
# Parts of task names that ask the same problems in another way
WAYS = frozenset(
    (
        "cot", "zeroshot", "fewshot", "n", "shot", "llama", "self", "consistency", "generative", "nofigures", "main", "avg",
        "gpassk",
    )
)  # fmt: skip


def sample_files(folder: Path) -> list[Path]:
    """The files of a harness in a folder, the newest of each task. Raises ValueError if they are of several models."""
    found = [p for pattern in ("samples_*.jsonl", "details_*.parquet") for p in folder.rglob(pattern)]
    places = sorted({_of_model(path) for path in found})
    if len(places) > 1:
        raise ValueError(
            f"{folder} holds generations in {first_few([str(place.relative_to(folder)) for place in places], 4)}: several "
            "models, or several runs of one. Name one of these folders."
        )
    return list({_task(path): path for path in sorted(found, key=lambda path: path.stem)}.values())


def _of_model(path: Path) -> Path:
    """The folder of a file's model: lighteval makes one of each date in it."""
    return path.parent.parent if DATE.fullmatch(f"_{path.parent.name}") else path.parent


def read_harness(paths: Sequence[Path]) -> dict[str, list[Row]]:
    """Benchmark -> samples; two tasks of one known set keep their own names. Raises ValueError for a file that no harness
    wrote, or that holds no text.
    """
    tasks = {}
    for path in paths:
        for task, rows in _tasks(path).items():
            if not rows:
                raise ValueError(
                    f"{path} holds no generations of {task}: multiple choice by likelihood has no texts to grade."
                )
            tasks[task] = rows
    names = Counter(map(_benchmark, tasks))
    return {name if names[name := _benchmark(task)] == 1 else fitting_name(task): rows for task, rows in tasks.items()}


def _task(path: Path) -> str:
    """
    >>> _task(Path("samples_gsm8k_cot_2026-11-30T05-01-02.123456.jsonl"))
    'gsm8k_cot'
    >>> _task(Path("details_aime24|0_2025-11-05T14-43-47.148527.parquet"))
    'aime24'
    """
    return DATE.sub("", path.stem).removeprefix("samples_").removeprefix("details_").split("|")[0]


def _benchmark(task: str) -> str:
    """The name of our set that a task is of, else the task's own.

    >>> _benchmark("gsm8k_cot"), _benchmark("lighteval|gpqa:diamond"), _benchmark("my_task")
    ('gsm8k', 'gpqa_diamond', 'my_task')
    >>> _benchmark("gsm8k_platinum_cot"), _benchmark("minerva_math_algebra")  # other problems than gsm8k's, minerva_math's
    ('gsm8k_platinum_cot', 'minerva_math_algebra')
    """
    name = task.split("|")[1] if task.startswith("lighteval|") else task
    name = ALIASES.get(name, name)
    fitting = [known for known in known_sets() if name == known or WAYS.issuperset(_rest(name, known))]
    return max(fitting, key=len, default=fitting_name(name))


def _rest(name: str, known: str) -> list[str]:
    """The parts of a task's name behind that of a set; one that is no way of asking if it begins otherwise."""
    return name.removeprefix(f"{known}_").split("_") if name.startswith(f"{known}_") else [""]


def _tasks(path: Path) -> dict[str, list[Row]]:
    if path.suffix == ".json":
        return {task: list(_evalchemy(path, task, result)) for task, result in _results(path).items()}
    rows = [row for _, row in read_table(path)]
    if broken := next((row for row in rows if isinstance(row, BrokenRow)), None):
        raise ValueError(f"{path}: a row cannot be read, {broken}. A score without it would be of other problems.")
    task, keys = _task(path), set(rows[0]) if rows else set()
    for wanted, read in ((LM_EVAL, _lm_eval), (LIGHTEVAL, _lighteval), (OLD_LIGHTEVAL, _old_lighteval)):
        if wanted <= keys:
            return {task: list(read(path, task, rows))}
    raise ValueError(f"{path} is not a file of generations that is known: it has {', '.join(sorted(keys)) or 'no rows'}. "
                     f"Accepted are {ACCEPTED}.")  # fmt: skip


# --- lm-eval

LM_EVAL = {"doc_id", "doc", "target", "resps"}


def _lm_eval(path: Path, task: str, rows: list[Row]) -> Iterator[Row]:
    """A document has a row for each filter, with the same texts."""
    by_document: dict[Any, list[Row]] = {}
    for row in rows:
        by_document.setdefault(row["doc_id"], []).append(row)
    for number, same in by_document.items():
        first = same[0]
        texts = first["resps"][0] if first["resps"] else []
        texts = [texts] if isinstance(texts, str) else texts
        if not all(isinstance(text, str) for text in texts):  # (log-likelihood, is greedy)
            continue
        asked = (
            next(iter((first.get("arguments") or {}).values()), {}) if isinstance(first.get("arguments"), dict) else {}
        )
        prompt = asked.get("arg_0", "") if isinstance(asked, dict) else ""
        theirs = {name: mark for row in same for name, mark in _lm_eval_marks(row)}
        reading = partial(_reading, task, first["doc"], first["target"], prompt)
        yield from _samples(path, f"{task}-{number}", task, reading, texts, theirs if len(texts) == 1 else {})


def _lm_eval_marks(row: Row) -> Iterator[tuple[str, bool | None]]:
    """The verdicts of a row's filter, one for each metric."""
    metrics, name = row.get("metrics") or ["exact_match"], str(row.get("filter", "none"))
    for metric in metrics:
        yield name if len(metrics) == 1 else f"{name}, {metric}", _mark(row.get(metric))


# --- lighteval

LIGHTEVAL = {"doc", "model_response", "metric"}
OLD_LIGHTEVAL = {"predictions", "gold", "full_prompt"}


def _lighteval(path: Path, task: str, rows: list[Row]) -> Iterator[Row]:
    for number, row in enumerate(rows):
        document, texts = _plain(row["doc"]), _plain(row["model_response"]).get("text") or []
        golds = document.get("gold_index")
        target = document["choices"][golds[0] if isinstance(golds, list) else golds] if document.get("choices") else ""
        prompt = document.get("original_query") or document.get("query") or ""
        reading = partial(_reading, task, document.get("specific") or {}, target, prompt)
        theirs = {name: _mark(value) for name, value in _plain(row["metric"]).items()} if len(texts) == 1 else {}
        yield from _samples(path, f"{task}-{number}", task, reading, texts, theirs)


def _old_lighteval(path: Path, task: str, rows: list[Row]) -> Iterator[Row]:
    for number, row in enumerate(rows):
        texts, golds = _plain(row["predictions"]), _plain(row["gold"])
        texts, target = [texts] if isinstance(texts, str) else texts, golds[0] if isinstance(golds, list) else golds
        metrics = _plain(row.get("metrics") or {})
        theirs = {name: _mark(value) for name, value in metrics.items()} if len(texts) == 1 else {}
        reading = partial(_reading, task, {}, target, row["full_prompt"])
        yield from _samples(path, f"{task}-{number}", task, reading, texts, theirs)


def _plain(value: Any) -> Any:
    """Older versions wrote nested values as Python's text of them."""
    if isinstance(value, str) and value[:1] in "[{":
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError):
            return value
    return value


# --- evalchemy


def _results(path: Path) -> Mapping[str, Any]:
    try:
        results = json.loads(path.read_text(encoding="utf-8")).get("results")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no results file of evalchemy ({error}). Accepted are {ACCEPTED}.") from error
    found = {
        task: result for task, result in (results or {}).items() if isinstance(result, dict) and "examples" in result
    }
    if not found:
        raise ValueError(f"{path} has no `results` with `examples`, which evalchemy writes. Accepted are {ACCEPTED}.")
    return found


def _evalchemy(path: Path, task: str, result: Mapping[str, Any]) -> Iterator[Row]:
    for number, example in enumerate(result["examples"]):
        texts = example["model_outputs"] if "model_outputs" in example else [example["model_output"]]
        target = str(example.get("expected_answer", example.get("answer", "")))
        reading = partial(_reading, task, example, target, "")
        yield from _samples(path, f"{task}-{number}", task, reading, texts, {})


# --- a document


def _reading(task: str, document: Any, target: Any, prompt: str) -> tuple[Reading, str]:
    """The question and the reference answer, and the policy that compares them."""
    name = _benchmark(task)
    described = known_sets().get(name)
    if described and isinstance(document, dict):
        try:
            return described.read(document), described.policy or "math"
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            pass  # a harness's own columns
    texts = (document.get(key) for key in QUESTIONS) if isinstance(document, dict) else ()
    question = next((text for text in texts if isinstance(text, str) and text.strip()), prompt)
    answer = target[0] if isinstance(target, list) and target else target
    answer = str(answer if answer is not None else "")
    answer = after_hashes(answer) or last_box(answer) or answer.strip()
    return Reading(question, answer), (described and described.policy) or "math"


def _samples(
    path: Path, identity: str, task: str, read: partial, texts: Sequence[str], theirs: Mapping[str, bool | None]
) -> Iterator[Row]:  # fmt: skip
    reading, policy = read()
    if not reading.answer:
        raise ValueError(f"{path}: {identity} has no reference answer, so its texts cannot be graded.")
    for index, text in enumerate(texts):
        yield {
            "problem_id": identity, "index": index, "question": reading.question, "gold": reading.answer,
            "policy": reading.policy or policy, "level": reading.level, "domain": reading.domain, "text": text,
            "correct": next(iter(theirs.values()), None), "theirs": dict(theirs), "stop": "", "tokens": 0,
        }  # fmt: skip


def _mark(value: Any) -> bool | None:
    """A verdict of 0 or 1; None for a share of several, or what is no number."""
    return bool(value) if value in (0, 1, True, False) else None
