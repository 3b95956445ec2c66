"""How an attack on the sandbox is written down. FOLDER, PORT, PARENT and VICTIM stand for what it aims at."""

from dataclasses import dataclass

SECRET = "the-canary-sings-at-dawn"
CALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    return libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
"""
WALK = """
def subclasses(kind):
    for found in type.__subclasses__(kind):
        yield found
        yield from subclasses(found)
"""


@dataclass(frozen=True)
class Attack:
    code: str
    proven: bool = False  # does no harm, so it is shown to work without a sandbox
    ends: tuple[str, ...] = ()  # the reasons that it may end with; empty: any
    machine: str = ""  # the one whose system calls it names


def reads(code: str) -> Attack:
    """Reads the secret file into `got`."""
    return Attack(f"{code}\nans = 'breach' if {SECRET!r} in str(got) else 'nothing'", proven=True)


def does(code: str, proven: bool = True, machine: str = "") -> Attack:
    """Succeeds when it comes to its end."""
    return Attack(f"{code}\nans = 'breach'", proven, machine=machine)


def calls(arguments: str, proven: bool = False) -> Attack:
    """A raw system call of x86_64 that gives no error."""
    return Attack(f"{CALL}\nans = 'breach' if call({arguments}) >= 0 else 'refused'", proven, machine="x86_64")


def endless(code: str, *ends: str) -> Attack:
    return Attack(code, ends=ends or ("timeout"))
