"""Stages run once, are redone only on request, and never mix with another recipe's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from whetstone import __version__
from whetstone.pipeline import scores as scoring
from whetstone.pipeline.running import lock, run_recipe
from whetstone.pipeline.staleness import differences, plan_recipe
from whetstone.recipe import read_recipe
from whetstone.rollouts import collect
from whetstone.run.folder import STARTED, hash_folder
from whetstone.run.manifest import read_manifest, write_manifest

ALL = ["questions", "corpus", "midtrain", "sft", "report"]


def run(path: Path, *sets: str, **options):
    return run_recipe(read_recipe(path, sets), **options)


def states(path: Path, *sets: str) -> dict[str, str]:
    return {stage.name: state.status for stage, state in plan_recipe(read_recipe(path, sets))}


def manifest(path: Path, stage: str) -> dict:
    return json.loads((path.parent / "runs" / "walk" / stage / "manifest.json").read_text())


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_finished_stages_are_skipped(walk, rooms):
    run(walk)
    assert rooms.calls == ALL
    run(walk)
    assert rooms.calls == ALL
    assert set(states(walk).values()) == {"done"}


def test_plan_runs_and_writes_nothing(walk, rooms):
    assert set(states(walk).values()) == {"to do"}
    assert rooms.calls == []
    assert not (walk.parent / "runs").exists()


def test_the_manifest_says_what_was_done(walk, rooms):
    run(walk)
    written = manifest(walk, "04-sft")
    corpus = walk.parent / "runs" / "walk" / "02-corpus"
    assert (written["kind"], written["name"], written["number"]) == ("sft", "sft", 4)
    assert written["settings"] == {"learning_rate": 1e-4}
    assert written["inputs"]["data"] == {
        "stage": "corpus",
        "artifact": "subset",
        "hash": hash_folder(corpus / "subset"),
    }
    assert written["inputs"]["model"]["stage"] == "midtrain"
    assert written["outputs"] == {"model": hash_folder(walk.parent / "runs" / "walk" / "04-sft" / "model")}
    assert written["shared"] == {"run.seed": 3}
    assert written["summary"] == {"steps": 1}
    assert written["versions"]["whetstone"] == __version__ and written["versions"]["torch"]
    assert written["python"] == ".".join(map(str, sys.version_info[:3]))
    assert written["wall_seconds"] >= 0 and written["cpu_seconds"] >= 0 and written["peak_memory"] > 1e6
    assert written["started"] <= written["finished"]
    assert written["attempts"] == 1 and isinstance(written["seed"], int)
    assert "dropped" in manifest(walk, "02-corpus")["outputs"]


def test_a_changed_setting_stops_the_run_and_says_what_changed(walk, rooms):
    run(walk)
    edit(walk, "learning_rate = 1e-4", "learning_rate = 2e-4")
    assert [states(walk)[name] for name in ALL] == ["done", "done", "done", "stale", "stale"]
    with pytest.raises(ValueError, match=r"04-sft: learning_rate was 0.0001 and is 0.0002\n.*--force.*run.name"):
        run(walk)
    with pytest.raises(ValueError, match=r"02-corpus: run.seed was 3 and is 4\n.*03-midtrain"):
        run(walk, "run.seed=4")
    assert rooms.calls == ALL, "nothing was redone unasked"


def test_force_redoes_what_is_stale_and_what_follows_and_no_more(walk, rooms):
    run(walk)
    run(walk, "sft.learning_rate=2e-4", force=True)
    assert rooms.calls == [*ALL, "sft", "report"]
    model = walk.parent / "runs" / "walk" / "04-sft" / "model" / "content.txt"
    assert model.read_text().endswith("sft 0.0002;")


def test_a_stage_whose_input_came_out_the_same_is_not_redone(walk, rooms):
    run(walk)
    run(walk, "questions.wait=0.001", force=True)
    assert rooms.calls == [*ALL, "questions", "report"], "the same problems came out, so corpus and the models stand"


def test_a_shared_setting_touches_only_the_kinds_that_use_it(walk, rooms):
    run(walk)
    assert states(walk, "model.layers=2") == {
        "questions": "done", "corpus": "done", "midtrain": "stale", "sft": "stale", "report": "stale"
    }  # fmt: skip
    assert states(walk, "run.seed=4")["questions"] == "stale"
    assert set(states(walk, "run.threads=1").values()) == {"done"}


def test_another_input_of_the_same_kind_makes_a_stage_stale(walk, rooms):
    run(walk)
    plan = plan_recipe(read_recipe(walk, ["sft.data=corpus/pairs"]))
    assert plan[3][1].status == "done", "pairs hold the same rows as the subset here: the same content, the same input"
    plan = plan_recipe(read_recipe(walk, ["questions.count=5"]))
    assert [state.status for _, state in plan] == ["stale"] * 5
    assert plan[0][1].reasons == ("count was 4 and is 5",)
    assert plan[1][1].reasons == ("questions/problems will be made again",)


def test_another_content_of_a_users_file_makes_a_stage_stale(walk, rooms, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text("one")
    edit(walk, "count = 4", f'count = 4\nfile = "{file}"')
    run(walk)
    assert states(walk)["questions"] == "done"
    file.write_text("two")
    with pytest.raises(ValueError, match=r"01-questions: input file 1 \(.*mine.jsonl\) has other content"):
        run(walk)
    file.write_text("one")
    assert states(walk, f"questions.file={file}")["questions"] == "done"
    file.unlink()
    assert states(walk)["questions"] == "done", "a finished stage does without the file"


def test_an_interrupted_stage_is_continued(walk, rooms):
    edit(walk, "count = 4", "count = 4\nstop_after = 1")
    with pytest.raises(KeyboardInterrupt):
        run(walk)
    assert states(walk)["questions"] == "half done"
    started = walk.parent / "runs" / "walk" / "01-questions" / STARTED
    before = read_manifest(started)
    assert before["peak_memory"] > 0
    write_manifest(started, before | {"cpu_seconds": 1000.0})
    run(walk)
    written = manifest(walk, "01-questions")
    assert written["summary"]["continued_at"] == 2
    assert written["attempts"] == 2
    assert written["wall_seconds"] > before["wall_seconds"] and written["cpu_seconds"] >= 1000


def test_half_done_work_of_other_settings_is_not_continued(walk, rooms):
    edit(walk, "count = 4", "count = 4\nstop_after = 1")
    with pytest.raises(KeyboardInterrupt):
        run(walk)
    with pytest.raises(ValueError, match=r"half done.*count was 4 and is 6.*\n.*--force"):
        run(walk, "questions.count=6")
    run(walk, "questions.count=6", "questions.stop_after=-1", force=True)
    assert manifest(walk, "01-questions")["summary"]["continued_at"] == 0


def test_a_run_folder_of_another_recipe_is_refused(walk, rooms, tmp_path):
    run(walk)
    other = tmp_path / "other.toml"
    shared = f'[run]\nname = "walk"\nfolder = "{tmp_path / "runs"}"\n'
    other.write_text(shared + '[[stage]]\nkind = "questions"\nname = "mine"\n')
    with pytest.raises(ValueError, match=r"01-questions.*another recipe.*run\.name=NAME"):
        run(other)
    other.write_text(shared + '[[stage]]\nkind = "report"\nname = "questions"\n')
    with pytest.raises(ValueError, match=r"01-questions \(questions\) stands where"):
        run(other)


def test_a_longer_recipe_shares_the_stages_it_extends(walk, rooms, tmp_path):
    run(walk)
    longer = tmp_path / "controls.toml"
    longer.write_text('extends = "walk.toml"\n[[stage]]\nkind = "midtrain"\nname = "more"\nmodel = "midtrain"\n')
    run(longer)
    assert rooms.calls == [*ALL, "more"]
    assert (tmp_path / "runs" / "walk" / "06-more" / "manifest.json").exists()
    run(walk)  # the shorter recipe keeps the longer one's scores, and they do not concern its report
    assert rooms.calls == [*ALL, "more"]
    scores = json.loads((tmp_path / "runs" / "walk" / "scores.json").read_text())["scores"]
    assert [s["stage"] for s in scores if s["main"]] == ["base", "midtrain", "sft", "more"]


def test_every_model_is_scored_once_on_every_test_set(walk, rooms, tmp_path):
    run(walk)
    assert rooms.scored == [("base", 8), ("midtrain", 8), ("sft", 8)], "4 easy and 4 hard test problems, no train ones"
    run(walk)
    assert len(rooms.scored) == 3
    scores = json.loads((tmp_path / "runs" / "walk" / "scores.json").read_text())["scores"]
    assert [(s["stage"], s["benchmark"], s["main"]) for s in scores] == [
        (stage, benchmark, benchmark == "easy")
        for stage in ("base", "midtrain", "sft")
        for benchmark in ("easy", "hard")
    ]
    timing = json.loads((tmp_path / "runs" / "walk" / "scores" / "sft" / "manifest.json").read_text())
    assert timing["wall_seconds"] >= 0 and timing["cpu_seconds"] >= 0


def test_missing_and_changed_scores_are_made_again_without_training(walk, rooms, tmp_path):
    run(walk)
    (tmp_path / "runs" / "walk" / "scores" / "midtrain" / "manifest.json").unlink()
    run(walk)
    assert rooms.scored[3:] == [("midtrain", 8)]
    run(walk, "scores.samples=4", "scores.main=hard")
    assert [name for name, _ in rooms.scored[4:]] == ["base", "midtrain", "sft"]
    assert [call for call in rooms.calls if call != "report"] == ALL[:4], "no stage was trained again for a score"
    scores = json.loads((tmp_path / "runs" / "walk" / "scores.json").read_text())["scores"]
    assert {s["benchmark"] for s in scores if s["main"]} == {"hard"} and {s["samples"] for s in scores} == {4}


def test_the_base_may_be_scored_with_fewer_answers(walk, rooms, tmp_path):
    run(walk, "scores.base_samples=2", "scores.samples=8")
    scores = json.loads((tmp_path / "runs" / "walk" / "scores.json").read_text())["scores"]
    assert {(s["stage"], s["samples"]) for s in scores} == {("base", 2), ("midtrain", 8), ("sft", 8)}
    run(walk, "scores.base_samples=4", "scores.samples=8")
    assert [name for name, _ in rooms.scored[3:]] == ["base"], "the others stand"


def test_only_the_chosen_sets_are_scored_and_a_set_without_problems_is_refused(walk, rooms, tmp_path):
    with pytest.raises(
        ValueError, match=r"sets names 'hart', which no source gives test problems of: did you mean 'hard'"
    ):
        run(walk, 'scores.sets=["hart"]')
    assert rooms.scored == []
    run(walk, 'scores.sets=["hard"]')
    assert rooms.scored == [("base", 4), ("midtrain", 4), ("sft", 4)]
    run(walk)  # the others, later, without training again
    assert rooms.scored[3:] == [("base", 8), ("midtrain", 8), ("sft", 8)] and rooms.calls.count("sft") == 1


def test_the_headline_set_must_exist(walk, rooms):
    with pytest.raises(ValueError, match=r"main = 'aime'.*Use one of easy, hard"):
        run(walk, "scores.main=aime")
    assert rooms.scored == [], "said before anything is sampled"


def test_selected_stages_only(walk, rooms):
    run(walk, last="corpus")
    assert rooms.calls == ["questions", "corpus"]
    with pytest.raises(ValueError, match=r"03-midtrain/manifest.json is missing: sft reads midtrain/model.*--from"):
        run(walk, only=["sft"])
    run(walk, first="midtrain", last="midtrain")
    assert rooms.calls == ["questions", "corpus", "midtrain"]
    with pytest.raises(ValueError, match="did you mean 'midtrain'"):
        run(walk, first="midtrian")
    with pytest.raises(ValueError, match="nothing lies between"):
        run(walk, first="sft", last="corpus")


def test_run_json_holds_the_recipe_and_the_machine(walk, rooms, tmp_path):
    run(walk)
    run_file = json.loads((tmp_path / "runs" / "walk" / "run.json").read_text())
    assert run_file["recipe"]["run"]["seed"] == 3
    assert run_file["recipe"]["stage"][3]["inputs"] == {"model": "midtrain/model", "data": "corpus/subset"}
    (entry,) = run_file["history"]
    assert entry["matmul_gflops"]["before"] > 0 and entry["matmul_gflops"]["after"] > 0
    assert {*ALL, "scores/base", "scores/sft"} <= set(entry["stages"])
    run(walk)
    assert len(json.loads((tmp_path / "runs" / "walk" / "run.json").read_text())["history"]) == 1, "nothing was done"


HOLD = """
import sys, time
from pathlib import Path
from whetstone.pipeline.running import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_folder_is_locked_and_a_kill_frees_it(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ValueError, match=rf"in use by another whetstone run \(process {holder.pid}\).*run.name"),
            lock(tmp_path),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_kill_while_old_work_is_thrown_away_leaves_nothing_that_looks_complete(walk, rooms, tmp_path):
    run(walk)
    folder = tmp_path / "runs" / "walk"
    (folder / "04-sft").rename(folder / ".discarded-04-sft-1")  # what a kill during --force leaves
    assert states(walk)["sft"] == "to do"
    run(walk)
    assert rooms.calls[-1] in ("sft", "report") and not list(folder.glob(".discarded-*"))


