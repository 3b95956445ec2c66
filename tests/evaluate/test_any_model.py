"""`evaluate` on any model: resumed, of a server, by a protocol, listed where it is of a test set."""

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.scripted import TINY
from tests.servers import said, send, server
from tests.tiny_models import TEXTS
from whetstone import cli, evaluation, test_runs
from whetstone import model as models
from whetstone.evaluate.any_model import ModelOptions, Task, evaluate_model
from whetstone.evaluate.problem_sets import read_problems
from whetstone.evaluate.protocols import protocols, settings_for
from whetstone.evaluate.published import beside, tables
from whetstone.evaluation import Sets
from whetstone.records import Score, to_row
from whetstone.run.folder import read_json, write_json
from whetstone.run.prompt_settings import PromptSettings
from whetstone.run.settings import ScoreSettings
from whetstone.run.tables import read_rows

SUMS = [("1+1?", "2"), ("2+1?", "3"), ("2+3?", "5")]
SHORT = ScoreSettings(samples=2, max_tokens=8, top_p=0.9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    models.save(*models.build_tiny(TINY, TEXTS, seed=0), path)
    return str(path)


def write(folder: Path, name: str = "sums") -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in SUMS))
    return str(path)


def task(folder: Path, settings: ScoreSettings = SHORT, name: str = "sums") -> Task:
    return Task(read_problems(write(folder, name)), settings)


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["whetstone", *map(str, words)])
    try:
        cli.main()
    except SystemExit as done:
        return done.code or 0
    return 0


# --- resumed


def test_a_finished_evaluation_is_not_sampled_again_and_another_set_joins_it(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    (first,) = evaluate_model(ModelOptions(folder), [task(tmp_path)], output=out)
    both = [task(tmp_path), task(tmp_path, name="more")]
    assert evaluate_model(ModelOptions(folder), both, output=out)[0] == first
    assert [row["benchmark"] for row in read_json(out / "scores.json")["scores"]] == ["sums", "more"]
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("loaded"))
    assert evaluate_model(ModelOptions(folder), both, output=out)[0] == first
    assert not list(out.rglob("journal.jsonl"))


