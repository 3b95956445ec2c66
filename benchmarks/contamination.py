"""Decontamination: leaks planted into 100,000 rows, and what the public sets of WHETSTONE_DATA share with each other.

    WHETSTONE_DATA=data python -m benchmarks contamination --json benchmarks/results/contamination.json

Leaks are test questions of math500, aime24 and gsm8k, verbatim or changed; every other row is a training question, as it is
or with other numbers. Recall is the share of leaks that are found. False positives are other rows called contaminated; all are
listed.
"""

import argparse
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._labelled import data
from benchmarks._measure import hardware, own_cpu, resident_memory, versions, write
from whetstone.corpus.contamination import CONTAMINATED, RULES, Match, TestQuestions
from whetstone.problems.table import read_table
from whetstone.records import Problem

LEAKED = ("math500", "aime24", "gsm8k/test")
TRAINING = ("gsm8k/train", "math/train", "aqua_rat/dev", "asdiv", "mawps", "openmathinstruct2_sample")
SETS = {  # name -> file and column of the question
    "gsm8k/train": ("gsm8k/train.jsonl.gz", "question"),
    "gsm8k/test": ("gsm8k/test.jsonl.gz", "question"),
    "gsm_hard": ("gsm_hard/gsmhardv2.jsonl.gz", "input"),
    "math/train": ("math/train.jsonl.gz", "problem"),
    "math/test": ("math/test.jsonl.gz", "problem"),
    "math500": ("math500/test.jsonl.gz", "problem"),
    "math_train_difficulty": ("math_train_difficulty/math.json.gz", "problem"),
    "aime24": ("aime24/test.jsonl.gz", "problem"),
    "aime_1983_2023": ("aime_1983_2023/aime.json.gz", "problem"),
    "amc23": ("amc23/test.jsonl.gz", "problem"),
    "minerva_math": ("minerva_math/test.jsonl.gz", "problem"),
    "olympiadbench": ("olympiadbench/test.jsonl.gz", "question"),
    "gaokao2023en": ("gaokao2023en/test.jsonl.gz", "question"),
    "asdiv": ("asdiv/test.jsonl.gz", "body"),
    "mawps": ("mawps/test.jsonl.gz", "input"),
    "aqua_rat/dev": ("aqua_rat/dev.json.gz", "question"),
    "aqua_rat/test": ("aqua_rat/test.json.gz", "question"),
    "openmathinstruct2_sample": ("openmathinstruct2_sample/openmathinstruct2.jsonl.gz", "problem"),
}
LISTED = 0.01  # a pair of sets is printed if at least this share of a set's questions match; the JSON has all
NUMBER = re.compile(r"\d+")
SENTENCE = re.compile(r"(?<=[.?!])\s+")


def questions(name: str) -> list[str]:
    path, column = SETS[name]
    rows = (row for _, row in read_table(data() / path) if isinstance(row, dict))
    return [f"{row['body']} {row['question']}" if name == "asdiv" else str(row[column]) for row in rows]


def as_problems(name: str, texts: Iterable[str]) -> Iterator[Problem]:
    return (Problem(f"{name}/{n}", text, "", "test", name) for n, text in enumerate(texts, 1))


# --- leaks ---


def verbatim(text: str, rng: random.Random) -> str:
    return text


def white_space(text: str, rng: random.Random) -> str:
    """Changes spaces between words, around dollar signs and after commas, and line breaks."""
    spaced = re.sub(r"\s+", lambda _: rng.choice((" ", "  ", "\n", "\t", " \n ", "\u00a0")), text)
    spaced = re.sub(r"\$", lambda _: rng.choice(("$", " $", "$ ")), spaced)
    return f"\n {spaced} "


LATEX: tuple[tuple[str, Any], ...] = (
    (r"\\frac(?=[{\d])", r"\\dfrac"),
    (r"\\dfrac\{(\d)\}\{(\d)\}", r"\\frac\1\2"),
    (r"\\left\s*|\\right\s*", ""),
    (r"\\cdot(?![a-z])", r"\\times"),
    (r"\\le(?:q|qslant)?(?![a-z])", "≤"),
    (r"\\ge(?:q|qslant)?(?![a-z])", "≥"),
    (r"\^\{?\\circ\}?", "°"),
    (r"\^\{(\w)\}", r"^\1"),
    (r"\^(\d)(?!\d)", r"^{\1}"),
    (r"\\(?:ldots|dots|cdots)(?![a-z])", "…"),
    (r"\\pi(?![a-z])", "π"),
    (r"\\text\{([^{}]*)\}", r"\\mbox{\1}"),
    (r"\\(?:triangle)(?![a-z])", "△"),
    (r"\\angle(?![a-z])", "∠"),
    (r"(?<=\d),(?=\d{3})", r"{,}"),
    (r"(?<=[a-z\d])\s*=\s*(?=[\da-z\\])", r" \\, = \\; "),
    (r"\\infty(?![a-z])", "∞"),
)


