"""The leaks that are planted are what they say, and small sets give the verdicts that their making implies."""

import json
import random

import pytest

from benchmarks import contamination


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path))
    rng = random.Random(0)
    said = [
        f"{rng.choice(('Mia', 'Tom', 'Ada'))} has {n} boxes with {n + 7} red pens in each and sells {n % 5 + 2} of the "
        f"boxes number {n}. How many pens of kind $\\frac{{{n}}}{{7}}$ are left in all the other boxes?"
        for n in range(100, 160)
    ]
    sets = {name: said[:20] for name in ("math500", "aime24")}
    sets |= {"math/test": said[:40], "gsm8k/test": said[20:40]}
    sets["gsm_hard"] = [contamination.NUMBER.sub(lambda found: found[0] + "3", text) for text in said[20:40]]
    sets |= {name: said[40:] for name in contamination.TRAINING}
    for name, texts in sets.items():
        path, column = contamination.SETS[name]
        file = tmp_path / path.removesuffix(".gz")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps({"question": "", column: text}) + "\n" for text in texts))
    plain = {name: (path.removesuffix(".gz"), column) for name, (path, column) in contamination.SETS.items()}
    monkeypatch.setattr(contamination, "SETS", plain)
    return tmp_path


def test_planted_leaks_are_found_and_clean_rows_left_alone(folder):
    found = contamination.plant(rows=400, leaks=30)
    assert {kind: row["recall"] for kind, row in found["kinds"].items()} == dict.fromkeys(contamination.LEAKS, 1.0)
    assert all(row["planted"] >= 20 for row in found["kinds"].values())
    assert found["false_positives"] == 0 and found["clean_rows"] == 400 - sum(
        row["planted"] for row in found["kinds"].values()
    )


def test_a_set_inside_another_and_a_set_with_other_numbers_are_named(folder):
    rows = contamination.overlaps(["math500", "math/test", "gsm8k/test", "gsm_hard"])
    said = {contamination.verdict(row) for row in rows}
    assert "math500 is part of math/test" in said
    assert "gsm_hard is gsm8k/test with other numbers" in said


def test_changes_change_what_they_say():
    rng, text = random.Random(0), r"Find $\frac{1}{2}$ of 1,200 apples. Give $x^2 \leq 3$ too."
    assert contamination.white_space(text, rng).split() != [text]
    assert "".join(contamination.white_space(text, rng).split()) == "".join(text.split())
    assert sorted(contamination.word_order(text, rng).split()) == sorted(text.split())
    assert text in contamination.embedded(text, rng)
    assert contamination.latex(text, rng) != text
