r"""Promise: no hostile answer makes the verifier exceed its deadline or memory, or spoils the next check.

    python -m benchmarks verify_hostile --json benchmarks/results/verify_hostile.json

10,000 answers drawn from families of hostile texts and from a grammar of LaTeX, a quarter each from the main thread, a worker
thread, an event loop (as many at once as there are processes) and a forked process. Every row depends on (seed, number)
only, so that `--row N` shows one alone. Exit status 1 if a target is missed, with its name.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, versions, write
from whetstone.run.processes import fork
from whetstone.verify import MathVerifier
from whetstone.verify.wire import PATIENCE
from whetstone.verify.workers import MEMORY_BYTES

SLACK = 0.5  # seconds of wall time past what the deadline allows
PROMPT = 0.05  # seconds within which most answers are decided or refused
PROMPT_SHARE = 0.95
WHOLE = 600.0  # seconds for all of 10,000
GROWTH_BYTES = 256 << 20  # of the process that asks
CONTEXTS = ("main thread", "worker thread", "event loop", "forked process")
DIGITS = "0123456789"

FRESH = count(7)

Random = random.Random
Family = Callable[[Random], str]


def number(rng: Random) -> str:
    """Mostly small; sometimes of a size that no one should evaluate."""
    return rng.choice(
        [
            str(rng.randint(0, 12)),
            str(rng.randint(0, 12)),
            str(rng.randint(0, 10**4)),
            f"{rng.randint(0, 99)}.{rng.randint(0, 999)}",
            str(10 ** rng.randint(3, 12)),
            str(rng.randint(10**8, 10**20)),
            f"-{rng.randint(1, 99)}",
            f"1e{rng.choice([3, 300, 999999999])}",
        ]
    )


def large(rng: Random) -> str:
    return rng.choice([str(10 ** rng.randint(5, 30)), str(rng.randint(10**5, 10**9)), f"10^{{{rng.randint(5, 99)}}}"])


def nested(opening: str, inside: str, closing: str, depth: int) -> str:
    return opening * depth + inside + closing * depth


def towers(rng: Random) -> str:
    height = rng.randint(2, 40)
    base = rng.choice(["9", "2", "10", "1.1", "0.1", "-3", "e", r"\pi", "x", "i", "(x+1)", r"\sqrt{2}", r"\frac{2}{3}"])
    top = rng.choice([large(rng), "x", "9", r"\pi", f"-{large(rng)}"])
    sign = rng.choice(["", "", "-"])
    tower = nested(rng.choice([f"{base}^{{{sign}", f"({base})^{{{sign}"]), top, "}", height)
    return tower + rng.choice(["", "+1", r" \bmod 7", "-" + tower, r"\cdot x"])


def factorials(rng: Random) -> str:
    text = rng.choice([large(rng), "9", "30", "2000", "x", "-5", "0.5", r"\pi"])
    for _ in range(rng.randint(1, 6)):
        text = rng.choice([f"({text})!", f"({text})!!", rf"\Gamma({text})", f"{{{text}}}!"])
    if rng.random() < 0.3:
        text = rf"\frac{{{text}}}{{{factorials(rng)}}}"
    return text + rng.choice(["", "!", "!!!", "-1", "+x", r"\cdot\sin(1)"])


def binomials(rng: Random) -> str:
    upper, lower = large(rng), rng.choice([large(rng), "2", "500000", "x"])
    for _ in range(rng.randint(0, 4)):
        upper = rng.choice([rf"\binom{{{upper}}}{{{lower}}}", f"{{{upper} \\choose {lower}}}", rf"{upper}+x"])
    return rng.choice([rf"\binom{{{upper}}}{{{lower}}}", rf"C({upper},{lower})", rf"{{}}_{{{upper}}}C_{{{lower}}}"])


def matrices(rng: Random) -> str:
    side = rng.choice([2, 3, 8, 20, 60])
    kind = rng.choice(["pmatrix", "bmatrix", "vmatrix", "array"])
    cell = rng.choice([number, trigonometric, lambda r: "x", lambda r: r"\sin(x)"]) if side < 20 else number
    rows = r"\\".join("&".join(cell(rng) for _ in range(side)) for _ in range(side))
    text = rf"\begin{{{kind}}}{rows}\end{{{kind}}}"
    after = [f"^{{{large(rng)}}}", "^{-1}", "^{-100}", r"\cdot" + text, "!", r"^T", ""]
    return rng.choice([r"\det", "", "", "e^"]) + text + rng.choice(after)


def nesting(rng: Random) -> str:
    depth = rng.choice([10, 30, 60, 200, 1000, 3000])
    opening, closing = rng.choice(
        [
            ("(", ")"), ("{", "}"), ("[", "]"), (r"\{", r"\}"), (r"\sqrt{", "}"), (r"\frac{1}{1+", "}"), ("|", "|"),
            (r"\left(", r"\right)"), (r"\text{", "}"), (r"\boxed{", "}"), ("-", ""), (r"\sin(", ")"), (r"\frac{", "}"),
            ("x_{", "}"), (r"\begin{pmatrix}", r"\end{pmatrix}"), (r"\sqrt[3]{2+", "}"), (r"\lfloor ", r"\rfloor"),
            (r"\overline{", "}"), (r"\log_{2}(1+", ")"), (r"\binom{", "}{2}"),
        ]
    )  # fmt: skip
    return nested(opening, number(rng), rng.choice([closing, closing, closing[:-1]]), depth)


def megabytes(rng: Random) -> str:
    piece = rng.choice(
        ["7 + ", r"\boxed{1} ", "{", "}", "the answer is ", "<think>", "</think>", "7", " ", "\n", r"\frac{1}{2}", "$",
         r"\boxed{", "####", "1,", "Answer: 1. ", "\\", "**", r"\text{a}", "٣", "final answer: $x", r"\[x\] "]
    )  # fmt: skip
    return piece * (rng.choice([50_000, 300_000, 1_000_000]) // len(piece)) + rng.choice(["", "5", r"\boxed{5}", "}"])


def unicode_tricks(rng: Random) -> str:
    alphabets = [
        "０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "𝟎𝟏𝟐𝟑𝟒𝟓", "⁰¹²³⁴⁵⁶⁷⁸⁹", "₀₁₂₃₄", "½¼¾⅓⅔", "ⅠⅡⅢⅣ", "①②③", "五四三",
        "\u200b\u200c\u200d\u2060\ufeff", "\u202e\u202d\u2066\u2069", "\u0301\u0300\u0336", "\ud800\udfff\udc00",
        "\x00\x01\x07\x1b", "√∛∞≤≥≠∪∈≈±°−×÷π", "＋－＝（）｛｝", "аеорсух", "🤖👨‍👩‍👧", "ﷺ", "İıſẞ", "\u2028\u2029\x85",
    ]  # fmt: skip
    parts = [
        rng.choice([rng.choice(rng.choice(alphabets)), number(rng), "^", "+", r"\frac", "{", "}"]) for _ in range(8)
    ]
    return "".join(parts) * rng.choice([1, 1, 5, 100])


def traps(rng: Random) -> str:
    """Text that would do harm if it reached Python's or sympy's `eval`. TRAP becomes a file's name."""
    text = rng.choice(
        [
            "__import__('os').system('touch TRAP')", 'eval("open(\'TRAP\',\'w\')")', "exec(\"open('TRAP','w')\")",
            "lambda x: x**9**9**9", "lambda: open('TRAP','w')", "(lambda f: f(f))(lambda f: f(f))", "9**9**9**9",
            "open('TRAP','w').close()", "Symbol('x').__class__.__mro__", "S(\"__import__('os').mkdir('TRAP')\")",
            "().__class__.__base__.__subclasses__()", "factorial(10**9)", "Sum(1/n**2,(n,1,10**12))", "[0]*10**12",
            "integrate(exp(x**x),(x,0,oo))", "2**(2**(2**100))", "x if x else open('TRAP','w')", "'a'*10**12",
            "f'{__import__(\"os\")}'", "range(10**18)", "sympify('9**9**9')", "while True: pass", "\\input{/etc/passwd}",
            r"\write18{touch TRAP}", r"\def\x{\x\x}\x", r"\newcommand{\a}{\a\a}\a", r"\csname end\endcsname",
            "primefactors(10**80+7)", "nextprime(10**5000)", "Matrix(10**5,10**5,lambda i,j:i)", "solve(x**x-2**x)",
        ]
    )  # fmt: skip
    return rng.choice(
        [text, rf"\text{{{text}}}", rf"\mathrm{{{text}}}", rf"\operatorname{{{text}}}", f"{text}+1", f"${text}$"]
    )


