"""What can be checked is checked by `plan`, and by `run` before anything is made or thrown away."""

from pathlib import Path

import pytest

from whetstone.pipeline.checks import check_stages
from whetstone.pipeline.staleness import fingerprint
from whetstone.recipe import read_recipe

WALK = """
[[stage]]
kind = "questions"
source = [{ kind = "procedural", train = 4, test = 2, benchmark = "sums" }]
[[stage]]
kind = "rollouts"
[[stage]]
kind = "corpus"
[[stage]]
kind = "midtrain"
[[stage]]
kind = "rl"
"""
OWN = """
def reward(problem, completion): return 1.0
def lonely(problem): return 1.0
def keyword(problem, completion, *, more): return 1.0
number = 3
def raft(setup, settings): ...
"""
WRONG = {  # name: (settings of rl, what is said)
    "no file": ('reward = "none.py:f"', "'none.py:f': there is no such file"),
    "no function": ('reward = "own.py:missing"', "own.py has no 'missing': it has reward, lonely"),
    "no callable": ('reward = "own.py:number"', "'own.py:number' is 3"),
    "too few arguments": ('reward = "own.py:lonely"', "takes 1 argument:"),
    "a file with an error": ('reward = "broken.py:f"', r"broken.py:2: this file cannot be used: ZeroDivisionError"),
    "a file that is no Python": ('reward = "syntax.py:f"', r"syntax.py:1: this file cannot be used: SyntaxError"),
    "a file that ends the program": ('reward = "ends.py:f"', r"ends.py:1: this file cannot be used: SystemExit"),
    "an algorithm's arguments": ('algorithm = "own.py:lonely"', r"cannot be called with (setup, settings)"),
    "a stabiliser's arguments": (
        'stabilisers = ["own.py:raft"]',
        r"cannot be called with (algorithm, setup, settings)",
    ),
}


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("x = 1\nf = 1 / 0\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "ends.py").write_text("raise SystemExit(0)\n")
    return tmp_path / "walk.toml"


def check(path: Path, text: str, *sets: str) -> None:
    path.write_text(text)
    read = read_recipe(path, sets)
    check_stages(read, read.stages)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_function_of_the_users_own_is_tried_first(recipe, wrong):
    setting, said = WRONG[wrong]
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        check(recipe, f"{WALK}{setting}\n")
    assert said in str(error.value)


def test_functions_that_fit_are_accepted(recipe):
    check(recipe, WALK + 'reward = "own.py:reward"\nalgorithm = "own.py:raft"\n')


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'kind = "procedural", train = 4, test = 2',
            'kind = "file", path = "none.jsonl", test = 0.5',
            r"none\.jsonl is missing",
        ),
        ('kind = "procedural", train = 4', 'kind = "reasoning_gym", tasks = ["gcd"], train = 4', "needs reasoning-gym"),
        ('kind = "corpus"', 'kind = "corpus"\nimported_pairs = [{ path = "none.jsonl" }]', r"none\.jsonl is missing"),
    ],
)
def test_data_and_what_reads_it_must_be_there(recipe, old, new, said, monkeypatch):
    monkeypatch.setattr("whetstone.questions.sources.reasoning_gym.installed", lambda name: False)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        check(recipe, WALK.replace(old, new))


def test_the_model_must_be_there(recipe, tmp_path):
    with pytest.raises((ValueError, OSError), match="none"):
        check(recipe, WALK, "model.path=./none")
    (tmp_path / "folder").mkdir()
    with pytest.raises((ValueError, OSError), match=r"folder.*config\.json"):
        check(recipe, WALK, "model.path=./folder")


def test_the_headline_set_must_be_among_the_recipes(recipe):
    with pytest.raises(ValueError, match=r"main = 'aime'.*Use one of sums"):
        check(recipe, WALK, "scores.main=aime")
    check(recipe, WALK, "scores.main=sums")


def test_all_mistakes_are_said_at_once(recipe):
    with pytest.raises(ValueError, match=r"(?s)aime.*none\.py"):
        check(recipe, WALK + 'reward = "none.py:f"\n', "scores.main=aime")


def test_a_gpu_that_is_not_there_is_missed_before_the_first_stage(recipe, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=r'device = "cuda": torch sees no GPU here'):
        check(recipe, WALK, "parallel.device=cuda")


def test_a_launcher_must_be_here_and_have_several_processes_to_start(recipe):
    with pytest.raises(ValueError, match=r"launch = \['srum'\]: there is no command 'srum' here"):
        check(recipe, WALK, 'parallel.launch=["srum"]', "parallel.processes=2")
    with pytest.raises(ValueError, match="launch starts the processes that train together, and processes = 1"):
        check(recipe, WALK, 'parallel.launch=["sh"]')


@pytest.mark.parametrize(
    ("sets", "missing", "said"),
    [
        (["adapter.rank=4"], "", "midtrain starts from random weights, which an adapter leaves as they are"),
        (["rl.adapter={rank = 4}"], "peft", r'rl needs the package peft: pip install "whetstone-reasoner\[lora\]"'),
        (["rl.adapter={rank = 4, weights = 'nf4'}"], "bitsandbytes", r'bitsandbytes: pip install .*\[qlora\]"'),
        (
            ["rl.adapter={rank = 4, weights = 'nf4'}", "parallel.processes=2", "parallel.shard=fsdp"], "",
            'weights in 4 bits are not divided among processes',
        ),
    ],
)  # fmt: skip
def test_an_adapter_that_cannot_be_trained_is_refused(sets, missing, said, recipe, monkeypatch):
    monkeypatch.setattr("whetstone.pipeline.checks.find_spec", lambda package: None if package == missing else True)
    with pytest.raises((ValueError, ImportError), match=said):
        check(recipe, WALK, *sets)


def test_a_stage_with_an_adapter_of_its_own_leaves_the_others_as_they_are(recipe, monkeypatch):
    monkeypatch.setattr("whetstone.pipeline.checks.find_spec", lambda package: True)
    recipe.write_text(WALK)
    read = read_recipe(
        recipe, ["adapter.rank=4", "midtrain.adapter={rank = 0}", "rl.adapter.dora=true", "rl.adapter.rank=2"]
    )
    check_stages(read, read.stages)
    assert [read.adapter_of(read.stage(name)).rank for name in ("midtrain", "rl")] == [0, 2]
    used = [fingerprint(read, read.stage(name)) for name in ("midtrain", "rl")]
    assert not any("adapter.rank" in facts["shared"] for facts in used)  # nor do they become stale by that table
    with pytest.raises(ValueError, match=r'weights = "nf4" is for a model that an adapter is trained beside. Set rank'):
        read_recipe(recipe, ["adapter.weights=nf4"])


def test_servers_for_rl_in_a_recipe_without_rl_are_refused(tmp_path):
    recipe = tmp_path / "a.toml"
    servers = '[sampler]\nservers = ["http://127.0.0.1:9/v1"]\n'
    recipe.write_text(servers + WALK.replace('"rl"', '"dpo"'))
    dpo = read_recipe(recipe)
    with pytest.raises(ValueError, match="servers for the rollouts of rl, and the recipe has no stage of this kind"):
        check_stages(dpo, dpo.stages)
    recipe.write_text(servers + WALK)
    check_stages(found := read_recipe(recipe), found.stages)
