"""Promise: each test with a deadline, or that waits for something, holds on a busy machine.

    python -m benchmarks tests_under_load --repeat 50 --busy 2 --json benchmarks/results/tests_under_load.json

Runs these tests beside processes that only compute, ten times in one process and so often again, and counts the failures.
With `--together 5`, five such processes run at once: most of these tests wait, so this takes less time and is more load.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from benchmarks._measure import hardware, versions, write

TIMED = (  # files, or tests, that hold a deadline or wait for a process, a thread or a server
    "tests/test_watchdog.py",
    "tests/test_template.py",
    "tests/test_cli.py::test_a_stopped_run_says_how_to_continue",
    "tests/test_pipeline.py::test_a_run_folder_is_locked_and_a_kill_frees_it",
    "tests/test_processes.py::test_processes_end_when_their_controller_is_killed",
    "tests/test_processes.py::test_processes_that_get_no_standard_input_are_stopped_by_ctrl_c_all_the_same",
    "tests/test_processes.py::test_processes_that_outlived_their_controller_end_when_the_run_begins_again",
    "tests/test_processes.py::test_a_process_that_stands_still_is_named_and_all_are_ended",
    "tests/test_sampling_worker.py",
    "tests/test_fanout.py",
    "tests/benchmarks/test_failing_server.py",
    "tests/test_copying.py",
    "tests/test_sample.py::test_a_verdict_is_asked_for_while_the_others_decode",
    "tests/test_distill_from_a_server.py::test_a_slow_answer_leaves_its_text_out_and_the_others_are_used",
    "tests/rl/test_ahead.py::test_no_rollout_of_a_server_is_lost_or_doubled_by_a_kill",
    "tests/rl/test_ahead.py::test_servers_sample_the_next_step_while_this_one_is_trained_on",
    "tests/rl/test_ahead.py::test_servers_that_are_lost_while_training_goes_on_end_the_stage_with_their_reason",
    "tests/decode/test_server_sampler.py",
    "tests/serve/test_serve.py",
    "tests/learner/test_metrics.py::test_wandb_gets_each_step_once",
    "tests/decode/test_server_generator.py",
    "tests/decode/test_hostile_servers.py",
    "tests/rollouts/test_server_teacher.py",
    "tests/learner/test_replicas.py::test_processes_end_when_their_parent_is_killed",
    "tests/learner/test_token_store.py::test_after_a_kill_the_next_process_makes_the_store_and_two_at_once_make_one",
    "tests/verify/test_batches.py",
    "tests/verify/test_hostile.py",
    "tests/verify/test_program.py::test_nothing_survives_a_parent_that_is_killed",
    "tests/verify/test_program.py::test_closing_ends_a_program_in_its_midst",
)
TIMES = 10  # how often a test is run in one process
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
COUNTED = re.compile(r"(\d+) (passed|failed|error)")


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that only compute."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def round_of(tests: Sequence[str], times: int) -> tuple[Counter[str], Counter[str]]:
    """How many tests passed and failed, and which failed, with each run so many times."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    options = ["-q", "--tb=line", "-p", "no:cacheprovider", "-p", "benchmarks._repeated", "--times", str(times)]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    counts = Counter({word: int(number) for number, word in COUNTED.findall(done.stdout.rpartition("\n=")[2])})
    if not counts:
        raise RuntimeError(f"pytest ended with status {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return counts, Counter(FAILED.findall(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=50, help="how often (default 50)")
    parser.add_argument("--busy", type=int, default=2, help="processes that compute meanwhile (default 2)")
    parser.add_argument("--together", type=int, default=1, help="processes of tests at once (default 1)")
    parser.add_argument("--test", action="append", help="only this file or test. Repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args()
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    load, begin, done = 0.0, time.monotonic(), 0
    rounds = [min(TIMES, chosen.repeat - begun) for begun in range(0, chosen.repeat, TIMES)]
    with busy(chosen.busy), ThreadPoolExecutor(chosen.together) as pool:
        running = {pool.submit(round_of, chosen.test or TIMED, times): times for times in rounds}
        for ended in as_completed(running):
            more, failed = ended.result()
            done += running[ended]
            counts += more
            failures += failed
            load = max(load, os.getloadavg()[0])
            left = (time.monotonic() - begin) / done * (chosen.repeat - done)
            print(
                f"{done} of {chosen.repeat}: {dict(counts)}, load {os.getloadavg()[0]:.1f}, {left:.0f} s left",
                flush=True,
            )
            result = {
                "name": "tests_under_load",
                "date": str(date.today()),
                "hardware": hardware(),
                "versions": versions(["pytest", "torch"]),
                "settings": {
                    "repeat": chosen.repeat,
                    "busy": chosen.busy,
                    "together": chosen.together,
                    "tests": list(chosen.test or TIMED),
                },
                "repeated": done,
                "counts": dict(counts),
                "highest_load": load,
                "failures": dict(failures),
            }
            write(result, chosen.json)
    for name, count in failures.most_common():
        print(f"FAILED {count} of {done}: {name}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