def endless(rng: Random) -> str:
    """Sums, products, integrals and limits that never end."""
    body = rng.choice(
        [
            r"\frac{1}{k^2}",
            "k",
            r"\sin(k)",
            "k!",
            r"k^{k}",
            r"\frac{x^k}{k!}",
            r"\ln(k)",
            r"e^{-k^2}",
            r"\sqrt{k}",
            r"\cos(k)^k",
        ]
    )
    low, high = rng.choice(["1", "0", "-5", r"-\infty"]), rng.choice([large(rng), r"\infty", "n", "100", "20", "5"])
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        body = rng.choice(
            [
                rf"\sum_{{k={low}}}^{{{high}}} {body}",
                rf"\prod_{{k={low}}}^{{{high}}} {body}",
                rf"\int_{{{low}}}^{{{high}}} {body} \, dk",
                rf"\int {body} dk",
                rf"\lim_{{k \to {high}}} {body}",
                rf"\frac{{d}}{{dk}} {body}",
                rf"\sqrt{{{body}}}",
            ]
        )
    return body


def trigonometric(rng: Random) -> str:
    text = rng.choice(["x", "1", r"\pi", "7", "x+y", r"\frac{\pi}{7}", large(rng), "i"])
    for _ in range(rng.randint(1, 6)):
        name = rng.choice(
            [r"\sin", r"\cos", r"\tan", r"\ln", r"\log", r"\exp", r"\arctan", r"\sinh", r"\sec", r"\log_2"]
        )
        text = f"{name}({text})" + rng.choice(["", "", "^2", f"^{{{rng.randint(3, 5000)}}}", "+x"])
    return text + rng.choice(["", "", "+" + text, r"\cdot x", "-1"])


