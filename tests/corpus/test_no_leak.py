"""recipes/smollm2.toml trains on no test question: not with other numbers, not backwards, not from a model's outputs on it.

The oracle is this file's own: letters alone, every number and x masked.
"""

import gzip
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from tests import scripted
from whetstone.corpus import build
from whetstone.questions import gather
from whetstone.recipe import read_recipe
from whetstone.run.tables import read_rows

RECIPE = Path(__file__).parents[2] / "recipes" / "smollm2.toml"
DATA = os.environ.get("WHETSTONE_DATA", "")
NUMBER = re.compile(
    r"\d[\d,.]*|\b(?:x|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen"
    r"|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand)\b"
)
ALL_TRAIN = (
    "corpus.reserve=0", "questions.source.0.test=0.2", "questions.source.0.validation=0", "questions.metamath.resample=2",
    "questions.metamath.fobar=1", "questions.metamath.self_verification=1",
)  # fmt: skip
TEST_FILES = {  # questions that nothing may be trained on -> their column
    "gsm8k/test.jsonl.gz": "question",
    "gsm_hard/gsmhardv2.jsonl.gz": "input",
    "math500/test.jsonl.gz": "problem",
    "mawps/test.jsonl.gz": "input",
    "outputs_tora_gsm8k/tora-70b-v1.0.jsonl.gz": "question",
    "labelled_gsm8k_gpt3/example_model_solutions.jsonl.gz": "question",
}


def masked(text: str) -> str:
    return " ".join(re.findall("[a-z]+|#", re.sub("(?:# ?-?)+", " # ", NUMBER.sub("#", text.lower()))))


def write(folder: Path, name: str, rows: Iterable[dict]) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / name, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read(name: str) -> list[dict]:
    with gzip.open(Path(DATA) / name, "rt") as file:
        return [json.loads(line) for line in file]


def taught(folder: Path, monkeypatch, *sets: str) -> list[str]:
    """The questions that the recipe would train on, with the data in `folder`."""
    monkeypatch.setenv("WHETSTONE_DATA", str(folder))
    recipe = read_recipe(RECIPE, [*ALL_TRAIN, *sets])
    questions = scripted.stage(folder / "01", recipe.stage("questions").settings)
    gather.run(questions)
    corpus = scripted.stage(folder / "02", recipe.stage("corpus").settings, problems=questions.output("problems"))
    build.run(corpus)
    return [row["question"] for row in read_rows(corpus.output("prompts"))]


def leaks(trained: Sequence[str], tests: Iterable[str]) -> list[tuple[str, str]]:
    """(training question, test question) where the masked test question is in the masked training question."""
    known = {mask: test for test in tests if len((mask := masked(test)).split()) >= 8}
    starts: dict[str, list[str]] = {}
    for mask in known:
        starts.setdefault(" ".join(mask.split()[:8]), []).append(mask)
    found = []
    for question in trained:
        words = masked(question).split()
        for place in range(len(words) - 7):
            rest = " ".join(words[place:]) + " "
            for mask in starts.get(" ".join(words[place : place + 8]), ()):
                if rest.startswith(mask + " "):
                    found.append((question, known[mask]))
    return found


ASKED = (
    "Mia packs {} boxes of {} red candles each for the market and sells {} candles there. How many candles are left?"
)
TYPES = [
    "Addition", "Subtraction", "Multiplication", "Common-Division", "Sum", "Difference", "TVQ-Initial", "TVQ-Change",
    "TVQ-Final",
]  # fmt: skip
SHOP = "A {0} shop fills 5 crates with 20 {0}s each and loses 11. What is there now?"
ASDIV = """<Problem ID="{0}" Grade="1" Source="s"><Body>Tom has 3 kites of {0}.</Body>
<Question>He gets 4. How many kites has he?</Question><Solution-Type>{0}</Solution-Type><Answer>7 (kites)</Answer>
<Formula>3+4=7</Formula></Problem>"""


