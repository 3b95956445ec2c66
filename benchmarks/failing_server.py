"""Rollouts from a server that fails in many ways, for a client that is killed ten times: the rows of an undisturbed run.

    python -m benchmarks failing_server --json benchmarks/results/failing_server.json

A recipe's stages `questions` and `rollouts` ask for 8 answers to each of 5,000 questions, twice: a server that never fails
(undisturbed), then one that fails a quarter of the tries in 35 ways (`_failing_server.py`). Meanwhile the client is killed
(SIGKILL) ten times, at sizes of its journal drawn at random, and started again; the server is killed and started again twice,
the second time at another address; and once it refuses the client's key. Answers follow from question and seed, so the two
tables of rollouts must be equal to the byte. The server's log tells how often each answer was given: exit status 1 if a row
differs, is doubled or lost, or if more was answered twice than was on its way when somebody was killed.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._failing_server import FAILURES, GOOD, ODD_USAGE, RARE
from benchmarks._measure import hardware, machine_speed, versions, write
from benchmarks.kill_and_resume import finish, kill_when, start
from whetstone.decode.server_launch import free_port
from whetstone.run.folder import hash_folder, read_json
from whetstone.run.tables import read_rows
from whetstone.run.usage import measured

SHARE = 0.25  # of a request's tries that fail
IN_FLIGHT, SYNCED = 32, 8  # requests; answers whose lines are synced together
PATIENCE = 60  # seconds for a server to start
RECIPE = """
[run]
name = "run"
threads = 1

[[stage]]
kind = "questions"
[[stage.source]]
kind = "file"
path = "{folder}/questions.jsonl"
name = "sums"