def test_the_same_model_at_another_address_makes_nothing_stale():
    def settings(**server):
        return collect.Settings(kind="rollouts", teacher={"server": "http://a/v1", "model": "m"} | server)

    def changes(then: collect.Settings, now: collect.Settings) -> list[str]:
        before, after = ({"settings": s.model_dump(mode="json"), "shared": {}, "inputs": {}} for s in (then, now))
        return differences(before, after, now)

    assert changes(settings(), settings(server="http://b/v1", in_flight=2, timeout=5)) == []
    changed = changes(settings(), settings(server="http://b/v1", temperature=1.0))
    assert changed == ["teacher.temperature was 0.6 and is 1.0"]


OWN_ROOM = """
from pydantic import Field
from whetstone.run.folder import write_text
from whetstone.run.room import Input, Room
from whetstone.run.settings import StageSettings

class Settings(StageSettings):
    words: str = Field("nothing", description="to write")

def check(settings):
    if settings.words == "impossible":
        raise ValueError("this machine cannot write that")

def run(stage):
    write_text(stage.output("notes") / "notes.txt", stage.settings.words)
    return {"model": str(stage.inputs["model"].parent.name)}

ROOM = Room(settings=Settings, run=run, inputs={"model": Input(("model",))}, gives=("notes",), check=check)
"""


