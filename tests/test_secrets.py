"""The secrets of a recipe: sent to the server, and in no file of the run, no message, no report."""

import base64
import contextlib
import doctest
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import said, send, server
from whetstone import cli
from whetstone.pipeline.staleness import plan_recipe
from whetstone.recipe import KINDS, load_room, read_recipe
from whetstone.run import secrets
from whetstone.run.folder import read_json, write_json
from whetstone.run.secrets import REDACTED, from_environment, is_secret, literal_secrets, redacted
from whetstone.run.settings import StageSettings
from whetstone.run.tables import read_rows

PASSWORD, TOKEN, EXTRA, HEADER, KEY = "horse-battery", "tok-4f3a9c1e", "xk_57c0ffee77", "hd-c0de-c0de", "env-51de-0add"
ALL = (PASSWORD, TOKEN, EXTRA, HEADER, KEY, base64.b64encode(f"me:{PASSWORD}".encode()).decode())
RECIPE = """
[run]
name = "r"
threads = 1
[[stage]]
kind = "questions"
source = [{{ kind = "file", path = "questions.jsonl", name = "own" }}]
[[stage]]
kind = "rollouts"
samples = 2
teacher = {{ server = "{server}", model = "m", longest_pause = 0.02, retries = 1, extra = {extra} }}
[[stage]]
kind = "report"
"""
LITERAL = f'{{ api_key = "{EXTRA}", headers = {{ Authorization = "Bearer {HEADER}" }}, top_k = 5 }}'


@dataclass
class Ended:
    status: int
    out: str
    err: str


@pytest.fixture
def whetstone(tmp_path, monkeypatch):
    """Runs the command line in this process, in the test's folder."""
    monkeypatch.chdir(tmp_path)

    def command(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["whetstone", *map(str, words)])
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            status = 0
            try:
                cli.main()
            except SystemExit as end:
                status = end.code or 0
        return Ended(status, out.getvalue(), err.getvalue())

    return command


def test_docstring_examples_are_true():
    assert doctest.testmod(secrets).failed == 0


def tattles(handler, body, attempt):
    """Repeats all that it was sent, in answers and in errors."""
    heard = f"{handler.path} {handler.headers['Authorization']} {json.dumps(body)}"
    if "question 1" in body["messages"][-1]["content"]:
        send(handler, heard, 400 if "seed" in body and body["seed"] % 2 else 500)
    else:
        send(handler, said(f"{heard} \\boxed{{3}}", reasoning_content=heard))


