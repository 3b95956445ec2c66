"""Gathers the pages of the documentation site into one folder, from which `make docs` builds it.

    python docs/make_site.py build/pages

The pages are docs/*.md and the files of the repository's root that people read. In the repository they link to each other
from two folders; on the site all lie in one, README.md as its first page. A link to a file that is no page becomes its name.
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FROM_ROOT = {"README.md": "index.md"} | {
    name: name.lower() for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "AGENTS.md")
}
LINK = re.compile(r"(!?\[[^\]]*\])\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^(```.*?^```$)", flags=re.MULTILINE | re.DOTALL)
SHOWN = (".png", ".tsv")  # beside the pages, and linked as they are


def gather(target: Path) -> list[str]:
    """Writes the pages to `target`, which is made anew. Their names, in alphabetical order."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "docs", target, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name, page in FROM_ROOT.items():
        shutil.copyfile(ROOT / name, target / page)
    for page in target.glob("*.md"):
        page.write_text(on_site(page.read_text(encoding="utf-8")), encoding="utf-8")
    return sorted(page.name for page in target.glob("*.md"))


def on_site(text: str) -> str:
    """The page with its links as they are on the site. Code stays as it is."""
    parts = FENCE.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(_linked, part) for part in parts)


def _linked(link: re.Match[str]) -> str:
    """
    >>> on_site("[models](docs/models.md#lora), [security](../SECURITY.md), [a recipe](recipes/tiny.toml)")
    '[models](models.md#lora), [security](security.md), a recipe'
    """
    words, path, anchor = link.groups()
    path = path.removeprefix("../").removeprefix("docs/")
    path = FROM_ROOT.get(path, path)
    if not path.endswith((".md", *SHOWN)):
        return words[1:-1]
    return f"{words}({path}{anchor or ''})"


if __name__ == "__main__":
    gather(Path(sys.argv[1]))
