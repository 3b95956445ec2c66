"""No input holds a worker longer than its deadline, grows it beyond its cap, or affects the next check."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from benchmarks._measure import own_cpu
from whetstone.verify import MathVerifier, get_policy
from whetstone.verify.equal import judge

DEADLINE = 2.0
SLACK = 1.5  # CPU seconds, for killing a process and forking another

HOSTILE = {
    "tower of negative powers": "1.1^{-" * 25 + "1.1" + "}" * 25,
    "tower": "9^{9^{9^{9}}}",
    "tower of decimals": "0.1^{" * 28 + "9" + "}" * 28 + "-" + "0.1^{" * 27 + "9" + "}" * 27,
    "tower of functions": r"\sin(\ln(x+" * 14 + "x" + "))" * 14,
    "tower of letters": "x^{y+" * 40 + "9" + "}" * 40,
    "ten to the ten to the ten": "10^{10^{10}}",
    "large power": "9^{99999999}",
    "billion bits": "2^{1000000000}+1",
    "negative large power": "2^{-1000000000}",
    "factorial of a million": "1000000!",
    "factorial of 10^8": "(10^8)!",
    "nested factorials": "((9!)!)!",
    "binomial": r"\binom{10000000000}{5000000000}",
    "binomial in the middle": r"\binom{100000}{50000}",
    "parentheses": "(" * 2000 + "5" + ")" * 2000,
    "fractions": r"\frac{1}{1+" * 200 + "1" + "}" * 200,
    "roots": r"\sqrt{" * 500 + "5" + "}" * 500,
    "braces": "{" * 4000 + "5" + "}" * 4000,
    "minus signs": "-" * 5000 + "5",
    "sum to a billion": r"\sum_{k=1}^{1000000000} \frac{1}{k^2}",
    "product to ten million": r"\prod_{k=1}^{10000000} k",
    "hard integral": r"\int_0^1 \frac{e^{x^2}\sin(x^3)}{\ln(x+2)} dx",
    "large polynomial": "(x+1)^{2000}",
    "many variables": "(a+b+c+d+k+m)^{60}",
    "product of sums": "(x+1)(x+2)(x+3)" * 60,
    "sum of roots": "+".join(rf"\sqrt{{{n}}}" for n in range(2, 400)),
    "sum of large powers": "+".join(rf"\frac{{1}}{{{n}^{{5000}}}}" for n in range(3, 300)),
    "tower of e": "e^{e^{e^{e^{5}}}}",
    "hundred thousand digits": "7" * 100_000,
    "nine thousand digits": "7" * 9_000,
    "scientific": "1e999999999",
    "many commas": "1," * 4000 + "1",
    "two long sets": r"\{" + ",".join(rf"\sin({n})" for n in range(90)) + r"\}",
    "percent signs": "5" + "%" * 4000,
    "plus minus": r"1" + r"\pm 1" * 300,
    "unclosed fractions": r"\frac{" * 3000,
    "backslashes": "\\" * 9000,
    "null bytes": "\x00" * 500,
    "lone surrogate": "\ud800",
    "matrix power": r"\begin{pmatrix}1&1\\1&0\end{pmatrix}^{100000}",
    "trigonometric tower": r"\sin(\cos(\tan(x)))^{200}",
    "text groups": r"\text{" * 1500 + "}" * 1500,
    "digits and words": "1 " * 4000 + "apples",
    "letters": "a" * 9000,
    "words": "ab " * 3000,
}
GOLDS = ["5", r"\sin(1)+x", r"\{" + ",".join(rf"\sin({n})" for n in range(90)) + r"\}"]


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(deadline=DEADLINE) as shared:
        assert shared.check(r"\boxed{\sum_{k=0}^{1}\frac{k}{2}}", "1/2").correct is True  # the process is up
        yield shared


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_end_within_the_deadline_and_are_never_right(verifier, name):
    started = verifier.processes_started
    begin = own_cpu()  # of this process and its workers
    verdict = verifier.check(rf"so \boxed{{{HOSTILE[name]}}}", "5")
    cpu = own_cpu() - begin
    assert verdict.correct is not True, verdict
    assert verdict.reason
    starting = 10 * (verifier.processes_started - started)  # a new process may have had to start
    assert cpu < DEADLINE + SLACK + starting, f"{cpu:.1f} s: {verdict}"


def test_the_pool_still_works_after_all_that(verifier):
    assert verifier.check(r"\boxed{\cos 0}", "1").correct is True


@pytest.mark.parametrize("gold", GOLDS, ids=["integer", "function", "set"])
def test_reading_hostile_answers_is_cheap_in_this_process(gold):
    for name, answer in HOSTILE.items():
        begin = time.process_time()
        judge(answer[:10_000], gold, get_policy("math"))  # asks no worker
        assert time.process_time() - begin < 1.0, (name, gold)


def test_hostile_references_are_undecided_not_wrong(verifier):
    assert verifier.check("5", "9^{9^{9^9}}").correct is None
    assert verifier.check("9^{9^{9^9}}", "9^{9^{9^9}}").correct is True


def test_a_megabyte_is_read_within_a_second(verifier):
    for text in (
        "7 + " * 250_000,
        r"\boxed{1} " * 100_000,
        "{" * 1_000_000,
        "the answer is " * 70_000,
        "<think>" * 140_000,
    ):
        begin = time.process_time()
        verifier.check(text, "5")
        assert time.process_time() - begin < 1.0


def test_a_timeout_is_undecided_and_is_the_reason():
    with MathVerifier(deadline=0.05) as verifier:  # a tenth of the processor time that it takes
        verdict = verifier.check(r"\boxed{\int_0^1 \frac{e^{x^2}\sin(x^3)}{\ln(x+2)} dx}", r"\int_0^1 \sin(x^2) dx")
        assert verdict.correct is None
        assert verdict.reason == "timeout"
        verifier.deadline = 20.0
        assert verifier.check(r"\boxed{\cos 0}", "1").correct is True


def test_memory_is_capped(monkeypatch):
    from whetstone.verify import algebra

    def hog(text: str) -> bool:
        algebra._cap_memory()  # as the watching process does before it forks
        return bool(bytearray(4 << 30))

    monkeypatch.setenv("WHETSTONE_WORKER_MEMORY", str(1 << 30))
    monkeypatch.setattr(algebra, "parsed", hog)
    stop, other = os.pipe()
    child = algebra._Forked()
    assert child.asked({"gold": "5", "answer": "5", "seconds": 60.0}, stop)["problem"] == "out of memory"
    assert not child.alive
    os.close(stop)
    os.close(other)


@pytest.mark.skipif(sys.platform != "linux", reason="limits are read in /proc")
def test_the_processes_that_compute_are_under_the_cap():
    from whetstone.verify.workers import Budget, Workers

    with Workers(memory_bytes=700 << 20) as pool:
        assert pool.same(r"\int_0^1 2x dx", r"\int_0^1 1 dx", Budget(60.0)) is True
        leader = pool.idle[0].process.pid
        forks = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
        assert forks
        for pid in (leader, *forks):
            (line,) = [x for x in Path(f"/proc/{pid}/limits").read_text().splitlines() if "Max address space" in x]
            assert line.split()[3:5] == [str(700 << 20)] * 2


def test_a_worker_that_was_killed_is_replaced():
    with MathVerifier(deadline=20) as verifier:
        assert verifier.check(r"\sum_{k=0}^{1}\frac{k}{2}", "1/2").correct is True
        for worker in verifier.pool.idle:
            worker.process.kill()
            worker.process.wait()
        assert verifier.check(r"\sum_{k=0}^{2}\frac{k}{6}", "1/2").correct is True
        assert verifier.processes_started == 2


def test_many_threads_share_one_worker():
    with MathVerifier(deadline=20) as verifier:
        outcomes = []

        def work(n: int) -> None:
            outcomes.append(verifier.check(rf"{n}+\sum_{{k=0}}^{{1}}\frac{{k}}{{2}}", rf"{n}.5").correct)

        for _ in range(2):  # the threads that started the worker are gone in the second round
            threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert outcomes == [True] * 16
        assert verifier.processes_started == 1


def test_check_many_keeps_the_order_with_several_workers():
    with MathVerifier(workers=2, deadline=20) as verifier:
        half = r"\sum_{k=0}^{1}\frac{k}{2}"
        items = [(rf"\boxed{{{n}+{half}}}", f"{n if n % 2 else n + 1}.5", "math") for n in range(10)]
        assert [v.correct for v in verifier.check_many(items)] == [bool(n % 2) for n in range(10)]


def run_script(script: str, tmp_path) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "main.py"
    file.write_text(textwrap.dedent(script))
    return subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=60)


def test_a_main_module_without_a_guard_runs_once_and_leaves_no_process(tmp_path):
    done = run_script(
        """
        import sys; sys.path[:0] = %r
        print("main runs")
        from whetstone.verify import verify
        import whetstone.verify
        assert verify(r"\\\\sum_{k=0}^{1}\\\\frac{k}{2}", "1/2").correct
        print(whetstone.verify.verifier._shared().pool.idle[0].process.pid)
        """
        % [sys.path[0], *[p for p in sys.path if p]],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("main runs") == 1
    assert gone(int(done.stdout.split()[-1]))


def test_a_busy_worker_ends_when_its_parent_is_killed(tmp_path):
    done = run_script(
        """
        import sys; sys.path[:0] = %r
        import os, signal, threading, time
        from whetstone.verify import MathVerifier
        verifier = MathVerifier(deadline=60)
        assert verifier.check(r"\\\\sum_{k=0}^{1}\\\\frac{k}{2}", "1/2").correct
        verifier.deadline = 1.0
        print(verifier.pool.idle[0].process.pid, flush=True)
        hard = r"\\\\int_0^1 \\\\frac{e^{x^2}\\\\sin(x^3)}{\\\\ln(x+2)} dx"
        threading.Thread(target=verifier.check, args=(hard, r"\\\\int_0^1 \\\\sin(x^2) dx")).start()
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
        """
        % [sys.path[0], *[p for p in sys.path if p]],
        tmp_path,
    )
    assert done.returncode == -9, done.stderr
    assert gone(int(done.stdout.split()[-1]), seconds=120)


def gone(pid: int, seconds: float = 60) -> bool:
    """Whether the process ends, or becomes a zombie that nobody reaps, within so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_importing_the_verifier_is_light():
    script = "import sys, whetstone.verify; assert not {'sympy', 'torch', 'math_verify'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the fork in /proc")
def test_time_in_which_a_worker_gets_no_processor_is_not_charged():
    from whetstone.verify.workers import Budget, Workers

    with Workers() as pool:
        assert pool.same(r"\sum_{k=0}^{1}\frac{k}{2}", "1/2", Budget(60.0)) is True
        leader = pool.idle[0].process.pid
        (fork,) = map(int, Path(f"/proc/{leader}/task/{leader}/children").read_text().split())
        os.kill(fork, signal.SIGSTOP)
        threading.Timer(1.0, os.kill, (fork, signal.SIGCONT)).start()
        budget = Budget(0.9)
        assert pool.same(r"\sum_{k=0}^{2}\frac{k}{6}", "1/2", budget) is True
        assert budget.left > 0.3
