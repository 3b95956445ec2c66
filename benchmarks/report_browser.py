"""Promise: the page of a run with 20,000 rollouts is ready in headless Chromium within 2 s, and answers a search in less.

    python -m benchmarks report_browser --json FILE

Needs Playwright (pip install playwright) and Chromium. The run is made up; its answers have 600 characters.
"""

import argparse
import json
import random
import shutil
import statistics
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, write
from whetstone.report.report import write_report
from whetstone.run.folder import write_json
from whetstone.run.tables import write_rows

STAGES, PROBLEMS, SAMPLES = ("base", "midtrain", "sft", "dpo", "rl"), 500, 8
WORDS = "so then we add subtract half of the apples \\(x^2\\) and get 3 times 17 which is 51 in all"
LENGTH, REPEATS = 600, 5  # characters; loads


def make_run(folder: Path) -> None:
    rng = random.Random(0)
    words = WORDS.split()
    scores = []
    for stage in STAGES:
        rows = [_row(rng, words, i, j) for i in range(PROBLEMS) for j in range(SAMPLES)]
        write_rows(folder / "scores" / stage / "gsm8k", rows)
        numbers = {"mean": 0.5, "low": 0.4, "high": 0.6, "majority": 0.5, "truncated": 0.0, "mean_tokens": 200.0}
        given = {"stage": stage, "benchmark": "gsm8k", "main": True, "problems": PROBLEMS, "samples": SAMPLES}
        scores.append({**given, **numbers, "pass_at_k": {"1": 0.5}, "temperature": 0.6})
    write_json(folder / "scores.json", {"scores": scores})
    for number, (stage, start) in enumerate(zip(STAGES[1:], STAGES, strict=False), 1):
        inputs = {"model": {"stage": start, "artifact": "model", "hash": "0"}} if number > 1 else {}
        known = {"name": stage, "number": number, "kind": stage, "settings": {}, "inputs": inputs}
        write_json(
            folder / f"{number:02d}-{stage}" / "manifest.json", {**known, "outputs": {"model": "0"}, "summary": {}}
        )


def _row(rng: random.Random, words: list[str], problem: int, index: int) -> dict[str, Any]:
    right, text = rng.random() < 0.5, ""
    while len(text) < LENGTH:
        text += rng.choice(words) + " "
    return {
        "problem_id": f"gsm8k-{problem}", "index": index, "question": f"Problem {problem}: how many are left?", "gold": "51",
        "level": 1 + problem % 5, "domain": "", "text": f"<think>{text}</think>\\boxed{{51}}", "answer": "51",
        "correct": right, "reason": "equal" if right else rng.choice(("different", "no answer", "timeout")), "stop": "end",
        "tokens": 200,
    }  # fmt: skip


def measure(page_file: Path) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    loads, searches = [], []
    with sync_playwright() as driver:
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(REPEATS):
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            page.goto(page_file.as_uri())
            page.wait_for_selector("html[data-ready]")
            loads.append(page.evaluate("performance.now()") / 1000)
            assert page.evaluate("rolloutBrowser.count") == len(STAGES) * PROBLEMS * SAMPLES
            search = "() => { const at = performance.now(); rolloutBrowser.search.value = '17 apples'; "
            search += "rolloutBrowser.filter(); return performance.now() - at; }"
            searches.append(page.evaluate(search) / 1000)
            page.close()
        browser.close()
    return {"ready_seconds": _spread(loads), "first_search_seconds": _spread(searches)}


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 3), "low": round(min(values), 3), "high": round(max(values), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_run(Path(folder) / "run")
        page = write_report(Path(folder) / "run")
        size = {"rollouts": len(STAGES) * PROBLEMS * SAMPLES, "page_bytes": page.stat().st_size}
        result = {"name": "report_browser", "date": str(date.today()), **size, **measure(page), "hardware": hardware()}
    write(result, options.json)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