def latex(text: str, rng: random.Random) -> str:
    """Changes LaTeX commands and delimiters to others of the same meaning; leaves plain text alone."""
    for pattern, other in LATEX:
        if rng.random() < 0.8:
            text = re.sub(pattern, other, text)
    opens = iter(range(10**6))
    if rng.random() < 0.7 and "$$" not in text:
        text = re.sub(r"(?<!\\)\$", lambda _: r"\)" if next(opens) % 2 else r"\(", text)
    return text


def word_order(text: str, rng: random.Random) -> str:
    """Sentences in another order, neighbours changed, or all words at random."""
    words = text.split()
    how = rng.randrange(3)
    sentences = SENTENCE.split(text)
    if how == 0 and len(sentences) > 1:
        return " ".join([*sentences[1:], sentences[0]])
    if how < 2:
        for place in range(0, len(words) - 1, 3):
            words[place], words[place + 1] = words[place + 1], words[place]
        return " ".join(words)
    rng.shuffle(words)
    return " ".join(words)


def embedded(text: str, rng: random.Random) -> str:
    before = (
        "Here is a problem from last week's sheet, which nobody solved.",
        "Solve the following task step by step.",
    )
    after = ("Give your answer in a box.", "A friend says that it is easy; do you agree? Explain every step you take.")
    return f"{rng.choice(before)} {text} {rng.choice(after)}"


LEAKS: dict[str, Callable[[str, random.Random], str]] = {
    "verbatim": verbatim,
    "white space": white_space,
    "latex": latex,
    "word order": word_order,
    "embedded": embedded,
}


