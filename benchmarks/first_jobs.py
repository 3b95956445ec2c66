"""The four jobs of docs/first_jobs.md as a new user does them: its files and its commands, each timed.

    git clone … whetstone && cd whetstone && make .venv/.ready
    .venv/bin/python -m benchmarks first_jobs --json FILE             # or one job: --job "Own reward"

The files are written into the working folder, where the commands run as they stand. A block of code whose first line is a
comment with a file's name is that file.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._measure import hardware, versions, write

PAGE = Path(__file__).parents[1] / "docs" / "first_jobs.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"# ([\w.-]+)\n")


class Job(NamedTuple):
    name: str
    files: dict[str, str]
    commands: list[str]


def jobs(page: Path = PAGE) -> list[Job]:
    """The sections of the page that have commands."""
    sections = page.read_text(encoding="utf-8").split("\n## ")[1:]
    found = [Job(section.partition("\n")[0], files_of(section), commands_of(section)) for section in sections]
    return [job for job in found if job.commands]


def files_of(section: str) -> dict[str, str]:
    named = ((NAMED.match(block), block) for kind, block in BLOCK.findall(section) if kind != "sh")
    return {name[1]: block[name.end() :] for name, block in named if name}


def commands_of(section: str) -> list[str]:
    return [line for kind, block in BLOCK.findall(section) if kind == "sh" for line in block.splitlines() if line]


def timed(job: Job) -> Iterator[dict[str, Any]]:
    """A row for each command. Raises RuntimeError for one that fails."""
    for name, text in job.files.items():
        Path(name).write_text(text, encoding="utf-8")
    for command in job.commands:
        print(f"\n$ {command}", flush=True)
        begun, before = time.monotonic(), os.times()
        status = subprocess.run(["bash", "-c", command], check=False).returncode
        after = os.times()
        cpu = after.children_user - before.children_user + after.children_system - before.children_system
        row = {"command": command, "wall_s": round(time.monotonic() - begun, 1), "cpu_s": round(cpu, 1)}
        print(f"{row['wall_s']} s, {row['cpu_s']} s of CPU, status {status}", flush=True)
        if status:
            raise RuntimeError(f"{job.name}: status {status} of {command}")
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", action="append", help="its title; default: all")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    known = {job.name: job for job in jobs()}
    if unknown := [name for name in given.job or () if name not in known]:
        sys.exit(f"error: the page has no job {unknown[0]!r}. It has {', '.join(known)}.")
    done = []
    for name in given.job or known:
        rows = list(timed(known[name]))
        wall, cpu = (round(sum(row[key] for row in rows), 1) for key in ("wall_s", "cpu_s"))
        done.append({"job": name, "wall_s": wall, "cpu_s": cpu, "commands": rows})
    result = {"name": "first_jobs", "jobs": done, "versions": versions(["whetstone", "torch"]), "hardware": hardware()}
    write(result | {"date": date.today().isoformat()}, given.json)
    print(json.dumps(done, indent=2))


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
