"""The documentation site: every page is in its contents, links and pictures lead somewhere, it is built without a warning."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import make_site  # noqa: E402
import make_tour  # noqa: E402

CONTENTS = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "pages"
    make_site.gather(folder)
    return folder


def test_the_contents_name_each_page_once(pages):
    named = re.findall(r": (\w+\.md)$", CONTENTS, flags=re.MULTILINE)
    assert sorted(named) == sorted(page.name for page in pages.glob("*.md"))


def test_each_link_and_picture_leads_to_a_file(pages):
    for page in pages.glob("*.md"):
        for _, path, _ in make_site.LINK.findall(make_site.FENCE.sub("", page.read_text(encoding="utf-8"))):
            assert (pages / path).is_file(), f"{page.name} links to {path}"


def test_links_are_those_of_one_folder():
    assert doctest.testmod(make_site).failed == 0 and doctest.testmod(make_site).attempted


def test_the_pages_load_nothing_from_the_network(pages):
    assert "font: false" in CONTENTS and "offline" not in CONTENTS.partition("plugins:")[2].partition("markdown")[0]
    for page in pages.glob("*.md"):
        text = make_site.FENCE.sub("", page.read_text(encoding="utf-8"))
        assert not re.search(r"!\[[^\]]*\]\(https?:|<(script|img|iframe)\b", text), page.name


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(pages):
    pytest.importorskip("zensical", reason="builds the site: pip install zensical")
    config = pages.parent / "mkdocs.yml"
    config.write_text(CONTENTS.replace("build/pages", "pages").replace("build/site", "site"), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(config)]
    done = subprocess.run(command, cwd=pages.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    built = (pages.parent / "site" / "your_model.html").read_text(encoding="utf-8")
    assert 'id="chat-templates"' in built and not re.search(r'(src|<link[^>]+href)="https?:', built)


def test_a_transcript_is_what_its_commands_print_now(tmp_path):
    page = "Before.\n\n```console\n$ echo one\nold\n$ pwd; exit 3\n```\n\n```sh\n$ echo kept\n```\n"
    (tmp_path / "here").mkdir()
    new = make_tour.rewritten(page.replace("pwd", f"echo {tmp_path}/here/x"), tmp_path / "here")
    assert "$ echo one\none\n" in new and "x\n```" in new and new.endswith("```sh\n$ echo kept\n```\n")


@pytest.mark.parametrize("name", make_tour.PAGES)
def test_the_transcripts_name_no_folder_of_a_machine(name):
    blocks = "".join(make_tour.BLOCK.findall((ROOT / "docs" / name).read_text(encoding="utf-8")))
    assert "$ whetstone" in blocks and not re.search(r"/(home|work|root|Users)/", blocks)