@pytest.fixture
def own_room(walk, tmp_path, monkeypatch):
    """The recipe with a stage of a kind that its user wrote."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.py").write_text(OWN_ROOM)
    edit(walk, '[[stage]]\nkind = "report"', '[[stage]]\nkind = "notes.py:ROOM"\nwords = "done"\nmodel = "midtrain"')
    return walk


def test_a_kind_of_stage_may_be_the_users_own_and_depends_on_its_file(own_room, rooms, tmp_path):
    run(own_room)
    written = manifest(own_room, "05-notes")
    assert written["summary"] == {"model": "03-midtrain"} and written["settings"] == {"words": "done"}
    assert states(own_room)["notes"] == "done"
    (tmp_path / "notes.py").write_text(OWN_ROOM + "# another version\n")
    with pytest.raises(ValueError, match=r"05-notes: input file 1 \(notes\.py\) has other content"):
        run(own_room)


def test_what_a_room_cannot_do_on_this_machine_is_said_before_the_first_stage(own_room, rooms):
    with pytest.raises(ValueError, match="cannot write that"):
        run(own_room, "notes.words=impossible")
    assert rooms.calls == []


def test_the_inputs_of_a_stage_are_hashed_a_few_times_however_long_the_recipe(walk, rooms, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("whetstone.pipeline.staleness.hash_of", lambda path: asked.append(path) or "0")
    mine = tmp_path / "mine.jsonl"
    mine.write_text("one")
    edit(walk, "count = 4", f'count = 4\nfile = "{mine}"')
    run(walk)
    assert sum(path == mine for path in asked) <= 3


def test_scores_of_a_version_without_top_p_stay_valid_and_another_top_p_scores_again(walk, rooms):
    def key(*sets: str) -> dict:
        recipe = read_recipe(walk, sets)
        return scoring._model(recipe, "sft", None, "model", "problems", recipe.scores, recipe.prompt).key

    assert not {"top_p", "top_k"} & key().keys()
    assert key("scores.top_p=0.9")["top_p"] == 0.9 and key("scores.top_k=20")["top_k"] == 20
