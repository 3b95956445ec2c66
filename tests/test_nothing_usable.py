"""A stage that ends with nothing usable stops there, with the reasons by count and what to change; `plan` warns of it."""

from dataclasses import replace

import pytest

from tests.scripted import stage
from tests.test_straight_from_a_model import RL, recipe
from tests.tiny_world import SUMS, answer, corpus_row, logged, problem
from whetstone import midtrain, sft
from whetstone.corpus import build
from whetstone.dpo import rollout_dpo
from whetstone.pipeline.ahead import warnings
from whetstone.pipeline.running import run_recipe
from whetstone.recipe import read_recipe
from whetstone.records import CUT_OFF, NO_REFERENCE, Pair, Trace, to_row
from whetstone.rl import loop
from whetstone.rollouts import collect
from whetstone.run.folder import MANIFEST, read_json
from whetstone.run.tables import read_rows, write_records, write_rows

WALK = '[[stage]]\nkind = "rollouts"\n[[stage]]\nkind = "corpus"\n[[stage]]\nkind = "midtrain"\n'

# --- rollouts


@pytest.mark.parametrize(
    ("teacher", "remedy"), [("procedural", "Name the column of the formula"), ("none", "ships? some")]
)
def test_own_problems_without_formulas_stop_at_the_rollouts(tmp_path, adder, teacher, remedy):
    of = recipe(tmp_path, adder, WALK.replace('"rollouts"\n', f'"rollouts"\nteacher = "{teacher}"\n'))
    (warning,) = warnings(of, of.stage("rollouts"))
    assert warning.startswith("there will be no rollouts for its problems: ") and "Name a server" in warning
    with pytest.raises(ValueError, match=rf"rollouts has no rollout of any of the \d+ problems: \d+ .*{remedy}"):
        run_recipe(of)
    assert not (of.folder / "02-rollouts" / MANIFEST).exists() and not (of.folder / "03-corpus").exists()


def test_only_test_problems_stop_at_the_rollouts(tmp_path, adder):
    of = recipe(tmp_path, adder, WALK)
    of = read_recipe(of.path, ["questions.source.0.test=1"])
    assert "all test problems" in warnings(of, of.stage("rollouts"))[0]
    with pytest.raises(ValueError, match=r"is for training or validation.* Give training problems"):
        run_recipe(of)


def test_a_teacher_whose_answers_are_cut_off_is_warned_of_once_and_counted(tmp_path, capsys):
    collection = collect.Collection.__new__(collect.Collection)
    collection.stage, collection.warned = stage(tmp_path / "rollouts", collect.Settings(kind="rollouts")), set()
    collection.counts = collect.Counter()

    for number in range(40):
        reason = f"no answer: neither a box nor a stated answer; {CUT_OFF}" if number % 4 else "equal"
        row = to_row(Trace("p", number, "…", "t", number % 4 == 0, reason))
        collection._count({"traces": [row]})
        collection._warn()
    said = capsys.readouterr().err
    assert said.count("warning: rollouts: 75% of the teacher's answers so far: cut off at the token limit. Raise") == 1


# --- corpus


def built(folder, traces: list[Trace], wanted=("subset",), problems=None, **settings):
    write_records(folder / "problems", problems or [problem(a, b) for a, b in SUMS[:4]])
    write_records(folder / "rollouts", traces)
    inputs = {"problems": folder / "problems", "rollouts": folder / "rollouts"}
    return replace(stage(folder / "corpus", build.Settings(kind="corpus", **settings), **inputs), wanted=wanted)


def traces(reason: str, correct: bool | None = False, text: str = "<think>\n1\n</think>\n1") -> list[Trace]:
    return [Trace(f"{a}+{b}", 0, text, "t", correct, reason) for a, b in SUMS[:4]]