def roots(rng: Random) -> str:
    kind = rng.randint(0, 2)
    if kind == 0:
        return "+".join(rf"\sqrt{{{n}}}" for n in range(2, rng.choice([5, 12, 40, 400])))
    if kind == 1:
        text = number(rng)
        for _ in range(rng.randint(2, 30)):
            text = rf"\sqrt{rng.choice(['', '[3]', '[7]', '[64]'])}{{{rng.randint(2, 99)}+{text}}}"
        return text
    parts = [rf"(\sqrt{{{rng.randint(2, 50)}}}+\sqrt[{rng.randint(2, 9)}]{{{rng.randint(2, 50)}}})" for _ in range(6)]
    return "".join(f"{part}^{{{rng.choice([1, 2, 7, 40])}}}" for part in parts[: rng.randint(1, 6)])


def polynomials(rng: Random) -> str:
    names = rng.sample("abcxyz", rng.randint(1, 6))
    power = rng.choice([2, 5, 20, 60, 400, 2000, 10**6, 10**12])
    base = "(" + "+".join([*names, str(rng.randint(1, 9))]) + ")"
    return rng.choice(
        [
            f"{base}^{{{power}}}",
            "".join(f"(x+{n})" for n in range(rng.choice([5, 50, 300]))),
            rf"\frac{{{base}^{{{power}}}}}{{{base}^{{{power - 1}}}}}",
            rf"\sqrt{{{base}^{{{power}}}}}",
            f"{base}^{{{power}}}" + r"\sin(x)",
        ]
    )


