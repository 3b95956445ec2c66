"""Rephrasing, answers and a judge from `transformers serve`, which is killed meanwhile: nothing is asked twice or lost.

    python -m benchmarks real_server --json benchmarks/results/real_server.json

A recipe's stages `questions` (MetaMath's rephrasing) and `rollouts` (a teacher, several answers a problem, and a judge of
answers that no rule can read) ask a real server. It is killed (SIGKILL) three times: while it rephrases, while it answers,
both until the run ends with an error and is started again, the second time at another address; and while it judges, when
it comes back before the run gives up. Every answer received is recorded and compared with what the stages keep and with
the server's own log: exit status 1 if they do not agree.

The model is made for this and knows nothing: a Phi-3-class model whose next token depends on the last one alone (a
bigram of a few canned sentences), so that some answers are right, some wrong, some empty, and some unreadable.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, versions, write
from whetstone.decode.server_generator import ServerError, ServerGenerator
from whetstone.judge import PROMPT as JUDGE_PROMPT
from whetstone.pipeline.running import run_recipe
from whetstone.questions.rephrase import ASKED as REPHRASE_ASKED
from whetstone.recipe import Recipe, read_recipe
from whetstone.records import Completion, Prompt
from whetstone.run.folder import read_json
from whetstone.run.tables import read_rows

PYTHON = Path(".venv-bench/bin/python")
SERVE = "from transformers.cli.transformers import app; app()"  # its main() first looks for a newer version
PATIENCE = 180  # seconds for a server to load its model, on a machine that does other things too
ROLES = ("rephrase", "answer", "judge")
REPHRASINGS, SAMPLES = 2, 4  # per problem
KILLS = {"rephrase": 9, "answer": 30, "judge": 5}  # the server is killed at this answer of the role, by number
CANNED = (  # an answer begins after the prompt's last token and ends with the model's end
    (4, "Say how many there are of them."),
    (4, "How many are there altogether?"),
    (4, "So the answer is \\boxed{4}."),
    (4, "So the answer is \\boxed{7}."),
    (3, "So the answer is \\boxed{?}."),
    (3, "So the answer is \\boxed{4+}."),
    (2, ""),
)
THINGS = {"legs": "dog", "days": "week", "wheels": "car", "seasons": "year", "sides": "square", "colours": "rainbow"}
QUESTIONS = (
    # without numbers: any text without numbers passes as its rephrasing
    *((f"How many {many} has a {one}?", "7" if many in ("days", "colours") else "4") for many, one in THINGS.items()),
    *((f"Tom has {n} pens and buys {m}. How many has he?", str(n + m)) for n, m in ((3, 4), (1, 3), (5, 2), (2, 2))),
    ("What do you think of spiders?", ""),  # nothing to verify: it is left out
)


# --- the model and its server ---


def build_model(folder: Path) -> None:
    """A Phi-3-class model whose blocks add nothing and whose head holds the bigrams of CANNED."""
    import torch

    from whetstone import model as models
    from whetstone.chat import Chat
    from whetstone.run.settings import ModelSettings

    width = 512  # at least as many as there are tokens: each has a direction of its own
    shape = ModelSettings(layers=1, hidden=width, mlp=64, heads=8, kv_heads=8, vocabulary=width, context=4096)
    texts = [text for times, text in CANNED for _ in range(times)]
    model, tokenizer = models.build_tiny(shape, [*texts, REPHRASE_ASKED, JUDGE_PROMPT], seed=0)
    start = Chat(tokenizer).question_ids("?")[-1]
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    seen = torch.zeros(len(tokenizer), len(tokenizer))  # (last token, next token)
    for text in texts:
        ids = [start, *tokenizer.encode(text, add_special_tokens=False), end]
        for last, following in pairwise(ids):
            seen[last, following] += 1
    seen[seen.sum(1) == 0, end] = 1
    chances = (seen / seen.sum(1, keepdim=True)).clamp(min=1e-12)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        directions = torch.eye(len(tokenizer), width)
        model.model.embed_tokens.weight.copy_(directions)
        model.config.tie_word_embeddings = False
        model.lm_head = torch.nn.Linear(width, len(tokenizer), bias=False)
        model.lm_head.weight.copy_(
            chances.log().T @ directions / width**0.5
        )  # the last norm makes a token sqrt(width) long
    models.save(model, tokenizer, folder)


class ServeProcess:
    """`transformers serve` on one model, at one address; it can be killed and restarted."""

    def __init__(self, python: Path, model: Path, log: Path):
        self.python, self.model, self.log = python, model, log
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = self.kills = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self, port: int = 0) -> None:
        """Raises RuntimeError with the end of its output if it does not start."""
        self.port = port or free_port()
        command = [str(self.python), "-c", SERVE, "serve", str(self.model), "--device", "cpu"]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(self.port)], stdout=out, stderr=out, env=environment
            )
        self.starts += 1
        patience = time.monotonic() + PATIENCE
        while not self._healthy():
            if self.process.poll() is not None or time.monotonic() > patience:
                said = self.log.read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"transformers serve did not come up within {PATIENCE} s. It said:\n{said}")
            time.sleep(0.2)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self) -> None:
        assert self.process, "no server runs"
        self.process.kill()
        self.process.wait()
        self.kills += 1

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def answered(self) -> int:
        """Requests that the server's logs say it answered with 200, over all its starts."""
        return self.log.read_text(errors="replace").count('"POST /v1/chat/completions HTTP/1.1" 200')


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


