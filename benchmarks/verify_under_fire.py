"""Verdicts while worker processes are killed: how many are lost, wrong or raise, at several intervals between kills.

    python -m benchmarks verify_under_fire --kills 100 --json benchmarks/results/verify_under_fire.json

Each kill is SIGKILL to one process, drawn from the verifier's workers, starting ones included: a whole
worker, only its watching process, or its computing fork. Meanwhile the verifier is asked questions for computer algebra
whose right verdicts are known by construction. At intervals below the start of a worker (it imports sympy, 1.3 s of
processor time) no worker gets ready before the kills end.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from benchmarks._measure import descendants, hardware, versions, write
from whetstone.verify import MathVerifier

LAST = 40  # questions after the last kill


def question(n: int) -> tuple[str, str, str]:
    """Its right verdict is `n % 2 == 1`."""
    return rf"\boxed{{{n}+\sum_{{k=0}}^{{1}}\frac{{k}}{{2}}}}", f"{n if n % 2 else n + 1}.5", "math"


def workers() -> list[int]:
    """Worker processes below this one, starting ones included."""
    pids = []
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if b"whetstone.verify.algebra" in Path(f"/proc/{pid}/cmdline").read_bytes():
                pids.append(pid)
    return pids


def kill_one(rng: Random, kinds: Counter[str]) -> None:
    """Kills a worker, a watching process or a fork, as soon as there is one."""
    while not (pids := workers()):
        time.sleep(0.01)
    pid = rng.choice(pids)
    with contextlib.suppress(ProcessLookupError):
        leader = os.getsid(pid)
        if rng.random() < 0.5:
            kinds["worker"] += 1
            os.killpg(leader, signal.SIGKILL)
        else:
            kinds["watcher" if pid == leader else "fork"] += 1
            os.kill(pid, signal.SIGKILL)


def under_fire(kills: int, interval: float, size: int = 2, deadline: float = 10.0, seed: int = 0) -> dict[str, Any]:
    """Outcomes of the questions asked while `kills` processes were killed, one per `interval` seconds."""
    rng, kinds, last_kill = Random(seed), Counter(), threading.Event()

    def fire() -> None:
        for _ in range(kills):
            time.sleep(interval)
            kill_one(rng, kinds)
        last_kill.set()

    def questions() -> Iterator[tuple[str, str, str]]:
        left = LAST
        for n in count(1):
            yield question(n)
            left -= last_kill.is_set()
            if not left:
                return

    outcomes: Counter[str] = Counter()
    begin = time.monotonic()
    with MathVerifier(workers=size, deadline=deadline) as verifier:
        thread = threading.Thread(target=fire)
        thread.start()
        for n, verdict in enumerate(verifier.check_many(questions()), 1):
            outcomes[
                "undecided" if verdict.correct is None else "right" if verdict.correct == (n % 2 == 1) else "wrong"
            ] += 1
        thread.join()
        started = verifier.processes_started
    return {
        "interval_s": interval,
        "kills": dict(kinds),
        "verdicts": outcomes.total(),
        "lost": outcomes["undecided"],
        "wrong": outcomes["wrong"],
        "workers_started": started,
        "wall_s": time.monotonic() - begin,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="at each interval (default 100)")
    parser.add_argument(
        "--intervals", type=float, nargs="+", default=[1.5, 0.5, 0.1], help="seconds (default 1.5 0.5 0.1)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    rows = []
    print("interval s  kills  verdicts  lost  wrong  workers started  seconds")
    for interval in chosen.intervals:
        row = under_fire(chosen.kills, interval)
        rows.append(row)
        print(
            f"{interval:>10g} {sum(row['kills'].values()):>6} {row['verdicts']:>9} {row['lost']:>5} {row['wrong']:>6} "
            f"{row['workers_started']:>16} {row['wall_s']:>8.0f}",
            flush=True,
        )
    result = {"name": "verify_under_fire", "date": str(date.today()), "hardware": hardware()}
    write(result | {"versions": versions(["math-verify", "sympy"]), "intervals": rows}, chosen.json)
    sys.exit(any(row["lost"] or row["wrong"] for row in rows))


if __name__ == "__main__":
    main()
