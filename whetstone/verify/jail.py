"""What runs inside a sandbox process: it imports the libraries once, shuts itself in, and forks a child per program.

    namespaces   user, net, pid, mount, ipc and uts namespaces, an empty read-only root, and all of seccomp's below
    seccomp      a filter that lets through 30-odd system calls (none opens, connects, forks or signals), limits
    restricted   limits, an audit hook and the language of `restricted.py`; for kernels without the two above

A level is tried in a throw-away child before it is entered: what is reported was seen to hold, not assumed. Libraries
are loaded beforehand because an empty root has none to load later. The filter is what keeps two programs apart that
share a sandbox process; each has a pid namespace of its own besides.

Why not a library: none on PyPI that we found both is well kept and has the filter with the namespaces
(sandboxkit has no filter, pyseccomp wants libseccomp, RestrictedPython has no `x[i] += 1`), and bubblewrap starts a
fresh interpreter per program, which takes fifty times as long.
"""

# ruff: noqa: SIM905 (long lists of names read better as text)

import contextlib
import ctypes
import errno
import gc
import importlib
import json
import os
import pkgutil
import platform
import resource
import select
import signal
import struct
import sys
import time
import types
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from whetstone.verify.wire import as_table, receive, send

NAMESPACES, SECCOMP, RESTRICTED = "namespaces", "seccomp", "restricted"
LEVELS = (NAMESPACES, SECCOMP, RESTRICTED)  # strongest first
TAIL_BYTES = 4096  # of what a program printed are kept
REPORT_BYTES = 64 << 10  # of a child's report; an answer is far shorter
NOBODY = 65534  # user and group that programs run as when the sandbox was started by root
PROBE_SECONDS = 20.0

# Standard modules a program may want. All are loaded, since nothing can be loaded from an empty root.
STANDARD = (
    "math cmath fractions decimal itertools functools operator collections random statistics re string datetime "
    "calendar time heapq bisect copy typing dataclasses enum sys os json array numbers textwrap pprint abc "
    "collections.abc contextlib types warnings traceback io locale _strptime timeit hashlib struct inspect "
    "encodings.ascii encodings.latin_1 encodings.unicode_escape unicodedata logging pydoc"
).split()
# sympy loads parts of itself when first used: these packages are loaded whole
SYMPY = (
    "abc assumptions calculus combinatorics concrete core discrete functions geometry integrals logic matrices ntheory "
    "parsing.sympy_parser polys printing.latex printing.pretty printing.str printing.lambdarepr printing.pycode "
    "printing.numpy printing.c printing.cxx printing.fortran printing.rust sets series simplify solvers stats "
    "stats.sampling.sample_numpy tensor utilities vector codegen.ast codegen.abstract_nodes codegen.pynodes "
    "physics.units physics.matrices"
).split()
# Parts that are slow to load, deprecated, or for sympy's own makers
LEFT_OUT = (
    "tests benchmarks plotting sampling _compilation autowrap utilities.codegen runtests _wrapper compatibility _doc. "
    "core.trace utilities.pytest utilities.randtest utilities.tmpfiles"
).split()

CLONE = {
    "user": 0x10000000,
    "net": 0x40000000,
    "pid": 0x20000000,
    "mount": 0x00020000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
}
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38

# Per machine: audit architecture, pivot_root, and the numbers of ALLOWED in its order
ALLOWED = (
    "read write close fstat lseek mmap mprotect munmap brk mremap madvise rt_sigaction rt_sigprocmask rt_sigreturn "
    "sigaltstack nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday futex sched_yield restart_syscall "
    "getrandom getrusage getpid gettid getuid geteuid getgid getegid exit exit_group"
).split()
MACHINES: dict[str, tuple[int, int, list[int]]] = {
    "x86_64": (
        0xC000003E,
        155,
        [
            *(0, 1, 3, 5, 8, 9, 10, 11, 12, 25, 28, 13, 14, 15, 131, 35, 230, 228, 229, 96, 202, 24, 219),
            *(318, 98, 39, 186, 102, 107, 104, 108, 60, 231),
        ],
    ),
    "aarch64": (
        0xC00000B7,
        41,
        [
            *(63, 64, 57, 80, 62, 222, 226, 215, 214, 216, 233, 134, 135, 139, 132, 101, 115, 113, 114, 169, 98, 124),
            *(128, 278, 165, 172, 178, 174, 175, 176, 177, 93, 94),
        ],
    ),
}