# --- what was sent and what came ---


def role_of(prompt: Prompt) -> str:
    said = prompt.messages[-1].content
    if said.startswith(REPHRASE_ASKED[:40]):
        return "rephrase"
    return "judge" if said.startswith(JUDGE_PROMPT[:40]) else "answer"


class Ledger:
    """Records every request and its outcome, and kills the server at the chosen moments."""

    def __init__(self, server: ServeProcess):
        self.server = server
        self.sent = Counter[str]()  # by role
        self.came: dict[str, Counter[tuple[str, int]]] = {role: Counter() for role in ROLES}
        self.empty: dict[str, Counter[tuple[str, int]]] = {role: Counter() for role in ROLES}
        self.failed = Counter[tuple[str, str]]()  # (role, why)
        self.killed: set[str] = set()
        self.returning: threading.Thread | None = None  # the server's restart

    async def request(self, plain: Any, generator: ServerGenerator, client: Any, prompt: Prompt, sampling: Any) -> Any:
        role, key = role_of(prompt), (prompt.problem_id, prompt.index)
        self.sent[role] += 1
        try:
            completion: Completion = await plain(generator, client, prompt, sampling)
        except asyncio.CancelledError:
            self.failed[role, "given up with the server"] += 1
            raise
        except Exception as failure:
            if getattr(failure, "empty", None) is not None:
                self.empty[role][key] += 1
            else:
                self.failed[role, str(failure)[:60]] += 1
            raise
        self.came[role][key] += 1
        if role not in self.killed and self.came[role].total() == KILLS[role]:
            self.killed.add(role)
            self.server.kill()
            if role == "judge":  # it comes back while the run is still trying
                self.returning = threading.Thread(target=self.server.start, args=(self.server.port,))
                self.returning.start()
        return completion

    def start_again(self, port: int) -> None:
        """The server, if it is not restarting by itself."""
        if self.returning is None:
            return self.server.start(port)
        self.returning.join()
        self.returning = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        plain = ServerGenerator._request

        async def request(generator: ServerGenerator, client: Any, prompt: Prompt, sampling: Any) -> Any:
            return await self.request(plain, generator, client, prompt, sampling)

        ServerGenerator._request = request
        try:
            yield
        finally:
            ServerGenerator._request = plain


# --- the run ---

# the judge still retries when its server is back; the others give up
RETRIES, JUDGES_RETRIES = "retries = 1, longest_pause = 0.1", "retries = 40, longest_pause = 2"
RECIPE = """
[run]
name = "real_server"
folder = "{folder}"
threads = 1

[[stage]]
kind = "questions"
[[stage.source]]
kind = "file"
path = "{folder}/questions.jsonl"
name = "asked"
[stage.metamath]
rephrase = {rephrasings}
model = {{ {server}, {retries} }}

[[stage]]
kind = "rollouts"
teacher = {{ {server}, {retries} }}
samples = {samples}
block = 8
judge = {{ {server}, {judges} }}
"""


def read(folder: Path, server: ServeProcess) -> Recipe:
    """The recipe with the server's current address."""
    asked = f'server = "{server.address}", model = "{server.model}", in_flight = 4, max_tokens = 48, temperature = 1.0'
    path = folder / "recipe.toml"
    counts = {"rephrasings": REPHRASINGS, "samples": SAMPLES}
    tries = {"retries": RETRIES, "judges": JUDGES_RETRIES}
    path.write_text(RECIPE.format(folder=folder, server=asked, **counts, **tries))
    return read_recipe(path)


def run(folder: Path, ledger: Ledger) -> dict[str, Any]:
    server, ended = ledger.server, []
    rows = ({"question": question, "answer": answer} for question, answer in QUESTIONS)
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    began = time.perf_counter()
    try:
        server.start()
        with ledger.watching():
            for attempt in range(len(KILLS) + 1):
                try:
                    run_recipe(read(folder, server))
                    break
                except ServerError as error:
                    ended.append(str(error))
                    print(f"\nthe run ended: {error}\n", flush=True)
                    ledger.start_again(0 if attempt else server.port)  # the second time at another address
    finally:
        server.stop()
    found = count(read(folder, server), ledger)
    return found | {"ended": ended, "wall_seconds": round(time.perf_counter() - began, 1)}


# --- comparing the records ---


