"""What tests/test_processes.py starts in several processes, without torch: it does what the file named says."""

import os
import signal
import sys
import time
from pathlib import Path

from whetstone.run.torchrun import process

path = Path(sys.argv[1])
what = path.read_text()
with process(path.parent) as rank:
    other = rank == int(os.environ["WORLD_SIZE"]) - 1
    print(f"rank {rank} speaks", flush=True)
    (path.parent / f"spoken-{rank}").touch()
    while not (path.parent / "spoken-0").exists():  # or it would be ended before it said a word
        time.sleep(0.01)
    if what == "mistake" and other:
        raise FileNotFoundError("there is no corpus")
    if what == "bug" and other:
        raise AssertionError("this cannot be")
    if what == "killed" and other:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "frozen":
        os.kill(os.getpid(), signal.SIGSTOP if other else 0)
        time.sleep(60)
    if what == "stop":
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        (path.parent / f"ready-{rank}").touch()
        while other or not (path.parent / "stopped").exists():  # whoever reads the word tells the others
            try:
                time.sleep(0.05)
            except KeyboardInterrupt:
                (path.parent / "stopped").touch()
                raise
            if other and (path.parent / "stopped").exists():
                raise KeyboardInterrupt
        raise KeyboardInterrupt
    if what in ("mistake", "bug", "killed"):
        time.sleep(60)
