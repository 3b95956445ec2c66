"""The labelled answers of WHETSTONE_DATA as rows of (text, reference, label), and pairs of answers that must differ."""

import gzip
import json
import os
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whetstone.verify import extract, get_policy, last_box

PLAIN = re.compile(r"-?\d+(?:\.\d+)?")
STYLE = re.compile(
    r"\\(?:text|mbox|textnormal|mathrm)\s*\{[^{}]*\}(?:\^\d)?|\^\{?\\circ\}?|\\[,!;$]|\$|[\s,.]+$|\s|,(?=\d{3})"
)
STEP = re.compile(r"^Step \d+:\s*")
PERCENT_SIGN_DROPPED = (
    "hendrycks/math",
    "NVIDIA/NeMo-Skills",
)  # these graders decide by numbers, as our policy `number` does
NEIGHBOURS = 8  # each reference is paired with the next ones in alphabetical order, which are spelled most alike


@dataclass(frozen=True)
class Labelled:
    """One answer. `peer_text` is what the peer gets: it needs dollar signs around a formula."""

    group: str
    text: str
    gold: str
    label: bool | None  # None: only the share of right ones was published
    peer_text: str
    peer_gold: str
    policy: str = "math"


def data() -> Path:
    """The folder of public data files. Ends the program if it is not set."""
    named = os.environ.get("WHETSTONE_DATA")
    if not named:
        sys.exit("WHETSTONE_DATA is not set: it names the folder of public data files that this benchmark reads.")
    return Path(named)


def lines(path: Path) -> Iterator[dict]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for line in file:
            yield json.loads(line)


def bare(group: str, answer: str, gold: str, label: bool | None) -> Labelled:
    return Labelled(group, answer, gold, label, f"${answer}$", f"${gold}$")


def whole(group: str, text: str, gold: str, label: bool | None) -> Labelled:
    return Labelled(group, text, gold, label, text, f"${gold}$")


def gsm8k_gpt3(folder: Path) -> Iterator[Labelled]:
    for row in lines(folder / "labelled_gsm8k_gpt3/example_model_solutions.jsonl.gz"):
        gold = row["ground_truth"].rpartition("\nA: ")[2]
        for name, model in row.items():
            if name not in ("question", "ground_truth"):
                yield whole("labelled_gsm8k_gpt3", model["solution"], gold, model["is_correct"])


def mathcoder(folder: Path) -> Iterator[Labelled]:
    """By question set; rows with plain numbers on both sides are a group of their own."""
    for path in sorted(folder.glob("labelled_mathcoder/*.jsonl.gz")):
        _, question_set, label, *_ = path.name.rsplit(".", 4)
        for row in lines(path):
            gold = row["ground_truth"]["answer"]
            gold = gold if isinstance(gold, str) else json.dumps(gold)
            plain = PLAIN.fullmatch(row["completion"]) and PLAIN.fullmatch(gold)
            group = f"labelled_mathcoder {question_set}, {'plain numbers' if plain else 'other answers'}"
            yield bare(group, row["completion"], gold, label == "correct")


def tora(folder: Path) -> Iterator[Labelled]:
    for row in lines(folder / "outputs_tora_gsm8k/tora-70b-v1.0.jsonl.gz"):
        yield bare("outputs_tora_gsm8k", row["pred"][0], str(row["gt"]), None)


def qwen_best_of_n(folder: Path) -> Iterator[Labelled]:
    for row in lines(folder / "labelled_math_qwen_bon/math_cot_100.jsonl.gz"):
        for solution, label in zip(row["code"], row["score"], strict=True):
            yield whole("labelled_math_qwen_bon", solution, str(row["gt"]), label)


def mr_gsm8k(folder: Path) -> Iterator[Labelled]:
    """Those whose last step states an answer; programs without their output have none."""
    for path in sorted(folder.glob("labelled_steps_mr_gsm8k/*.jsonl.gz")):
        for row in lines(path):
            steps = [STEP.sub("", step) for step in row["model_output_steps"]]
            if "####" in steps[-1] or "answer is" in steps[-1].lower():
                right = row["model_output_answer_correctness"] == "correct"
                yield whole("labelled_steps_mr_gsm8k", "\n".join(steps), str(row["ground_truth_answer"]), right)


def equivalence(folder: Path) -> Iterator[Labelled]:
    for row in lines(folder / "equivalence_cases/cases.jsonl"):
        texts = [str(row[side]) for side in ("pred", "gold")]
        dressed = [text if "$" in text or ("\\" in text and " " in text) else f"${text}$" for text in texts]
        policy = "number" if row["source"] in PERCENT_SIGN_DROPPED else "math"
        yield Labelled(f"equivalence_cases {row['source']}", *texts, row["expected"], *dressed, policy)


SETS = (gsm8k_gpt3, mathcoder, tora, qwen_best_of_n, mr_gsm8k, equivalence)


def references(folder: Path) -> list[str]:
    """The reference answers of MATH, OlympiadBench, Minerva and MMLU-STEM, one of each that differs in more than style."""
    answers: dict[str | float, str] = {}
    for part in ("train", "test"):
        for row in lines(folder / f"math/{part}.jsonl.gz"):
            answer = extract(row["solution"], get_policy("math_thinking")).answer
            if answer:
                answers.setdefault(plainly(answer), answer)
    for row in lines(folder / "olympiadbench/test.jsonl.gz"):
        for answer in row["final_answer"]:
            answers.setdefault(plainly(answer), answer.strip("$"))
    for row in lines(folder / "minerva_math/test.jsonl.gz"):
        if answer := last_box(row["solution"]):
            answers.setdefault(plainly(answer), answer)
    for row in lines(folder / "mmlu_stem/test.jsonl.gz"):
        answer = row["choices"][row["answer"]]
        answers.setdefault(plainly(answer), answer)
    return list(answers.values())


def plainly(gold: str) -> str | float:
    """A reference without units, spaces and style, to recognise equal ones. Uses no code of the verifier."""
    text = STYLE.sub("", gold.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))
    text = re.sub(r"_\d+$", "", re.sub(r"[{}]", "", text))
    try:
        return float(text)
    except ValueError:
        return text


def crossed(folder: Path, pairs: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """(completion, the reference of another problem that has another answer).

    First every right solution of `labelled_math_qwen_bon` with every other reference of that set; the rest are boxed
    references, half of them beside their neighbours in the alphabet, which look alike, half at random.
    """
    solved = [row for row in qwen_best_of_n(folder) if row.label]
    for gold in dict.fromkeys(row.gold for row in solved):
        yield from ((row.text, gold) for row in solved if plainly(row.gold) != plainly(gold))
    golds = sorted(references(folder))
    rng = random.Random(seed)
    near = [pair for step in range(1, NEIGHBOURS + 1) for pair in zip(golds, golds[step:], strict=False)]
    answers = dict.fromkeys(rng.sample(near, min(len(near), pairs // 2)))
    while len(answers) < min(pairs, len(golds) ** 2 // 2):
        answer, gold = rng.sample(golds, 2)
        answers.setdefault((answer, gold))
    yield from ((f"The answer is $\\boxed{{{answer}}}$.", gold) for answer, gold in answers)
