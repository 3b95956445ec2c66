"""Programs of thought: what the answer is, how failures are named, and that no program runs with less isolation."""

import gzip
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import whetstone
from whetstone.verify import program
from whetstone.verify.children import Killed
from whetstone.verify.isolation import kernel
from whetstone.verify.program import LEVELS, REASONS, Outcome, Refused, Sandbox, programs, run_program

ROOT = Path(whetstone.__file__).parents[1]
NO_ISOLATION = "this machine offers no level of isolation"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seconds=10.0) as sandbox:
        if sandbox.level is None:
            pytest.skip(NO_ISOLATION)
        yield sandbox


ANSWERS = {
    "solution returns": ("def solution():\n    return 6 * 7", "42"),
    "solution before the variable": ("ans = 1\ndef solution():\n    return 2\nprint(3)", "2"),
    "solution has defaults": ("def solution(n=4, *, k=2):\n    return n * k", "8"),
    "solution that wants arguments is not called": ("def solution(n):\n    return n\nprint(solution(5))", "5"),
    "solution that returns nothing prints": ("def solution():\n    print(9)\nsolution()", "9"),
    "a variable named solution": ("solution = [1, 2]\nprint(solution[1])", "2"),
    "the variable ans": ("ans = 1 / 4", "0.25"),
    "the variable answer": ("answer = 'x'", "x"),
    "the last line printed": ("print(1)\nprint(2, 3)\nprint()", "2 3"),
    "printed under a main guard": ("if __name__ == '__main__':\n    print(5)", "5"),
    "printed before an exit": ("import sys\nprint(5)\nsys.exit(0)", "5"),
    "a fraction": ("from fractions import Fraction\nans = Fraction(2, 6)", "1/3"),
    "math and itertools": (
        "import math, itertools\nans = sum(math.comb(a, b) for a, b in itertools.product([4], [2]))",
        "6",
    ),
    "sympy": ("from sympy import *\nx = symbols('x')\nans = solve(x**2 - 2, x)", "[-sqrt(2), sqrt(2)]"),
    "an integral, whose modules load late": (
        "from sympy import *\nx = Symbol('x')\nans = integrate(x*exp(-x), (x, 0, oo))",
        "1",
    ),
    "sympy statistics": ("from sympy.stats import Die, E\nans = E(Die('X', 6))", "7/2"),
    "numpy prints as it used to": ("import numpy as np\nprint([np.float64(3.0)], np.mean([1, 2]))", "[3.0] 1.5"),
    "a long integer": ("ans = 10 ** 5000 % 10 ** 4999 + 7", "7"),
    "more digits than Python prints": ("ans = len(str(10 ** 6000))", "6001"),
    "non-ASCII text": ("print('π ≈ 3')", "π ≈ 3"),
    "a lone surrogate": ("print(chr(0xd800))", "\\ud800"),
    "what numpy's C code imports": (
        "import numpy as np\na = np.arange(6).reshape(2, 3)\nans = (a.sum(), a.std() > 1)",
        "(15, True)",
    ),
    "what datetime's C code imports": (
        "from datetime import datetime as d\nans = d.strptime('2024-03-01', '%Y-%m-%d').day",
        "1",
    ),
    "matrices": ("from sympy import Matrix\nans = Matrix([[1, 2], [3, 4]]).inv()", "Matrix([[-2, 1], [3/2, -1/2]])"),
    "linear algebra": ("import numpy as np\nans = np.linalg.solve([[2, 0], [0, 4]], [1, 1]).tolist()", "[0.5, 0.25]"),
    "numerical roots": ("from sympy import *\nx = Symbol('x')\nans = round(nsolve(cos(x) - x, 1), 5)", "0.73909"),
    "equations in words": ("from sympy import solve\nans = solve('x**2 - 5*x + 6', 'x')", "[2, 3]"),
    "latex": ("from sympy import latex, Rational\nans = latex(Rational(1, 2))", "\\frac{1}{2}"),
    "simplification with units at hand": (
        "from sympy import *\nx = Symbol('x')\nans = simplify(sin(x)**2 + cos(x)**2)",
        "1",
    ),
    "counting": (
        "from collections import Counter\nfrom itertools import permutations\nans = len(set(permutations('aab')))",
        "3",
    ),
    "decimals": ("from decimal import Decimal, getcontext\ngetcontext().prec = 5\nans = Decimal(1) / 3", "0.33333"),
    "text formats": ("print('{:.2f} {x}'.format(2.5, x=1), f'{1/3:.3f}')", "2.50 1 0.333"),
    "an error that is caught": ("try:\n    ans = int('x')\nexcept ValueError as error:\n    ans = 4", "4"),
    "a recursive function": ("def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nans = f(15)", "610"),
    "a class": ("class P:\n    def __init__(self, x):\n        self.x = x\nans = P(3).x", "3"),
}
ENDS = {
    "no answer": "x = 3",
    "syntax": "def f(:",
    "error": "1 / 0",
    "timeout": "while True:\n    pass",
    "memory": "x = bytearray(1 << 40)",
    "output": "while True:\n    print('x' * 1000)",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answer_is(name: str, sandbox: Sandbox):
    code, answer = ANSWERS[name]
    outcome = sandbox.run(code)
    assert (outcome.answer, outcome.reason, outcome.level) == (answer, "answered", sandbox.level), outcome


@pytest.mark.parametrize("level", LEVELS)
def test_every_style_is_answered_at_every_level(level: str):
    with Sandbox(seconds=10.0, levels=[level]) as sandbox:
        if sandbox.level is None:
            pytest.skip(f"this machine does not offer the level: {sandbox.run('').detail}")
        answers = {name: sandbox.run(code).answer for name, (code, _) in ANSWERS.items()}
        assert answers == {name: answer for name, (_, answer) in ANSWERS.items()}


@pytest.mark.parametrize("reason", ENDS)
def test_a_failure_is_a_reason(reason: str, sandbox: Sandbox):
    outcome = sandbox.run(ENDS[reason], 0.5 if reason == "timeout" else None)
    assert (outcome.answer, outcome.reason, outcome.level) == (None, reason, sandbox.level), outcome
    assert reason in REASONS


NO_PROGRAMS = {"\x00": "syntax", "\ud800": "syntax", "x" * 2_000_000: "syntax", "(" * 5000: "syntax"}
NO_PROGRAMS |= {"": "no answer", "#": "no answer", "\ufeffans = 1": "syntax"}


@pytest.mark.parametrize(("code", "reason"), NO_PROGRAMS.items(), ids=lambda text: repr(text[:10]))
def test_text_that_is_no_program_has_a_reason_too(code: str, reason: str, sandbox: Sandbox):
    assert sandbox.run(code).reason == reason


def test_what_was_printed_is_kept_to_its_tail(sandbox: Sandbox):
    outcome = sandbox.run("for n in range(3000):\n    print(n)\n1 / 0")
    assert outcome.printed.endswith("2998\n2999\n") and len(outcome.printed) <= 4096
    assert outcome.detail == "ZeroDivisionError: division by zero"


def test_random_numbers_are_the_same_every_time(sandbox: Sandbox):
    code = "import random, numpy\nans = (random.random(), float(numpy.random.rand()), hash('x'))"
    with Sandbox(seconds=10.0) as other:
        assert len({outcome.answer for outcome in [*sandbox.run_many([code] * 3), other.run(code)]}) == 1


def test_programs_in_a_completion():
    pal = "Let me think.\n```python\ndef solution():\n    return 1\n```\nSo 1."
    tora = (
        "First.\n```python\nprint(1)\n```\n```output\n1\n```\nThen\n```python\nprint(2)\n```\n```output\n2\n```\n$2$."
    )
    cut_off = "So:\n```Python\nprint(3)\n"
    bare = "Let's write a program.\nimport math\nprint(math.pi)"
    unnamed = "Here:\n```\nx = 4\nprint(x)\n```"
    assert programs(pal) == ["def solution():\n    return 1\n"]
    assert programs(tora) == ["print(1)\n", "print(2)\n"]
    assert programs(cut_off) == ["print(3)\n"]
    assert programs(bare) == ["import math\nprint(math.pi)"]
    assert programs(unnamed) == ["x = 4\nprint(x)\n"]
    assert programs("The answer is 5.") == []


def test_the_last_program_of_a_completion_is_run(sandbox: Sandbox):
    assert sandbox.run_text("```python\nprint(1)\n```\n```output\n1\n```\n```python\nprint(2)\n```").answer == "2"
    assert sandbox.run_text("The answer is 5.") == Outcome(None, "no program")


def test_outcomes_are_in_order_and_from_any_thread():
    with Sandbox(size=2, seconds=10.0) as sandbox:
        if sandbox.level is None:
            pytest.skip(NO_ISOLATION)
        answers: dict[int, str | None] = {}
        codes = [f"ans = {n}" for n in range(8)]
        threads = [
            threading.Thread(target=lambda n=n: answers.update({n: sandbox.run(f"ans = {n}").answer})) for n in range(4)
        ]
        for thread in threads:
            thread.start()
        assert [outcome.answer for outcome in sandbox.run_many(codes)] == [str(n) for n in range(8)]
        for thread in threads:
            thread.join()
        assert answers == {n: str(n) for n in range(4)}
        assert sandbox.started <= 2


def test_all_callers_share_one_sandbox(sandbox: Sandbox):  # which skips where programs cannot be run
    assert run_program("ans = 2 + 2", 10.0).answer == "4"
    assert run_program("ans = 2 + 3", 10.0).answer == "5"
    assert program._shared().started == 1


def test_a_dead_sandbox_process_is_replaced_at_the_same_level():
    with Sandbox(seconds=10.0) as sandbox:
        level = sandbox.level
        if level is None:
            pytest.skip(NO_ISOLATION)
        sandbox.idle[0].process.kill()
        sandbox.idle[0].process.wait()
        assert sandbox.run("ans = 1").answer == "1"  # it died while idle, so no program is the cause
        ending = threading.Timer(0.5, lambda: [process.process.kill() for process in list(sandbox.busy)])
        ending.start()
        outcome = sandbox.run("while True:\n    pass")
        assert (outcome.reason, outcome.level) == ("crashed", level)
        assert sandbox.run("ans = 2").answer == "2"
        assert (sandbox.started, sandbox.level) == (3, level)


def test_a_sandbox_process_that_is_killed_while_it_starts_is_started_again(monkeypatch: pytest.MonkeyPatch):
    class Fragile(program.Process):
        attempts = 0

        def __init__(self, levels: tuple[str, ...]):
            Fragile.attempts += 1
            if Fragile.attempts <= 2:
                raise Killed("a sandbox process ended with status -9 while it started.")
            super().__init__(levels)

    monkeypatch.setattr(program, "Process", Fragile)
    with Sandbox(seconds=10.0) as sandbox:
        if sandbox.level is None:
            pytest.skip(NO_ISOLATION)
        assert (sandbox.run("ans = 1").answer, Fragile.attempts) == ("1", 3)


def of_session(leader: int) -> list[int]:
    """Living processes of a session, zombies left out."""
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            members.append(int(folder.name))
    return members


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_nothing_survives_a_parent_that_is_killed():
    script = (
        "import threading, time\nfrom whetstone.verify.program import Sandbox\nsandbox = Sandbox(seconds=2.0)\n"
        "sandbox.level\nprint(sandbox.idle[0].process.pid, flush=True)\nsandbox.run('while True:\\n    pass')"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        leader = int(parent.stdout.readline())
        time.sleep(0.5)
        assert of_session(leader), "the program is not running"
        parent.kill()
    deadline = time.monotonic() + 120
    while of_session(leader) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert of_session(leader) == []


def test_closing_ends_a_program_in_its_midst():
    sandbox = Sandbox(seconds=60.0)
    if sandbox.level is None:
        pytest.skip(NO_ISOLATION)
    leader = sandbox.idle[0].process.pid
    threading.Timer(0.5, sandbox.close).start()
    assert sandbox.run("while True:\n    pass").reason == "crashed"  # at its own deadline it would be "timeout"
    if sys.platform == "linux":
        deadline = time.monotonic() + 60
        while of_session(leader) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert of_session(leader) == []


def test_a_sandbox_never_continues_at_a_weaker_level(monkeypatch: pytest.MonkeyPatch):
    class Offered:
        missing: dict[str, str] = {}  # noqa: RUF012
        asked: list[tuple[str, ...]] = []  # noqa: RUF012

        def __init__(self, levels: tuple[str, ...]):
            self.asked.append(tuple(levels))
            self.level = "namespaces" if len(self.asked) == 1 else "seccomp"

        def run(self, question: dict[str, Any]) -> dict[str, Any]:
            raise program.Died

        def kill(self) -> None:
            pass

    monkeypatch.setattr(program, "Process", Offered)
    sandbox = Sandbox()
    assert (sandbox.run("ans = 1").reason, sandbox.level) == ("crashed", "namespaces")
    outcome = sandbox.run("ans = 1")
    assert outcome.reason == "refused" and "only seccomp now" in outcome.detail
    assert Offered.asked == [LEVELS, ("namespaces",)]


# A machine that offers less: a filter in front of Python refuses unshare, and with "both" prctl's seccomp filters
LESS = """
import json, struct, sys
from whetstone.verify.isolation import kernel
from whetstone.verify.program import Sandbox
def step(code, yes, no, value):
    return struct.pack("=HBBI", code, yes, no, value)
unshare, prctl = {"x86_64": (272, 157), "aarch64": (97, 167)}[kernel.platform.machine()]
refuse, allow = step(6, 0, 0, 0x00050001), step(6, 0, 0, 0x7fff0000)
code = step(0x20, 0, 0, 0) + step(0x15, 0, 1, unshare) + refuse
if sys.argv[1] == "both":
    code += step(0x15, 0, 3, prctl) + step(0x20, 0, 0, 16) + step(0x15, 0, 1, 22) + refuse
kernel.install_filter(code + allow)
with Sandbox(seconds=10.0, **json.loads(sys.argv[2])) as sandbox:
    outcome = sandbox.run("ans = 6 * 7")
    print(json.dumps([sandbox.level, sandbox.missing, outcome.answer, outcome.reason, outcome.level, outcome.detail]))
"""


def with_less(kind: str, **settings: Any) -> list[Any]:
    if sys.platform != "linux":
        pytest.skip("seccomp filters are Linux's")
    try:
        kernel.machine()
    except kernel.NotObtained as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [sys.executable, "-c", LESS, kind, json.dumps(settings)], capture_output=True, text=True, cwd=ROOT
    )
    if "NotObtained" in done.stderr:
        pytest.skip(f"this kernel takes no filter: {done.stderr[-200:]}")
    return json.loads(done.stdout)


def test_without_namespaces_the_level_is_seccomp_and_the_reason_is_kept():
    level, missing, answer, reason, level_of_outcome, _ = with_less("namespaces")
    assert (level, answer, reason, level_of_outcome) == ("seccomp", "42", "answered", "seccomp")
    assert missing == {"namespaces": "unshare a user namespace: Operation not permitted"}


def test_without_namespaces_and_seccomp_nothing_is_run_and_the_remedy_is_given():
    level, _, answer, reason, level_of_outcome, detail = with_less("both")
    assert (level, answer, reason, level_of_outcome) == (None, None, "refused", None)
    assert "run isolated or not at all" in detail and "sysctl" in detail and "programs = 0" in detail
    assert "namespaces: unshare a user namespace: Operation not permitted" in detail
    assert "seccomp: install the seccomp filter: Operation not permitted" in detail


def test_a_level_that_is_not_accepted_is_not_used():
    level, _, answer, reason, level_of_outcome, detail = with_less("namespaces", levels=["namespaces"])
    assert (level, answer, reason, level_of_outcome) == (None, None, "refused", None)
    assert "unshare a user namespace: Operation not permitted" in detail and "sysctl" in detail


def test_a_system_that_is_not_linux_is_told_what_to_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(program.sys, "platform", "darwin")
    sandbox = Sandbox()
    with pytest.raises(Refused, match=r"isolated or not at all, and this is darwin.*Use a Linux machine, container"):
        sandbox.require()
    assert (sandbox.level, sandbox.run("ans = 1").reason) == (None, "refused")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 0}, "size = 0.*Use 1 or more"),
        ({"seconds": 0}, "seconds = 0.*say 2"),
        ({"seconds": float("nan")}, "seconds = nan"),
        (
            {"levels": ["restricted"]},
            "'restricted' is not a level of isolation. Use one or both of namespaces, seccomp",
        ),
        ({"levels": []}, "not run unisolated. Use one or both of namespaces, seccomp"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        Sandbox(**settings)


def test_each_machine_has_a_number_for_every_system_call_allowed():
    for _, _, numbers in kernel.MACHINES.values():
        assert len(set(numbers)) == len(numbers) == len(kernel.ALLOWED)


# What sympy imports late that no program of thought needs: other languages, solvers, drawing, control
NOT_LOADED = ("categories", "physics.control", "testing", "codegen.c", "logic.algorithms", "printing.pytorch")
NOT_LOADED += ("printing.tensorflow", "printing.preview", "stats.sampling", "holonomic", "interactive", "plotting")
LATE = r"""
import json, os, re, sys
from whetstone.verify.isolation.inside import load_libraries
out = os.dup(1)
load_libraries()
late = set()
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None) or ""
    if not re.match(r"sympy\.(?!physics|codegen|interactive|plotting|testing|parsing)", name) or file[-3:] != ".py":
        continue
    base = name.split(".") if file.endswith("__init__.py") else name.split(".")[:-1]
    text = open(file, encoding="utf-8").read()
    for dots, path in re.findall(r"^ +(?:from|import) (\.*)([\w.]*)(?: import|$)", text, flags=re.MULTILINE):
        near = base[: len(base) - len(dots) + 1] if dots else []
        late.add(".".join([*near, path]).strip("."))
late = {name for name in late - set(sys.modules) if name.startswith("sympy.")}
os.write(out, json.dumps(sorted(late)).encode())
"""


@pytest.mark.slow
def test_what_sympy_imports_late_is_imported_beforehand():
    """An empty root has no modules: one that is missing here is an ImportError in somebody's program."""
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, cwd=ROOT, check=True)
    known = tuple(f"sympy.{part}" for part in NOT_LOADED)
    late = json.loads(done.stdout)
    assert [name for name in late if name.startswith(known)], "the search for late imports matches nothing"
    assert [name for name in late if not name.startswith(known)] == []


