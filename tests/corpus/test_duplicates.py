"""Texts that say the same: sketches against the exact Jaccard index, near duplicates among problems and traces."""

import random

import numpy as np
import pytest

from whetstone.corpus import duplicates
from whetstone.corpus.duplicates import mark_duplicates, near_duplicate_problems
from whetstone.corpus.label import language, repetition, school
from whetstone.corpus.shingles import SKETCH, codes, likeness, runs, sketch, word_codes
from whetstone.problems.preferences import preference
from whetstone.records import Message, Problem, Trace

WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in "nrslt"]


def random_words(rng: random.Random, length: int) -> list[str]:
    return rng.choices(WORDS, k=length)


def exact(one: list[str], other: list[str], size: int) -> float:
    a, b = ({tuple(w[i : i + size]) for i in range(len(w) - size + 1)} for w in (one, other))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize(("length", "changes"), [(40, 0), (40, 3), (200, 5), (5000, 0), (5000, 50), (5000, 400)])
def test_sketches_estimate_the_jaccard_index_and_are_exact_for_short_texts(length, changes):
    rng = random.Random(length + changes)
    one = random_words(rng, length)
    other = list(one)
    for place in rng.sample(range(length), changes):
        other[place] = rng.choice(WORDS)
    true = exact(one, other, 8)
    estimate = likeness(sketch(codes(one), 8), sketch(codes(other), 8))
    error = 0 if length <= SKETCH / 2 else 4 * (true * (1 - true) / SKETCH) ** 0.5  # four standard deviations
    assert abs(estimate - true) <= error + 1e-9


def test_runs_are_equal_where_the_words_are():
    text = ["a", "b", "c", "d", "a", "b", "c", "e"]
    hashes = runs(codes(text), 3)
    assert len(hashes) == 6 and hashes[0] == hashes[4] and len(set(hashes.tolist())) == 5
    assert len(runs(codes(["a"]), 3)) == 0


def test_words_have_one_code_each_and_white_space_none():
    text = "So  wait\twait\n so tiaw wai t äpfel wait äpfel "
    hashes = word_codes(text)
    words = text.split()
    assert len(hashes) == len(words) and len(set(hashes.tolist())) == len(set(words))
    assert all((hashes[i] == hashes[j]) == (words[i] == words[j]) for i in range(len(words)) for j in range(i))
    assert len(word_codes("")) == len(word_codes(" \n")) == 0


def test_repetition_counts_distinct_windows():
    rng = random.Random(0)
    words = random_words(rng, 300)
    loops = words + words[:100] + words[:50]
    windows = [tuple(loops[i : i + 16]) for i in range(len(loops) - 15)]
    assert repetition(" ".join(loops)) == 1 - len(set(windows)) / len(windows)


def trace(index: int, text: list[str]) -> Trace:
    return Trace("p", index, " ".join(text), "t", True)


def test_near_duplicate_traces_are_marked_with_the_first_of_their_kind():
    rng = random.Random(2)
    one, other = random_words(rng, 400), random_words(rng, 400)
    changed = [*one[:399], "end"]
    traces = [trace(0, one), trace(1, other), trace(2, changed), trace(3, one)]
    assert [(first, how) for _, first, how in mark_duplicates(traces, near=0.9)] == [
        (None, ""),
        (None, ""),
        (0, "near duplicate trace"),
        (0, "duplicate trace"),
    ]
    assert [how for *_, how in mark_duplicates(traces)] == ["", "", "", "duplicate trace"]


def test_near_duplicate_problems_are_those_that_comparing_all_would_find():
    rng = random.Random(3)
    problems, changed = [], {}
    for n in range(150):
        words = random_words(rng, 50)
        problems.append(Problem(f"p{n}", " ".join(words) + f" {n} pens", ""))
        if n % 3 == 0:
            for place in range(n % 4):
                words[10 * place] = rng.choice(WORDS)
            problems.append(Problem(f"q{n}", " ".join(words).upper() + f", {n} pens", ""))
            changed[f"q{n}"] = words
    repeats = near_duplicate_problems(problems, near=0.7)
    by_id = {p.id: p.question.lower().replace(",", "").split() for p in problems}
    for name in changed:
        true = exact(by_id[name], by_id["p" + name[1:]], 5)
        if abs(true - 0.7) > 0.13:  # three standard deviations of 128 permutations
            assert (repeats.get(name) == "p" + name[1:]) == (true > 0.7), f"{name} is {true:.2f} alike"
    assert set(repeats) <= set(changed)


