"""A phase that hangs is reported with its stacks, whether or not it holds the interpreter's lock, and ended on request."""

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
    "waits": "def hang():\n    time.sleep(60)",  # releases the lock
    "holds the lock": "def hang():\n    re.match('(a+)+$', 'a' * 60 + 'b')",  # in C, for years, with the lock held
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
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.05)
    return result


@pytest.mark.parametrize("hang", HANGS)
@pytest.mark.parametrize("end", [True, False])
def test_a_hang_is_reported_with_its_stacks(tmp_path, hang, end):
    child = start(tmp_path, hang, end)
    try:
        assert child.stdout.readline() == "ready\n"
        path = tmp_path / f"hang-{child.pid}.txt"
        report = waited_for(lambda: path.exists() and "most recent call first" in (text := path.read_text()) and text)
        assert f"process {child.pid} hangs: backward of step 7 has lasted" in report and "in hang" in report
        if end:
            assert child.wait(timeout=60) == -signal.SIGKILL and "It is killed now. Run again" in report
        else:
            assert child.poll() is None and "It is left running" in report
    finally:
        child.kill()
    stderr = child.communicate()[1]  # waits for the watcher, which has the same standard error
    assert report in stderr and stderr.count("hangs:") == 1


def test_phases_that_end_in_time_are_not_reported_and_the_watcher_ends_with_its_process(tmp_path, capfd):
    longest, begin = 0.0, time.monotonic()
    with Watchdog(tmp_path, 3) as watchdog:
        watcher = watchdog._watcher
        for step in range(80):
            time.sleep(0.05)
            watchdog.phase("forward", step)
            longest, begin = max(longest, time.monotonic() - begin), time.monotonic()
    assert watcher.poll() is not None
    if longest < 2.5:  # a busy machine may have held this process for longer than the watchdog allows
        assert not list(tmp_path.iterdir()) and "hangs" not in capfd.readouterr().err


def test_zero_seconds_watch_nothing(tmp_path):
    with Watchdog(tmp_path, 0) as watchdog:
        watchdog.phase("forward", 1)
        assert not hasattr(watchdog, "_watcher")


def test_phases_of_a_forked_child_are_ignored(tmp_path):
    with Watchdog(tmp_path, 100) as watchdog:
        watchdog.phase("draw", 3)
        before = bytes(watchdog._place[:64])
        pid = os.fork()
        if not pid:
            watchdog.phase("forward", 4)
            os._exit(0)
        os.waitpid(pid, 0)
        assert bytes(watchdog._place[:64]) == before