@pytest.mark.parametrize(
    ("made", "settings", "says", "remedy"),
    [
        (traces("different"), {}, "4 wrong: different", "another teacher"),
        (traces(f"no answer; {CUT_OFF}"), {}, f"4 wrong: no answer; {CUT_OFF}", "Raise max_tokens of the teacher"),
        (traces(NO_REFERENCE, None), {}, f"4 undecided: {NO_REFERENCE}", "set unverified = true"),
        (traces("timeout", None), {}, "4 undecided: timeout", "set a judge"),
        (traces("equal", True, "<think>1"), {}, "4 thinking never closes", "Raise max_tokens of the teacher"),
        (traces("equal", True, "so we add one " * 90), {}, "4 repetitive", "Raise max_repetition"),
        (traces("equal", True), {"levels": [7]}, "4 level is not taught", "Name other levels"),
        (traces("equal", True), {"languages": ["zh"]}, "4 language is not taught", "Name other languages"),
        (traces("equal", True), {"max_characters": 5}, "4 longer than 5 characters", "Raise max_characters"),
        (traces("equal", True), {"subset": {"problems": 0}}, "Left out: nothing", "Raise subset.problems"),
    ],
)
def test_a_corpus_of_which_nothing_may_be_taught_stops_with_the_reason_and_the_remedy(
    tmp_path, made, settings, says, remedy
):
    with pytest.raises(ValueError, match="corpus has no row for subset") as stop:
        build.run(built(tmp_path, made, **settings))
    assert says in str(stop.value) and remedy in str(stop.value)


def test_a_file_of_pairs_of_which_none_is_one_is_told_to_be_mended(tmp_path):
    (tmp_path / "kto.jsonl").write_text('{"prompt": "1 + 1?", "completion": "2", "label": true}\n')
    files = [{"path": str(tmp_path / "kto.jsonl")}]
    with pytest.raises(ValueError, match=r"1 imported pair: not a pair .* Mend the file of imported_pairs"):
        build.run(built(tmp_path, traces("equal", True), wanted=("pairs",), imported_pairs=files))


def test_a_corpus_stops_for_what_is_read_below_only(tmp_path):
    only_prompts = traces("different")
    assert build.run(built(tmp_path / "a", only_prompts, wanted=("prompts",)))["prompts"] == 4
    with pytest.raises(ValueError, match=r"no row for pairs.*A pair is a right and a wrong rollout of one problem"):
        build.run(built(tmp_path / "b", traces("equal", True), wanted=("subset", "pairs")))
    unanswered = [replace(problem(a, b), answer="") for a, b in SUMS[:4]]
    with pytest.raises(ValueError, match="no row for corpus and subset and pairs and prompts"):
        build.run(built(tmp_path / "c", traces(NO_REFERENCE, None), wanted=(), problems=unanswered))
    held_out = [replace(problem(a, b), split="validation") for a, b in SUMS[:4]]
    with pytest.raises(ValueError, match=r"no row for corpus.* Give training problems"):
        build.run(built(tmp_path / "e", traces("equal", True), wanted=("corpus",), problems=held_out))
    with pytest.raises(ValueError, match=r"no row for prompts.* 4 its level is not among prompt_levels"):
        build.run(built(tmp_path / "d", traces("equal", True), wanted=("prompts",), prompt_levels=[7]))


def test_the_pipeline_tells_a_stage_what_is_read_below(tmp_path):
    of = recipe(tmp_path, None, WALK + '[[stage]]\nkind = "sft"\n' + RL)
    from whetstone.pipeline.running import stage_for

    assert stage_for(of, of.stage("corpus")).wanted == ("corpus", "subset", "prompts")
    assert stage_for(of, of.stage("rl")).wanted == ()


# --- training on a corpus


def test_rows_that_are_all_left_out_stop_training_with_the_reasons(tmp_path, world):
    write_rows(tmp_path / "data", [corpus_row(1, 2), corpus_row(2, 2) | {"text": ""}])
    for kind, room, name in (("sft", sft, "data"), ("midtrain", midtrain, "corpus")):
        inputs = {name: tmp_path / "data", "model": world["model"]}
        settings = room.Settings(kind=kind, max_length=5)
        with pytest.raises(ValueError, match=r"1 no answer; 1 longer than 5 tokens .* the shortest has \d\d tokens"):
            room.run(stage(tmp_path / kind, settings, **inputs))


def test_epochs_of_less_than_one_conversation_or_pair_are_refused(tmp_path, world):
    settings = sft.Settings(kind="sft", epochs=1e-4)
    with pytest.raises(ValueError, match=r"epochs = 0\.0001 of 8 items is less than one"):
        sft.run(stage(tmp_path / "s", settings, data=world["subset"], model=world["model"]))
    settings = rollout_dpo.Settings(kind="dpo", source="teacher", epochs=0.1)
    with pytest.raises(ValueError, match=r"epochs = 0\.1 of 8 items is less than one"):
        rollout_dpo.run(stage(tmp_path / "d", settings, pairs=world["pairs"], model=world["model"]))


def test_a_batch_that_is_larger_than_the_corpus_is_one_step(tmp_path, world):
    settings = sft.Settings(kind="sft", batch_tokens=1 << 20)
    assert sft.run(stage(tmp_path / "s", settings, data=world["subset"], model=world["model"]))["steps"] == 1


