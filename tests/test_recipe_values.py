"""Values of a kind or size that no setting has: each is an error with its file, line and key, for every room's settings."""

import json
from pathlib import Path

import pytest

from whetstone.recipe import read_recipe

CORPUS = '[[stage]]\nkind = "rollouts"\n[[stage]]\nkind = "corpus"\n'
QUESTIONS = '[[stage]]\nkind = "questions"\n[[stage.source]]\nkind = "procedural"\ntrain = 4\n'
STAGES = QUESTIONS + "".join(f'[[stage]]\nkind = "{kind}"\n' for kind in ("rollouts", "corpus", "midtrain"))
RL = STAGES + '[[stage]]\nkind = "rl"\n'


def refused(tmp_path: Path, text: str | bytes, *sets: str) -> str:
    path = tmp_path / "r.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((ValueError, OSError)) as error:
        read_recipe(path, sets)
    assert "r.toml" in str(error.value) or "--set" in str(error.value)
    return str(error.value)


WRONG = {  # name: (recipe, what the message says)
    "a list of numbers as stages": ("stage = [1, 2]\n", [":1:", "stage[0] = 1 is not a table", "[[stage]]"]),
    "a table as kind": ('[[stage]]\nkind = { a = "b" }\n', [":2:", "is not a kind of stage"]),
    "true as a number": (QUESTIONS.replace("4", "true"), [":5:", "source[0].train = True", "valid number"]),
    "text as a number": (QUESTIONS.replace("4", '"4"'), [":5:", "source[0].train = '4'", "valid number"]),
    "1e14 integers": (QUESTIONS.replace("4", "100000000000000"), [":5:", "source[0].train", "less than or equal to"]),
    "more problems than memory": (QUESTIONS.replace("4", "10000000000"), [":5:", "source[0].train", "less than"]),
    "1e14 as a float": (QUESTIONS.replace("4", "1e14"), [":5:", "source[0].train", "less than or equal to"]),
    "a negative number": (QUESTIONS.replace("4", "-4"), [":5:", "greater than or equal to 0"]),
    "not a number": (QUESTIONS.replace("4", "nan"), [":5:", "stage[0].source[0].train = nan is no number"]),
    "infinity": (QUESTIONS.replace("4", "-inf"), [":5:", "= -inf is no number"]),
    "a date": (QUESTIONS.replace("4", "2024-01-01"), [":5:", "is a date or a time", "in quotes"]),
    "a date as a name": ("[run]\nname = 2024-01-01\n" + QUESTIONS, [":2:", "run.name", "in quotes"]),
    "no operators": (QUESTIONS + 'operators = ""\n', ["operators = ''", "some of + - *"]),
    "an unknown operator": (QUESTIONS + 'operators = "^"\n', ["operators = '^'", "some of + - *"]),
    "an operator twice": (QUESTIONS + 'operators = "+-+"\n', ["operators = '+-+' has one twice"]),
    "a family twice": (QUESTIONS + 'families = ["chain", "chain"]\n', [":6:", "families = ", "names 'chain' twice. Name it"]),
    "a domain twice": (RL + 'pool = { domains = ["a", "b", "a"] }\n', [":14:", "pool.domains", "names 'a' twice"]),
    "a problem set twice": ('[scores]\nsets = ["a", "a"]\n' + QUESTIONS, [":2:", "[scores] sets", "names 'a' twice"]),
    "a stabiliser twice": (
        RL + 'stabilisers = ["clip_cov", { name = "clip_cov", share = 0.1 }]\n', [":12:", "stabilisers names 'clip_cov' twice"]
    ),
    "digits without end": (QUESTIONS + "digits = [1, 100000]\n", ["digits = [1, 100000]", "at most 100"]),
    "a level without end": (QUESTIONS + "level = 1000000\n", ["level = 1000000", "less than or equal to 100"]),
    "true in a list": (QUESTIONS + "digits = [true, 3]\n", [":6:", "digits[0] = True", "valid integer"]),
    "markup in a benchmark": (QUESTIONS + 'test = 1\nbenchmark = "[red]x"\n', [":7:", "benchmark = '[red]x'", "folder's name"]),
    "a benchmark outside": (QUESTIONS + 'test = 1\nbenchmark = "../../x"\n', [":7:", "'../../x'", "folder's name"]),
    "a benchmark like a file": (QUESTIONS + 'test = 1\nbenchmark = "manifest.json"\n', [":7:", "reserved"]),
    "a source outside": (QUESTIONS + 'name = "../x"\n', [":6:", "'../x'", "folder's name"]),
    "an escape": ('[run]\nname = "a\\u001b[31m"\n' + QUESTIONS, [":2:", "run.name", r"control character '\x1b'"]),
    "NUL in a path": ('[run]\nfolder = "a\\u0000b"\n' + QUESTIONS, [":2:", "run.folder", r"control character '\x00'"]),
    "a control character in a key": ('[run]\n"a\\u0007" = 1\n' + QUESTIONS, ["run.a?", "control character"]),
    "an integer of 80 bits": ("[run]\nseed = 999999999999999999999999\n" + QUESTIONS, [":2:", "run.seed", "64 bits"]),
    "an integer of 5000 digits": (f"[run]\nseed = {'9' * 5000}\n" + QUESTIONS, ["r.toml", "4300 digits"]),
    "lists in lists": ("a = " + "[" * 5000 + "]" * 5000, ["nested too deeply"]),
    "tables in tables": ("[run." + ".".join("a" * 500) + "]\nx = 1\n" + QUESTIONS, ["run.a.a", "nested too deeply"]),
    "UTF-16": (QUESTIONS.encode("utf-16"), ["not UTF-8"]),
    "bytes": (bytes(range(256)), ["not UTF-8"]),
    "a megabyte and more": (QUESTIONS + "#" * (1 << 20), ["bytes: a recipe has at most"]),
    "two of a name but for capitals": (RL + '[[stage]]\nkind = "rl"\nname = "RL"\n', ["second stage of that name"]),
    "a stage that Windows reserves": ('[[stage]]\nkind = "questions"\nname = "con"\n', [":3:", "name = 'con'", "reserved"]),
    "a stage name without end": (f'[[stage]]\nkind = "questions"\nname = "{"x" * 300}"\n', [":3:", "more than 120 bytes"]),
    "a text for a list": (QUESTIONS + 'digits = "1"\n', [":6:", "digits = '1': input should be a list"]),
    "a number for a table": (RL + "pool = 3\n", [":14:", "pool = 3: input should be a table"]),
    "extends of a list": ('extends = ["a"]\n' + QUESTIONS, [":1:", "extends = ['a'] is no path"]),
    "no heads": ("[model]\nheads = 0\n" + QUESTIONS, [":2:", "heads = 0"]),
    "heads that do not divide": ("[model]\nheads = 3\n" + QUESTIONS, ["heads = 3", "must divide hidden"]),
    "a head that cannot be rotated": ("[model]\nhidden = 72\nheads = 4\n" + QUESTIONS, ["heads = 18", "multiple of 4"]),
    "a vocabulary below the bytes": ("[model]\nvocabulary = 10\n" + QUESTIONS, [":2:", "vocabulary = 10", "or equal to 256"]),
    "a giant": ("[model]\nhidden = 100000000000\n" + QUESTIONS, [":2:", "hidden = 100000000000", "less than"]),
    "an empty model path": ('[model]\npath = ""\n' + QUESTIONS, ["path is empty"]),
    "a learning rate of true": (STAGES + "optimizer = { learning_rate = true }\n", [":12:", "learning_rate = True"]),
    "a learning rate of 1e9": (STAGES + "optimizer = { learning_rate = 1e9 }\n", [":12:", "less than or equal to 10"]),
    "a weight of true": (RL + "reward = { zero_one = true }\n", [":14:", "reward.zero_one = True", "valid number"]),
    "a weight of infinity": (RL + "reward = { zero_one = inf }\n", [":14:", "reward.zero_one = inf is no number"]),
    "one as true": ("[parallel]\ncompile = 1\n" + QUESTIONS, [":2:", "compile = 1", "valid boolean"]),
    "a word as true": ('[parallel]\ncompile = "off"\n' + QUESTIONS, [":2:", "compile = 'off'", "valid boolean"]),
    "most before fewest": (QUESTIONS + CORPUS + "subset = { solved = [3, 1] }\n", [":10:", "solved = [3, 1]", "fewest"]),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_value_that_no_setting_has_is_an_error_with_its_place(wrong, tmp_path):
    text, wanted = WRONG[wrong]
    message = refused(tmp_path, text)
    for words in wanted:
        assert words in message, f"{words!r} is not in: {message}"
    assert len(message) < 2000, "a long value is shown in part"


@pytest.mark.parametrize(
    ("assignment", "wanted"),
    [
        ("run.seed=true", "seed = True"),
        ("run.name=../x", "folder's name"),
        ("run.seed=1\n[model]\nlayers = 2", "valid integer"),
        ("run." + "a." * 1000 + "b=1", "nested too deeply"),
        ("run.seed=" + "[" * 5000, "nested too deeply"),
        ("questions.source.0.train=1e400", "= inf is no number"),
        ("questions.source.²=1", "write a number from 0"),
        ("run.name=a\0b", "control character"),
        ("run.name=2024-01-01", "is a date"),
        ('model.layers="3"', "valid integer"),
        ("scores.main=../x", "folder's name"),
    ],
)
def test_set_takes_the_values_that_a_recipe_takes(assignment, wanted, tmp_path):
    assert wanted in refused(tmp_path, QUESTIONS, assignment)


def test_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text("\ufeff[run]\nseed = 5\n" + QUESTIONS)
    assert read_recipe(path).run.seed == 5


def test_names_in_any_language_are_names(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(QUESTIONS + f"test = 1\nbenchmark = {json.dumps('Größe 2 (leicht)', ensure_ascii=False)}\n")
    assert read_recipe(path, ["run.name=täglich"]).folder == Path("runs/täglich")


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder, not a recipe"):
        read_recipe(tmp_path)


def test_a_chain_of_recipes_has_an_end(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.toml").write_text(f'extends = "{number + 1}.toml"\n')
    (tmp_path / "40.toml").write_text(QUESTIONS)
    with pytest.raises(ValueError, match=r"chain of 16 recipes"):
        read_recipe(tmp_path / "0.toml")


def test_every_number_of_every_setting_has_bounds(tmp_path):
    """Those of the class, or the ones that all numbers have; and `true` is none of them."""
    from pydantic import ValidationError

    from whetstone.recipe import KINDS, load_room
    from whetstone.rl.registry import ALGORITHMS, STABILISERS
    from whetstone.run.fields import tables_in
    from whetstone.run.settings import ModelSettings, ParallelSettings, RunSettings, ScoreSettings

    waiting = [
        ModelSettings,
        ParallelSettings,
        RunSettings,
        ScoreSettings,
        *(load_room(kind).settings for kind in KINDS),
    ]
    waiting += [*ALGORITHMS.options().values(), *STABILISERS.options().values()]
    seen = set()
    while waiting:
        table = waiting.pop()
        if table in seen:
            continue
        seen.add(table)
        for name, declared in table.model_fields.items():
            waiting += tables_in(declared)
            if declared.annotation not in (int, float):
                continue
            for wrong in (True, "1", float("nan"), 10**20, -(10**20)):
                with pytest.raises(ValidationError) as error:
                    table.model_validate({name: wrong})
                assert any(mistake["loc"][-1] == name for mistake in error.value.errors()), (table, name, wrong)
    assert len(seen) > 30