class NotObtained(Exception):
    """The kernel refuses a level; the text says what and why."""


class _Program(ctypes.Structure):
    """struct sock_fprog: a seccomp filter."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise NotObtained(f"{what}: {os.strerror(number)}")


def _prctl(what: str, *arguments: int) -> None:
    padded = [ctypes.c_ulong(number) for number in (*arguments, 0, 0, 0, 0)[:5]]
    _call(f"prctl({what})", _libc.prctl, *padded)


# ---- the way in -----------------------------------------------------------------------------------------------------


def leave_root() -> None:
    """Becomes nobody when started by root, whom RLIMIT_NPROC and file modes do not bind."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(OSError, AttributeError):  # macOS has no setresuid
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    if sys.platform == "linux":
        _prctl("PR_SET_DUMPABLE", PR_SET_DUMPABLE, 1)  # or /proc/self stays root's, and no map can be written


def enter_namespaces() -> None:
    """Fresh namespaces for this process; its next child is the first process of the pid namespace."""
    if sys.platform != "linux":
        raise NotObtained(f"namespaces are Linux's, and this is {sys.platform}")
    user, group = os.geteuid(), os.getegid()
    for name, flag in CLONE.items():
        _call(f"unshare a {name} namespace", _libc.unshare, ctypes.c_int(flag))
        if name == "user":
            _write_maps(user, group)


def _write_maps(user: int, group: int) -> None:
    for file, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1")):
        try:
            with open(f"/proc/self/{file}", "w", encoding="ascii") as out:
                out.write(text)
        except OSError as error:
            if not (file == "setgroups" and error.errno == errno.ENOENT):  # kernels before 3.19
                raise NotObtained(f"write {text!r} to /proc/self/{file}: {error.strerror}") from error


def empty_root() -> None:
    """A root folder with nothing in it, that nothing can be written to."""
    _, pivot_root, _ = _machine()
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    _mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
    _mount(b"none", b"/tmp", b"tmpfs", flags, b"size=4k,nr_inodes=2,mode=555")
    os.chdir("/tmp")
    _call("pivot_root", _libc.syscall, ctypes.c_long(pivot_root), b".", b".")
    _call("unmount the old root", _libc.umount2, b".", ctypes.c_int(MNT_DETACH))
    os.chdir("/")
    _mount(None, b"/", None, MS_REMOUNT | MS_RDONLY | flags, None)


def _mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None) -> None:
    _call(f"mount {target.decode()}", _libc.mount, source, target, kind, ctypes.c_ulong(flags), data)


def _machine() -> tuple[int, int, list[int]]:
    if sys.platform != "linux":
        raise NotObtained(f"seccomp is Linux's, and this is {sys.platform}")
    name = platform.machine()
    if name not in MACHINES or sys.maxsize < 2**32:
        raise NotObtained(
            f"the numbers of {name}'s system calls are not known here, only those of {', '.join(MACHINES)}"
        )
    return MACHINES[name]


def seccomp_filter() -> bytes:
    """The filter's instructions: the machine's own system calls that are ALLOWED, else "operation not permitted"."""
    architecture, _, numbers = _machine()

    def load(offset: int) -> bytes:
        return struct.pack("=HBBI", 0x20, 0, 0, offset)  # BPF_LD | BPF_W | BPF_ABS

    def unless_equal(value: int) -> bytes:
        return struct.pack("=HBBI", 0x15, 0, 1, value)  # BPF_JMP | BPF_JEQ | BPF_K: one forward if different

    def give(action: int) -> bytes:
        return struct.pack("=HBBI", 0x06, 0, 0, action)  # BPF_RET

    allow, kill, refuse = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
    start = load(4) + struct.pack("=HBBI", 0x15, 1, 0, architecture) + give(kill) + load(0)
    return start + b"".join(unless_equal(number) + give(allow) for number in numbers) + give(refuse)