def test_a_folder_that_another_process_writes_to_is_refused(folder, tmp_path):
    (out := tmp_path / "out").mkdir()
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    words = [sys.executable, "-c", hold, str(out / ".lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match="another process writes generations to"):
            evaluate_model(ModelOptions(folder), [task(tmp_path)], output=out)
        other.communicate(b"\n")
    evaluate_model(ModelOptions(folder), [task(tmp_path)], output=out)
    (file := tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file, and generations need a folder"):
        evaluate_model(ModelOptions(folder), [task(tmp_path)], output=file)


def test_samples_of_another_way_are_never_mixed_in(folder, tmp_path):
    out = tmp_path / "out"
    evaluate_model(ModelOptions(folder), [task(tmp_path)], output=out)
    hotter = task(tmp_path, SHORT.model_copy(update={"temperature": 0.9}))
    with pytest.raises(ValueError, match=r"made in another way: temperature was 0\.6, now 0\.9"):
        evaluate_model(ModelOptions(folder), [hotter], output=out)
    with pytest.raises(ValueError, match="seed was 0, now 1"):
        evaluate_model(ModelOptions(folder), [task(tmp_path)], seed=1, output=out)
    fewer = task(tmp_path, SHORT.model_copy(update={"problems": 2}))
    with pytest.raises(ValueError, match="problems was"):
        evaluate_model(ModelOptions(folder), [fewer], output=out)
    (tmp_path / "other" / "sums").mkdir(parents=True)
    (tmp_path / "other" / "sums" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"no asked\.json"):
        evaluate_model(ModelOptions(folder), [task(tmp_path)], output=tmp_path / "other")


def test_a_way_that_gave_no_samples_may_be_changed(folder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="none of its 3 problems can be asked"):
        evaluate_model(ModelOptions(folder), [task(tmp_path, SHORT.model_copy(update={"max_tokens": 999}))], output=out)
    assert evaluate_model(ModelOptions(folder), [task(tmp_path)], output=out)[0].problems == 3


def test_two_files_of_one_name_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="two problem sets are called 'sums'"):
        evaluate_model(ModelOptions(folder), [task(tmp_path), task(tmp_path)])


def test_a_score_says_how_its_answers_were_sampled(folder, tmp_path):
    (score,) = evaluate_model(ModelOptions(folder, batch=1), [task(tmp_path)])
    assert (score.top_p, score.top_k, score.max_tokens, score.problems) == (0.9, 0, 8, 3)


def test_the_command_takes_several_sets_and_prints_each(folder, tmp_path, monkeypatch, capsys):
    words = (
        "--samples",
        1,
        "--max-tokens",
        8,
        "--limit",
        2,
        "--seed",
        5,
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--batch",
        2,
    )
    assert (
        call(monkeypatch, "evaluate", "-m", folder, "-b", write(tmp_path), "-b", write(tmp_path, "more"), *words) == 0
    )
    printed = capsys.readouterr().out
    assert "sums" in printed and "more" in printed
    assert call(monkeypatch, "evaluate", "-m", folder) == 2
    assert "no problem set is named" in capsys.readouterr().err


# --- a server


def knows(handler, body, attempt):
    left, right = body["messages"][-1]["content"].split("?")[0].split("+")
    send(handler, said(f"\\boxed{{{int(left) + int(right)}}}"))


def test_a_model_behind_a_server_is_scored_and_its_own_count_of_tokens_kept(tmp_path):
    with server(knows) as (address, world):
        out = tmp_path / "out"
        (score,) = evaluate_model(ModelOptions(address), [task(tmp_path)], seed=7, output=out)
    assert (score.mean, score.samples, score.mean_tokens) == (1.0, 2, 20.0)
    assert {body["model"] for body in world.bodies} == {"mine"}
    assert {(body["temperature"], body["top_p"], body["max_tokens"]) for body in world.bodies} == {(0.6, 0.9, 8)}
    assert len({body["seed"] for body in world.bodies}) == 6
    assert (
        "boxed" in world.bodies[0]["messages"][-1]["content"]
    )  # asked for the form of the answer, as a model from elsewhere
    assert len(list(read_rows(out / "sums"))) == 6


def test_answers_that_do_not_come_give_no_score_and_those_that_came_are_not_paid_for_twice(tmp_path):
    mended = []

    def refuses(handler, body, attempt):
        if body["messages"][-1]["content"].startswith("2+3") and not mended:
            send(handler, {"error": "too hard"}, 400)
        else:
            knows(handler, body, attempt)

    with server(refuses) as (address, world):
        asked = ModelOptions(address), [task(tmp_path)]
        with pytest.raises(ConnectionError, match=r"2 of 6 answers did not come.*too hard.*run the same command again"):
            evaluate_model(*asked, output=tmp_path / "out")
        before = len(world.bodies)
        mended.append(True)
        (score,) = evaluate_model(*asked, output=tmp_path / "out")
        assert (score.mean, score.problems, len(world.bodies) - before) == (1.0, 3, 2)


def test_a_server_gets_the_thinking_switch_and_what_it_cannot_follow_is_refused(tmp_path):
    with server(knows) as (address, world):
        evaluate_model(ModelOptions(address, PromptSettings(thinking=False)), [task(tmp_path)])
        assert world.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
        for given in ({"dtype": "float32"}, {"weights": "int8"}, {"chat_template": "plain"}, {"device": "cpu"}):
            with pytest.raises(ValueError, match="is for a model in this process"):
                evaluate_model(ModelOptions(address, **given), [task(tmp_path)])


def test_a_server_with_several_models_or_no_list_asks_for_the_name(tmp_path):
    with server(knows, models=("a", "b")) as (address, _):
        with pytest.raises(ValueError, match=r"2 models \(a, b\).*--served NAME"):
            evaluate_model(ModelOptions(address), [task(tmp_path)])
        (score,) = evaluate_model(ModelOptions(address, served="b"), [task(tmp_path)])
        assert score.stage.endswith(" b")
    with server(knows, models=()) as (address, _), pytest.raises(ConnectionError, match=r"status 404.*--served NAME"):
        evaluate_model(ModelOptions(address), [task(tmp_path)])
    with pytest.raises(ConnectionError, match="is it running"):
        evaluate_model(ModelOptions("http://127.0.0.1:9/v1"), [task(tmp_path)])


# --- protocols and published scores


def test_the_papers_protocol_is_64_answers_on_aime_and_8_on_math500_and_gpqa():
    chosen = {name: settings_for(name, "phi4-mini-reasoning", {}) for name in protocols()["phi4-mini-reasoning"].sets}
    assert {name: s.samples for name, s in chosen.items()} == {
        "aime24": 64,
        "aime25": 64,
        "math500": 8,
        "gpqa_diamond": 8,
    }
    assert {(s.temperature, s.top_p, s.max_tokens) for s in chosen.values()} == {(0.6, 0.95, 32768)}
    assert settings_for("aime24", "phi4-mini-reasoning", {"samples": 2, "top_p": None}).samples == 2


def test_an_unknown_protocol_or_one_without_the_set_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="did you mean 'phi4-mini-reasoning'"):
        settings_for("aime24", "phi4-mini-reasonin", {})
    with pytest.raises(ValueError, match=r"^--top-p 2.0: input should be less than or equal to 1\.$"):
        settings_for("gsm8k", None, {"top_p": 2.0})
    with pytest.raises(ValueError, match=r"--protocol dapo has no problem set 'gsm8k'.*aime24"):
        settings_for("gsm8k", "dapo", {})


def test_every_published_number_has_its_source_and_is_a_share():
    for table in tables():
        assert table.source and table.protocol["measure"]
        assert all(0 < value <= 100 for values in table.scores.values() for value in values.values())
    again = next(table for table in tables() if table.name.endswith("evaluated again"))
    assert again.scores["Phi-4-Mini-Reasoning (3.8B)"] == {
        "aime24": 48.13,
        "aime25": 31.77,
        "math500": 91.2,
        "gpqa_diamond": 44.51,
    }


def score_of(**given) -> Score:
    numbers = {
        "mean": 0.4,
        "low": 0.3,
        "high": 0.5,
        "pass_at_k": {},
        "majority": 0.4,
        "truncated": 0.0,
        "mean_tokens": 9.0,
    }
    return replace(
        Score("m", "aime24", True, 30, 64, temperature=0.6, top_p=0.95, max_tokens=32768, **numbers), **given
    )


def test_a_published_score_stands_beside_ours_with_what_its_protocol_has_other():
    def of(score: Score, model: str) -> list[str]:
        rows = beside([to_row(score)])
        return next(r["differs"] for r in rows if r["model"] == model and r["table"].endswith("evaluated again"))

    model = "Phi-4-Mini-Reasoning (3.8B)"
    assert of(score_of(), model) == []
    assert of(score_of(samples=8, top_p=1.0), model) == ["samples 64, ours 8", "top_p 0.95, ours 1.0"]
    assert of(score_of(problems=10), model) == ["all 30 problems, ours 10"]
    assert of(score_of(top_k=20), model) == ["top_k not stated, ours 20"]
    (row,) = [r for r in beside([to_row(score_of())]) if r["model"] == model and r["table"].endswith("main table")]
    assert row["differs"] == ["not stated: samples, temperature, top_p, max_tokens"] and row["value"] == 0.575
    assert beside([to_row(score_of(benchmark="sums"))]) == []


def test_the_command_prints_published_scores_beside_a_runs_and_says_if_there_are_none(tmp_path, monkeypatch, capsys):
    write_json(tmp_path / "scores.json", {"scores": [to_row(score_of(stage="rl", samples=8))]})
    assert call(monkeypatch, "published", tmp_path) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "rl (ours)" in printed
        and "48.13" in printed
        and "samples 64, ours 8" in printed
        and "cannot be compared" in printed
    )
    write_json(tmp_path / "scores.json", {"scores": [to_row(score_of(benchmark="sums"))]})
    assert call(monkeypatch, "published", tmp_path) == 0
    assert "no score on sums was published" in capsys.readouterr().err