# --- dpo


def test_a_student_that_solves_nothing_gives_no_pair_and_says_why(tmp_path, world):
    settings = rollout_dpo.Settings(kind="dpo", max_tokens=6, pool={"samples": 2})
    with pytest.raises(
        ValueError, match=r"Of 16 problems: 16 never solved\. \d+% of the rollouts were cut off at max_"
    ):
        rollout_dpo.run(stage(tmp_path / "d", settings, prompts=world["prompts"], model=world["model"]))


def test_pairs_that_are_too_long_are_left_out_by_name_and_without_others_it_stops(tmp_path, world):
    long = Pair("long", "Compute 1.", "1 " * 400, "2", source="teacher")
    write_records(tmp_path / "long", [long])
    settings = rollout_dpo.Settings(kind="dpo", source="teacher")
    with pytest.raises(ValueError, match=r"none of its 1 pairs can be used .* exceed the model's context of 256"):
        rollout_dpo.run(stage(tmp_path / "a", settings, pairs=tmp_path / "long", model=world["model"]))
    short = Pair("short", "Compute 1 + 1.", answer(1, 1), answer(1, 1, 1), source="teacher")
    write_records(tmp_path / "both", [long, short])
    assert rollout_dpo.run(stage(tmp_path / "b", settings, pairs=tmp_path / "both", model=world["model"]))["pairs"] == 1
    (dropped,) = read_rows(tmp_path / "b" / "dropped")
    assert dropped["problem_id"] == "long" and "exceed the model's context of 256" in dropped["detail"]


# --- rl


def rl_stage(folder, world, model, **settings):
    known = {
        "steps": 3,
        "prompts_per_step": 4,
        "samples": 4,
        "max_tokens": 40,
        "stabilisers": (),
        "pool": {"samples": 0},
    }
    inputs = {"model": model, "prompts": world["prompts"]}
    return stage(folder, loop.Settings(kind="rl", **known | settings), **inputs)


def test_rl_whose_rewards_are_all_equal_says_so_once_and_does_not_end_done(tmp_path, world, capsys):
    for _ in range(2):  # again, from the last checkpoint
        with pytest.raises(ValueError, match=r"none of its 3 steps trained anything.* Of 12 groups: 12 all wrong"):
            loop.run(rl_stage(tmp_path / "r", world, world["model"]))
    assert not (tmp_path / "r" / "model").exists()
    said = capsys.readouterr().err
    assert said.count("step 1 trains nothing: none of its groups is kept, or all rewards in them are equal") == 1
    assert said.count("trains nothing") == 1 and "tripwire zero_advantage" not in said


def test_a_students_shortcomings_are_said_before_the_first_step_only(tmp_path, world, adder, capsys):
    mine = tmp_path / "mine.py"
    mine.write_text("def length(problem, completion):\n    return len(completion)\n")
    settings = {"max_tokens": 4, "reward": f"{mine}:length", "temperature": 1.5, "steps": 5}
    summary = loop.run(rl_stage(tmp_path / "r", world, adder, **settings))
    said = capsys.readouterr().err
    assert said.count("were cut off at max_tokens = 4. Raise it") == 1 and "tripwire truncated" not in said
    assert "truncated" in summary["shortcomings"] and min(logged(tmp_path / "r", "truncated")) > 0.5
    assert len(logged(tmp_path / "r", "unanswered")) == 5


def test_all_prompts_without_an_answer_or_of_another_split_stop_the_stage(tmp_path, world):
    problems = [replace(problem(1, 2), split="test"), replace(problem(2, 2), answer="")]
    write_records(tmp_path / "problems", problems)
    with pytest.raises(ValueError, match="1 not for training, 1 no answer to verify"):
        loop.run(rl_stage(tmp_path / "r", world | {"prompts": tmp_path / "problems"}, world["model"]))


# --- plan

