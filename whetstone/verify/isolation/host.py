"""The sandbox process: it imports the libraries once, isolates itself, and forks a child for each program.

A level is first tried in a child that is thrown away: it enters the level and runs a program that tries to get out. So the
level reported is one that was observed to hold.
"""

import contextlib
import gc
import json
import os
import select
import signal
import stat
import time
from typing import Any

from whetstone.verify.isolation.inside import become_program, load_libraries
from whetstone.verify.isolation.kernel import (
    NAMESPACES,
    NotObtained,
    die_with_parent,
    empty_root,
    enter_namespaces,
    fresh_pid_namespace,
    leave_root,
    machine,
    return_to_pid_namespace,
)
from whetstone.verify.wire import as_table, receive, send

TAIL_BYTES = 4096  # of the printed text that are kept
REPORT_BYTES = 64 << 10  # of a program's report that are read; an answer is far shorter
PROBE_SECONDS = 20.0
PROBE = """
import os
ans = "open"
try:
    os.listdir("/")
except OSError:
    ans = "shut"
"""


def serve(levels: tuple[str, ...]) -> None:
    """Runs the programs asked for on standard input, until it ends. The first message tells the level obtained."""
    requests, replies = os.dup(0), os.dup(1)
    null = discarding()
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    load_libraries()
    leave_root()
    gc.collect()
    gc.freeze()  # a child's collector must not touch, and so copy, the shared memory
    missing: dict[str, str] = {}
    for level in levels:
        problem = _tried(level, null)
        if problem is None:
            break
        missing[level] = problem
    else:
        send(replies, {"level": None, "missing": missing})
        return
    host = Host(level, null)
    if level == NAMESPACES:
        enter_namespaces()
        first = os.fork()
        if first:
            os.close(requests)
            os.close(replies)
            os.waitpid(first, 0)
            return
        die_with_parent()
        host.enter()
    send(replies, {"level": level, "missing": missing})
    while (question := receive(requests)) is not None:
        send(replies, host.run(question))


def discarding(devices: tuple[str, ...] = (os.devnull, "/dev/zero")) -> int:
    """A descriptor that takes whatever is written. Where some program has replaced /dev/null by a file, which a program without
    the right to write files could not write to, /dev/zero does the same."""
    for device in devices:
        null = os.open(device, os.O_RDWR)
        if stat.S_ISCHR(os.fstat(null).st_mode):
            return null
        os.close(null)
    raise OSError(
        f"{' and '.join(devices)} are files on this machine, not devices. Restore them: mknod -m 666 /dev/null c 1 3"
    )


def _tried(level: str, null: int) -> str | None:
    """What the level lacks on this machine, None if it holds."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _attempt(level, null, writer)
    os.close(writer)
    poll = select.poll()
    poll.register(reader, select.POLLIN | select.POLLHUP)
    text = os.read(reader, 4096) if poll.poll(PROBE_SECONDS * 1000) else b""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    return json.loads(text) if text else "a trial of it gave no answer"


def _attempt(level: str, null: int, writer: int) -> None:
    """Enters the level, runs PROBE, writes what is missing (null if nothing) to `writer`, and ends this process."""
    problem: str | None = "the attempt ended early"
    try:
        host = Host(level, null)
        machine()
        if level == NAMESPACES:
            enter_namespaces()
            first = os.fork()
            if first:
                os.close(writer)
                os.waitpid(first, 0)
                os._exit(0)
            die_with_parent()
            host.enter()
            if os.listdir("/"):
                raise NotObtained("the root folder is not empty")
        problem = _probed(host)
    except BaseException as error:
        problem = str(error) or type(error).__name__
    finally:
        with contextlib.suppress(OSError):  # the parent of the first process has closed it
            os.write(writer, json.dumps(problem).encode())
        os._exit(0)


def _probed(host: "Host") -> str | None:
    reply = host.run({"code": PROBE, "seconds": 10.0, "memory": 256 << 20, "output": 1 << 16})
    report = as_table(reply["report"]) or {}
    if report.get("answer") == "shut":
        return None
    return str(report.get("detail") or f"a trial program {reply['ended']} and reported {reply['report'][:200]!r}")


class Host:
    """Forks a child for each program and watches it until it ends."""

    def __init__(self, level: str, null: int):
        self.level = level
        self.null = null
        self.own_pids = -1  # descriptor of this process's pid namespace
        with open("/proc/self/statm", encoding="ascii") as file:  # address space in use before a program starts
            self.own_bytes = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")

    def enter(self) -> None:
        """Empties the root folder, as the first process of a pid namespace."""
        self.own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
        empty_root()
        return_to_pid_namespace(self.own_pids)

    def run(self, question: dict[str, Any]) -> dict[str, Any]:
        """How a program ended, the last it printed, its report, and the seconds it took."""
        out, out_end = os.pipe()
        report, report_end = os.pipe()
        start = time.monotonic()
        if self.level == NAMESPACES:
            fresh_pid_namespace(self.own_pids)
        child = os.fork()
        if child == 0:
            become_program(question, out_end, report_end, self.null, self.own_bytes + question["memory"])
        os.close(out_end)
        os.close(report_end)
        try:
            printed, reported, ended = _watch(out, report, start + question["seconds"], question["output"])
        finally:
            os.kill(child, signal.SIGKILL)  # a child that has ended keeps the status it ended with
            _, status, used = os.wait4(child, 0)
            os.close(out)
            os.close(report)
        return {
            "ended": ended or _ended(status, used.ru_utime + used.ru_stime, question["seconds"]),
            "printed": printed.decode("utf-8", "replace"),
            "report": reported.decode("utf-8", "replace"),
            "seconds": time.monotonic() - start,
        }


def _watch(out: int, report: int, deadline: float, most_bytes: int) -> tuple[bytes, bytes, str]:
    """Reads both pipes until the program closes them, which it does by ending: (printed, report, "").

    The third is "timeout" or "output" if the deadline or a limit on bytes was reached before.
    """
    kept = {out: b"", report: b""}
    total = 0
    poll = select.poll()
    for descriptor in kept:
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
    still_open = 2
    while still_open:
        left = deadline - time.monotonic()
        if left <= 0:
            return kept[out], kept[report], "timeout"
        for descriptor, _ in poll.poll(max(1, int(left * 1000))):
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                poll.unregister(descriptor)
                still_open -= 1
                continue
            total += len(piece)
            kept[descriptor] += piece
            if descriptor == out:
                kept[out] = kept[out][-TAIL_BYTES:]
            if total > most_bytes or len(kept[report]) > REPORT_BYTES:
                return kept[out], b"", "output"
    return kept[out], kept[report], ""


def _ended(status: int, cpu_seconds: float, seconds: float) -> str:
    """finished, timeout, killed, or the signal that ended a program with this wait status."""
    if os.WIFEXITED(status):
        return "finished"
    if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
        return "timeout" if cpu_seconds >= seconds else "killed"
    return f"signal {os.WTERMSIG(status)}"
