"""Further attacks on the sandbox: links, tables of imports, the C library's memory, sympy's and numpy's own ways out, names."""

from tests.verify.attack import CALL, Attack, does, endless, reads

NSOLVE = "(lambda v: [got.append(open('FOLDER/secret').read()), 0][1])"
LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
REPORT = '{"reason": "", "answer": "%s"}'

MORE = {
    # Links, special files, names
    "a hard link": does("import os\nos.link('FOLDER/secret', 'FOLDER/new')"),
    "read through a link": reads(
        "import os\nos.symlink('FOLDER/secret', 'FOLDER/new')\ngot = open('FOLDER/new').read()"
    ),
    "where a link leads": does("import os\nos.readlink('/proc/self/exe')"),
    "a named pipe": does("import os\nos.mkfifo('FOLDER/new')"),
    "a device": does("import os\nos.mknod('FOLDER/new', 0o20666, os.makedev(1, 3))", proven=False),
    "a time": does("import os\nos.utime('FOLDER/secret', (1, 1))"),
    "an attribute": does("import os\nos.setxattr('FOLDER/secret', 'user.x', b'x')", proven=False),
    "an owner": does("import os\nos.chown('FOLDER/secret', os.getuid(), os.getgid())"),
    "walk the tree": does("import os\nassert next(os.walk('/'))[1]"),
    "scan a folder": does("import os\nassert list(os.scandir('FOLDER'))"),
    "a folder's descriptor": does("import os\nos.open('FOLDER', os.O_RDONLY | os.O_DIRECTORY)"),
    "delete a tree": does("import shutil\nshutil.copy('FOLDER/secret', 'FOLDER/new')\nshutil.rmtree('/nothing', True)"),
    "a name in wide letters": reads("got = ｏｐｅｎ('FOLDER/secret').ｒｅａｄ()"),
    "a name in script letters": reads("𝓰𝓸𝓽 = 𝔬𝔭𝔢𝔫('FOLDER/secret').read()"),
    "a path in bytes": reads("got = open(b'FOLDER/secret', 'rb').read()"),
    "a path with dots": reads("got = open('FOLDER/../' + 'FOLDER'.rsplit('/', 1)[-1] + '/secret').read()"),
    "a null in a path": endless("open('FOLDER/secret\\0.txt')", "error"),
    # Imports
    "a finder of one's own": reads(
        "import sys, importlib.machinery as m\n"
        "class F:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'mine':\n            return m.ModuleSpec(name, m.SourceFileLoader(name, 'FOLDER/planted.py'))\n"
        "sys.meta_path.insert(0, F())\nimport mine\ngot = __import__('os').popen('cat FOLDER/secret').read()"
    ),
    "an import of one's own": endless(
        "import builtins\nbuiltins.__import__ = lambda *a, **k: open('FOLDER/secret')\nimport anything\n"
        "ans = anything.read()",
        "error",
    ),
    "import from a zip": does(
        "import sys, zipfile\nzipfile.ZipFile('FOLDER/new', 'w').writestr('inzip.py', '')\n"
        "sys.path.insert(0, 'FOLDER/new')\nimport inzip"
    ),
    "an extension module": does("import _ssl"),
    "an untested module": does("import ensurepip"),
    # The C library and the memory of the process
    "the C library reads": reads(
        LIBC + "fd = libc.open(b'FOLDER/secret', 0)\nbuffer = ctypes.create_string_buffer(99)\n"
        "libc.read(fd, buffer, 99)\ngot = buffer.value"
    ),
    "the C library writes": does(LIBC + "assert libc.open(b'FOLDER/new', 0o101, 0o666) >= 0"),
    "the C library removes": does(LIBC + "assert libc.unlink(b'FOLDER/secret') == 0"),
    "the C library forks": does(LIBC + "pid = libc.fork()\nif pid == 0:\n    libc._exit(0)\nassert pid > 0"),
    "the C library starts a thread": does(
        LIBC + "f = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda x: None)\nt = ctypes.c_ulong()\n"
        "assert libc.pthread_create(ctypes.byref(t), None, f, None) == 0\nlibc.pthread_join(t, None)"
    ),
    "the C library connects": does(
        LIBC + "s = libc.socket(2, 1, 0)\nassert s >= 0", proven=True
    ),
    "another library": does("import ctypes\nctypes.CDLL('libm.so.6')\nopen('FOLDER/new', 'w')"),
    "numpy loads a library": does(
        "import numpy, numpy.ctypeslib as n\nn.load_library('libm.so.6', '/lib')\n", proven=False
    ),
    "overwrite one's own memory": endless(
        "import ctypes\nctypes.memset(id(1) + 24, 7, 4)\nctypes.memset(id(None), 0, 16)", "crashed", "error", "answered",
        "no answer",
    ),
    "jump into the dark": endless("import ctypes\nctypes.CFUNCTYPE(None)(4096)()", "crashed"),
    "code of one's own": endless(
        "def f():\n    pass\nf.__code__ = f.__code__.replace(co_code=b'\\xff' * 64)\nf()", "crashed", "error", "timeout",
        "no answer", "memory",
    ),
    "a shared mapping": does("import mmap, os\nf = open('FOLDER/secret', 'r+b')\nmmap.mmap(f.fileno(), 0)[:3] = b'new'"),
    "shared memory by name": does(
        "from multiprocessing.shared_memory import SharedMemory\nm = SharedMemory(create=True, size=9)\n"
        "m.close()\nm.unlink()"
    ),
    # sympy and numpy
    "nsolve": reads(
        "import sympy\nfrom sympy import Symbol, nsolve\ngot = []\nx = Symbol('x')\n"
        "class P(sympy.Function):\n    def _mpmathcode(self, printer):\n"
        "        return '[v for v in ().__class__.__base__.__subclasses__() '\\\n"
        "            'if v.__name__ == \"_wrap_close\"][0].__init__.__globals__[\"popen\"](\"cat FOLDER/secret\").read()'\n"
        "from sympy.printing.pycode import MpmathPrinter\n"
        "got.append(eval(MpmathPrinter().doprint(P(x)), {}))"
    ),
    "lambdify's modules": reads(
        "from sympy import Function, Symbol, lambdify\nx = Symbol('x')\n"
        "got = lambdify(x, Function('f')(x), modules=[{'f': lambda v: open('FOLDER/secret').read()}])(0)"
    ),
    "lambdify's arguments": reads(
        "from sympy import lambdify\ngot = lambdify('x=open(\"FOLDER/secret\").read()', 'x')()"
    ),
    "an expression's printer": reads(
        "from sympy import Symbol, lambdify\nx = Symbol('x')\n"
        "class E(Symbol):\n    def _numpycode(self, printer):\n        return 'open(\"FOLDER/secret\").read()'\n"
        "    _lambdacode = _pythoncode = _numpycode\ngot = lambdify(x, E('y'), modules='math', printer=None)(0)"
    ),
    "compiled by sympy": does(
        "from sympy.utilities.autowrap import autowrap\nfrom sympy import Symbol\nautowrap(Symbol('x'))", proven=False
    ),
    "a preview of sympy's": does("from sympy import preview\npreview('x', output='png', viewer='file')", proven=False),
    "a table of pickles": reads(
        "import io, pickle, numpy\nclass A:\n    def __reduce__(self):\n"
        "        return eval, (\"open('FOLDER/secret').read()\",)\n"
        "b = io.BytesIO()\nnumpy.save(b, numpy.array([A()], dtype=object), allow_pickle=True)\nb.seek(0)\n"
        "got = numpy.load(b, allow_pickle=True)[0]"
    ),
    "a map of a file": reads("import numpy\ngot = bytes(numpy.memmap('FOLDER/secret', mode='r'))"),
    "numbers of any size": endless("import sympy\nans = sympy.factorial(10**8)", "timeout", "memory"),
    "a slow simplification": endless(
        "import sympy\nx = sympy.symbols('x0:12')\nsympy.expand(sum(x) ** 400)", "timeout", "memory"
    ),
    # Floods and depths
    "gigabytes of output in one line": endless("import os\nx = b'x' * 10**6\nwhile True:\n    os.write(1, x)", "output"),
    "gigabytes out of a few bytes": endless(
        "import zlib\nx = zlib.compress(bytes(10**7))\ny = [zlib.decompress(x) for _ in range(10**4)]", "memory"
    ),
    "a table nested too deeply": endless(
        "x = []\nfor _ in range(10**6):\n    x = [x]\nans = x", "error", "crashed", "memory", "timeout", "output"
    ),
    "a text nested too deeply": endless("import json\njson.loads('[' * 10**6)", "error", "crashed"),
    "an endless iterator": endless("ans = list(iter(int, 1))", "memory", "timeout"),
    "a wide number": endless("ans = 10 ** 10**6", "output", "timeout"),
    "controls in the answer": endless("ans = '\\x1b[2J\\x07\\udc80'", "answered", "error", "crashed"),
    "a null in the program": endless("ans = 1\0", "syntax"),
    # What a program can reach of the process that runs it
    "the caller's frames": reads(
        "import sys\nf = sys._getframe()\nwhile f.f_back:\n    f = f.f_back\n"
        "got = f.f_builtins['open']('FOLDER/secret').read()"
    ),
    "all that lives": does(
        "import gc, io\nfor o in gc.get_objects():\n    if isinstance(o, io.FileIO) and o.name == 'FOLDER/secret':\n"
        "        ans = 'breach'\nraise SystemExit",
        proven=False,
    ),
    "a report before the program ends": endless(
        "import os\nos.write(3, b'" + REPORT.replace("%s", "1") + "')\nwhile True:\n    pass", "timeout"
    ),
    "trace every line": Attack(
        "import sys\ngot = []\ndef t(frame, event, arg):\n    if 'question' in frame.f_locals:\n"
        "        got.append(frame.f_locals['question'])\n    return t\nsys.settrace(t)\nsys.setprofile(t)\nint('1')\n"
        "ans = 'breach' if got else 'nothing'"
    ),
    "a filter by its number": Attack(
        CALL + "ans = 'breach' if call(157, 38, 0, 0, 0, 0) == 0 else 'refused'", machine="x86_64"
    ),
}  # fmt: skip