[[stage]]
kind = "rollouts"
samples = {samples}
[stage.teacher]
server = "http://127.0.0.1:{port}/v1"
model = "failing"
max_tokens = 2048
in_flight = {in_flight}
timeout = 5
retries = 12
longest_pause = 0.05
"""


def write_questions(path: Path, count: int) -> None:
    numbers = ((n // 100 + 2, n % 100 + 2) for n in range(count))
    rows = (
        {"question": f"Ada has {a} pens and buys {b} more. How many has she?", "answer": str(a + b)} for a, b in numbers
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class ServerProcess:
    """The failing server, which can be killed, moved, and made to refuse a key."""

    def __init__(self, share: float, log: Path):
        self.share, self.log = share, log
        self.key = Path(f"{log}.key")
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self, port: int = 0) -> None:
        self.port = port or free_port()
        command = [sys.executable, "-m", "benchmarks._failing_server", str(self.port), str(self.share), str(self.log)]
        self.process = subprocess.Popen(command)
        patience = time.monotonic() + PATIENCE
        while not _listens(self.port):
            if self.process.poll() is not None or time.monotonic() > patience:
                raise RuntimeError(f"the server did not start within {PATIENCE} s")
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


class Client:
    """`whetstone run` on the recipe, as a process."""

    def __init__(self, folder: Path, questions: Path, samples: int):
        self.folder, self.questions, self.samples = folder, questions, samples
        self.recipe = folder / "recipe.toml"
        self.rollouts = folder / "run" / "02-rollouts"
        folder.mkdir(parents=True)

    def point_to(self, server: ServerProcess) -> None:
        told = {"samples": self.samples, "port": server.port, "in_flight": IN_FLIGHT}
        self.recipe.write_text(RECIPE.format(folder=self.questions.parent, **told))

    def journalled(self) -> int:
        """Bytes of the journal."""
        try:
            return (self.rollouts / "journal.jsonl").stat().st_size
        except FileNotFoundError:
            return 0

    def watched(self) -> int:
        """Runs to the end. Returns the largest size of the journal."""
        sizes = [0]
        child = start(self.recipe, self.folder)
        kill_when(child, lambda: bool(sizes.append(self.journalled())))
        self.finish()
        return max(sizes)

    def finish(self) -> None:
        finish(self.recipe, self.folder)


def disturbed(client: Client, server: ServerProcess, size: int, kills: int, rng: random.Random) -> Counter[str]:
    """The run with its kills, at sizes of the journal (of `size` bytes in the end). Returns what was done how often."""
    done: Counter[str] = Counter()
    marks = sorted(rng.uniform(0.02, 0.98) * size for _ in range(kills + 3))
    others = dict(zip(rng.sample(marks, 3), ("server killed", "server moved", "key refused"), strict=True))
    client.point_to(server)
    for mark in marks:
        if mark in others:
            done[others[mark]] += disturb_server(client, server, mark, others[mark])
        else:
            killed = kill_when(start(client.recipe, client.folder), lambda mark=mark: client.journalled() >= mark)
            done["client killed"] += killed
    client.finish()
    return done


def disturb_server(client: Client, server: ServerProcess, mark: float, what: str) -> bool:
    """Whether the client, whose server is gone or refuses it, ended by itself with an error."""
    child = start(client.recipe, client.folder)
    while child.poll() is None and client.journalled() < mark:
        time.sleep(0.02)
    if what == "key refused":
        server.key.touch()
    else:
        server.stop()
    status = child.wait()
    server.key.unlink(missing_ok=True)
    if what != "key refused":
        server.start(0 if what == "server moved" else server.port)
        client.point_to(server)
    return status not in (0, -9)


def run(folder: Path, problems: int, samples: int, kills: int, seed: int = 0) -> dict[str, Any]:
    questions = folder / "questions.jsonl"
    write_questions(questions, problems)
    clients = {name: Client(folder / name, questions, samples) for name in ("undisturbed", "disturbed")}
    server = ServerProcess(0.0, folder / "undisturbed.log")
    failing = ServerProcess(SHARE, folder / "disturbed.log")
    plain = clients["undisturbed"]
    with measured() as used:
        try:
            server.start()
            plain.point_to(server)
            kill_when(
                start(plain.recipe, plain.folder), lambda: plain.journalled() > 0
            )  # to see how long its lines are
            plain.finish()
            size = 1.02 * sum(len(json.dumps(row)) + 90 for row in read_rows(plain.rollouts / "rollouts"))
        finally:
            server.stop()
    with measured() as used_disturbed:
        try:
            failing.start()
            done = disturbed(clients["disturbed"], failing, size, kills, random.Random(seed))
        finally:
            failing.stop()
    found = compare(clients, failing.log, done, problems * samples)
    seconds = {"undisturbed": used["wall_seconds"], "disturbed": used_disturbed["wall_seconds"]}
    return found | {"disturbances": dict(done), "wall_seconds": seconds}


def compare(clients: dict[str, Client], log: Path, done: Counter[str], wanted: int) -> dict[str, Any]:
    tables = {
        name: [json.dumps(row) for row in read_rows(client.rollouts / "rollouts")] for name, client in clients.items()
    }
    keys = [(row["problem_id"], row["index"]) for row in map(json.loads, tables["disturbed"])]
    answered: Counter[str] = Counter()
    got: Counter[str] = Counter()
    with log.open() as lines:
        for line in lines:
            name, _, kind = line.rstrip("\n").partition(" ")
            got[kind] += 1
            answered[name] += kind in (GOOD, ODD_USAGE)
    doubled = sum(times - 1 for times in answered.values() if times > 1)
    ends = done.total() * (IN_FLIGHT + SYNCED)
    late = got[RARE[1]] + got[GOOD] // 1000  # a busy machine may be late with a good answer
    summary = read_json(clients["disturbed"].rollouts / "manifest.json")["summary"]
    return {
        "rollouts": len(keys),
        "requests": got.total(),
        "failed": {kind: got[kind] for kind in sorted(got) if kind not in (GOOD, ODD_USAGE)},
        "ways": len([kind for kind in got if kind not in (GOOD, ODD_USAGE)]),
        "answers_with_impossible_usage": got[ODD_USAGE],
        "answered_again": doubled,
        "answered_again_at_most": ends + late,
        "summary": {name: summary[name] for name in ("rollouts", "right", "wrong", "undecided")},
        "sha256": {name: hash_folder(client.rollouts / "rollouts") for name, client in clients.items()},
        "checks": {
            "each rollout is there once": len(keys) == len(set(keys)) == wanted,
            "the rows are those of the undisturbed run": tables["undisturbed"] == tables["disturbed"],
            "the files are equal to the byte": len({hash_folder(c.rollouts / "rollouts") for c in clients.values()})
            == 1,
            "nothing was left out": not any(list(read_rows(c.rollouts / "dropped")) for c in clients.values()),
            "every way of failing occurred": {*FAILURES, *RARE, "status 401"} <= set(got),
            "no more was answered twice than was on its way": doubled <= ends + late,
        },
    }


def show(found: dict[str, Any]) -> None:
    print(f"\n{found['requests']:,} requests for {found['rollouts']:,} rollouts, {found['ways']} ways of failing:")
    for kind, count in found["failed"].items():
        print(f"    {count:>7,} {kind}")
    print(f"{found['answered_again']} answers were given twice (at most {found['answered_again_at_most']} may be)")
    print(f"{found['disturbances']}; {found['wall_seconds']} s; {found['summary']}\n")
    for claim, holds in found["checks"].items():
        print(f"    {'yes' if holds else 'NO ':3} {claim}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=5000, help="default: 5,000")
    parser.add_argument("--samples", type=int, default=8, help="rollouts a problem (default: 8)")
    parser.add_argument("--kills", type=int, default=10, help="of the client (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    os.environ.pop("OPENAI_API_KEY", None)
    before = machine_speed()
    with tempfile.TemporaryDirectory() as name:
        found = run(Path(name), chosen.problems, chosen.samples, chosen.kills)
    show(found)
    told = {"name": "failing_server", "date": str(date.today()), "hardware": hardware(), "machine_speed": before}
    write(told | found | {"versions": versions(["httpx2"])}, chosen.json)
    if not all(found["checks"].values()):
        parser.exit(1, "error: the books do not add up.\n")


if __name__ == "__main__":
    main()