# --- the list of test runs


def test_a_look_at_a_test_set_is_listed_before_and_after_and_another_file_is_not(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WHETSTONE_TEST_RUNS", str(tmp_path / "list.jsonl"))
    data = tmp_path / "data" / "mawps"
    data.mkdir(parents=True)
    monkeypatch.setenv("WHETSTONE_DATA", str(tmp_path / "data"))
    (data / "test.jsonl.gz").write_bytes(gzip.compress(b'{"input": "What is 1 + 1 ?", "target": "2"}\n'))
    assert test_runs.is_test_set("mawps") and test_runs.is_test_set(str(data / "test.jsonl.gz"))
    given = {"samples": 1, "max_tokens": 4}
    evaluation.score(ModelOptions(folder), Sets([write(tmp_path)], given=given), 0, None)
    assert not (tmp_path / "list.jsonl").exists()
    (score,) = evaluation.score(ModelOptions(folder), Sets(["mawps"], given=given), 3, tmp_path / "out")
    begun, finished = map(json.loads, (tmp_path / "list.jsonl").read_text().splitlines())
    assert begun["benchmark"] == "mawps" and begun["seed"] == 3 and "begun" in begun and "score" not in begun
    assert finished["score"]["mean"] == score.mean and finished["run"] == folder
    evaluation.score(ModelOptions(folder), Sets(["mawps"], given=given), 3, tmp_path / "out")
    assert len((tmp_path / "list.jsonl").read_text().splitlines()) == 2  # what was scored already is no other look
