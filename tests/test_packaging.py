"""What is installed, under which name and from which lock; and that no key stands in a tracked file."""

import math
import re
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from whetstone.run.mistakes import DISTRIBUTION, install_hint
from whetstone.shipped_recipes import recipe_file

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def tracked_files() -> list[Path]:
    """Text files of the checkout; all files of the folder where it is no git checkout."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return [ROOT / name for name in names if (ROOT / name).is_file() and Path(name).suffix not in (".gz", ".png")]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


# --- the name


def test_the_distribution_has_a_name_of_its_own_and_keeps_import_and_command():
    assert PROJECT["name"] == DISTRIBUTION != "whetstone"
    assert PROJECT["scripts"] == {"whetstone": "whetstone.cli:main"}
    assert install_hint("hub") == f'pip install "{DISTRIBUTION}[hub]"'


def test_no_hint_installs_the_other_project_of_the_name_and_every_extra_exists():
    """`pip install` of the other project would run a stranger's code."""
    other = re.compile(r"""\b(?:pip3?|pipx|uvx?)\b.*\s["']?whetstone(?:["'`\s=<>~]|$)""")
    extras = set()
    for path in tracked_files():
        if path != Path(__file__):
            text = text_of(path)
            assert not re.search(r"\bwhetstone\[", text), f"{path} names an extra of the other project"
            for line in filter(other.search, text.splitlines() if "whetstone" in text else ()):
                assert "uninstall" in line, f"{path}: {line}"
            extras |= set(re.findall(rf"{DISTRIBUTION}\[(\w+)\]", text))
    assert extras and extras <= set(PROJECT["optional-dependencies"])


def test_every_hint_in_the_code_is_made_in_one_place():
    for path in (ROOT / "whetstone").rglob("*.py"):
        if path.name != "mistakes.py":
            assert DISTRIBUTION not in text_of(path), f"{path}: use install_hint"


# --- the lock


def locked() -> dict[str, tuple[str, list[str]]]:
    """Canonical name -> (version, hashes)."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    entries = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, version, rest = re.fullmatch(r"([\w.-]+)==(\S+)((?: +--hash=sha256:[0-9a-f]{64})+) *", line).groups()
            entries[canonicalize_name(name)] = version, rest.split()
    torch = re.search(r"^# torch==(\S+) is installed by version, without a hash", text, flags=re.MULTILINE)
    return entries | {"torch": (torch[1], ["the machine chooses its build"])}


def test_the_lock_holds_every_requirement_in_a_version_that_the_ranges_allow():
    lock = locked()
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, wanted):
        version, hashes = lock.get(canonicalize_name(requirement.name), ("", []))
        assert hashes, f"{requirement.name} is not in requirements.lock: run make lock"
        assert version in requirement.specifier, f"{requirement} and the lock's {version}: run make lock"
    assert DISTRIBUTION not in lock and "whetstone" not in lock


def test_the_lock_names_no_address_and_no_path_and_says_what_it_was_made_for():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert re.match(r"# For CPython \d+\.\d+ on \w+ \w+\n", text)
    assert "/" not in text and "+" not in text and "://" not in text


# --- keys

SECRETS = {
    "a private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
    "an AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{60,})",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "an API key": r"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}",
    "a Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{20,}",
    "a Google key": r"\bAIza[\w-]{35}\b",
    "a package index token": r"\bpypi-[A-Za-z0-9_-]{50,}",
    "a JSON web token": r"\beyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{15,}",
    "a named key": r"""(?i)(?:api_?key|secret|password|access_?token)["']?\s*[:=]\s*["'](?=[^"']*\d)([\w+/=-]{20,})["']""",
}


def entropy(text: str) -> float:
    """Bits per character; random base 64 of twenty characters has about four."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def secrets_in(text: str) -> list[str]:
    return [
        what
        for what, pattern in SECRETS.items()
        for match in re.finditer(pattern, text)
        if entropy(match[match.lastindex or 0]) > 3.0  # `xxxx…` and `0000…` stand for a key
    ]


def test_no_tracked_file_holds_a_key():
    for path in tracked_files():
        assert not (found := secrets_in(text_of(path))), f"{path} holds {found}"


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "Q7XJ2LMB4TRZ9WKD",
        "gh" + "p_8fK2mQz7LxR4vT1nB9wYc3HsJ6dPgA5eUo0i",
        "hf" + "_kQwErTyUiOpAsDfGhJkLzXcVbNm1234567",
        "sk" + "-proj-9aB3kQz7LxR4vT1nB9wYc3HsJ6dPgA5eUo",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "api_key = " + '"q8Zr5Tn2Wk9Lp4Xv7Bm3"',
    ],
)
def test_a_key_would_be_found(text):
    assert secrets_in(f"x = {text}\n")


def test_a_placeholder_is_no_key():
    assert not secrets_in(
        'api_key = "xxxxxxxxxxxxxxxxxxxxxxxx"\napi_key_env = "OPENAI_API_KEY"\nsk-0000000000000000000000000000000000'
    )


# --- what a wheel has beside the code


def test_an_installed_recipe_is_named_by_its_name_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tiny", "recipes/tiny.toml"):
        assert recipe_file(Path(name)).read_text() == (ROOT / "recipes" / "tiny.toml").read_text()
    (tmp_path / "tiny").write_text("mine")
    assert recipe_file(Path("tiny")) == Path("tiny"), "the user's own file is first"
    assert recipe_file(Path("other/tiny.toml")) == Path("other/tiny.toml"), "which read_recipe then misses"
    with pytest.raises(FileNotFoundError, match=r"no recipe tinny.*tiny.* installed recipe: dapo, "):
        recipe_file(Path("tinny"))


@pytest.mark.slow
def test_a_wheel_has_all_recipes_and_the_files_of_its_pages(tmp_path):
    command = [sys.executable, "-c", WHEEL, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        files = set(packed.namelist())
    assert {f"whetstone/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.toml")} <= files
    ours = [path for path in (ROOT / "whetstone").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {str(path.relative_to(ROOT)) for path in ours if "recipes" not in path.parts} <= files


# setuptools as it stands here: building in isolation would download it
WHEEL = """if True:
    import os, shutil, sys, tempfile
    from pathlib import Path
    from setuptools import build_meta

    copy = Path(tempfile.mkdtemp()) / "copy"
    ignored = shutil.ignore_patterns(".*", "tests", "benchmarks", "build", "*.egg-info", "__pycache__", "runs", "models")
    shutil.copytree(".", copy, ignore=ignored, symlinks=True)
    os.chdir(copy)
    build_meta.build_wheel(sys.argv[1])
    shutil.rmtree(copy)
"""


def test_windows_is_refused_in_one_sentence():
    code = "import sys; sys.platform = 'win32'; import whetstone.cli"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode and done.stderr.splitlines()[-1].startswith("ImportError: Whetstone does not run on Windows")
    assert "WSL 2" in done.stderr
