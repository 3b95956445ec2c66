"""The report in headless Chromium: search, keys, hover, zoom, phone, print, hostile text. Skipped without Playwright."""

from pathlib import Path

import fake_run
import pytest

from tests.chromium import chromium
from whetstone.report import report
from whetstone.run.tables import read_rows, write_rows

pytestmark = pytest.mark.slow
HOSTILE = "<img src=x onerror=window.hit=1><script>window.hit=1</script>\\(\\href{javascript:window.hit=1}{x}\\)"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    folder = fake_run.make(tmp_path_factory.mktemp("runs") / "tiny")
    table = folder / "scores" / "rl" / "three_operations"
    rows = [row | {"text": HOSTILE + row["text"], "question": HOSTILE + row["question"]} for row in read_rows(table)]
    write_rows(table, rows)
    return report.write_report(folder)


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser, page_file):
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
    opened.goto(page_file.as_uri())
    opened.wait_for_selector("html[data-ready]")
    yield opened
    assert said == [], "no error, no request"
    assert opened.evaluate("window.hit") is None, "hostile text is text"
    opened.close()


def count(page) -> int:
    return int(page.inner_text(".filters .quiet").split()[0].replace(",", ""))


def test_rollouts_are_filtered_searched_and_read_by_keys(page):
    assert count(page) == 2 * 60 * 8 + fake_run.RL_ROLLOUTS, "it begins with the last stage"
    page.select_option("select[aria-label=stage]", "sft")
    page.select_option("select[aria-label=verdict]", "undecided")
    assert count(page) == 2 and "timeout" in page.inner_text(".detail")
    page.select_option("select[aria-label=verdict]", "")
    page.select_option("select[aria-label=stage]", "")
    page.keyboard.press("Escape")
    page.fill("input.search", "three_operations-007 the answer is")
    page.locator(".filters .quiet", has_text="72 rollouts").wait_for()  # of 9 models: the base answers in noise
    page.keyboard.press("Enter")
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.get_attribute(".list", "aria-activedescendant") == "rollout-2"
    stage = page.inner_text(".detail .who b")
    page.keyboard.press("]")
    assert page.inner_text(".detail .who b") != stage and "three_operations-007" in page.inner_text(".detail .note")
    assert page.locator(".detail math").count() >= 1, "a box is a formula"


def test_wrong_answers_are_grouped_by_reason(page):
    page.select_option("select[aria-label=stage]", "midtrain")
    page.locator(".reasons summary").click()
    chip = page.locator(".chips button", has_text="different")
    wrong = int(chip.locator("b").inner_text().replace(",", ""))
    chip.click()
    assert count(page) == wrong


def test_charts_of_a_stage_show_values_under_the_cursor_and_zoom_together(page):
    panels = page.locator("#curves .panels", has_text="Accuracy of the rollouts").first.locator(".panel")
    accuracy, reward = (panels.filter(has_text=name).first.locator(".drawn") for name in ("Accuracy of", "Reward"))
    reward.scroll_into_view_if_needed()
    for chart in (accuracy, reward):
        chart.locator(".u-over").wait_for()
    box = accuracy.locator(".u-over").bounding_box()

    def step_at(share: float, of) -> int:
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + 40)
        page.wait_for_timeout(50)
        return int(of.get_attribute("data-step").removeprefix("step "))

    assert 40 <= step_at(0.5, reward) == step_at(0.5, accuracy) <= 50, "one cursor for the stage, on one axis"
    assert step_at(0.01, reward) < 5
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 40, steps=4)
    page.mouse.up()
    assert step_at(0.01, reward) > 40, "both zoom"
    page.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + 40)
    assert step_at(0.01, reward) < 5


def test_a_phone_shows_the_page_without_scrolling_sideways_and_the_whole_gain(browser, page_file):
    phone = browser.new_page(viewport={"width": 390, "height": 844})
    phone.goto(page_file.as_uri())
    phone.wait_for_selector("html[data-ready]")
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    assert phone.evaluate(
        "[...document.querySelectorAll('.two > div')].every(part => part.scrollWidth <= part.clientWidth)"
    )
    phone.close()


def test_it_prints_with_drawn_charts_and_without_the_browser(page):
    page.emulate_media(media="print")
    assert page.locator("#curves svg.chart").first.is_visible() and not page.locator("#browser").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