def collections(rng: Random) -> str:
    count = rng.choice([3, 10, 50, 99, 400, 3000])
    item = rng.choice([number, trigonometric, roots, lambda r: rf"\frac{{{r.randint(1, 9)}}}{{{r.randint(1, 9)}}}"])
    items = ",".join(item(rng) for _ in range(min(count, 8)))
    items = ",".join([items] * (count // 8 + 1))
    opening, closing = rng.choice(
        [("(", ")"), (r"\{", r"\}"), ("[", ")"), ("", ""), ("(", "]"), (r"\left\{", r"\right\}")]
    )
    one = opening + items + closing
    return one + rng.choice(["", "", r" \cup " + one, r" \cap " + one, r" \setminus " + one])


def relations(rng: Random) -> str:
    sign = rng.choice(["=", "<", r"\le", r"\ge", r"\ne", r"\in", r"\equiv", r"\approx"])
    sides = [rng.choice([trigonometric, polynomials, roots, number, endless])(rng) for _ in range(rng.randint(2, 4))]
    return sign.join(sides)


def long_numbers(rng: Random) -> str:
    digits = "".join(rng.choice(DIGITS) for _ in range(rng.choice([50, 1_000, 5_000, 9_000])))
    return rng.choice(
        [digits, f"0.{digits}", rf"\frac{{{digits}}}{{{digits[::-1]}}}", f"{digits}^{{{digits}}}", rf"\sqrt{{{digits}}}",
         f"{digits}_{{16}}", f"{digits}%", f"1e{digits}", f"{digits}!", f"1.{digits[:9]}\\overline{{{digits}}}",
         ",".join(digits)]
    )  # fmt: skip


def grammar(rng: Random, depth: int = 0) -> str:
    """A random formula."""
    if depth > rng.randint(2, 7):
        return rng.choice(
            [number, number, lambda r: r.choice(["x", "y", "n", "k", "i", "e", r"\pi", r"\infty", r"\theta"])]
        )(rng)

    def inner() -> str:
        return grammar(rng, depth + 1)

    makers: list[Callable[[], str]] = [
        lambda: f"{inner()}+{inner()}",
        lambda: f"{inner()}-{inner()}",
        lambda: (
            f"{inner()}{rng.choice(['*', '/', ' ', chr(92) + 'cdot ', chr(92) + 'times ', chr(92) + 'div '])}{inner()}"
        ),
        lambda: rf"\frac{{{inner()}}}{{{inner()}}}",
        lambda: f"({inner()})^{{{inner()}}}",
        lambda: rf"\sqrt{{{inner()}}}",
        lambda: rf"\sqrt[{inner()}]{{{inner()}}}",
        lambda: f"({inner()})!",
        lambda: rf"\binom{{{inner()}}}{{{inner()}}}",
        lambda: rf"\sum_{{k={inner()}}}^{{{inner()}}} {inner()}",
        lambda: rf"\prod_{{k={inner()}}}^{{{inner()}}} {inner()}",
        lambda: rf"\int_{{{inner()}}}^{{{inner()}}} {inner()} dx",
        lambda: rf"\lim_{{x\to {inner()}}} {inner()}",
        lambda: (
            rf"{rng.choice([chr(92) + name for name in ('sin', 'cos', 'tan', 'ln', 'log', 'exp', 'arcsin', 'cot')])}({inner()})"
        ),
        lambda: rf"\log_{{{inner()}}}({inner()})",
        lambda: f"|{inner()}|",
        lambda: rf"\lfloor {inner()} \rfloor",
        lambda: f"({inner()},{inner()})",
        lambda: rf"\{{{inner()},{inner()}\}}",
        lambda: rf"\begin{{pmatrix}}{inner()}&{inner()}\\{inner()}&{inner()}\end{{pmatrix}}",
        lambda: rf"\text{{{rng.choice(['if ', ' and ', 'cm', 'or', ''])}}}{inner()}",
        lambda: f"{inner()}={inner()}",
        lambda: rf"\gcd({inner()},{inner()})",
        lambda: rf"{inner()} \bmod {inner()}",
        lambda: rf"\overline{{{inner()}}}",
        lambda: rf"\begin{{cases}}{inner()}&{inner()}\\{inner()}&{inner()}\end{{cases}}",
    ]
    return rng.choice(makers)()


def damaged(rng: Random) -> str:
    """A formula with tokens lost, doubled and moved."""
    import re

    tokens = re.findall(r"\\[A-Za-z]+|\\.|.", grammar(rng), re.DOTALL) or ["5"]
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(tokens))
        change = rng.randint(0, 3)
        if change == 0 and len(tokens) > 1:
            del tokens[at]
        elif change == 1:
            tokens[at:at] = [tokens[at]] * rng.choice([1, 2, 500])
        elif change == 2:
            tokens[at] = rng.choice(
                ["{", "}", "^", "_", "\\", r"\frac", "&", "$", r"\left", "!", "%", "#", "~", r"\\", "'"]
            )
        else:
            other = rng.randrange(len(tokens))
            tokens[at], tokens[other] = tokens[other], tokens[at]
    return "".join(tokens)


FAMILIES: dict[str, Family] = {
    "towers": towers,
    "factorials": factorials,
    "binomials": binomials,
    "matrices": matrices,
    "nesting": nesting,
    "megabytes": megabytes,
    "unicode": unicode_tricks,
    "traps": traps,
    "sums, integrals": endless,
    "functions": trigonometric,
    "roots": roots,
    "polynomials": polynomials,
    "collections": collections,
    "relations": relations,
    "long numbers": long_numbers,
    "grammar": grammar,
    "damaged": damaged,
}
GOLDS = [
    "5", r"\frac{1}{2}", "x^2+1", r"\sin(1)+x", "(1,2)", r"\{1,2\}", "[0,1)", "x=3", r"\sqrt{2}+1",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    family: str
    text: str
    gold: str


def row(seed: int, index: int, trap: str = "TRAP") -> Row:
    """One hostile answer and a reference: a tame one, another of its family, or nearly the same."""
    rng = Random(f"{seed}/{index}")
    family = list(FAMILIES)[index % len(FAMILIES)]
    answer = FAMILIES[family](rng).replace("TRAP", trap)
    gold = rng.choice([rng.choice(GOLDS), rng.choice(GOLDS), FAMILIES[family](rng)[:20_000], f"{answer[:9_000]}+0"])
    wrapped = [
        rf"so \boxed{{{answer}}}",
        rf"\boxed{{{answer}}}",
        answer,
        f"The answer is ${answer}$.",
        f"Answer: {answer}",
    ]
    return Row(family, answer if family == "megabytes" else rng.choice(wrapped), gold.replace("TRAP", trap))


@dataclass(frozen=True, slots=True)
class Call:
    """What became of one check."""

    index: int
    seconds: float
    correct: bool | None
    reason: str


Check = Callable[[int], Call]


def one_by_one(verifier: MathVerifier, rows: Callable[[int], Row], indices: Sequence[int]) -> Iterator[Call]:
    for index in indices:
        asked = rows(index)
        begin = time.perf_counter()
        verdict = verifier.check(asked.text, asked.gold)
        yield Call(index, time.perf_counter() - begin, verdict.correct, verdict.reason)


async def awaited(verifier: MathVerifier, rows: Callable[[int], Row], indices: Sequence[int]) -> list[Call]:
    """As many at once as there are processes."""
    left = iter(indices)
    calls: list[Call] = []

    async def work() -> None:
        for index in left:
            asked = rows(index)
            begin = time.perf_counter()
            verdict = await verifier.check_async(asked.text, asked.gold)
            calls.append(Call(index, time.perf_counter() - begin, verdict.correct, verdict.reason))

    await asyncio.gather(*(work() for _ in range(verifier.pool.size)))
    return calls


def healthy(verifier: MathVerifier) -> bool:
    """Does it still decide correctly with a worker process? New numbers each time, because it caches verdicts."""
    n = next(FRESH)
    asked = [
        (rf"\boxed{{{n}+\sum_{{k=0}}^{{1}}\frac{{k}}{{2}}}}", f"{n}.5", "math"),
        (rf"\boxed{{\cos(\pi/3)+{n}}}", f"{n + 1}", "math"),
        (rf"\boxed{{{n}+\sum_{{k=1}}^{{4}} k}}", f"{n + 10}", "math"),
    ]
    return [verdict.correct for verdict in verifier.check_many(asked)] == [True, False, True]


def in_context(
    context: str, workers: int, deadline: float, rows: Callable[[int], Row], indices: Sequence[int]
) -> dict[str, Any]:
    """The calls from one context, and what they left behind in its process."""
    if context == "forked process":
        return in_fork(workers, deadline, rows, indices)
    with MathVerifier(workers, deadline) as verifier:
        ready = healthy(verifier)  # the first process is up
        before, begin = resident(), time.perf_counter()
        calls: list[Call] = []
        if context == "main thread":
            calls += one_by_one(verifier, rows, indices)
        elif context == "worker thread":
            thread = threading.Thread(target=lambda: calls.extend(one_by_one(verifier, rows, indices)))
            thread.start()
            thread.join()
        else:
            calls += asyncio.run(awaited(verifier, rows, indices))
        found = {
            "wall_seconds": time.perf_counter() - begin,
            "growth_bytes": resident() - before,
            "healthy": ready and healthy(verifier),
            "processes_started": verifier.processes_started,
            "calls": calls,
        }
    found["largest_worker_bytes"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * KIBIBYTE
    return found


def in_fork(workers: int, deadline: float, rows: Callable[[int], Row], indices: Sequence[int]) -> dict[str, Any]:
    """The same in a fork of this process, whose verifier is busy with workers of its own."""
    with tempfile.TemporaryDirectory() as folder, MathVerifier(workers, deadline) as verifier:
        healthy(verifier)
        file = Path(folder) / "found.json"

        def work() -> None:
            before, begin = resident(), time.perf_counter()
            ready = healthy(verifier)
            calls = list(one_by_one(verifier, rows, indices))
            found = {
                "wall_seconds": time.perf_counter() - begin,
                "growth_bytes": resident() - before,
                "healthy": ready and healthy(verifier),
                "processes_started": verifier.processes_started,
                "calls": [(call.index, call.seconds, call.correct, call.reason) for call in calls],
            }
            verifier.close()
            found["largest_worker_bytes"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * KIBIBYTE
            file.write_text(json.dumps(found))

        _, status = os.waitpid(fork("hostile", work), 0)
        if status:
            raise RuntimeError(f"the forked process ended with status {status}: what it said is above")
        found = json.loads(file.read_text())
        found["healthy"] = found["healthy"] and healthy(verifier)
    return found | {"calls": [Call(*call) for call in found["calls"]]}


KIBIBYTE = 1 if sys.platform == "darwin" else 1024


def resident() -> int:
    """Bytes of memory that this process holds now; its peak if there is no /proc."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE


STALLS = """
import sys, threading, time
worst = 0.0
threading.Thread(target=lambda: (sys.stdin.read(), print(worst), sys.stdout.flush(), __import__("os")._exit(0))).start()
while True:
    begin = time.monotonic()
    time.sleep(0.02)
    worst = max(worst, time.monotonic() - begin - 0.02)
"""


@contextmanager
def stalls() -> Iterator[list[float]]:
    """The longest delay of a process that only sleeps: the machine's share of a wall time."""
    probe = subprocess.Popen([sys.executable, "-c", STALLS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    found: list[float] = []
    try:
        yield found
        found.append(float(probe.communicate("")[0]))
    finally:
        probe.kill()
        probe.wait()


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def summary(calls: Sequence[Call]) -> dict[str, Any]:
    seconds = [call.seconds for call in calls]
    timed_out = [call for call in calls if call.reason == "timeout"]
    return {
        "answers": len(calls),
        "right": sum(call.correct is True for call in calls),
        "wrong": sum(call.correct is False for call in calls),
        "undecided": sum(call.correct is None for call in calls) - len(timed_out),
        "timeout": len(timed_out),
        "prompt": sum(call.seconds <= PROMPT and call.reason != "timeout" for call in calls) / len(calls),
        "median_ms": 1e3 * percentile(seconds, 0.5),
        "p99_ms": 1e3 * percentile(seconds, 0.99),
        "slowest_s": max(seconds),
    }


def targets(found: dict[str, dict[str, Any]], deadline: float, sprung: bool) -> dict[str, tuple[bool, str]]:
    """Target -> was it met, and the figure."""
    calls = [call for context in found.values() for call in context["calls"]]
    most = PATIENCE * deadline + SLACK  # the deadline is processor time
    late = [call for call in calls if call.seconds > most]
    slowest = max(call.seconds for call in calls)
    prompt = summary(calls)["prompt"]
    wall = sum(context["wall_seconds"] for context in found.values())
    allowed = WHOLE * len(calls) / 10_000 if len(calls) >= 10_000 else WHOLE
    worker = max(context["largest_worker_bytes"] for context in found.values())
    growth = max(context["growth_bytes"] for context in found.values())
    unhealthy = [name for name, context in found.items() if not context["healthy"]]
    return {
        f"no call beyond {most:g} s": (not late, f"{len(late)} beyond; slowest {slowest:.2f} s"),
        f"{PROMPT_SHARE:.0%} within {1e3 * PROMPT:.0f} ms": (prompt >= PROMPT_SHARE, f"{prompt:.2%}"),
        f"all within {allowed:.0f} s": (wall <= allowed, f"{wall:.0f} s"),
        f"workers within {MEMORY_BYTES >> 20} MiB": (worker <= MEMORY_BYTES, f"{worker >> 20} MiB resident at most"),
        f"growth below {GROWTH_BYTES >> 20} MiB": (growth <= GROWTH_BYTES, f"{growth >> 20} MiB"),
        "still right afterwards": (not unhealthy, ", ".join(unhealthy) or "in every context"),
        "nothing in a text was run": (not sprung, "a trap was sprung" if sprung else "no trap was sprung"),
    }  # fmt: skip


def table(title: str, groups: dict[str, Sequence[Call]]) -> Iterator[str]:
    yield f"{title:18} answers  right  wrong  undecided  timeout  <= 50 ms  median ms    p99 ms  slowest s"
    for name, calls in groups.items():
        s = summary(calls)
        yield (
            f"{name:18} {s['answers']:>7,} {s['right']:>6,} {s['wrong']:>6,} {s['undecided']:>10,} {s['timeout']:>8,} "
            f"{s['prompt']:>9.1%} {s['median_ms']:>10.2f} {s['p99_ms']:>9.1f} {s['slowest_s']:>10.2f}"
        )


def run(
    answers: int, seed: int, deadline: float, workers: int, families: Sequence[str] = (), loud: int = 0
) -> dict[str, Any]:
    """All contexts; prints the tables and the targets, and returns them for the JSON file."""
    indices = [i for i in range(answers) if not families or list(FAMILIES)[i % len(FAMILIES)] in families]
    with tempfile.TemporaryDirectory() as folder:
        trap = str(Path(folder) / "t")
        with stalls() as stalled:
            found = {
                context: in_context(
                    context, workers, deadline, lambda i: row(seed, i, trap), indices[k :: len(CONTEXTS)]
                )
                for k, context in enumerate(CONTEXTS)
            }
        sprung = Path(trap).exists()
    calls = [call for context in found.values() for call in context["calls"]]
    by_family = {name: [c for c in calls if list(FAMILIES)[c.index % len(FAMILIES)] == name] for name in FAMILIES}
    by_context = {name: context["calls"] for name, context in found.items()}
    print("\n".join(table("family", {name: some for name, some in by_family.items() if some})), end="\n\n")
    print("\n".join(table("asked from", by_context)), end="\n\n")
    for call in sorted(calls, key=lambda call: -call.seconds)[:loud]:
        print(f"row {call.index}: {call.seconds:.2f} s, {call.reason}: {row(seed, call.index).text[:150]!r}")
    print(
        f"the machine kept a sleeping process waiting for up to {stalled[0]:.2f} s; such waits are in all wall times\n"
    )
    judged = targets(found, deadline, sprung)
    for name, (met, figure) in judged.items():
        print(f"{'met   ' if met else 'MISSED'}  {name}: {figure}")
    return {
        "name": "verify_hostile",
        "date": str(date.today()),
        "hardware": hardware(),
        "versions": versions(["math-verify", "sympy"]),
        "settings": {"answers": len(calls), "seed": seed, "deadline": deadline, "workers": workers},
        "longest_stall_s": stalled[0],
        "targets": {name: {"met": met, "figure": figure} for name, (met, figure) in judged.items()},
        "families": {name: summary(some) for name, some in by_family.items() if some},
        "contexts": {
            name: summary(context["calls"]) | {key: value for key, value in context.items() if key != "calls"}
            for name, context in found.items()
        },
        "reasons": dict(Counter(call.reason.partition(":")[0] for call in calls).most_common()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=10_000, help="how many (default 10,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--deadline", type=float, default=2.0, help="computer algebra, seconds of processor time (default 2)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    parser.add_argument(
        "--family", action="append", default=[], choices=list(FAMILIES), help="only this one. Repeatable"
    )
    parser.add_argument("--slowest", type=int, default=0, metavar="N", help="show the N slowest answers")
    parser.add_argument("--row", type=int, metavar="N", help="only print row N and its verdict")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    if chosen.row is not None:
        asked = row(chosen.seed, chosen.row)
        print(asked)
        with MathVerifier(deadline=chosen.deadline) as verifier:
            print(*one_by_one(verifier, lambda _: asked, [chosen.row]))
        return
    result = run(chosen.answers, chosen.seed, chosen.deadline, chosen.workers, chosen.family, chosen.slowest)
    write(result, chosen.json)
    sys.exit(any(not target["met"] for target in result["targets"].values()))


if __name__ == "__main__":
    main()