def count(recipe: Recipe, ledger: Ledger) -> dict[str, Any]:
    """What was sent, received and kept, by role, and what does not agree."""
    server = ledger.server
    questions, rollouts = (recipe.folder / recipe.stage(name).folder_name for name in ("questions", "rollouts"))
    told = {
        name: read_json(folder / "manifest.json")["summary"]
        for name, folder in (("questions", questions), ("rollouts", rollouts))
    }
    said = {
        "rephrase": [(row["id"], row["index"]) for row in lines(questions / "rephrased.jsonl")],
        "answer": [(row["problem_id"], row["index"]) for row in read_rows(rollouts / "rollouts")],
        "judge": [(row["id"], 0) for row in lines(rollouts / "judged.jsonl")],
    }
    roles = {
        role: {
            "sent": ledger.sent[role],
            "answered": ledger.came[role].total(),
            "empty": ledger.empty[role].total(),
            "failed": sum(count for (of, _), count in ledger.failed.items() if of == role),
            "answered twice": sum(times > 1 for times in ledger.came[role].values()),
            "kept": len(said[role]),
        }
        for role in ROLES
    }
    drops = Counter(row["reason"] for row in read_rows(questions / "dropped"))
    judged = Counter(row["reason"].partition("judge: ")[2] for row in read_rows(rollouts / "rollouts"))
    read_in = told["questions"]["sources"]["asked"]["train"]
    rephrased = told["questions"]["augmented"].get("rephrased", 0)
    checks = {
        "no answer came twice": not any(row["answered twice"] for row in roles.values()),
        "what was sent was answered, empty or failed": all(
            row["sent"] == row["answered"] + row["empty"] + row["failed"] for row in roles.values()
        ),
        "what is kept is what came, each once": all(
            len(set(kept)) == len(kept) and set(kept) == set(ledger.came[role]) | set(ledger.empty[role])
            for role, kept in said.items()
        ),
        "every question is a problem or dropped with a reason": read_in + drops["empty answer"] == len(QUESTIONS),
        "every problem was rephrased as often as asked": len(said["rephrase"]) == REPHRASINGS * read_in,
        "every rephrasing is a problem or dropped with a reason": rephrased + drops.total() - drops["empty answer"]
        == len(said["rephrase"]),
        "every problem has all its rollouts": len(said["answer"]) == SAMPLES * (read_in + rephrased)
        and not list(read_rows(rollouts / "dropped")),
        "all answers are in the server's log": server.answered
        >= sum(row["answered"] + row["empty"] for row in roles.values()),
        "the server was killed once in every role": server.kills == len(KILLS),
    }
    return {
        "roles": roles,
        "failed": [{"role": role, "why": why, "requests": count} for (role, why), count in ledger.failed.items()],
        "server": {"starts": server.starts, "kills": server.kills, "answered": server.answered},
        "problems": {"read": read_in, "rephrased": rephrased, "dropped": dict(drops)},
        "rollouts": {name: told["rollouts"][name] for name in ("rollouts", "right", "wrong", "undecided")},
        "judged": {word: count for word, count in judged.items() if word},
        "checks": checks,
    }


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as found:
        yield from map(json.loads, found)


def show(found: dict[str, Any]) -> None:
    columns = ("sent", "answered", "empty", "failed", "answered twice", "kept")
    print(f"\n{'requests':10}" + "".join(f"{name:>16}" for name in columns))
    for role, row in found["roles"].items():
        print(f"{role:10}" + "".join(f"{row[name]:>16,}" for name in columns))
    server = found["server"]
    print(
        f"server: started {server['starts']}, killed {server['kills']} times; {server['answered']} answers by its log"
    )
    for row in found["failed"]:
        print(f"    failed: {row['requests']:>4} {row['role']}: {row['why']}")
    print(f"problems: {found['problems']}\nrollouts: {found['rollouts']}")
    print(f"rollouts by the judge's word: {found['judged']}\n")
    for claim, holds in found["checks"].items():
        print(f"    {'yes' if holds else 'NO ':3} {claim}")
    print(f"{found['wall_seconds']} s wall", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--python",
        type=Path,
        default=PYTHON,
        help=f"of the environment that has transformers serve (default: {PYTHON})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result here")
    chosen = parser.parse_args(arguments)
    if lacks := why_not(chosen.python):
        parser.exit(1, f"error: {chosen.python} {lacks}: `make bench-env` installs transformers[serving].\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_model(folder / "model")
        found = run(folder, Ledger(ServeProcess(chosen.python, folder / "model", folder / "server.log")))
    show(found)
    told = {"name": "real_server", "date": str(date.today()), "hardware": hardware()}
    write(told | found | {"versions": versions(["transformers", "httpx2"])}, chosen.json)
    if not all(found["checks"].values()):
        parser.exit(1, "error: the books do not add up.\n")


def why_not(python: Path) -> str:
    """Why `transformers serve` cannot run; "" if it can."""
    if not python.exists():
        return "is missing"
    tried = subprocess.run([str(python), "-c", "import fastapi, openai, uvicorn"], capture_output=True, text=True)
    return f"cannot serve ({tried.stderr.strip().rpartition(chr(10))[2]})" if tried.returncode else ""


if __name__ == "__main__":
    main()
