"""Programs that try to get out, one test each, at every level of isolation that this machine offers.

A program answers "breach" if its attack has worked. A misspelt attack would never work, so those that do no harm are also
run without a sandbox, where they must succeed. After every attack the host is as it was, and the same sandbox answers the
next program.
"""

import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.verify.attack import CALL, SECRET, WALK, Attack, calls, does, endless, reads
from tests.verify.more_attacks import MORE
from whetstone.verify.program import LEVELS, Sandbox

ATTACKS = MORE | {
    # Reading files
    "read a file": reads("got = open('FOLDER/secret').read()"),
    "read through os": reads("import os\ngot = os.read(os.open('FOLDER/secret', os.O_RDONLY), 99)"),
    "read through io": reads("import io\ngot = io.FileIO('FOLDER/secret').readall()"),
    "read through open_code": reads("import io\ngot = io.open_code('FOLDER/secret').read()"),
    "read through pathlib": reads("import pathlib\ngot = pathlib.Path('FOLDER/secret').read_text()"),
    "read through linecache": reads("import linecache\ngot = linecache.getlines('FOLDER/secret')"),
    "read through codecs": reads("import codecs\ngot = codecs.open('FOLDER/secret').read()"),
    "read through numpy": reads("import numpy\ngot = numpy.fromfile('FOLDER/secret', dtype='u1').tobytes()"),
    "read a table with numpy": reads("import numpy\ngot = numpy.genfromtxt('FOLDER/secret', dtype=str)"),
    "read through a loader": reads("import random\ngot = random.__loader__.get_data('FOLDER/secret')"),
    "read by way of fileinput": reads("import fileinput\ngot = list(fileinput.input('FOLDER/secret'))"),
    "read with a traceback": reads(
        "import linecache, traceback\n"
        "try:\n    exec(compile('1/0', 'FOLDER/secret', 'exec'))\n"
        "except ZeroDivisionError:\n    got = traceback.format_exc()"
    ),
    "list the root": does("import os\nassert os.listdir('/')"),
    "list with glob": does("import glob\nassert glob.glob('/*')"),
    "ask whether a file is there": does("import os\nos.stat('FOLDER/secret')"),
    "climb out of the root": does("import os\nos.chdir('..')\nassert os.listdir('../../../..')"),
    "find the working folder": does("import os\nassert os.getcwd() != '/'"),
    # Writing files
    "write a file": does("open('FOLDER/new', 'w').write('x')"),
    "write through os": does("import os\nos.write(os.open('FOLDER/new', os.O_CREAT | os.O_WRONLY), b'x')"),
    "write through pathlib": does("import pathlib\npathlib.Path('FOLDER/new').write_text('x')"),
    "write through numpy": does("import numpy\nnumpy.arange(3).tofile('FOLDER/new')"),
    "save through numpy": does("import numpy\nnumpy.save('FOLDER/new', numpy.arange(3))"),
    "write a log": does("import logging\nlogging.FileHandler('FOLDER/new').emit(logging.makeLogRecord({}))"),
    "write a database": does("import sqlite3\nsqlite3.connect('FOLDER/new').execute('create table t (x)')"),
    "write a temporary file": does("import tempfile\ntempfile.TemporaryFile().write(b'x')"),
    "write into the root": does("open('/whetstone-attack', 'w').write('x')", proven=False),
    "make a folder": does("import os\nos.mkdir('FOLDER/new')"),
    "make a link": does("import os\nos.symlink('FOLDER/secret', 'FOLDER/new')"),
    "remove a file": does("import os\nos.unlink('FOLDER/secret')"),
    "rename a file": does("import os\nos.rename('FOLDER/secret', 'FOLDER/new')"),
    "empty a file": does("import os\nos.truncate('FOLDER/secret', 0)"),
    "change a mode": does("import os\nos.chmod('FOLDER/secret', 0o777)"),
    "leave something in memory files": does("import os\nassert os.memfd_create('x') >= 0"),
    # The network
    "connect to the host": does("import socket\nsocket.create_connection(('127.0.0.1', PORT), 1)"),
    "connect to a local socket": does("import socket\nsocket.socket(socket.AF_UNIX).connect('FOLDER/local')"),
    "listen": does("import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()"),
    "send a datagram": does("import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))"),
    "fetch a page": does("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:PORT/', timeout=1)", False),
    "ask for a name": does("import socket\nsocket.getaddrinfo('localhost', 80)"),
    "make a pair of sockets": does("import socket\nsocket.socketpair()"),
    "run an event loop": does("import asyncio\nasyncio.run(asyncio.sleep(0))"),
    "make a raw socket": calls("41, 17, 3, 0"),
    # Processes and threads
    "fork": does("import os\npid = os.fork()\nif pid == 0:\n    os._exit(0)"),
    "fork bomb": does("import os\nwhile True:\n    os.fork()", proven=False),
    "patient fork bomb": endless(
        "import os\nwhile True:\n    try:\n        os.fork()\n    except BaseException:\n        pass"
    ),
    "start a thread": does("import threading\nthreading.Thread(target=print).start()"),
    "start a program": does("import subprocess\nsubprocess.run(['true'], check=True)"),
    "run a shell": does("import os\nassert os.system('true') == 0"),
    "read from a shell": does("import os\nassert os.popen('echo x').read()"),
    "become another program": does("import os\nos.execv('/bin/echo', ['echo', 'breach'])", proven=False),
    "spawn": does("import os\nos.posix_spawn('/bin/true', ['true'], {})", proven=False),
    "use processes": does("import multiprocessing as m\np = m.Process(target=print)\np.start()\np.join()"),
    "open a terminal": does("import pty\nif pty.fork()[0] == 0:\n    import os\n    os._exit(0)", False),
    "fork by its number": calls("57"),
    "vfork by its number": calls("58"),
    "clone by its number": calls("56, 0x11, 0, 0, 0, 0"),
    "clone3 by its number": calls("435, 0, 0"),
    # Memory
    "fill a list": endless("x = []\nwhile True:\n    x.append([0] * 10**6)", "memory", "timeout"),
    "one large array": endless("x = bytearray(1 << 36)", "memory"),
    "one large numpy array": endless("import numpy\nx = numpy.ones(1 << 36)", "memory"),
    "double a text": endless("x = 'ab'\nwhile True:\n    x += x", "memory"),
    "fill through anonymous maps": endless("import mmap\nx = mmap.mmap(-1, 1 << 36)", "error", "memory"),
    "grow and forgive": endless(
        "x = []\nwhile True:\n    try:\n        x.append(bytearray(1 << 24))\n    except MemoryError:\n        pass",
        "timeout",
        "memory",
        "crashed",
    ),
    "deep recursion": endless("def f():\n    return f()\nf()", "error"),
    "recursion past the stack": endless(
        "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __getattr__(self, n):\n        return getattr(self, n)\n"
        "A().x",
        "crashed",
        "error",
        "memory",
    ),
    "deep parentheses": endless("(" * 10_000 + ")" * 10_000, "syntax", "memory", "crashed"),
    "deep expression": endless("ans = " + "-" * 200_000 + "1", "syntax", "memory", "crashed", "error"),
    # Time
    "loop for ever": endless("while True:\n    pass", "timeout"),
    "sleep": endless("import time\ntime.sleep(1000)"),
    "large power": endless("x = 9 ** 9 ** 9", "timeout", "memory"),
    "long sum": endless("ans = sum(range(10**13))", "timeout"),
    "slow pattern": endless("import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "timeout"),
    "refuse to be interrupted": endless(
        "while True:\n    try:\n        1 / 0\n    except BaseException:\n        pass", "timeout"
    ),
    "ignore all signals": endless(
        "import signal\nfor n in range(1, 65):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\nwhile True:\n    pass"
    ),
    "never finish solution": endless("def solution():\n    while True:\n        pass", "timeout"),
    "an answer that takes for ever to print": endless(
        "class A:\n    def __str__(self):\n        while True:\n            pass\nans = A()", "timeout"
    ),
    "close everything and stay": endless(
        "import os\nos.closerange(0, 100)\nwhile True:\n    pass", "timeout", "crashed"
    ),
    # Time bombs
    "act at exit": endless(
        "import atexit\natexit.register(lambda: open('FOLDER/new', 'w'))\nans = 1", "answered", "error"
    ),
    "act when collected": endless(
        "class A:\n    def __del__(self):\n        open('FOLDER/new', 'w')\na = A()\nans = 1", "answered"
    ),
    "an alarm": does("import signal\nassert signal.setitimer(signal.ITIMER_REAL, 9) == (0, 0)\nsignal.setitimer(0, 0)"),
    "leave a timer behind": does("import threading\nt = threading.Timer(0.01, print)\nt.start()\nt.join()"),
    "poison math for those who follow": endless(
        "import math, builtins\nmath.sqrt = lambda x: 'breach'\nans = 1", "answered", "error"
    ),
    "poison builtins for those who follow": endless(
        "import builtins, math, sys\nbuiltins.str = lambda *a: 'poison'\nsys.modules['math'] = None\nans = 1",
        "answered",
        "error",
        "crashed",
    ),
    "leave early": endless("import os\nos._exit(0)", "crashed"),
    # Signals
    "end the parent": does("import os\nos.kill(PARENT, 0)"),
    "end the sandbox process": Attack(
        "import os, signal\nif os.getppid():\n    os.kill(os.getppid(), signal.SIGKILL)\n    ans = 'breach'"
    ),
    "end a neighbour": does("import os\nos.kill(VICTIM, 9)", proven=False),
    "end everyone": does("import os\nos.kill(-1, 9)", proven=False),
    "end the group": does("import os\nos.killpg(0, 0)"),
    "signal through a descriptor": does("import os, signal\nsignal.pidfd_send_signal(os.pidfd_open(PARENT), 0)"),
    "signal oneself": does("import os\nos.kill(os.getpid(), 0)"),
    "crash": endless("import ctypes\nctypes.string_at(0)", "crashed"),
    "abort": endless("import os\nos.abort()", "crashed", "timeout"),
    # Other processes' memory, /proc
    "trace a neighbour": calls("101, 0x4206, VICTIM, 0, 0"),
    "be traced": calls("101, 0, 0, 0, 0"),
    "read a neighbour's memory": calls("310, PARENT, 0, 0, 0, 0, 0"),
    "write a neighbour's memory": calls("311, PARENT, 0, 0, 0, 0, 0"),
    "open the parent's memory": does("open('/proc/PARENT/mem', 'rb')"),
    "read the parent's environment": does("assert open('/proc/PARENT/environ').read()"),
    "read the parent's command": does("assert open('/proc/PARENT/cmdline').read()"),
    "list processes": does("import os\nassert any(name.isdigit() for name in os.listdir('/proc'))"),
    "read the own maps": does("assert open('/proc/self/maps').read()"),
    "open a descriptor's file": does("open('/proc/self/fd/0')", proven=False),
    "look through the first process's root": does("import os\nos.listdir('/proc/1/root')", proven=False),
    "write a kernel setting": does("open('/proc/sys/kernel/domainname', 'r+')", proven=False),
    # Imports
    "import what is not loaded": does("import smtplib, xml.dom.minidom"),
    "import from a folder": does("import sys\nsys.path.insert(0, 'FOLDER')\nimport planted"),
    "import from text": does("import importlib\nimportlib.import_module('ftplib')"),
    "import by a loader": does(
        "import importlib.util as u\ns = u.spec_from_file_location('p', 'FOLDER/planted.py')\n"
        "s.loader.exec_module(u.module_from_spec(s))"
    ),
    "import through the backdoor": reads("got = __import__('os').popen('cat FOLDER/secret').read()"),
    "import through sys": reads("import sys\ngot = sys.modules['builtins'].open('FOLDER/secret').read()"),
    "import a caller's module": reads(
        "import whetstone.verify.isolation.host as h\ngot = h.os.popen('cat FOLDER/secret').read()"
    ),
    # Ways to what is hidden
    "subclasses": reads(
        "for c in ().__class__.__base__.__subclasses__():\n    if c.__name__ == '_wrap_close':\n"
        "        got = c.__init__.__globals__['popen']('cat FOLDER/secret').read()"
    ),
    "subclasses of subclasses": reads(
        WALK + "got = [c('FOLDER/secret').read() for c in subclasses(object) if c.__name__ == 'FileIO'][0]"
    ),
    "a function's globals": reads(
        "import random\ngot = random.Random.seed.__globals__['__builtins__']['open']('FOLDER/secret').read()"
    ),
    "a builtin's self": reads("got = print.__self__.open('FOLDER/secret').read()"),
    "a module's own imports": reads("import random\ngot = random._os.popen('cat FOLDER/secret').read()"),
    "sys of a module": reads("import statistics\ngot = statistics.sys.modules['os'].popen('cat FOLDER/secret').read()"),
    "numpy's own imports": reads("import numpy\ngot = numpy.ma.core.inspect.os.popen('cat FOLDER/secret').read()"),
    "a generator's frame": reads(
        "g = (g.gi_frame.f_back for _ in [1])\ng = (g.gi_frame.f_back.f_builtins for _ in [1])\n"
        "got = next(g)['open']('FOLDER/secret').read()"
    ),
    "a traceback's frame": reads(
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n"
        "    got = e.__traceback__.tb_frame.f_builtins['open']('FOLDER/secret').read()"
    ),
    "attrgetter": reads(
        "from operator import attrgetter\ngot = attrgetter('__self__.open')(print)('FOLDER/secret').read()"
    ),
    "methodcaller": reads(
        "from operator import methodcaller\ng = methodcaller('__getattribute__', '__self__')(print)\n"
        "got = methodcaller('open', 'FOLDER/secret')(g).read()"
    ),
    "a formatter": reads(
        "import string\ngot = string.Formatter().get_field('0.__self__.open', [print], {})[0]('FOLDER/secret').read()"
    ),
    "a class pattern": reads(
        "match print:\n    case object(__self__=b):\n        got = b.open('FOLDER/secret').read()"
    ),
    "a class made by type": reads("got = type('A', (), {'go': lambda s: open('FOLDER/secret').read()})().go()"),
    "an mro": reads(
        "got = [c for c in type(print).mro()[-1].__subclasses__() if c.__name__ == '_wrap_close'][0]"
        ".__init__.__globals__['popen']('cat FOLDER/secret').read()"
    ),
    "getattr": reads("got = getattr(print, '__se' + 'lf__').open('FOLDER/secret').read()"),
    "vars": reads("got = vars(__builtins__)['open']('FOLDER/secret').read()"),
    "eval": reads("got = eval('op' + 'en')('FOLDER/secret').read()"),
    "exec": reads("exec('got = op' + 'en(\"FOLDER/secret\").read()')"),
    "a code object": reads(
        "import types\nc = compile('got = open(\"FOLDER/secret\").read()', 'x', 'exec')\nd = {}\n"
        "types.FunctionType(c, d)()\ngot = d['got']"
    ),
    "unpickling": reads(
        "import pickle\n"
        "got = pickle.loads(b'cbuiltins\\ngetattr\\n(cbuiltins\\nopen\\n(VFOLDER/secret\\ntRVread\\ntR(tR.')"
    ),
    "a decorator": reads("@eval\n@lambda f: 'open(\"FOLDER/secret\").read()'\ndef got():\n    pass"),
    "text that sympy evaluates": reads(
        "from sympy import sympify\n"
        "try:\n    sympify('got.append(open(\"FOLDER/secret\").read())', locals={'got': (got := [])})\n"
        "except AttributeError:\n    pass"
    ),
    "text that sympy evaluates on the way": reads(
        "from sympy import Symbol, solve\ngot = []\n"
        "try:\n    solve('Symbol(\"x\").__class__.__base__.__subclasses__()')\nexcept Exception:\n    pass\n"
        "from sympy.parsing.sympy_parser import eval_expr\ngot = eval_expr('open(\"FOLDER/secret\").read()', {}, {})"
    ),
    "text that sympy compiles": reads(
        "from sympy import Symbol, lambdify\nx = Symbol('x')\ngot = lambdify(x, 'open(\"FOLDER/secret\").read()')(1)"
    ),
    "text that renames what it evaluates": reads(
        "from sympy import sympify\n"
        "try:\n    got = sympify('[open(\"FOLDER/secret\").read() for open in [open]]')\n"
        "except Exception as error:\n    got = error"
    ),
    "text that sympy takes as it is": reads(
        "from sympy import parse_expr\ngot = parse_expr('open(\"FOLDER/secret\").read()', evaluate=False)"
    ),
    "a name that sympy compiles": Attack(
        "from sympy import Function, Symbol, nsolve\nx = Symbol('x')\n"
        "nsolve(Function('(lambda v: print(open(\"FOLDER/secret\").read()))')(x), 0)"
    ),
    "a function that sympy fetches": reads(
        "from sympy import lazy_function\ngot = lazy_function('os', 'popen')('cat FOLDER/secret').read()"
    ),
    "an annotation that is evaluated": reads(
        "import functools\n@functools.singledispatch\ndef f(x):\n    pass\ngot = []\n"
        "try:\n    @f.register\n    def g(x: 'got.append(open(\"FOLDER/secret\").read())'):\n        pass\n"
        "except Exception:\n    pass"
    ),
    "a hint that is evaluated": reads(
        "import typing\ndef f(x: 'typing.Literal[open(\"FOLDER/secret\").read()]'):\n    pass\n"
        "got = typing.get_type_hints(f)"
    ),
    "a copy that calls": reads(
        "import copy\nA = type('A', (), {'__reduce_ex__': lambda s, n: (eval, ('open(\"FOLDER/secret\").read()',))})\n"
        "got = copy.copy(A())"
    ),
    "a format that walks": Attack(
        "import random\nsaid = '{0.seed.__globals__[_os].environ}'.format(random.Random)\n"
        "ans = 'breach' if 'WHETSTONE_CANARY' in said else 'nothing'",
        proven=True,
    ),
    "a star that brings more": reads("from os import *\ngot = popen('cat FOLDER/secret').read()"),
    "a new metaclass": reads(
        "class M(type):\n    def __getattr__(c, n):\n        return open('FOLDER/secret').read()\n"
        "class A(metaclass=M):\n    pass\ngot = A.anything"
    ),
    # Raw system calls, privileges
    "a library's shell": Attack(CALL + "ans = 'breach' if libc.system(b'true') == 0 else 'refused'", True),
    "open by its number": calls("2, b'FOLDER/secret', 0", True),
    "openat by its number": calls("257, -100, b'FOLDER/secret', 0", True),
    "openat2 by its number": calls("437, -100, b'FOLDER/secret', bytes(24), 24"),
    "the old numbers of another machine": calls("0x40000002, b'FOLDER/secret', 0"),
    "the old gate": Attack(
        "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes.fromhex('b814000000cd80c3'))\n"
        "f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
        "ans = 'breach' if f() > 0 else 'refused'",
        machine="x86_64",
    ),
    "take the filter off": calls("157, 22, 0, 0, 0, 0"),
    "ask for a filter of one's own": calls("317, 1, 1, 0"),
    "new namespaces": calls("272, 0x10000000"),
    "another's namespaces": calls("308, 0, 0"),
    "mount": calls("165, b'none', b'/', b'tmpfs', 0, 0"),
    "unmount": calls("166, b'/', 2"),
    "chroot": does("import os\nos.chroot('FOLDER')", proven=False),
    "become root": does("import os\nos.setuid(0)", proven=False),
    "name the host": does("import socket\nsocket.sethostname(socket.gethostname())", proven=False),
    "raise a limit": does(
        "import resource as r\nr.setrlimit(r.RLIMIT_NOFILE, (99, 99))\nr.setrlimit(r.RLIMIT_NOFILE, (99, 99))"
    ),
    "lower another's limit": calls("302, PARENT, 7, 0, bytes(16)", True),
    "take all cores": does("import os\nos.sched_setaffinity(0, os.sched_getaffinity(0))"),
    "change another's niceness": does("import os\nos.setpriority(os.PRIO_PROCESS, PARENT, 19)", proven=False),
    "shared memory": calls("29, 0, 4096, 0o1600", True),
    "message queues": calls("68, 0, 0o1600"),
    "io_uring": calls("425, 1, bytes(120)"),
    "bpf": calls("321, 0, bytes(72), 72"),
    "userfaultfd": calls("323, 1"),
    "kernel keys": calls("250, 0, -3, 1"),
    "perf events": calls("298, bytes(128), 0, -1, -1, 0"),
    # The environment and the wire to the parent
    "the environment": does("import os\nassert os.environ.get('WHETSTONE_CANARY')"),
    "the environment in C": does(
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.getenv.restype = ctypes.c_char_p\n"
        "assert libc.getenv(b'WHETSTONE_CANARY')"
    ),
    "the arguments": does("import sys\nassert 'serve' in ' '.join(sys.orig_argv) and len(sys.argv) > 9", proven=False),
    "other descriptors": does(
        "import os\ndone = 0\nfor d in range(4, 256):\n    try:\n        done += os.write(d, b'breach')\n"
        "    except OSError:\n        pass\nassert done",
        proven=False,
    ),
    "read what the parent sends": does("import os\nassert os.read(0, 1) or os.read(3, 1)", proven=False),
    "a report that is no report": endless("import os\nos.write(3, b'[' * 60000)\nos._exit(0)", "crashed"),
    "a report of another shape": endless(
        'import os\nos.write(3, b\'{"reason": [], "answer": {"x": NaN}}\')\nos._exit(0)', "no answer"
    ),
    "a report that claims a refusal": endless(
        'import os\nos.write(3, b\'{"reason": "refused"}\')\nos._exit(0)', "crashed"
    ),
    "a report in two frames": endless("import os\nos.write(3, b'\\x00\\x00\\x00\\x02{}' * 9)\nans = 1", "crashed"),
    "flood the report": endless("import os\nwhile True:\n    os.write(3, b'x' * 9999)", "output"),
    # Floods
    "print for ever": endless("while True:\n    print('x' * 9999)", "output"),
    "write for ever": endless("import os\nwhile True:\n    os.write(1, b'x' * 9999)", "output"),
    "complain for ever": endless("import sys\nwhile True:\n    sys.stderr.write('x' * 9999)"),
    "a long answer": endless("ans = 'x' * 10**6", "output"),
    "a long error": endless("raise ValueError('x' * 10**7)", "error"),
    "an error that cannot be said": endless(
        "class E(Exception):\n    def __str__(self):\n        raise self\nraise E()", "error"
    ),
    "an answer that cannot be said": endless(
        "class A:\n    def __str__(self):\n        raise KeyboardInterrupt\nans = A()", "error"
    ),
    "another stdout": endless("import sys\nsys.stdout = None\nprint('x')\nans = 1", "answered", "error"),
    "leave by an exception": endless("raise SystemExit('breach')", "no answer"),
    "leave by the keyboard": endless("raise KeyboardInterrupt", "error"),
}


class Host:
    """What the attacks aim at: a folder with a secret, a listening socket, a neighbour, this process."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.chmod(0o777)  # nobody, as whom programs run under root, is kept out by the sandbox alone
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.local = socket.socket(socket.AF_UNIX)
        self.local.bind(str(folder / "local"))
        self.local.listen()
        (folder / "local").chmod(0o777)
        self.neighbour: subprocess.Popen[bytes] | None = None
        self.restore()

    def restore(self) -> None:
        for listener in (self.listener, self.local):
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
        for path in self.folder.iterdir():
            if path.name != "local":
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        (self.folder / "secret").write_text(SECRET)
        (self.folder / "secret").chmod(0o666)
        (self.folder / "planted.py").write_text("planted = True\n")
        if self.neighbour is None or self.neighbour.poll() is not None:
            self.neighbour = subprocess.Popen(["sleep", "600"])
        self.before = self.state()

    def state(self) -> list[tuple[str, int, bytes]]:
        return [
            (
                path.name,
                path.stat().st_mode,
                path.read_bytes() if path.suffix == ".py" or path.name == "secret" else b"",
            )
            for path in sorted(self.folder.iterdir())
        ]

    def aimed(self, code: str) -> str:
        words = {
            "FOLDER": self.folder,
            "PORT": self.listener.getsockname()[1],
            "PARENT": os.getpid(),
            "VICTIM": self.neighbour.pid,
        }
        for word, value in words.items():
            code = code.replace(word, str(value))
        return code

    def assert_unharmed(self) -> None:
        assert self.state() == self.before, "files were touched"
        assert self.neighbour.poll() is None, "the neighbour was ended"
        assert not Path("/whetstone-attack").exists(), "the root folder was written to"
        for listener in (self.listener, self.local):
            with pytest.raises(BlockingIOError):
                listener.accept()

    def close(self) -> None:
        self.neighbour.kill()
        self.neighbour.wait()
        self.listener.close()
        self.local.close()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("host")
    for parent in folder.parents:  # pytest's folders are closed to others: here the sandbox must do that
        if parent.stat().st_uid == os.geteuid() and parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    host = Host(folder)
    yield host
    host.close()


@pytest.fixture(scope="module", params=LEVELS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    os.environ["WHETSTONE_CANARY"] = SECRET
    with Sandbox(levels=[request.param], memory_bytes=256 << 20) as sandbox:
        if sandbox.level is None:
            pytest.skip(f"this machine does not offer the level: {sandbox.run('').detail}")
        yield sandbox
    del os.environ["WHETSTONE_CANARY"]


@pytest.mark.parametrize("name", ATTACKS)
def test_contained(name: str, sandbox: Sandbox, host: Host):
    attack = ATTACKS[name]
    if attack.machine and attack.machine != platform.machine():
        pytest.skip(f"its system calls are those of {attack.machine}, and this is {platform.machine()}")
    outcome = sandbox.run(host.aimed(attack.code), 0.3 if "timeout" in attack.ends else 60.0)
    said = f"{outcome.answer} {outcome.printed} {outcome.detail}"
    assert "breach" not in f"{outcome.answer} {outcome.printed}" and SECRET not in said
    assert outcome.reason in attack.ends or not attack.ends, outcome
    assert outcome.reason != "timeout" or "timeout" in attack.ends, outcome
    assert outcome.reason != "refused" and outcome.level == sandbox.level
    host.assert_unharmed()
    following = sandbox.run("import math\nans = str(math.sqrt(16))", 60.0)
    assert (following.answer, following.level) == ("4.0", sandbox.level)
    assert sandbox.started == 1, "the sandbox process did not survive"


DRIVER = """
import json, os, subprocess, sys
folder, secret, codes = json.load(sys.stdin)
for code in codes:
    subprocess.run(["rm", "-rf", folder + "/new"], check=True)
    with open(folder + "/secret", "w") as file:
        file.write(secret)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "nothing"
        try:
            names = {"__name__": "__main__", "__builtins__": __builtins__}
            exec(compile(code, "x", "exec"), names)
            answer = str(names.get("ans"))
        except BaseException as error:
            answer = repr(error)
        finally:
            os.write(writer, answer.encode()[:200])
            os._exit(0)
    os.close(writer)
    print(json.dumps(os.read(reader, 999).decode()), flush=True)
    os.close(reader)
    os.waitpid(child, 0)
"""
PROVEN = {name for name, attack in ATTACKS.items() if attack.proven and attack.machine in ("", platform.machine())}


@pytest.mark.skipif(sys.platform != "linux", reason="the attacks are written for Linux")
def test_the_attacks_work_without_a_sandbox(host: Host):
    """Each in turn, with the secret restored, so that one that removes it does not make the next one look contained."""
    codes = {name: host.aimed(ATTACKS[name].code) for name in sorted(PROVEN)}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps([str(host.folder), SECRET, list(codes.values())]),
        capture_output=True,
        text=True,
        env={**os.environ, "WHETSTONE_CANARY": SECRET, "PYTHONPATH": os.getcwd()},
    )
    host.restore()
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('"')]
    assert len(answers) == len(codes), done.stderr[-2000:]
    failed = {name: answer for name, answer in zip(codes, answers, strict=True) if answer != "breach"}
    assert not failed, "\n".join(f"{name}: {answer}" for name, answer in failed.items())


def test_there_are_two_hundred_attacks_and_most_are_proven():
    assert len(ATTACKS) >= 200 and len(PROVEN) >= 100
