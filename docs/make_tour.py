"""Writes the transcripts and pictures of the pages tour.md and cost.md again, from a run of recipes/tiny.toml.

    make demo && python docs/make_tour.py             # in the repository's root: runs/tiny is shown
    python docs/make_tour.py --folder F --page tour.md   # F holds recipes/ and runs/tiny; one page only
    python docs/make_tour.py --pictures               # needs `pip install playwright` and a Chromium, too

A transcript is a block ```console: what follows each line `$ COMMAND` is replaced by what the command prints. The prose around
it is not written by this script: read it again if numbers change.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DOCS = Path(__file__).parent
PAGES = ("tour.md", "cost.md")
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", flags=re.MULTILINE | re.DOTALL)
WIDTH = 100  # characters of a terminal, in tables
PORT = 8765
QUESTION = "Sam has 540 stamps. First Sam gives 2 away. Then Sam wins 994. Then Sam wins 86. How many stamps does Sam have now?"


def rewritten(text: str, folder: Path) -> str:
    """The page with the outputs of its commands as they are now."""
    return BLOCK.sub(lambda block: "".join(answered(line, folder) for line in commands(block[0])), text)


def commands(block: str) -> list[str]:
    """The lines after `$ `; one that ends in a backslash goes on."""
    return re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, flags=re.MULTILINE)


def answered(command: str, folder: Path) -> str:
    """The command and what it prints, without the name of the folder that it runs in."""
    place = os.environ | {"COLUMNS": str(WIDTH), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = [line.rstrip() for line in done.stdout.replace(f"{folder}/", "").splitlines()]
    return "\n".join([f"$ {command}", *lines]) + "\n"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the page over the run, while it is served."""
    command = [sys.executable, "-m", "whetstone.cli", "serve", "-m", "runs/tiny", "--page", "--port", str(PORT)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{PORT}/"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}health", timeout=5)
                break
            except OSError:
                time.sleep(1)
        yield address
    finally:
        process.terminate()
        process.wait()


def pictures(folder: Path) -> None:
    """The report, its browser and the served page, as Chromium draws them."""
    from playwright.sync_api import sync_playwright

    target = DOCS / "tour"
    target.mkdir(exist_ok=True)
    with sync_playwright() as driver, served(folder) as address:
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 700}, color_scheme="light")
        page.goto((folder / "runs" / "tiny" / "report.html").as_uri())
        page.wait_for_selector("html[data-ready]")
        page.evaluate("document.querySelector('section').scrollIntoView()")
        page.screenshot(path=target / "report.png")
        page.select_option("select[aria-label=stage]", "rl")
        page.select_option("select[aria-label=verdict]", "wrong")
        page.evaluate("document.querySelector('#browser').scrollIntoView()")
        page.screenshot(path=target / "rollouts.png")
        page.goto(address)
        page.wait_for_selector(".talk")
        page.select_option("#model", "sft")
        page.select_option("#beside", "rl")
        page.fill("#question", QUESTION)
        page.press("#question", "Enter")
        page.wait_for_selector("#send:not([disabled])", timeout=120_000)
        for thinking in page.locator(".turn.assistant summary").all():
            thinking.click()
        page.screenshot(path=target / "talk.png")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    parser.add_argument("--page", choices=PAGES, action="append")
    parser.add_argument("--pictures", action="store_true")
    chosen = parser.parse_args()
    folder = chosen.folder.resolve()
    for name in chosen.page or PAGES:
        page = DOCS / name
        page.write_text(rewritten(page.read_text(encoding="utf-8"), folder), encoding="utf-8")
    if chosen.pictures:
        pictures(folder)


if __name__ == "__main__":
    main()
