"""The page of `serve --page` in headless Chromium, over a model that writes what it is told to."""

import json
import os
import time
from pathlib import Path

import pytest
import torch

from tests.chromium import chromium
from tests.serve.served import exact, served, until
from tests.tiny_models import TEXTS
from whetstone import model as models
from whetstone.run.settings import ModelSettings
from whetstone.run.tables import write_shard

ATTACK = "<img src=x onerror='window.attacked=1'><script>window.attacked=1</script>"
ANSWER = f"<think>\nFirst {ATTACK} \u202e.\n</think>\nThe answer is \\boxed{{35}} and $x^2$ {ATTACK}"


def scripted(serving, name):
    """An engine that writes ANSWER, token by token, and does not end after the question `on`."""
    engine = exact(serving, name)
    script = engine.chat.ids(ANSWER)
    end = engine.chat.end

    def logits(blocks, prefills, decodes):
        time.sleep(0.002)
        rows = torch.full((len(prefills) + len(decodes), engine.chat.size), -50.0)
        for row, sequence in zip(rows, [*(sequence for sequence, _ in prefills), *decodes], strict=True):
            place = len(sequence.ids)
            forever = "forever" in sequence.prompt.messages[-1].content
            row[script[place % len(script)] if place < len(script) or forever else end] = 50.0
        return rows

    engine.runner.logits = logits
    return engine


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two stages with models, and RL under way in this process with its rollouts."""
    settings = ModelSettings(layers=1, hidden=32, mlp=48, heads=2, kv_heads=1, vocabulary=300, context=4096)
    model, tokenizer = models.build_tiny(settings, TEXTS, seed=0)
    folder = tmp_path_factory.mktemp("page") / "mine"
    for stage in ("01-sft", "02-dpo"):
        models.save(model, tokenizer, folder / stage / "model")
        kind = stage.partition("-")[2]
        (folder / stage / "manifest.json").write_text(json.dumps({"kind": kind, "wall_seconds": 61.0}))
    (folder / "03-rl").mkdir()
    (folder / "03-rl" / "started.json").write_text(json.dumps({"kind": "rl", "settings": {"steps": 40}}))
    step(folder, 1)
    stages = [{"name": name, "kind": name} for name in ("sft", "dpo", "rl", "report")]
    (folder / "run.json").write_text(json.dumps({"name": "mine", "recipe": {"stage": stages}}))
    (folder / ".lock").write_text(str(os.getpid()))
    return folder


def step(folder: Path, number: int) -> None:
    """RL does a step."""
    with (folder / "03-rl" / "metrics.jsonl").open("a") as out:
        for k in (2 * number - 1, 2 * number):
            out.write(json.dumps({"step": k, "reward": k / 10, "tokens_per_second": 900.0, "seconds_left": 90}) + "\n")
    row = {"step": number, "problem_id": "p1", "question": f"{ATTACK} What is $1+1$?", "gold": "2"}
    texts = [("\\boxed{2}", True, 1.0), (ATTACK, False, -1.0)]
    rows = [row | {"index": i, "text": t, "correct": c, "reward": r} for i, (t, c, r) in enumerate(texts)]
    write_shard(folder / "03-rl" / "rollouts", number - 1, rows)


@pytest.fixture(scope="module")
def site(run):
    with served(run, load=scripted, page=True, kept=2) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser, site):
    """It fails the test if a script was refused or failed, or if a text was run."""
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    opened = context.new_page()
    said = []
    opened.on("pageerror", lambda error: said.append(str(error)))
    refused = "the server responded with a status of 400"  # Chromium's note of what the page itself shows
    opened.on(
        "console",
        lambda message: said.append(message.text) if message.type == "error" and refused not in message.text else None,
    )
    opened.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith((site.url, "data:")) else None
    )
    opened.goto(site.url)
    opened.wait_for_selector(".talk")
    yield opened
    assert not opened.evaluate("window.attacked") and not said
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than a phone"
    context.close()


def test_two_stages_answer_side_by_side_with_folded_thinking_and_drawn_formulas(page):
    assert [option.inner_text() for option in page.query_selector_all("#model option")] == ["dpo", "sft"]
    page.select_option("#beside", "sft")
    page.keyboard.press("Escape")
    page.fill("#question", f"One {ATTACK}")
    page.press("#question", "Enter")
    page.wait_for_selector("#send:not([disabled])")
    assert page.locator(".talk").count() == 2
    answer = page.locator(".turn.assistant").first
    assert not answer.locator("details").get_attribute("open")
    assert answer.locator("summary").inner_text().startswith("Thinking: ")
    answer.locator("summary").click()
    assert ATTACK in answer.locator("details .text").inner_text() and "\\u202e" in answer.inner_text()
    assert answer.locator("> .text math").count() == 2 and "35" in answer.locator("math").first.text_content()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)", "dark"


def test_escape_stops_an_answer_and_the_server_with_it(page, site):
    page.fill("#question", "Write forever.")
    page.press("#question", "Enter")
    until(lambda: len(page.inner_text(".turn.assistant")) > 60)
    page.keyboard.press("Escape")
    page.wait_for_selector("#send:not([disabled])")
    until(lambda: site.decoder.in_flight == 0)
    assert "stopped" in page.inner_text(".turn.assistant .note")
    page.fill("#question", "Go on.")
    page.press("#question", "Enter")
    page.wait_for_selector("#send:not([disabled])")
    assert page.locator(".turn").count() == 4


def test_a_refusal_is_said_in_the_servers_words(page):
    page.fill("#max_tokens", "99999")
    page.fill("#question", "One")
    page.press("#question", "Enter")
    page.wait_for_selector(".note.wrong")
    assert "lower max_tokens" in page.inner_text(".note.wrong")


def test_the_run_is_followed_while_it_trains_by_keyboard_alone(page, run):
    page.focus("#tab-talk")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".curve")
    assert "running" in page.inner_text("#state") and "4 of 40" not in page.inner_text("#stages")
    assert page.input_value("#stage") == "rl"
    page.wait_for_selector(".group")
    assert ATTACK in page.inner_text(".group") and page.locator(".group math").count() >= 1
    assert [text.strip() for text in page.locator(".group summary").all_inner_texts()] == [
        "right, reward 1",
        "wrong, reward -1",
    ]
    step(run, 2)
    until(lambda: "4 of 40" in page.inner_text("#stages"))
    until(lambda: "step 2" in page.inner_text(".group .note"))