def test_other_numbers_and_ones_own_family_are_no_near_duplicates():
    text = "The old baker of our small town bakes {} rolls in the morning and sells most of them before noon today"
    one = Problem("a", text.format(30), "")
    assert near_duplicate_problems([one, Problem("b", text.format(31), "")], 0.5) == {}
    assert near_duplicate_problems([one, Problem("b", text.format(30) + " ok", "", origin="a")], 0.5) == {}
    assert near_duplicate_problems([one, Problem("b", text.format(30) + " ok", "")], 0.5) == {"b": "a"}
    assert near_duplicate_problems([], 0.5) == {}


def test_a_pair_that_is_alike_shares_a_band():
    assert 1 - (1 - 0.8**duplicates.ROWS) ** duplicates.BANDS > 0.999999
    rows = np.array([[1, 2], [1, 2], [2, 1]], np.uint64)
    keys = duplicates.hash_rows(rows)
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("question", "stage"),
    [
        ("Tom has 3 apples and buys 4. How many?", "elementary"),
        ("What is 20 percent of 50?", "middle school"),
        (r"Solve $\log_2 x = 3$.", "high school"),
        (r"Evaluate the integral $\int_0^1 x\,dx$.", "college"),
        ("Show the order of the Galois group of this extension.", "graduate"),
    ],
)
def test_the_school_is_told_by_the_highest_subject_that_is_named(question, stage):
    assert school(question) == stage


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("How many apples are left?", "en"),
        ("小明有五个苹果。", "zh"),
        ("りんごはいくつありますか", "ja"),
        ("Сколько яблок осталось?", "ru"),
        ("Wie viele Äpfel bleiben dem Kind noch übrig", "other"),
        ("3x+2=5", "en"),
    ],
)
def test_languages(text, spoken):
    assert language(text) == spoken


SAID = {"role": "system", "content": "S"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "a", "rejected": "b"},
        {"question": "Q", "chosen": [{"role": "assistant", "content": "a"}], "rejected": {"from": "gpt", "value": "b"}},
        {"conversations": [{"from": "human", "value": "Q"}], "chosen": {"value": "a"}, "rejected": {"value": "b"}},
        {
            "chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "b"}],
        },
        {"prompt": "Q", "question": "Q", "conversations": None, "chosen": "a", "rejected": "b"},
        {"chosen": "\n\nHuman: Q\n\nAssistant: a", "rejected": "\n\nHuman: Q\n\nAssistant: b"},
    ],
)
def test_preference_pairs_are_read_in_every_usual_layout(row):
    assert preference(row) == ((Message("user", "Q"),), "a", "b")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Q", "chosen": "a"}, "not a pair"),
        ({"prompt": "Q", "chosen": 3, "rejected": "b"}, "not text"),
        (
            {"prompt": "Q", "chosen": "a", "rejected": "b", "images": ["a.png"]},
            "a part that is not text: the row holds",
        ),
        (
            {"prompt": "Q", "question": "P", "chosen": "a", "rejected": "b"},
            "not one question: the row holds different ones",
        ),
        ({"prompt": [SAID], "system_prompt": "T", "chosen": "a", "rejected": "b"}, "two system messages"),
        ({"chosen": "no dialogue", "rejected": "neither"}, "not an answer"),
        ({"conversations": [{"value": "a"}, {"value": "b"}], "chosen": "a", "rejected": "b"}, "not a turn of user"),
    ],
)
def test_what_is_no_pair_is_refused_with_its_reason(row, reason):
    with pytest.raises(ValueError, match=reason):
        preference(row)


def test_rows_of_shards_are_bounded_by_their_text(tmp_path, monkeypatch):
    from whetstone.run import tables

    monkeypatch.setattr(tables, "SHARD_CHARACTERS", 100)
    assert tables.write_rows(tmp_path, ({"text": "x" * 40} for _ in range(10))) == 10
    assert len(list(tmp_path.glob("part-*"))) == 4


def test_a_pair_keeps_its_system_message_and_is_refused_if_its_sides_differ_in_it():
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    sides = {side: [*turns, {"role": "assistant", "content": side[0]}] for side in ("chosen", "rejected")}
    assert preference(sides)[1:] == ("c", "r")
    for row in (
        sides,
        {"prompt": turns, "chosen": "c", "rejected": "r"},
        {"question": "Q", "system": "S", "chosen": "c", "rejected": "r"},
    ):
        assert preference(row).question == ("S", "Q")
    other = [{"role": "system", "content": "T"}, *sides["rejected"][1:]]
    for bad in (sides | {"rejected": other}, sides | {"rejected": sides["rejected"][:2]}):
        with pytest.raises(ValueError, match=r"two system messages|not one question|not an answer"):
            preference(bad)


def test_a_pair_keeps_the_thoughts_of_its_sides():
    turn = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    assert preference({"prompt": "Q", "chosen": [turn], "rejected": "b"})[1:] == ("<think>\nhm\n</think>\n\na", "b")
