"""The means of the Linux kernel that isolate a process. There are two levels of isolation:

    namespaces   user, net, pid, mount, ipc and uts namespaces, an empty read-only root, and all of seccomp's below
    seccomp      a filter that permits 30-odd system calls (none opens, connects, forks or signals), resource limits

The filter is what keeps two programs apart that share a sandbox process; in namespaces each program has a pid namespace
of its own besides.

Why not a library: we found none on PyPI that is well kept and has both the filter and the namespaces (sandboxkit has no
filter, pyseccomp needs libseccomp), and bubblewrap starts a fresh interpreter per program, which takes fifty times as long.
"""

# ruff: noqa: SIM905 (long lists of names read better as text)

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from typing import Any

NAMESPACES, SECCOMP = "namespaces", "seccomp"
LEVELS = (NAMESPACES, SECCOMP)  # strongest first
NOBODY = 65534  # user and group of programs whose sandbox was started by root

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
SECCOMP_MODE_FILTER = 2

ALLOWED = (
    "read write close fstat lseek mmap mprotect munmap brk mremap madvise rt_sigaction rt_sigprocmask rt_sigreturn "
    "sigaltstack nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday futex sched_yield restart_syscall "
    "getrandom getrusage getpid gettid getuid geteuid getgid getegid exit exit_group"
).split()
# By machine: the audit architecture, the number of pivot_root, and the numbers of ALLOWED in its order
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
    """The kernel refuses a part of the isolation; the text says which part and why."""


class FilterProgram(ctypes.Structure):
    """struct sock_fprog: a seccomp filter."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        raise NotObtained(f"{what}: {os.strerror(ctypes.get_errno())}")


def _prctl(what: str, *arguments: int) -> None:
    padded = [ctypes.c_ulong(number) for number in (*arguments, 0, 0, 0, 0)[:5]]
    _call(f"prctl({what})", _libc.prctl, *padded)


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """The kernel sends this process a signal when its parent ends (the parent's thread that made it)."""
    _prctl("PR_SET_PDEATHSIG", PR_SET_PDEATHSIG, by)


def leave_root() -> None:
    """A process of root becomes nobody, because root is not bound by RLIMIT_NPROC and file modes."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(OSError):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _prctl("PR_SET_DUMPABLE", PR_SET_DUMPABLE, 1)  # else /proc/self belongs to root, and its uid_map cannot be written


def enter_namespaces() -> None:
    """Fresh namespaces for this process. Its next child is the first process of the pid namespace."""
    user, group = os.geteuid(), os.getegid()
    for name, flag in CLONE.items():
        _unshare(name, flag)
        if name == "user":
            _write_maps(user, group)


def _unshare(name: str, flag: int) -> None:
    _call(f"unshare a {name} namespace", _libc.unshare, ctypes.c_int(flag))


def fresh_pid_namespace(own: int) -> None:
    """The next child is the first process of a new pid namespace. `own` is the descriptor of this process's namespace.

    A namespace whose first process has ended takes no other, and a new one can be made only from the own one.
    """
    return_to_pid_namespace(own)
    _unshare("pid", CLONE["pid"])


def return_to_pid_namespace(own: int) -> None:
    _call("return to the own pid namespace", _libc.setns, own, CLONE["pid"])


def _write_maps(user: int, group: int) -> None:
    for file, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1")):
        try:
            with open(f"/proc/self/{file}", "w", encoding="ascii") as out:
                out.write(text)
        except OSError as error:
            if not (file == "setgroups" and error.errno == errno.ENOENT):  # kernels before 3.19
                raise NotObtained(f"write {text!r} to /proc/self/{file}: {error.strerror}") from error


def empty_root() -> None:
    """Replaces the root folder by an empty one that cannot be written to."""
    _, pivot_root, _ = machine()
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


def machine() -> tuple[int, int, list[int]]:
    """This machine's entry in MACHINES. Raises NotObtained if there is none."""
    name = platform.machine()
    if name not in MACHINES or sys.maxsize < 2**32:
        raise NotObtained(
            f"the numbers of system calls are known for {' and '.join(MACHINES)} (64 bits), and this machine is {name}"
        )
    return MACHINES[name]


def seccomp_filter() -> bytes:
    """The instructions of the filter: ALLOWED system calls of the machine's own architecture pass, others fail with EPERM."""
    architecture, _, numbers = machine()

    def load(offset: int) -> bytes:
        return struct.pack("=HBBI", 0x20, 0, 0, offset)  # BPF_LD | BPF_W | BPF_ABS

    def skip_next_unless(value: int) -> bytes:
        return struct.pack("=HBBI", 0x15, 0, 1, value)  # BPF_JMP | BPF_JEQ | BPF_K

    def give(action: int) -> bytes:
        return struct.pack("=HBBI", 0x06, 0, 0, action)  # BPF_RET

    allow, kill, refuse = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
    start = load(4) + struct.pack("=HBBI", 0x15, 1, 0, architecture) + give(kill) + load(0)
    return start + b"".join(skip_next_unless(number) + give(allow) for number in numbers) + give(refuse)


def install_filter(code: bytes) -> None:
    instructions = ctypes.create_string_buffer(code, len(code))
    program = FilterProgram(len(code) // 8, ctypes.addressof(instructions))
    arguments = (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)
    _prctl("PR_SET_NO_NEW_PRIVS", PR_SET_NO_NEW_PRIVS, 1)
    _call("install the seccomp filter", _libc.prctl, *arguments)


def lock_in() -> None:
    """Drops all capabilities and installs the filter. Neither can be undone."""
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _call("drop capabilities", _libc.capset, header, bytes(24))
    install_filter(seccomp_filter())


def set_limits(seconds: float, memory_bytes: int) -> None:
    """Resource limits. With RLIMIT_NOFILE = 0 no file, socket or pipe can be opened."""
    limits = {
        resource.RLIMIT_CPU: int(seconds) + 2,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
