"""A hang is named, with its stacks, whoever holds the interpreter's lock; and ended where that is asked for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from whetstone.run.watchdog import Watchdog

ROOT = Path(__file__).parent.parent
HANGS = {
    "waits": "def hang():\n    time.sleep(60)",  # lets go of the lock
    "holds the lock": "def hang():\n    re.match('(a+)+$', 'a' * 60 + 'b')",  # in C, for years
}
CHILD = """
import re, sys, time
from pathlib import Path
from whetstone.run.watchdog import Watchdog
{hang}
with Watchdog(Path(sys.argv[1]), 0.3, end={end}) as watchdog:
    watchdog.phase("backward", 7)
    print("ready", flush=True)
    hang()
"""


def start(folder: Path, hang: str, end: bool) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD.format(hang=HANGS[hang], end=end), str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def waited_for(condition, seconds: float = 60.0):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("hang", HANGS)
@pytest.mark.parametrize("end", [True, False])
def test_a_hang_is_named_with_its_stacks(tmp_path, hang, end):
    child = start(tmp_path, hang, end)
    try:
        assert child.stdout.readline() == "ready\n"
        path = tmp_path / f"hang-{child.pid}.txt"
        told = waited_for(lambda: path.exists() and "most recent call first" in (text := path.read_text()) and text)
        assert f"process {child.pid} hangs: backward of step 7 has lasted" in told and "in hang" in told
        if end:
            assert child.wait(timeout=60) == -signal.SIGKILL and "It is ended now; run again" in told
        else:
            assert child.poll() is None and "It is left running" in told
    finally:
        child.kill()
    said = child.communicate()[1]  # the end of it comes once the watcher is gone, too
    assert told in said and said.count("hangs:") == 1


def test_heartbeats_keep_it_quiet_and_it_leaves_with_what_it_watches(tmp_path, capfd):
    with Watchdog(tmp_path, 3) as watchdog:
        watcher = watchdog._watcher
        for step in range(80):
            time.sleep(0.05)
            watchdog.phase("forward", step)
    assert watcher.poll() is not None
    assert not list(tmp_path.iterdir()) and "hangs" not in capfd.readouterr().err


def test_zero_seconds_watch_nothing(tmp_path):
    with Watchdog(tmp_path, 0) as watchdog:
        watchdog.phase("forward", 1)
        assert not hasattr(watchdog, "_watcher")


def test_a_forked_child_does_not_speak_for_its_parent(tmp_path):
    with Watchdog(tmp_path, 100) as watchdog:
        watchdog.phase("draw", 3)
        before = bytes(watchdog._place[:64])
        pid = os.fork()
        if not pid:
            watchdog.phase("forward", 4)
            os._exit(0)
        os.waitpid(pid, 0)
        assert bytes(watchdog._place[:64]) == before