def data(name: str) -> list[dict[str, Any]]:
    folder = os.environ.get("WHETSTONE_DATA")
    if not folder or not (Path(folder) / name).exists():
        pytest.skip(f"WHETSTONE_DATA names no folder with {name}")
    with gzip.open(Path(folder) / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_gsm_hard_runs_to_its_published_targets(sandbox: Sandbox):
    rows = data("gsm_hard/gsmhardv2.jsonl.gz")
    assert len(rows) == 1319
    wrong = []
    for row, outcome in zip(rows, sandbox.run_many([row["code"] for row in rows]), strict=True):
        # Targets are published rounded to ten decimals
        if outcome.answer is None or abs(float(outcome.answer) - row["target"]) > max(
            6e-11, 1e-14 * abs(row["target"])
        ):
            wrong.append((row["input"], row["target"], outcome))
    assert wrong == []


# Its docstring's example calls f(2) of a function without parameters: the output beside it is not its own
MISPRINTED = {"math-train-1527-0"}


@pytest.mark.slow
def test_tora_examples_run_to_their_published_outputs(sandbox: Sandbox):
    wrong, count = {}, 0
    for row in data("tora_examples/examples.jsonl.gz"):
        text = row["messages"][1]["content"]
        outputs = re.findall(r"```output\n(.*?)\n?```", text, re.DOTALL)
        for code, output in zip(programs(text), outputs, strict=True):
            count += 1
            outcome = sandbox.run(code, 60.0)  # one of them takes the floor of a thousand sympy logarithms
            if outcome.printed.strip() != output.strip():
                wrong[row["id"]] = outcome
    assert count == 25
    assert set(wrong) == MISPRINTED
    assert all(outcome.reason == "error" and "TypeError" in outcome.detail for outcome in wrong.values())


def test_where_dev_null_is_a_file_another_device_takes_what_programs_complain(tmp_path):
    from whetstone.verify.isolation.host import discarding

    replaced = tmp_path / "null"
    replaced.touch()
    taken = discarding((str(replaced), "/dev/zero"))
    assert os.write(taken, b"x" * 9999) == 9999 and os.fstat(taken).st_rdev == os.stat("/dev/zero").st_rdev
    os.close(taken)
    with pytest.raises(OSError, match="mknod"):
        discarding((str(replaced),))
