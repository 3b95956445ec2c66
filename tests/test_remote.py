"""Data and models in object stores, read through fsspec. The store is fsspec's own in memory, emptied before each test."""

import json
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from tests.report import fake_run
from tests.tiny_models import TEXTS
from whetstone import model as models
from whetstone.cli import app
from whetstone.evaluate.problem_sets import read_problems, set_name
from whetstone.model_folder import check_model, find_model, provenance
from whetstone.pipeline.staleness import base_hash
from whetstone.problems.files import find_file, find_files
from whetstone.problems.table import read_tables
from whetstone.run import remote
from whetstone.run.settings import ModelSettings

TINY = ModelSettings(layers=1, hidden=32, heads=2, kv_heads=2, mlp=48, vocabulary=300, context=64)


def look_again():
    """As a new process would."""
    for asked in (remote.is_folder, remote.names_in, remote.copy_file, remote.copy_folder):
        asked.cache_clear()


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("WHETSTONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    look_again()
    yield files
    look_again()


def rows(*questions: str) -> bytes:
    return "".join(json.dumps({"question": question, "answer": "3"}) + "\n" for question in questions).encode()


def questions(raw: str) -> list[str]:
    return [row["question"] for _, _, row in read_tables(find_files(raw))]


def copied(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")}


def test_a_file_a_pattern_and_a_folder_are_read_as_local_ones_are(store, monkeypatch):
    for part in (1, 2, 10):
        store.pipe(f"/bucket/set/part-{part}.jsonl", rows(f"question {part}"))
    store.pipe("/bucket/set/dataset_info.json", b"{}")
    assert questions("memory://bucket/set/part-2.jsonl") == ["question 2"]
    for all_parts in ("memory://bucket/set/part-*.jsonl", "memory://bucket/set"):
        assert questions(all_parts) == ["question 1", "question 2", "question 10"]
    monkeypatch.setenv("BUCKET", "memory://bucket")
    assert questions("$BUCKET/set/part-1.jsonl") == ["question 1"]


def test_a_copy_is_used_again_until_the_store_holds_another_file(store):
    store.pipe("/bucket/a.jsonl", rows("old"))
    first = find_file("memory://bucket/a.jsonl")
    made = first.stat().st_mtime_ns
    look_again()
    assert find_file("memory://bucket/a.jsonl") == first and first.stat().st_mtime_ns == made
    store.pipe("/bucket/a.jsonl", rows("new"))
    assert questions("memory://bucket/a.jsonl") == ["old"], "one process sees one state"
    look_again()
    assert questions("memory://bucket/a.jsonl") == ["new"]


def test_a_download_that_breaks_off_leaves_no_file_and_names_the_address(store, monkeypatch, tmp_path):
    store.pipe("/bucket/a.jsonl", rows("one", "two"))

    def short(place, path, **_):
        Path(path).write_bytes(b"{")

    monkeypatch.setattr(store, "get_file", short)
    with pytest.raises(OSError, match=r"memory://bucket/a\.jsonl cannot be used: 1 of \d+ bytes came"):
        find_files("memory://bucket/a.jsonl")
    assert copied(tmp_path) == set()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("memory://bucket/none.jsonl", "memory://bucket/none.jsonl is missing"),
        ("memory://bucket/none-*.jsonl", "no file fits the pattern memory://bucket/none-*.jsonl"),
        ("nostore://bucket/a.jsonl", "nostore://bucket/a.jsonl cannot be used: Protocol not known"),
        ("memory://bucket/empty", "holds no file ending in"),
        ("$NOT_SET_ANYWHERE/a.jsonl", "$NOT_SET_ANYWHERE, which is not set"),
        ("memory://bucket/..", "can be no file's name"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_reason(raw, said, store):
    store.pipe("/bucket/empty/readme.md", b"")
    with pytest.raises((OSError, ValueError)) as refused:
        find_files(raw)
    assert said in str(refused.value) and "\n" not in str(refused.value).partition("Say where")[0]


def test_a_missing_package_is_said_with_the_command_that_installs_it(monkeypatch):
    def not_installed(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", not_installed)
    with pytest.raises(ImportError, match=r'pip install "whetstone-reasoner\[s3\]"'):
        find_files("s3://bucket/a.jsonl")


def test_a_password_in_an_address_stands_in_no_message():
    with pytest.raises(OSError) as refused:
        find_files("nostore://me:hunter2@host/a.jsonl?token=hunter2")
    assert "hunter2" not in str(refused.value)


def put(store, folder: Path, place: str):
    for path in folder.iterdir():
        store.pipe(f"{place}/{path.name}", path.read_bytes())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    models.save(*models.build_tiny(TINY, TEXTS, seed=0), folder)
    return folder


@pytest.mark.parametrize("place", ["/bucket/mine", "/bucket/run/04-sft/model"])
def test_a_model_a_stage_and_a_run_stand_for_the_same_weights_as_their_local_folder(place, store, model):
    put(store, model, place)
    store.pipe(f"{place}/notes.bin", b"not of a model")
    names = [f"memory:/{place}"]
    if "run" in place:
        put(store, model, "/bucket/run/05-rl/model")  # unfinished: no manifest
        store.pipe("/bucket/run/04-sft/manifest.json", b"{}")
        names += ["memory://bucket/run/04-sft", "memory://bucket/run", Path("memory://bucket/run")]
    for name in names:
        check_model(name)
        assert copied(find_model(name)) == copied(model)
        assert (find_model(name) / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
        assert base_hash(str(name)) == base_hash(str(model))
        assert provenance(name)["name"].startswith("memory://bucket/")


def test_a_file_that_is_gone_from_the_store_is_gone_from_the_copy(store, model):
    put(store, model, "/bucket/mine")
    store.pipe("/bucket/mine/extra.txt", b"")
    assert "extra.txt" in copied(find_model("memory://bucket/mine"))
    store.rm("/bucket/mine/extra.txt")
    look_again()
    assert copied(find_model("memory://bucket/mine")) == copied(model)


def test_an_address_without_a_model_says_what_it_holds(store):
    store.pipe("/bucket/set/a.jsonl", rows("one"))
    with pytest.raises(ValueError, match=r"memory://bucket/set holds a\.jsonl: no model\. Name a Hugging Face folder"):
        check_model("memory://bucket/set")


def test_a_model_and_problems_from_a_store_are_evaluated(store, model, tmp_path):
    put(store, model, "/bucket/mine")
    store.pipe("/bucket/test.jsonl", rows("What is 1 + 2?", "What is 2 + 1?"))
    named = ["-b", "memory://bucket/test.jsonl", "-m", "memory://bucket/mine"]
    done = CliRunner().invoke(app, ["evaluate", *named, "--max-tokens", "4", "--output", str(tmp_path / "scores")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "scores" / "test").is_dir()


def test_a_set_in_a_store_has_one_name_wherever_it_is_compared(store):
    store.pipe("/bucket/sums/part-1.jsonl", rows("What is 1 + 2?"))
    for named in ("memory://bucket/sums", "memory://bucket/sums/part-*.jsonl"):
        assert {problem.benchmark for problem in read_problems(named)} == {set_name(named)} == {"sums"}


def test_a_run_in_a_store_is_reported_watched_shown_and_compared_without_its_weights(store, tmp_path):
    run = fake_run.make(tmp_path / "runs" / "mine")
    (run / "04-sft" / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "04-sft" / "checkpoints" / "state.pt").write_bytes(b"much")
    for path in run.rglob("*"):
        if path.is_file():
            store.pipe(f"/bucket/runs/mine/{path.relative_to(run)}", path.read_bytes())
    url, command = "memory://bucket/runs/mine", CliRunner()

    def said(*words) -> str:
        look_again()
        result = command.invoke(app, list(map(str, words)))
        assert result.exit_code == 0, result.output
        return result.output

    said("report", url, "--output", "theirs.html")
    said("report", run)
    assert Path("theirs.html").read_text().count("<h2") == (run / "report.html").read_text().count("<h2") > 3
    assert said("watch", url, "--once") == said("watch", run, "--once")
    tables = [line.partition("mine/")[2] for line in said("show", run).splitlines()]
    assert [line.partition("mine/")[2] for line in said("show", url).splitlines()] == tables != []
    scored = sorted(path.name for path in (run / "scores").iterdir())[-1]
    assert f"{url}/scores/{scored}" in said("compare", f"{url}/scores/{scored}", run / "scores" / scored)
    copies = copied(tmp_path / "cache")
    assert "run.json" in copies and not any(name.endswith((".safetensors", ".pt")) for name in copies)
    store.rm("/bucket/runs/mine/run.json")
    look_again()
    with pytest.raises(FileNotFoundError, match="holds no run"):
        command.invoke(app, ["watch", url, "--once"], catch_exceptions=False)