def write_recipe(folder: Path, address: str, extra: str = LITERAL) -> Path:
    rows = [{"question": f"This is question {n}?", "answer": "3"} for n in range(3)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "r.toml"
    path.write_text(RECIPE.format(server=address, extra=extra))
    return path


def with_secrets(address: str) -> str:
    return address.replace("//", f"//me:{PASSWORD}@") + f"?token={TOKEN}&version=2"


def everything_below(folder: Path) -> str:
    """All files, tables unpacked."""
    tables = {path.parent for path in folder.rglob("*.parquet")}
    rows = [json.dumps(list(read_rows(table)), default=str, ensure_ascii=False) for table in sorted(tables)]
    return "\n".join(
        [*rows, *(path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file())]
    )


def test_a_run_with_secrets_sends_them_and_writes_none(tmp_path, monkeypatch, whetstone):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with server(tattles) as (address, world):
        recipe = write_recipe(tmp_path, with_secrets(address))
        recipe = recipe.rename(tmp_path.parent / f"{tmp_path.name}.toml")
        planned = whetstone("plan", recipe)
        ran = whetstone("run", recipe)
    assert planned.status == ran.status == 0, ran.err
    assert {body["api_key"] for body in world.bodies} == {EXTRA}
    assert {body["headers"]["Authorization"] for body in world.bodies} == {f"Bearer {HEADER}"}
    shown = whetstone("show", tmp_path / "runs/r/02-rollouts/rollouts")
    texts = [everything_below(tmp_path), planned.out + planned.err, ran.out + ran.err, shown.out]
    for secret in ALL:
        assert not any(secret in text for text in texts), secret
    assert all("[redacted]" in text for text in (texts[0], shown.out))
    manifest = read_json(tmp_path / "runs/r/02-rollouts/manifest.json")
    assert manifest["settings"]["teacher"]["extra"] == {
        "api_key": REDACTED,
        "headers": {"Authorization": REDACTED},
        "top_k": 5,
    }
    for text in (planned.out, ran.err):
        assert "warning: rollouts.teacher.server in" in text and "rollouts.teacher.extra.api_key" in text
        assert 'name an environment variable instead, as "${NAME}"' in text


def test_names_of_environment_variables_are_sent_as_their_values_and_warned_of_by_nobody(
    tmp_path, monkeypatch, whetstone
):
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    monkeypatch.setenv("MY_PASSWORD", PASSWORD)
    with server(tattles) as (address, world):
        secret = address.replace("//", "//me:${MY_PASSWORD}@")
        recipe = write_recipe(tmp_path, secret, '{ api_key = "${MY_TOKEN}" }')
        assert read_recipe(recipe).warnings() == []
        ran = whetstone("run", recipe)
    assert ran.status == 0, ran.err
    assert {body["api_key"] for body in world.bodies} == {TOKEN}
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert {headers["Authorization"] for headers in world.headers} == {f"Basic {basic}"}
    text = everything_below(tmp_path) + ran.out + ran.err
    assert TOKEN not in text and PASSWORD not in text and basic not in text
    assert "${MY_TOKEN}" in (tmp_path / "runs/r/02-rollouts/manifest.json").read_text()


def test_a_variable_that_is_not_set_is_named_before_anything_is_asked(tmp_path, monkeypatch, whetstone):
    monkeypatch.delenv("MY_TOKEN", raising=False)
    with server(tattles) as (address, world):
        ran = whetstone("run", write_recipe(tmp_path, address, '{ api_key = "${MY_TOKEN}" }'))
    assert ran.status == 2 and "environment variable MY_TOKEN" in ran.err and "Traceback" not in ran.err
    assert world.bodies == [] and not (tmp_path / "runs/r/01-questions").exists()


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        ("", (404, "<html>"), "try server ="),
        ("/v1", (401, ""), "the key is not accepted"),
        ("/v1", (302, ""), "redirect"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_line_on_the_command_line(tmp_path, whetstone, path, answer, words):
    with server(lambda handler, body, attempt: send(handler, answer[1], answer[0])) as (address, _):
        ran = whetstone("run", write_recipe(tmp_path, address.removesuffix("/v1") + path))
    assert ran.status == 2
    (error,) = [line for line in ran.err.splitlines() if "error" in line]
    assert error.startswith("error: ") and words in error and ran.err.endswith(error + "\n")


MISTAKES = [
    (["--set", f"rollouts.teacher.server=http://me:{PASSWORD}@"], "is not an address"),
    (["--set", f"rollouts.teacher.server=htp://me:{PASSWORD}@host/v1"], "is not an address"),
    (["--set", f"rollouts.teacher.api_key={EXTRA}"], "this key is now key_variable"),
    (["--set", f"rollouts.teachr.api_key={EXTRA}"], "unknown key"),
    (["--set", f"nothing.api_key={EXTRA}"], "no table or stage 'nothing'"),
    (["--set", f"rollouts.teacher.key_variable=sk-{TOKEN}"], "not the key"),
]


@pytest.mark.parametrize(
    ("words", "reason"), MISTAKES, ids=lambda value: value if isinstance(value, str) else value[1][:30]
)
def test_a_mistake_about_a_secret_does_not_show_it(tmp_path, whetstone, words, reason):
    recipe = write_recipe(tmp_path, "http://127.0.0.1:9/v1", "{}")
    planned = whetstone("plan", recipe, *words)
    assert planned.status == 2 and reason in planned.err
    assert not any(secret in planned.err for secret in ALL)


def test_a_key_that_no_header_can_hold_is_named_but_not_shown(tmp_path, monkeypatch, whetstone):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\x07é")
    with server(tattles) as (address, world):
        ran = whetstone("run", write_recipe(tmp_path, address, "{}"))
    assert ran.status == 2 and "OPENAI_API_KEY holds characters" in ran.err and KEY not in ran.err
    assert world.bodies == []


def test_a_changed_secret_and_an_old_manifest_with_one_make_nothing_stale(tmp_path, monkeypatch, whetstone):
    with server(tattles) as (address, _):
        recipe = write_recipe(tmp_path, with_secrets(address))
        assert whetstone("run", recipe).status == 0

        def status() -> str:
            return dict((stage.name, state.status) for stage, state in plan_recipe(read_recipe(recipe)))["rollouts"]

        assert status() == "done"
        recipe.write_text(recipe.read_text().replace(EXTRA, "another-key"))
        assert status() == "done"
        path = tmp_path / "runs/r/02-rollouts/manifest.json"
        old = read_json(path)
        old["settings"]["teacher"]["extra"]["api_key"] = EXTRA  # as earlier versions wrote it
        del old["seal"]  # which they did not have
        write_json(path, old)
        assert status() == "done"
        assert whetstone("report", "runs/r").status == 0
        assert not [page for page in tmp_path.rglob("*.html") if EXTRA in page.read_text()]
        recipe.write_text(recipe.read_text().replace("top_k = 5", "top_k = 6"))
        assert status() == "stale"


SECRET = (
    "password api_key apiKey x-api-key Ocp-Apim-Subscription-Key HF_TOKEN token access_token client_secret Authorization "
    "proxy-authorization db_password AWS_SECRET_ACCESS_KEY set-cookie openai_key GROQ_KEY"
)
PLAIN = (
    "tokens max_tokens batch_tokens stop_token eos_token pad_token key key_variable keep tokenizer author monkey passes "
    "secretary authority prompt_cache_key answer_key"
)


@pytest.mark.parametrize("name", SECRET.split())
def test_a_key_of_this_name_holds_a_secret(name):
    assert is_secret(name) and redacted({name: "x", "n": 1}) == {name: REDACTED, "n": 1}


@pytest.mark.parametrize("name", ["", *PLAIN.split()])
def test_a_key_of_this_name_holds_none(name):
    assert not is_secret(name) and redacted({name: "x"}) == {name: "x"}


TEXTS = {
    "http://me:pw@host:80/v1": "http://[redacted]@host:80/v1",
    "http://tok@host/v1": "http://[redacted]@host/v1",
    "http://me:p/w@host/v1": "http://[redacted]@host/v1",
    "https://host/v1?api_key=abc&n=1&sig=x%3D": "https://host/v1?api_key=[redacted]&n=1&sig=[redacted]",
    "hf://datasets/a/b@main/f.parquet": "hf://datasets/a/b@main/f.parquet",
    "http://host:8000/v1/@x": "http://host:8000/v1/@x",
    "http://${USER}:${PASS}@host/v1?key=${KEY}": "http://${USER}:${PASS}@host/v1?key=${KEY}",
    "sk-abcdefghijklmnopqrstuvwx": "[redacted]",
    "gsk_abcdefghijklmnopqrstuvwx": "[redacted]",
    "a hf_abcdefghijklmnopqrstuvwx b": "a [redacted] b",
    "Bearer abc": "Bearer [redacted]",
    '{"api_key": "abc"}': '{"api_key": "[redacted]"}',
    "--set=teacher.extra.password=a=b": "--set=teacher.extra.password=[redacted]",
    "Solve 3 = x. The token: 5, the key: 4.": "Solve 3 = x. The token: 5, the key: 4.",
    "Please reason step by step, and put your final answer within \\boxed{}.": None,
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_shown_without_its_secrets_and_twice_is_once(text):
    shown = text if TEXTS[text] is None else TEXTS[text]
    assert redacted(text) == shown and redacted(shown) == shown


def test_no_setting_of_ours_looks_like_a_secret():
    for kind in KINDS:
        values = load_room(kind).settings.model_construct().model_dump()
        assert list(literal_secrets(values)) == [], kind


def test_settings_are_without_secrets_as_json_and_as_text_but_not_for_the_stage():
    class Own(StageSettings):
        token: str = ""
        hosts: tuple[str, ...] = ()

    own = Own(kind="x", token="abc", hosts=("http://a:b@c",))
    assert own.model_dump(mode="json")["token"] == REDACTED
    assert "abc" not in repr(own) + str(own) + own.model_dump_json() and "a:b" not in repr(own)
    assert own.token == own.model_dump()["token"] == "abc"


def test_variables_are_looked_up_anywhere_in_a_table(monkeypatch):
    monkeypatch.setenv("A", "1")
    assert from_environment({"x": ["${A}b", 2], "y": {"z": "$A {A}"}}) == {"x": ["1b", 2], "y": {"z": "$A {A}"}}
