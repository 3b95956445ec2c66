"""Every mistake in a recipe is reported with its place, the reason and the remedy, before anything runs."""

import pytest

from whetstone.recipe import read_recipe

HEAD = '[run]\nname = "walk"\n\n'
QUESTIONS = '[[stage]]\nkind = "questions"\n'
WALK = QUESTIONS + '[[stage]]\nkind = "corpus"\n[[stage]]\nkind = "midtrain"\n[[stage]]\nkind = "sft"\n'

# name: (recipe, what the message must say: what and where, why, remedy)
MISTAKES = {
    "a key of a stage": (
        HEAD + QUESTIONS + "coutn = 3\n",
        [":6:", '"questions"', "unknown key 'coutn'", "did you mean 'count'?", "Known keys are"],
    ),
    "an input's name": (
        HEAD + WALK + 'modle = "midtrain"\n',
        [":12:", "unknown key 'modle'", "did you mean 'model'?"],
    ),
    "a key of a table inside a stage": (
        HEAD + QUESTIONS + '[stage.columns]\nqestion = "q"\n',
        ["unknown key 'columns.qestion'", "did you mean 'question'?"],
    ),
    "a key of the second of several tables": (
        HEAD + QUESTIONS + '[[stage.part]]\nkind = "made"\nhowmany = 1\n[[stage.part]]\nkind = "made"\nhowmny = 1\n',
        [":11:", "unknown key 'part[1].howmny'", "did you mean 'howmany'?"],
    ),
    "a room's own check": (
        HEAD + QUESTIONS + '[[stage.part]]\nkind = "read"\npath = ""\n',
        [":8:", "part[0].path = '': no file. Name one."],
    ),
    "a key that has no default": (
        HEAD + QUESTIONS + '[[stage.part]]\nkind = "read"\n',
        [":6:", "part[0].path is missing", "Add path = "],
    ),
    "a key of a shared table": (
        '[run]\nsede = 1\nname = "walk"\n' + QUESTIONS,
        [":2:", "[run]", "unknown key 'sede'", "did you mean 'seed'?"],
    ),
    "a shared table": (
        '[run]\nname = "walk"\n[score]\nsamples = 3\n' + QUESTIONS,
        [":3:", "unknown table or key 'score'", "did you mean 'scores'?", "[parallel]"],
    ),
    "the stage list": (
        '[[stages]]\nkind = "questions"\n',
        [":1:", "'stages'", "did you mean 'stage'?"],
    ),
    "one stage table": (
        '[stage]\nkind = "questions"\n',
        ["one table", "list of stages", "write [[stage]]"],
    ),
    "no stage": (HEAD, ["no [[stage]]", "nothing to run", 'kind = "questions"']),
    "a kind": (
        HEAD + '[[stage]]\nkind = "midtrian"\n',
        [":5:", "kind = 'midtrian'", "did you mean 'midtrain'?", "Kinds are questions, corpus"],
    ),
    "no kind": (HEAD + '[[stage]]\nname = "x"\n', ["has no kind", 'add kind = "…"']),
    "a name twice": (
        HEAD + QUESTIONS + QUESTIONS,
        [":6:", "second stage of that name", "names must differ", 'name = "questions_2"'],
    ),
    "a name that is no folder's": (
        HEAD + QUESTIONS + 'name = "../up"\n',
        ["name = '../up'", "folder's name", "letters, digits"],
    ),
    "a run without a name": ('[run]\nname = ""\n' + QUESTIONS, [":2: [run] name is empty", "Name it or leave it out"]),
    "a key of [prompt]": (
        '[prompt]\nsytem = "x"\n' + HEAD + QUESTIONS,
        [":2: [prompt] unknown key 'sytem': did you mean 'system'?"],
    ),
    "an example without an answer": (
        '[[prompt.examples]]\nquestion = "1?"\n' + HEAD + QUESTIONS,
        [":1: [prompt] examples[0].answer is missing"],
    ),
    "a key of an example": (
        '[prompt]\nexamples = [{ question = "1?", answer = "1", level = 1 }]\n' + HEAD + QUESTIONS,
        [":2: [prompt] unknown key 'examples[0].level'. Known keys are question, answer."],
    ),
    "a count of examples": (
        '[prompt]\nexamples = { file = "x.jsonl", count = 1000 }\n' + HEAD + QUESTIONS,
        ["examples.count = 1000: input should be less than or equal to 100"],
    ),
    "a reserved name": (HEAD + QUESTIONS + 'name = "base"\n', ["name = 'base'", "taken", "choose another"]),
    "an input from a stage that is not there": (
        HEAD + WALK + 'model = "midtrian"\n',
        [":12:", "no stage 'midtrian' above it", "did you mean 'midtrain'?", "Fitting above it: midtrain/model"],
    ),
    "an input from a stage below": (
        HEAD + QUESTIONS + '[[stage]]\nkind = "corpus"\nproblems = "later"\n' + QUESTIONS + 'name = "later"\n',
        ["no stage 'later' above it", "Fitting above it: questions/problems."],
    ),
    "an input that does not fit": (
        HEAD + WALK + 'model = "corpus/subset"\n',
        ["model = 'corpus/subset'", "it reads model", "gives subset, pairs", "Fitting above it: midtrain/model"],
    ),
    "an input that is no name": (HEAD + WALK + "model = 3\n", ["model = 3", "name a stage above"]),
    "an input that nothing above gives": (
        HEAD + '[[stage]]\nkind = "corpus"\n',
        ["reads problems", "no stage above it gives that", "kind questions before it"],
    ),
    "a number that is text": (
        HEAD + QUESTIONS + 'count = "many"\n',
        [":6:", "count = 'many'", "valid integer", "The default is 4"],
    ),
    "a number out of bounds": (
        HEAD + "[scores]\nsamples = 0\n" + QUESTIONS,
        ["[scores]", "samples = 0", "greater than or equal to 1", "The default is 8"],
    ),
    "a word out of a list": (
        HEAD + '[parallel]\ncompute = "fp8"\n' + QUESTIONS,
        ["compute = 'fp8'", "'float32' or 'bfloat16'", "The default is 'float32'"],
    ),
    "a key that has moved": (
        HEAD + QUESTIONS + "columns.prompt = 'q'\n",
        [":6:", "columns.prompt = 'q'", "this key is now question"],
    ),
    "broken TOML": ("[run\nname = 3", ["not valid TOML", "line 1", "Strings need quotes"]),
    "a shared table that is none": ("run = 3\n" + QUESTIONS, ["run = 3 is not a table", "write [run]"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_with_place_reason_and_remedy(mistake, tmp_path, rooms):
    text, wanted = MISTAKES[mistake]
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_recipe(path)
    message = str(error.value)
    assert str(path) in message
    for words in wanted:
        assert words in message, f"{words!r} is not in: {message}"
    assert rooms.calls == []


def test_all_mistakes_of_a_table_are_reported_at_once(tmp_path, rooms):
    path = tmp_path / "bad.toml"
    path.write_text(HEAD + QUESTIONS + 'coutn = 3\nwait = "long"\n')
    with pytest.raises(ValueError, match=r"(?s)wait = 'long'.*coutn|coutn.*wait = 'long'"):
        read_recipe(path)


def test_a_recipe_that_is_not_there_or_not_utf8(tmp_path, rooms):
    (tmp_path / "tiny.toml").write_bytes(b'[run]\nname = "caf\xe9"\n')
    with pytest.raises(FileNotFoundError, match=r"no recipe .*tinny\.toml.*tiny\.toml"):
        read_recipe(tmp_path / "tinny.toml")
    with pytest.raises(ValueError, match=r"not UTF-8 \(byte 17\)"):
        read_recipe(tmp_path / "tiny.toml")


def test_the_file_of_a_kind_of_the_users_own_must_exist(tmp_path, rooms):
    path = tmp_path / "own.toml"
    path.write_text(HEAD + '[[stage]]\nkind = "none.py:ROOM"\n')
    with pytest.raises(FileNotFoundError, match=r"own\.toml:5: .*none\.py:ROOM.*no such file.*write the whole path"):
        read_recipe(path)


def test_extends_puts_the_base_first_and_overrides_key_by_key(tmp_path, rooms):
    (tmp_path / "tiny.toml").write_text('[run]\nname = "tiny"\nseed = 5\n[scores]\nsamples = 2\nproblems = 9\n' + WALK)
    longer = tmp_path / "controls.toml"
    longer.write_text(
        'extends = "tiny.toml"\n[scores]\nsamples = 4\n[[stage]]\nkind = "sft"\nname = "more"\nmodel = "midtrain"\n'
    )
    recipe = read_recipe(longer)
    assert (recipe.run.name, recipe.run.seed) == ("tiny", 5)
    assert (recipe.scores.samples, recipe.scores.problems) == (4, 9)
    assert [stage.folder_name for stage in recipe.stages] == [
        "01-questions", "02-corpus", "03-midtrain", "04-sft", "05-more"
    ]  # fmt: skip
    assert {name: str(source) for name, source in recipe.stage("more").sources.items()} == {
        "model": "midtrain/model",
        "data": "corpus/subset",
    }


def test_extends_of_a_missing_file_and_in_a_circle(tmp_path, rooms):
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text('extends = "two.toml"\n')
    with pytest.raises(FileNotFoundError, match=r"extends 'two.toml', but there is no .*relative to the recipe"):
        read_recipe(one)
    two.write_text('extends = "one.toml"\n')
    with pytest.raises(ValueError, match=r"extends itself.*remove one `extends`"):
        read_recipe(one)


def test_inputs_default_to_the_latest_that_fits(tmp_path, rooms):
    path = tmp_path / "two.toml"
    path.write_text(
        HEAD
        + WALK
        + '[[stage]]\nkind = "sft"\nname = "again"\n[[stage]]\nkind = "midtrain"\nname = "fresh"\nmodel = ""\n'
    )
    recipe = read_recipe(path)
    assert str(recipe.stage("again").sources["model"]) == "sft/model"
    assert str(recipe.stage("again").sources["data"]) == "corpus/subset", "the first accepted kind of data goes first"
    assert "model" not in recipe.stage("fresh").sources, "an empty name declines an optional input"


def test_set_changes_stages_and_shared_tables_by_toml_value(tmp_path, rooms):
    path = tmp_path / "walk.toml"
    path.write_text(HEAD + WALK)
    sets = ["run.seed=7", "sft.learning_rate=1e-3", "questions.columns.question=prompt text", "sft.data=corpus/pairs"]
    sets += ['questions.part=[{kind = "made"}]', "questions.part.0.howmany=5"]
    recipe = read_recipe(path, sets)
    assert recipe.run.seed == 7
    assert recipe.stage("sft").settings.learning_rate == 1e-3
    assert recipe.stage("questions").settings.columns.question == "prompt text"
    assert recipe.stage("questions").settings.part[0].howmany == 5
    assert str(recipe.stage("sft").sources["data"]) == "corpus/pairs"


@pytest.mark.parametrize(
    ("assignment", "wanted"),
    [
        ("seed=1", "write name.key=value"),
        ("run.seed", "write name.key=value"),
        ("stf.learning_rate=1", r"no table or stage 'stf': did you mean 'sft'\?.*midtrain"),
        ("sft.learning_rat=1", r"unknown key 'learning_rat': did you mean 'learning_rate'\?"),
        ("sft.learning_rate=fast", "learning_rate = 'fast'.*valid number"),
        ("questions.part.3.howmany=1", "part: input should be a list"),
        ("sft.kind=rl", "kind is fixed by the recipe"),
        ("questions.count.deep=1", "count: input should be a valid integer"),
    ],
)
def test_set_with_a_mistake(assignment, wanted, tmp_path, rooms):
    path = tmp_path / "walk.toml"
    path.write_text(HEAD + WALK)
    with pytest.raises(ValueError, match=wanted):
        read_recipe(path, [assignment])