def small_files(folder: Path, train: Sequence[dict]) -> None:
    """A data folder with every file that the recipe names."""
    asked = {"question": ASKED.format(7, 12, 30), "answer": "7*12=<<7*12=84>>84\n84-30=<<84-30=54>>54\n#### 54"}
    algebra = {
        "problem": "What is $1+1$?",
        "solution": r"It is $\boxed{2}$.",
        "answer": "2",
        "level": 1,
        "subject": "Algebra",
    }
    chosen = {"question": "Which is 2?", "options": ["A)2", "B)3"], "rationale": "Answer: A", "correct": "A"}
    write(folder, "gsm8k/train.jsonl.gz", train)
    write(folder, "gsm8k/test.jsonl.gz", [asked])
    write(
        folder, "math/train.jsonl.gz", [algebra | {"problem": "What is $2+3$?", "type": "Algebra", "level": "Level 1"}]
    )
    for name in ("math/test.jsonl.gz", "math500/test.jsonl.gz"):
        write(folder, name, [algebra])
    for name in ("aqua_rat/dev.json.gz", "aqua_rat/test.json.gz"):
        write(folder, name, [chosen | {"question": f"{name}: which is 2?"}])
    write(
        folder, "mawps/test.jsonl.gz", [{"input": "Al has 2 pens and 5 caps . How many things has he ?", "target": 7.0}]
    )
    (folder / "asdiv").mkdir()
    (folder / "asdiv/ASDiv.xml.gz").write_bytes(
        gzip.compress(f"<ProblemSet>{''.join(map(ASDIV.format, TYPES))}</ProblemSet>".encode())
    )


def row(question: str, numbers: tuple[int, int, int] = (5, 20, 11)) -> dict:
    a, b, c = numbers
    return {"question": question, "answer": f"<<{a}*{b}={a * b}>> <<{a * b}-{c}={a * b - c}>>\n#### {a * b - c}"}


def test_no_copy_of_a_test_question_is_trained_on_in_small_files(tmp_path, monkeypatch):
    copies = [
        row(ASKED.format(7, 12, 30), (7, 12, 30)),
        row(ASKED.format(5, 20, 11)),
        row(ASKED.format("five", "twenty", "eleven")),
        row(ASKED.format("5,000", "20", "11"), (5000, 20, 11)),
        row("Here is a riddle. " + ASKED.format(5, 20, 11)),
    ]
    own = [row(SHOP.format(thing)) for thing in ("pen", "cap", "jar", "lid", "cup", "fork", "bell")]
    small_files(tmp_path, [*copies, *own])
    trained = taught(tmp_path, monkeypatch, "questions.source.0.test=0.01")
    assert leaks([item["question"] for item in copies], [ASKED.format(1, 2, 3)]) != []
    assert leaks(trained, [ASKED.format(1, 2, 3)]) == []
    assert sum("shop" in question for question in trained) > 2 * len(own)  # with what MetaMath made of them


@pytest.mark.skipif(not DATA, reason="WHETSTONE_DATA is not set")
def test_no_copy_of_a_test_question_is_trained_on_in_the_real_files(tmp_path, monkeypatch):
    """Of GSM8K train the rows that are like a test question by the oracle, some others, and questions that are tests."""
    missing = [name for name in (*TEST_FILES, "gsm8k/train.jsonl.gz") if not (Path(DATA) / name).exists()]
    if missing:
        pytest.skip(f"{missing[0]} is not in WHETSTONE_DATA")
    tests = [item[column] for name, column in TEST_FILES.items() for item in read(name)]
    train = read("gsm8k/train.jsonl.gz")
    known = {masked(question) for question in tests}
    alike = [item for item in train if masked(item["question"]) in known]
    planted = [row(item["input"]) for item in read("gsm_hard/gsmhardv2.jsonl.gz")[::33]]
    planted += [row(item["question"]) for item in read("outputs_tora_gsm8k/tora-70b-v1.0.jsonl.gz")[::66]]
    small_files(tmp_path, [*alike, *planted, *train[:60]])
    for name in ("gsm8k/test.jsonl.gz", "math500/test.jsonl.gz", "mawps/test.jsonl.gz"):
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to(Path(DATA) / name)
    trained = taught(tmp_path, monkeypatch, "questions.metamath.resample=1")
    assert len(planted) == 60 and len(trained) > 60
    assert leaks(trained, tests) == []
