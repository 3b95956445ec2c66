"""Many answers at once: in order, in bounded memory, awaited, and in spite of workers that are killed."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from benchmarks.verify_under_fire import under_fire
from tests.verify.test_hostile import gone, run_script
from whetstone.verify import MathVerifier, children
from whetstone.verify.children import Killed, NotStarted
from whetstone.verify.verifier import AHEAD
from whetstone.verify.workers import Budget, Worker, Workers

SLOW = r"\boxed{\int_0^1 \frac{e^{x^2}\sin(x^3)}{\ln(x+2)} dx}"  # half a second of processor time or more
GOLD_OF_SLOW = r"\int_0^1 \sin(x^2) dx"


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(workers=2, deadline=20) as shared:
        assert shared.check(r"\boxed{\sum_{k=0}^{1}\frac{k}{2}}", "1/2").correct is True  # a process is up
        yield shared


def hard(n: int) -> tuple[str, str, str]:
    """Right for odd n; computer algebra has to be asked."""
    return rf"\boxed{{{n}+\sum_{{k=0}}^{{1}}\frac{{k}}{{2}}}}", f"{n if n % 2 else n + 1}.5", "math"


def easy(n: int) -> tuple[str, str, str]:
    return rf"\boxed{{{n}}}", str(n if n % 2 else n + 1), "math"


def test_verdicts_come_in_order_whatever_is_decided_first(verifier):
    items = [hard(n) if n % 3 else easy(n) for n in range(100, 160)]
    assert [v.correct for v in verifier.check_many(items)] == [bool(n % 2) for n in range(100, 160)]


def test_items_are_taken_when_verdicts_are(verifier):
    taken = []

    def items():
        for n in range(10**9):
            taken.append(n)
            yield easy(n)

    verdicts = verifier.check_many(items())
    assert [next(verdicts).correct for _ in range(3)] == [False, True, False]
    assert len(taken) == 3


def test_a_hard_answer_delays_at_most_ahead_others(monkeypatch):
    with MathVerifier() as verifier:
        asked, release, taken = threading.Event(), threading.Event(), []

        def same(gold, answer, budget):
            asked.set()
            return release.wait(60)

        def items():
            yield hard(1)
            for n in range(10**9):
                taken.append(n)
                if n == AHEAD - 1:
                    release.set()  # the last that may be taken while the hard one is open
                assert n < AHEAD or release.is_set()
                yield easy(n)

        monkeypatch.setattr(verifier.pool, "same", same)
        verdicts = verifier.check_many(items())
        assert next(verdicts).correct is True
        assert asked.is_set()
        assert len(taken) == AHEAD


def test_a_repeated_question_is_asked_once(monkeypatch):
    with MathVerifier(workers=2) as verifier:
        asked = []

        def same(gold, answer, budget):
            asked.append(answer)
            time.sleep(0.1)
            return True

        monkeypatch.setattr(verifier.pool, "same", same)
        assert [v.correct for v in verifier.check_many([hard(1)] * 50)] == [True] * 50
        assert len(asked) == 1


def test_an_unknown_policy_raises_at_its_item(verifier):
    verdicts = verifier.check_many([easy(1), ("1", "1", "maths")])
    assert next(verdicts).correct is True
    with pytest.raises(ValueError, match="maths"):
        next(verdicts)


def test_progress_is_shown_under_its_label(verifier, capsys):
    assert len(list(verifier.check_many([easy(n) for n in range(7)], label="grading"))) == 7
    shown = capsys.readouterr().err
    assert "grading  7/7 answers" in shown
    assert "right 3" in shown


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="/proc tells which processes are workers")
@pytest.mark.parametrize(
    "interval", [0.02, 0.3]
)  # a worker takes a second to start: most are killed before they are ready
def test_workers_that_are_killed_cost_no_verdict(interval):
    found = under_fire(kills=8, interval=interval)
    assert sum(found["kills"].values()) >= 4  # others had ended by themselves when they were shot at
    assert (found["lost"], found["wrong"]) == (0, 0) and found["verdicts"] >= 40


def test_a_question_whose_fork_is_killed_is_asked_again_with_its_whole_budget(monkeypatch):
    with Workers() as pool:
        plain, budgets = Worker.ask, []

        def ask(self, question, seconds):
            budgets.append(question["seconds"])
            if len(budgets) == 1:
                (fork,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
                os.kill(int(fork), signal.SIGKILL)
            return plain(self, question, seconds)

        monkeypatch.setattr(Worker, "ask", ask)
        assert pool.same("1/2", r"\sum_{k=0}^{1}\frac{k}{2}", Budget(20.0)) is True
        assert budgets == [20.0, 20.0] and pool.started == 1


def test_a_worker_that_cannot_start_says_so_at_once_and_one_that_is_killed_in_the_end(monkeypatch):
    with Workers(memory_bytes=1 << 20) as pool, pytest.raises(NotStarted, match=r"memory cap of 1 MiB is too small"):
        pool.same("1/2", r"\sum_{k=0}^{1}\frac{k}{2}", Budget(20.0))
    starts = []

    def start(self):
        starts.append(self)
        raise Killed("a verifier process ended with status -9 while it started.")

    monkeypatch.setattr(Workers, "start", start)
    monkeypatch.setattr(children, "PATIENCE_SECONDS", 0.3)
    with Workers() as pool, pytest.raises(NotStarted, match="The kernel does so when memory runs out"):
        pool.same("1/2", r"\sum_{k=0}^{1}\frac{k}{2}", Budget(20.0))
    assert len(starts) > 1


def test_checks_are_awaited_together_and_do_not_block_the_loop(verifier):
    async def all_of_them() -> tuple[list[bool | None], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticking = asyncio.create_task(tick())
        items = [hard(n) if n % 2 else easy(n) for n in range(200, 240)]
        verdicts = await asyncio.gather(*(verifier.check_async(*item) for item in items))
        slow = MathVerifier(deadline=0.05)
        before = ticks
        verdict = await slow.check_async(SLOW, GOLD_OF_SLOW)
        meanwhile = ticks - before
        slow.close()
        ticking.cancel()
        assert verdict.correct is None
        return [v.correct for v in verdicts], meanwhile

    verdicts, meanwhile = asyncio.run(all_of_them())
    assert verdicts == [bool(n % 2) for n in range(200, 240)]
    assert meanwhile > 1  # of some ten on a quiet machine; none if the check held the loop


def test_a_cancelled_check_leaves_the_verifier_working():
    async def cancel() -> list[bool | None]:
        with MathVerifier(deadline=60) as verifier:
            assert (await verifier.check_async(*hard(1))).correct is True
            first = asyncio.create_task(verifier.check_async(SLOW, GOLD_OF_SLOW))
            queued = asyncio.create_task(verifier.check_async(SLOW, GOLD_OF_SLOW + "+1"))
            await asyncio.sleep(0.05)
            for task in (first, queued):
                task.cancel()
            for task in (first, queued):
                with pytest.raises(asyncio.CancelledError):
                    await task
            verdicts = [await verifier.check_async(*easy(3)), await verifier.check_async(*hard(5))]
            assert verifier.processes_started == 1
            return [v.correct for v in verdicts]

    assert asyncio.run(cancel()) == [True, True]


def test_two_event_loops_share_a_verifier(verifier):
    outcomes = {}

    def loop(name: int) -> None:
        async def check() -> list[bool | None]:
            items = [hard(n) for n in range(name, name + 10)]
            return [v.correct for v in await asyncio.gather(*(verifier.check_async(*item) for item in items))]

        outcomes[name] = asyncio.run(check())

    threads = [threading.Thread(target=loop, args=(name,)) for name in (300, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {name: [bool(n % 2) for n in range(name, name + 10)] for name in (300, 400)}


def test_a_forked_child_has_workers_of_its_own(tmp_path):
    done = run_script(
        """
        import sys; sys.path[:0] = %r
        import asyncio, os, threading, time
        from whetstone.verify import MathVerifier
        verifier = MathVerifier(deadline=20)
        items = [(rf"\\\\boxed{{{n}+\\\\sum_{{k=0}}^{{1}}\\\\frac{{k}}{{2}}}}", f"{n}.5", "math") for n in range(40)]
        assert next(verifier.check_many(items[:1])).correct
        stop = threading.Event()
        def busy():  # holds locks, and the worker, at the moment of the fork
            while not stop.is_set():
                verifier._remembered.clear()
                list(verifier.check_many(items))
        thread = threading.Thread(target=busy)
        thread.start()
        time.sleep(0.2)
        child = os.fork()
        if child == 0:
            verifier._remembered.clear()
            ok = all(v.correct for v in verifier.check_many(items))
            verifier._remembered.clear()
            ok = ok and asyncio.run(verifier.check_async(*items[3])).correct
            ok = ok and verifier.processes_started == 1
            verifier.close()
            os._exit(0 if ok else 1)
        status = os.waitpid(child, 0)[1]
        stop.set()
        thread.join()
        assert status == 0, status
        assert all(v.correct for v in verifier.check_many(items))
        assert verifier.processes_started == 1
        """
        % [sys.path[0], *[p for p in sys.path if p]],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_a_spawned_child_can_be_given_a_verifier(tmp_path):
    file = tmp_path / "spawning.py"
    file.write_text(
        textwrap.dedent(
            """
            import multiprocessing
            from whetstone.verify import MathVerifier

            def grade(verifier, queue):
                with verifier:
                    queue.put([v.correct for v in verifier.check_many([(r"\\cos 0", "1", "math"), ("2", "3", "math")])])

            if __name__ == "__main__":
                with MathVerifier(deadline=20) as verifier:
                    assert verifier.check(r"\\cos 0", "1").correct
                    context = multiprocessing.get_context("spawn")
                    queue = context.Queue()
                    child = context.Process(target=grade, args=(verifier, queue))
                    child.start()
                    print(queue.get(timeout=60))
                    child.join()
            """.replace("\\\\\\\\", "\\\\")
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([p for p in sys.path if p] + [os.getcwd()])}
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[True, False]"


def test_a_pickled_verifier_has_the_same_settings_and_no_processes(verifier):
    other = pickle.loads(pickle.dumps(verifier))
    assert (other.pool.size, other.deadline, other.processes_started) == (2, 20, 0)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find a process's children")
def test_a_busy_fork_ends_by_itself_when_its_watcher_is_killed():
    with MathVerifier(deadline=60) as verifier:
        assert verifier.check(*hard(1)).correct is True
        verifier.deadline = 1.0
        (worker,) = verifier.pool.idle
        pid = worker.process.pid
        (fork,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        limits = Path(f"/proc/{fork}/limits").read_text()
        asking = threading.Thread(target=verifier.check, args=(SLOW, GOLD_OF_SLOW))
        asking.start()
        time.sleep(0.3)
        busy_limits = Path(f"/proc/{fork}/limits").read_text()
        worker.process.kill()
        assert gone(int(fork), seconds=120)  # of its limit of processor time
        asking.join()
    for text in (limits, busy_limits):
        assert "Max address space         1073741824" in text