MADE = '[[stage]]\nkind = "questions"\n[[stage.source]]\nkind = "procedural"\ntrain = 8\nlevel = 2\n'
AHEAD = {
    "a teacher that is never wrong": (
        "rollouts.procedural.wrong_rate=0",
        "dpo",
        "rollouts has procedural.wrong_rate = 0: its teacher is never wrong",
    ),
    "one rollout per problem": ("rollouts.samples=1", "dpo", "rollouts has samples = 1"),
    "no pairs": ("corpus.pairs_per_problem=0", "dpo", "corpus has pairs_per_problem = 0"),
    "an empty subset": ("corpus.subset.problems=0", "corpus", "subset.problems = 0"),
    "levels of the corpus": ("corpus.levels=[7]", "corpus", "its problems have the levels [2]"),
    "levels of the pool": ("rl.pool.levels=[7]", "rl", "pool.levels = [7]: the problems have the levels [2]"),
    "one prompt": ("rl.pool.prompts=1", "rl", "pool.prompts = 1"),
    "an answer as long as the context": (
        "rl.max_tokens=1024",
        "rl",
        "leaves no room for a prompt in a context of 1024",
    ),
    "greedy answers": ("scores.temperature=0.0", "midtrain", "[scores] temperature = 0 with"),
    "sequences beyond the context": ("sft.max_length=4096", "sft", "max_length = 4096: the model's context is 1024"),
    "a score's answer": ("scores.max_tokens=2000", "midtrain", "[scores] max_tokens = 2000 leaves no room"),
    "no test problems": ("run.seed=0", "evaluate", "there are no test problems to score"),
}


@pytest.mark.parametrize("name", AHEAD)
def test_the_plan_warns_of_what_must_end_with_nothing(tmp_path, name):
    change, of, says = AHEAD[name]
    kinds = ["rollouts", "corpus", "midtrain", "sft", "dpo", "rl", "evaluate"]
    stages = "".join(f'[[stage]]\nkind = "{kind}"\n' for kind in kinds)
    path = tmp_path / "r.toml"
    path.write_text(MADE + stages.replace('"dpo"\n', '"dpo"\nsource = "teacher"\n'))
    changed = read_recipe(path, [change])
    assert any(says in warning for warning in warnings(changed, changed.stage(of)))
    plain = read_recipe(path)
    assert not [w for s in plain.stages if s.name != "evaluate" for w in warnings(plain, s)]


def test_a_run_without_test_problems_is_told_before_training_and_refused_if_it_compares_scores(tmp_path, capsys):
    path = tmp_path / "r.toml"
    shape = "[model]\nlayers = 1\nhidden = 32\nheads = 2\nkv_heads = 1\ncontext = 256\n[scores]\nmax_tokens = 40\n"
    walk = '[[stage]]\nkind = "rollouts"\n[[stage]]\nkind = "corpus"\n[[stage]]\nkind = "midtrain"\ntokens = 600\n'
    path.write_text(f'[run]\nfolder = "{tmp_path}"\nthreads = 1\n{shape}{MADE}{walk}[[stage]]\nkind = "evaluate"\n')
    with pytest.raises(ValueError, match="evaluate compares scores, and there are no test problems"):
        run_recipe(read_recipe(path))
    assert not (tmp_path / "r" / "04-midtrain" / "checkpoints").exists()
    path.write_text(path.read_text().partition('[[stage]]\nkind = "evaluate"')[0])
    run_recipe(read_recipe(path))
    assert "warning: there are no test problems to score a model on" in capsys.readouterr().err
    assert read_json(tmp_path / "r" / "04-midtrain" / MANIFEST)


def test_own_problems_without_answers_stop_at_the_questions(tmp_path, adder):
    rows = [{"id": str(n), "question": f"Compute {n} + 1.", "answer": ""} for n in range(9)]
    of = recipe(tmp_path, adder, RL, rows)
    with pytest.raises(ValueError, match="questions found no problem: 9 rows were dropped: empty answer"):
        run_recipe(of)


def test_a_file_without_rows_stops_at_the_questions_and_sends_nobody_to_an_empty_table(tmp_path, adder):
    with pytest.raises(ValueError, match="questions found no problem: its sources hold no row"):
        run_recipe(recipe(tmp_path, adder, RL, []))


@pytest.mark.parametrize("kind", ["midtrain", "sft", "dpo"])
def test_updates_that_change_no_weight_are_an_error(tmp_path, world, kind):
    room, more, name = {
        "midtrain": (midtrain, {}, "corpus"),
        "sft": (sft, {}, "subset"),
        "dpo": (rollout_dpo, {"source": "teacher"}, "pairs"),
    }[kind]
    settings = room.Settings(kind=kind, optimizer={"learning_rate": 1e-30, "weight_decay": 0.0}, **more)
    inputs = {"data" if kind == "sft" else name: world[name], "model": world["model"]}
    with pytest.raises(ValueError, match=r"has trained nothing: .* raise optimizer\.learning_rate"):
        room.run(stage(tmp_path / kind, settings, **inputs))
    assert not (tmp_path / kind / "model").exists()
