"""Servers that are launched for RL's rollouts: started, started again, ended. The command here is a shell, not vLLM."""

import time
from pathlib import Path

import pytest

from whetstone.decode.server_launch import Fleet
from whetstone.run.sampler_settings import SamplerSettings

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc, which Linux has")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_what_a_killed_server_has_started_is_ended_before_it_is_started_again(tmp_path):
    children = tmp_path / "children"
    children.touch()
    script = f"sleep 600 & echo $! >> {children}; kill -9 $$"  # as an engine that outlives its server
    fleet = Fleet(SamplerSettings(launch=1, command=("sh", "-c", script)), tmp_path, tmp_path, "float32")
    address = fleet.addresses[0].removesuffix("/v1")

    def started(count: int) -> bool:
        fleet.again(address)
        return len(children.read_text().split()) >= count

    try:
        until(lambda: started(1))
        first = int(children.read_text().split()[0])
        until(lambda: started(2))
        until(lambda: not alive(first))
    finally:
        fleet.close()
    until(lambda: not any(map(alive, map(int, children.read_text().split()))))