def planted(count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(kind, changed question); LaTeX variants of questions with LaTeX in them. All of aime24 is among the leaks."""
    tests = {name: questions(name) for name in LEAKED}
    for kind, change in LEAKS.items():
        pool = [text for name in LEAKED[:2] for text in tests[name] if "\\" in text or "$" in text]
        if kind != "latex":
            pool = tests["math500"] + tests["gsm8k/test"]
        chosen = rng.sample(pool, min(len(pool), count - len(tests["aime24"])))
        for text in chosen + tests["aime24"]:
            changed = change(text, rng)
            if kind == "verbatim" or changed != text:
                yield kind, changed


def background(count: int, rng: random.Random) -> Iterator[str]:
    """Training questions, each as it is, then repeatedly with other numbers of the same number of digits."""
    texts = list(dict.fromkeys(text for name in TRAINING for text in questions(name)))
    yield from texts[:count]
    for place in range(count - len(texts)):
        yield NUMBER.sub(lambda number: str(_other(number[0], rng)), texts[place % len(texts)])


def _other(digits: str, rng: random.Random) -> int:
    return rng.randint(10 ** (len(digits) - 1), 10 ** len(digits) - 1)


# --- the two tables ---


def plant(rows: int, leaks: int, seed: int = 0) -> dict[str, Any]:
    rng = random.Random(seed)
    leaked = [(kind, text) for kind, text in planted(leaks, rng)]
    mixed = leaked + [("", text) for text in background(rows - len(leaked), rng)]
    rng.shuffle(mixed)
    test_problems = [problem for name in LEAKED for problem in as_problems(name, questions(name))]
    tests = TestQuestions(test_problems)
    planted_rows, caught, rules = Counter[str](), Counter[str](), defaultdict[str, Counter[str]](Counter)
    false: list[tuple[str, Match]] = []
    memory, cpu, wall = resident_memory(), own_cpu(), time.perf_counter()
    for kind, text in mixed:
        match = tests.match(text)
        planted_rows[kind] += 1
        if match is None:
            continue
        rules[kind][match.rule] += 1
        if match.contaminated:
            caught[kind] += 1
            if not kind:
                false.append((text, match))
    used = own_cpu() - cpu
    return {
        "rows": len(mixed),
        "test_questions": len(test_problems),
        "kinds": {
            kind: {
                "planted": planted_rows[kind],
                "recall": caught[kind] / planted_rows[kind],
                "rules": dict(rules[kind]),
            }
            for kind in LEAKS
        },
        "clean_rows": planted_rows[""],
        "false_positives": len(false),
        "false_positive_rate": len(false) / planted_rows[""],
        "look_alikes": rules[""]["other numbers"] + rules[""]["look-alike"],
        "listed": [{"row": text, "test": m.test_question, "rule": m.rule, "set": m.benchmark} for text, m in false],
        "rows_per_cpu_second": len(mixed) / used,
        "wall_seconds": time.perf_counter() - wall,
        "memory_grown_mb": (resident_memory() - memory) / 1e6,
    }


def overlaps(names: Sequence[str]) -> list[dict[str, Any]]:
    """For each two sets that share something: how many questions of the one match one of the other, by rule."""
    texts = {name: questions(name) for name in names}
    rows = []
    for other in names:
        index = TestQuestions(as_problems(other, texts[other]))
        for name in names:
            if name == other:
                continue
            counts = Counter(match.rule for match in map(index.match, texts[name]) if match)
            if counts:
                rows.append({"set": name, "in": other, "questions": len(texts[name]), **{r: counts[r] for r in RULES}})
    return sorted(rows, key=lambda row: -(row["questions"] and _shared(row)) / row["questions"])


def _shared(row: dict[str, Any]) -> int:
    return sum(row[rule] for rule in RULES)


def verdict(row: dict[str, Any]) -> str:
    """How two sets are related, in words."""
    contaminated, whole = sum(row[rule] for rule in CONTAMINATED), row["questions"]
    if contaminated >= 0.95 * whole:
        return f"{row['set']} is part of {row['in']}"
    if row["other numbers"] + row["look-alike"] >= 0.5 * whole:
        return f"{row['set']} is {row['in']} with other numbers"
    return f"{contaminated} questions of {row['set']} are in {row['in']}" if contaminated else ""


def show(result: dict[str, Any]) -> None:
    planted_, pairs = result["planted"], result["overlaps"]
    print(f"{planted_['rows']:,} rows against {planted_['test_questions']:,} test questions of {', '.join(LEAKED)}\n")
    print(f"{'leak':12} {'planted':>8} {'found':>8}   by rule")
    for kind, row in planted_["kinds"].items():
        rules = ", ".join(f"{rule} {count}" for rule, count in sorted(row["rules"].items()))
        print(f"{kind:12} {row['planted']:>8} {row['recall']:>8.1%}   {rules}")
    print(
        f"{'clean rows':12} {planted_['clean_rows']:>8,} {planted_['false_positive_rate']:>8.3%}   "
        f"{planted_['false_positives']} called contaminated, {planted_['look_alikes']} with other numbers or alike\n"
    )
    for row in planted_["listed"][:20]:
        print(f"    {row['rule']}: {row['row']!r:.150}\n    {row['set']}: {row['test']!r:.150}\n")
    print(
        f"{planted_['rows_per_cpu_second']:,.0f} rows per CPU second; memory grew by {planted_['memory_grown_mb']:.0f} MB\n"
    )
    print(f"{'questions of':25} {'in':25} {'rows':>6} " + " ".join(f"{rule:>13}" for rule in RULES))
    for row in pairs:
        if row["verdict"] and _shared(row) >= LISTED * row["questions"]:
            shares = " ".join(f"{row[rule]:>13,}" for rule in RULES)
            print(f"{row['set']:25} {row['in']:25} {row['questions']:>6,} {shares}   {row['verdict']}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows, leaks included (default: 100,000)")
    parser.add_argument("--leaks", type=int, default=500, help="leaks of each kind (default: 500)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    result = {
        "name": "contamination",
        "date": str(date.today()),
        "planted": plant(chosen.rows, chosen.leaks),
        "overlaps": [
            row | {"verdict": verdict(row)} for row in overlaps([n for n in SETS if (data() / SETS[n][0]).exists()])
        ],
        "hardware": hardware(),
        "versions": versions(["numpy"]),
    }
    show(result)
    write(result, chosen.json)


if __name__ == "__main__":
    main()
