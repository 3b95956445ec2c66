"""`[run] copy_to`: a run's folder is copied to another place while it goes on."""

import time

import fsspec
import pytest

from whetstone.pipeline.running import run_recipe
from whetstone.pipeline.staleness import plan_recipe
from whetstone.recipe import read_recipe
from whetstone.run.copying import COPIED, Copying, copied_out

TO = "memory://bucket/runs"


@pytest.fixture(autouse=True)
def store():
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    return files


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "tiny"
    (folder / "04-sft" / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "04-sft" / "log.jsonl").write_text("1\n")
    (folder / "04-sft" / "checkpoints" / "step-1" / "state.json").write_text("1")
    return folder


def there(store) -> dict[str, bytes]:
    place = "/bucket/runs/tiny/"
    return {name.removeprefix(place): store.cat(name) for name in store.find(place) if COPIED not in name}


def local(folder) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_copy_follows_what_grows_and_what_is_deleted(run, store):
    with copied_out(run, TO, every=0.01):
        deadline = time.monotonic() + 60
        while there(store) != local(run) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert there(store) == local(run), "copied while the run goes on"
        (run / "04-sft" / "log.jsonl").write_text("1\n2\n")
        (run / "04-sft" / "checkpoints" / "step-1").rename(run / "04-sft" / "checkpoints" / "step-2")
    assert there(store) == local(run)


def test_what_is_not_whole_is_not_copied(run, store):
    whole = local(run)
    (run / ".writing-model").mkdir()
    (run / ".writing-model" / "model.safetensors").write_text("half")
    (run / "scores.json.part").write_text("half")
    (run / "link").symlink_to("/etc/passwd")
    with copied_out(run, TO):
        pass
    assert there(store) == whole


def test_a_later_process_copies_only_what_is_new_or_was_lost_there(run, store, monkeypatch):
    with copied_out(run, TO):
        pass
    (run / "scores.json").write_text("[]")
    store.rm("/bucket/runs/tiny/run.json")
    put, names = store.put_file, []
    monkeypatch.setattr(store, "put_file", lambda path, to, **more: (names.append(to), put(path, to, **more)))
    with copied_out(run, TO):
        pass
    assert sorted(names) == ["/bucket/runs/tiny/run.json", "/bucket/runs/tiny/scores.json"]
    assert there(store) == local(run)


def test_a_place_that_fails_for_a_while_is_tried_again_and_ends_nothing(run, store, monkeypatch, capsys):
    put, wrong = store.put_file, [OSError("503 slow down"), OSError("503 slow down")]

    def sometimes(path, to, **more):
        if wrong:
            raise wrong.pop()
        put(path, to, **more)

    monkeypatch.setattr(store, "put_file", sometimes)
    copying = Copying(run, TO)
    copying.round()
    assert len(copying.failed) == 2 and "503 slow down" in capsys.readouterr().err
    copying.round()
    copying.conclude()
    assert there(store) == local(run)


def test_what_could_not_be_copied_is_said_at_the_end_with_the_remedy(run, store, monkeypatch):
    def never(path, to, **more):
        raise PermissionError("403 for ?token=hunter2")

    monkeypatch.setattr(store, "put_file", never)
    with (
        pytest.raises(
            OSError, match=r"3 of 3 files of .*tiny could not be copied.*run it again to copy the rest"
        ) as said,
        copied_out(run, TO),
    ):
        pass
    assert "hunter2" not in str(said.value)


def test_an_error_of_the_run_is_not_hidden_by_one_of_the_copy(run, store, monkeypatch):
    monkeypatch.setattr(store, "put_file", lambda *_, **__: (_ for _ in ()).throw(OSError("503")))
    with pytest.raises(ZeroDivisionError), copied_out(run, TO):
        raise ZeroDivisionError


def test_a_place_that_is_none_is_refused_before_the_run_begins(run):
    with (
        pytest.raises(OSError, match="nostore://bucket/tiny cannot be used: Protocol not known"),
        copied_out(run, "nostore://bucket"),
    ):
        raise AssertionError("the run began")


@pytest.mark.parametrize("inside", [".", "tiny", "tiny/04-sft"])
def test_a_run_is_not_copied_into_itself(run, inside):
    with (
        pytest.raises(ValueError, match="into itself: name a folder elsewhere"),
        copied_out(run, str(run.parent / inside)),
    ):
        raise AssertionError("the run began")


def test_a_folder_is_a_place_too_and_other_files_there_stay(run, tmp_path):
    backup = tmp_path / "backup"
    (backup / "tiny").mkdir(parents=True)
    (backup / "tiny" / "notes.txt").write_text("mine")
    with copied_out(run, str(backup)):
        (run / "run.json").write_text('{"a": 1}')
    assert local(backup / "tiny") == local(run) | {"notes.txt": b"mine"}


def test_a_recipe_copies_its_run_and_the_place_makes_no_stage_stale(walk, store):
    recipe = read_recipe(walk, [f"run.copy_to={TO}"])
    run_recipe(recipe)
    copied = {name for name in store.find("/bucket/runs") if not name.rpartition("/")[2].startswith(".")}
    assert len(copied) == len(local(recipe.folder)) and (recipe.folder / COPIED).is_file()
    assert {state.status for _, state in plan_recipe(read_recipe(walk))} == {"done"}