def shut_in() -> None:
    """No capabilities, no way to new ones, and the filter. There is no way back."""
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _call("drop capabilities", _libc.capset, header, bytes(24))
    _prctl("PR_SET_NO_NEW_PRIVS", PR_SET_NO_NEW_PRIVS, 1)
    code = seccomp_filter()
    room = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(room))
    _call("install the seccomp filter", _libc.prctl, PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0)


def set_limits(seconds: float, memory_bytes: int) -> None:
    """The kernel's own limits. Whoever has no descriptor to give can open no file, socket or pipe."""
    limits = {
        "RLIMIT_CPU": int(seconds) + 2,
        "RLIMIT_AS": memory_bytes,
        "RLIMIT_NOFILE": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NPROC": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
    for name, most in limits.items():
        kind = getattr(resource, name, None)
        if kind is not None:
            _, hard = resource.getrlimit(kind)
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            with contextlib.suppress(OSError, ValueError):  # macOS refuses some; the deadline holds in any case
                resource.setrlimit(kind, (most, most))


# ---- the sandbox process --------------------------------------------------------------------------------------------


def serve(levels: tuple[str, ...]) -> None:
    """Runs programs asked for on standard input until it ends. The first message says which level was obtained."""
    requests, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    parent = os.getpid()
    load_libraries()
    leave_root()
    gc.collect()
    gc.freeze()  # a child's collector must not touch, and so copy, what is shared
    why: dict[str, str] = {}
    for level in levels:
        problem = _tried(level, null)
        if problem is None:
            break
        why[level] = problem
    else:
        send(replies, {"level": None, "why": why})
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
        _prctl("PR_SET_PDEATHSIG", PR_SET_PDEATHSIG, signal.SIGKILL)
        host.enter()
    elif sys.platform == "linux":
        assert os.getpid() == parent
    send(replies, {"level": level, "why": why})
    while (question := receive(requests)) is not None:
        send(replies, host.run(question))


def load_libraries() -> None:
    """Everything a program may import, so that nothing need be read from disk later."""
    import random

    warnings.simplefilter("ignore")
    for name in STANDARD:
        importlib.import_module(name)
    with contextlib.suppress(ImportError):
        import numpy

        numpy.set_printoptions(legacy="1.25")  # scalars print as 3.0, not np.float64(3.0)
        numpy.random.seed(0)  # a program that draws numbers gives the same answer every time
    with contextlib.suppress(ImportError):
        import sympy

        warnings.simplefilter("ignore")  # which sympy turns on for itself
        for part in SYMPY:
            _load_whole(f"{sympy.__name__}.{part}")
    os.register_at_fork(after_in_child=lambda: random.seed(0))  # random itself draws a new seed there
    sys.set_int_max_str_digits(0)  # long integers are what some programs are for; time is bounded
    sys.dont_write_bytecode = True
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def _load_whole(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except Exception:  # an optional part of sympy without what it needs
        return
    for part in pkgutil.iter_modules(getattr(module, "__path__", ()), name + "."):
        if not any(word in part.name + "." for word in LEFT_OUT):
            _load_whole(part.name)


def _tried(level: str, null: int) -> str | None:
    """What stands against a level, found by a child that enters it and runs a program that tries to get out."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        problem = "the attempt ended early"
        try:
            os.close(reader)
            problem = _attempt(level, null)
        except BaseException as error:
            problem = str(error) or type(error).__name__
        finally:
            os.write(writer, json.dumps(problem).encode())
            os._exit(0)
    os.close(writer)
    ready = select.poll()
    ready.register(reader, select.POLLIN | select.POLLHUP)
    text = os.read(reader, 4096) if ready.poll(PROBE_SECONDS * 1000) else b""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    return json.loads(text) if text else "a trial of it gave no answer"


PROBE = """
import os
ans = "open"
try:
    os.listdir("/")
except OSError:
    ans = "shut"
"""


def _attempt(level: str, null: int) -> str | None:
    host = Host(level, null)
    if level != RESTRICTED:
        _machine()
    if level == NAMESPACES:
        enter_namespaces()
        reader, writer = os.pipe()
        first = os.fork()
        if first:
            os.close(writer)
            text = os.read(reader, 4096)
            os.waitpid(first, 0)
            return json.loads(text) if text else "the first process of the pid namespace ended early"
        problem: str | None = "the attempt ended early"
        try:
            os.close(reader)
            host.enter()
            if os.listdir("/"):
                raise NotObtained("the root folder is not empty")
            problem = _probed(host)
        except BaseException as error:
            problem = str(error) or type(error).__name__
        finally:
            os.write(writer, json.dumps(problem).encode())
            os._exit(0)
    return _probed(host)


def _probed(host: "Host") -> str | None:
    if host.level == RESTRICTED and os.geteuid() == 0:
        return "it is not for root, whom the kernel's limits do not bind, and this process could not become nobody"
    code = "ans = 'shut'" if host.level == RESTRICTED else PROBE
    reply = host.run({"code": code, "seconds": 10.0, "memory": 256 << 20, "output": 1 << 16})
    report = as_table(reply["report"]) or {}
    if report.get("answer") == "shut":
        return None
    return str(report.get("detail") or f"a trial program {reply['ended']} and reported {reply['report'][:200]!r}")


class Host:
    """Forks a child per program and watches it to its end."""

    def __init__(self, level: str, null: int):
        self.level = level
        self.null = null
        self.prepare = _compiled
        if level == RESTRICTED:
            from whetstone.verify import restricted  # now, while files can be read

            self.prepare = restricted.prepared
        self.space = 0  # address space in use before a program starts
        self.own_pids = -1  # descriptor of this process's pid namespace
        with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
            self.space = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")

    def enter(self) -> None:
        """As the first process of a pid namespace: empties the root."""
        self.own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
        empty_root()
        _call("return to the own pid namespace", _libc.setns, self.own_pids, CLONE["pid"])

    def run(self, question: dict[str, Any]) -> dict[str, Any]:
        """The end of a program: how it ended, what it printed last, what it reported, and the seconds it took."""
        out, out_end = os.pipe()
        report, report_end = os.pipe()
        start = time.monotonic()
        if self.level == NAMESPACES:
            # A namespace that has lost its first process takes no other, and only from the own one is there a new one
            _call("return to the own pid namespace", _libc.setns, self.own_pids, CLONE["pid"])
            _call("unshare a pid namespace", _libc.unshare, ctypes.c_int(CLONE["pid"]))
        child = os.fork()
        if child == 0:
            self._become_program(question, out_end, report_end)
        os.close(out_end)
        os.close(report_end)
        try:
            printed, reported, ended = self._watch(out, report, start + question["seconds"], question["output"])
        finally:
            # Whatever it is up to: one that has ended already keeps the status it ended with
            os.kill(child, signal.SIGKILL)
            _, status, used = os.wait4(child, 0)
            os.close(out)
            os.close(report)
        if not ended:
            ended = _how(status, used.ru_utime + used.ru_stime, question["seconds"])
        return {
            "ended": ended,
            "printed": printed.decode("utf-8", "replace"),
            "report": reported.decode("utf-8", "replace"),
            "seconds": time.monotonic() - start,
        }

    @staticmethod
    def _watch(out: int, report: int, deadline: float, most: int) -> tuple[bytes, bytes, str]:
        """Reads both pipes to their end, which is the program's, unless time or room runs out first."""
        kept = {out: b"", report: b""}
        counted = 0
        poll = select.poll()
        for descriptor in kept:
            poll.register(descriptor, select.POLLIN | select.POLLHUP)
        waiting = 2
        while waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                return kept[out], kept[report], "timeout"
            for descriptor, _ in poll.poll(max(1, int(left * 1000))):
                piece = os.read(descriptor, 1 << 16)
                if not piece:
                    poll.unregister(descriptor)
                    waiting -= 1
                    continue
                counted += len(piece)
                kept[descriptor] += piece
                if descriptor == out:
                    kept[out] = kept[out][-TAIL_BYTES:]
                if counted > most or len(kept[report]) > REPORT_BYTES:
                    return kept[out], b"", "output"
        return kept[out], kept[report], ""

    def _become_program(self, question: dict[str, Any], out: int, report: int) -> NoReturn:
        """In the child: leaves everything behind but three descriptors, and runs the program."""
        try:
            if sys.platform == "linux":
                _prctl("PR_SET_PDEATHSIG", PR_SET_PDEATHSIG, signal.SIGKILL)
            high = max(out, report, self.null) + 1
            os.dup2(report, high)
            os.dup2(out, 1)
            os.dup2(self.null, 2)
            os.dup2(high, 3)
            none, other = os.pipe()  # nothing to read, no one to write
            os.dup2(none, 0)
            os.closerange(4, max(high, none, other) + 64)
            gc.enable()
            set_limits(question["seconds"], self.space + question["memory"])
            if self.level != RESTRICTED:
                shut_in()
            text = json.dumps(run_code(question["code"], self.prepare)).encode()
            while text:
                text = text[os.write(3, text) :]
        except NotObtained as error:  # nothing was run
            os.write(3, json.dumps({"reason": "crashed", "detail": str(error)}).encode())
        finally:
            os._exit(0)


def _how(status: int, used: float, seconds: float) -> str:
    if os.WIFEXITED(status):
        return "finished"
    if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
        return "timeout" if used >= seconds else "killed"
    return f"signal {os.WTERMSIG(status)}"


# ---- the program ----------------------------------------------------------------------------------------------------


def run_code(code: str, prepare: Callable[[str], tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    """Runs a program and says what it answered, or which error it ended with."""
    try:
        sys.argv = ["program"]
        compiled, names = prepare(code)
    except MemoryError:
        return {"reason": "memory", "detail": "reading the program"}
    except PermissionError as error:
        return {"reason": "forbidden", "detail": _said(error)}
    except BaseException as error:
        return {"reason": "syntax", "detail": _said(error)}
    try:
        with contextlib.suppress(SystemExit):
            exec(compiled, names)
        answer = _answer(names)
        with contextlib.suppress(ValueError):
            sys.stdout.flush()
        return {"reason": "", "answer": answer}
    except MemoryError as error:
        return {"reason": "memory", "detail": _said(error)}
    except BaseException as error:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        return {"reason": "error", "detail": _said(error)}


def _compiled(code: str) -> tuple[Any, dict[str, Any]]:
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    return compile(code, "<program>", "exec", dont_inherit=True), main.__dict__


def _said(error: BaseException) -> str:
    """An error in a line, whatever its own `__str__` does."""
    try:
        text = str(error)
    except BaseException:
        text = ""
    return f"{type(error).__name__}: {text}"[:500]


def _answer(names: dict[str, Any]) -> str | None:
    """What `solution()` returns, else `ans` or `answer`. None: what was printed counts."""
    function = names.get("solution")
    if isinstance(function, types.FunctionType) and not _wants_arguments(function):
        value = function()
        if value is not None:
            return str(value)
    for name in ("ans", "answer"):
        value = names.get(name)
        if value is not None and not isinstance(value, types.FunctionType | types.ModuleType | type):
            return str(value)
    return None


def _wants_arguments(function: types.FunctionType) -> bool:
    code = function.__code__
    needed = code.co_argcount - len(function.__defaults__ or ())
    optional = function.__kwdefaults__ or {}
    return needed > 0 or code.co_kwonlyargcount > len(optional)
