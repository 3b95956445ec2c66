"""Write requirements.lock: what pip chooses today for this project with its test tools, each file with its hash.

The lock holds for the Python and platform of its first line. One version of PyTorch has several builds, for CUDA and for CPUs,
and which one pip takes is the machine's choice: it is locked by version alone, in a comment that the Makefile reads.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
HEAD = """\
# For CPython {python} on {system} {machine}
# Made by `make lock` from the ranges of pyproject.toml; `make test LOCK=requirements.lock` installs it.
# torch=={torch} is installed by version, without a hash: the machine chooses its build.
"""


def chosen() -> dict[str, tuple[str, str]]:
    """Name -> (version, sha256) of every file that pip would install."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    done = subprocess.run([*command, "-e", f"{ROOT}[dev]"], stdout=subprocess.PIPE, check=True)
    files = {}
    for file in json.loads(done.stdout)["install"]:
        if "archive_info" in file["download_info"]:  # the project itself is a folder
            about = file["metadata"]
            version = about["version"].partition("+")[0]  # `2.13.0+cpu` is a build of 2.13.0
            files[about["name"].lower()] = version, file["download_info"]["archive_info"]["hashes"]["sha256"]
    return files


def main() -> None:
    files = chosen()
    head = HEAD.format(
        python=".".join(platform.python_version_tuple()[:2]),
        system=platform.system(),
        machine=platform.machine(),
        torch=files.pop("torch")[0],
    )
    lines = [f"{name}=={version} \\\n    --hash=sha256:{digest}\n" for name, (version, digest) in sorted(files.items())]
    LOCK.write_text(head + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
