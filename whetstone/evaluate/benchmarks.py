"""Known problem sets: where their file lies below `$WHETSTONE_DATA`, which columns it has, how its answer is read.

The README beside the data names source and licence of each. A set's answer policy is declared here, never guessed.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Benchmark:
    file: str  # below $WHETSTONE_DATA
    question: str | Callable[[Row], str]  # a column, or how to make it from the row
    answer: str | Callable[[Row], str]
    policy: str = "math"
    labels: Mapping[str, str | Callable[[Row], Any]] = field(default_factory=dict)  # level and domain
    unanswered: int = 0  # rows that the source itself gives no answer to; they are left out


def last_box(text: str) -> str:
    r"""What the last `\boxed{…}` of a solution holds, braces counted; "" where there is none.

    >>> last_box(r"so $\boxed{\frac{1}{2}}$.")
    '\\frac{1}{2}'
    """
    start = text.rfind("\\boxed")
    if start < 0:
        return ""
    rest = text[start + len("\\boxed") :].lstrip()
    if not rest.startswith("{"):  # \boxed 5
        return rest.split("$")[0].strip()
    depth = 0
    for place, letter in enumerate(rest):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return rest[1:place]
    return ""


def _number(value: float | str) -> str:
    """27.0 -> 27: these files hold whole answers as floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _options(question: str, options: list[str]) -> str:
    return question + "\n" + "\n".join(options)


def _lettered(choices: list[str]) -> list[str]:
    return [f"{letter}. {choice}" for letter, choice in zip("ABCDEFGHIJ", choices, strict=False)]


def _math_level(row: Row) -> int | None:
    found = re.search(r"\d", str(row["level"]))
    return int(found[0]) if found else None


def _boxed_solution(row: Row) -> str:
    return last_box(row["solution"])


def _first_final_answer(row: Row) -> str:
    return row["final_answer"][0]


def _mmlu_question(row: Row) -> str:
    return _options(row["question"], _lettered(row["choices"]))


def _mmlu_answer(row: Row) -> str:
    return "ABCDEFGHIJ"[row["answer"]]


def _gsm8k_answer(row: Row) -> str:
    return row["answer"].rpartition("####")[2].replace(",", "").strip()


def _asdiv_question(row: Row) -> str:
    return f"{row['body'].strip()} {row['question'].strip()}"


def _asdiv_answer(row: Row) -> str:
    """`9 (apples)` -> 9: the unit in brackets is a remark."""
    return re.sub(r"\s*\([^()]*\)\s*$", "", row["answer"]).strip()


def _target(row: Row) -> str:
    return _number(row["target"])


def _gpqa_question(row: Row) -> str:
    return row["prompt"][-1]["value"] if "value" in row["prompt"][-1] else row["prompt"][-1]["content"]


def _with_context(row: Row) -> str:
    return f"{row['context']}\n{row['question']}" if row["context"] else row["question"]


MATH_LABELS: Mapping[str, str | Callable[[Row], Any]] = {"level": _math_level, "domain": "type"}

BENCHMARKS: dict[str, Benchmark] = {
    "gsm8k": Benchmark("gsm8k/test.jsonl.gz", "question", _gsm8k_answer, "number"),
    "gsm_hard": Benchmark("gsm_hard/gsmhardv2.jsonl.gz", "input", _target, "number"),
    "math": Benchmark("math/test.jsonl.gz", "problem", _boxed_solution, labels=MATH_LABELS),
    "math500": Benchmark("math500/test.jsonl.gz", "problem", "answer", labels={"level": "level", "domain": "subject"}),
    "aime24": Benchmark("aime24/test.jsonl.gz", "problem", "answer", "aime"),
    "amc23": Benchmark("amc23/test.jsonl.gz", "problem", lambda row: _number(row["answer"])),
    "minerva_math": Benchmark("minerva_math/test.jsonl.gz", "problem", _boxed_solution, labels={"domain": "type"}),
    "olympiadbench": Benchmark(
        "olympiadbench/test.jsonl.gz", _with_context, _first_final_answer, labels={"domain": "subfield"}
    ),
    "gaokao2023en": Benchmark("gaokao2023en/test.jsonl.gz", "question", "answer", unanswered=2),
    "mawps": Benchmark("mawps/test.jsonl.gz", "input", _target, "number", {"domain": "type"}),
    "asdiv": Benchmark("asdiv/test.jsonl.gz", _asdiv_question, _asdiv_answer, "number", {"domain": "solution_type"}),
    "aqua_rat": Benchmark(
        "aqua_rat/test.json.gz", lambda r: _options(r["question"], r["options"]), "correct", "choice"
    ),
    "mmlu_stem": Benchmark("mmlu_stem/test.jsonl.gz", _mmlu_question, _mmlu_answer, "choice", {"domain": "type"}),
    "gpqa_diamond": Benchmark("gpqa_diamond/gpqa_diamond.json.gz", _gpqa_question, "final_answer", "choice"),
}


def find_file(name: str) -> Path:
    """The file of a known problem set. Raises ValueError for an unknown name and where the data is not there."""
    if name not in BENCHMARKS:
        raise ValueError(
            f"benchmark {name!r} is neither a file nor a known name. Name a .jsonl, .json, .csv or .parquet file "
            f"with a question and an answer column, or one of {', '.join(BENCHMARKS)}."
        )
    folder = os.environ.get("WHETSTONE_DATA")
    if not folder:
        raise ValueError(
            f"benchmark {name!r} is read from the folder named by WHETSTONE_DATA, which is not set. Set it to a folder "
            f"that holds {BENCHMARKS[name].file}."
        )
    path = Path(folder) / BENCHMARKS[name].file
    if not path.is_file():
        raise ValueError(
            f"benchmark {name!r}: {path} is not there. Put the file there, or set WHETSTONE_DATA to where it is."
        )
    return path


def read_field(row: Row, how: str | Callable[[Row], Any]) -> Any:
    return how(row) if callable(how) else row[how]
