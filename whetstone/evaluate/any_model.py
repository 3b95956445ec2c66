"""The score of any model on any problem sets: a folder, a run, a GGUF file, a hub name, or a model behind a server.

With an output folder a call that was killed goes on where it stopped, and one that was finished is not sampled again:
`OUTPUT/BENCHMARK/asked.json` holds all that its samples depend on.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from whetstone.candidate import Candidate, LocalModel, served_candidate
from whetstone.decode.server_settings import Server
from whetstone.measure import JOURNAL, score_problems
from whetstone.model_files import check_folder
from whetstone.model_folder import provenance
from whetstone.model_template import open_model
from whetstone.prompting import refuse_leaks, say_prompt
from whetstone.records import Problem, Score, from_row, to_row
from whetstone.run.folder import open_lock, read_json, take, write_json
from whetstone.run.manifest import read_scores
from whetstone.run.progress import say
from whetstone.run.prompt_settings import AS_TRAINED, PromptSettings
from whetstone.run.secrets import redacted
from whetstone.run.settings import ParallelSettings, ScoreSettings
from whetstone.sampling_worker import open_candidate

ASKED, SCORES = "asked.json", "scores.json"


@dataclass(frozen=True)
class ModelOptions:
    """A model, and how it is asked and computed. `server` is the address of an OpenAI-compatible server, up to /v1."""

    name: str
    prompt: PromptSettings = AS_TRAINED
    chat_template: str | None = None
    device: str = "auto"
    dtype: str = ""  # of the matrix products; "": float32, and bfloat16 for a GPU if [parallel] says so
    batch: int = 0  # sequences decoded at once, or requests in flight; 0: as many as is usual
    weights: str = "stored"
    served: str = ""  # the model's name at the server; "": its only one
    key_variable: str = "OPENAI_API_KEY"
    processes: int = 1  # that sample together
    launch: tuple[str, ...] = ()  # command that starts them, as [parallel] launch

    @property
    def is_server(self) -> bool:
        return self.name.startswith(("http://", "https://"))

    def server(self) -> Server:
        """Raises ValueError if the server has several models and none is named, or for options that it cannot follow."""
        local = {"chat_template": None, "device": "auto", "dtype": "", "weights": "stored", "processes": 1}
        if given := next((name for name, usual in local.items() if getattr(self, name) != usual), None):
            option = given.replace("_", "-")
            raise ValueError(
                f"--{option} is for a model in this process: the server at {redacted(self.name)} decides it."
            )
        from whetstone.decode.served_models import only_model

        model = self.served or only_model(self.name, self.key_variable)
        given: dict[str, Any] = {"in_flight": self.batch} if self.batch else {}
        if self.prompt.thinking is not None:  # as vLLM and SGLang take it
            given["extra"] = {"chat_template_kwargs": {"enable_thinking": self.prompt.thinking}}
        return Server(server=self.name, model=model, key_variable=self.key_variable, **given)


@dataclass(frozen=True)
class Task:
    """The problems of one set, and how they are asked."""

    problems: Sequence[Problem]
    settings: ScoreSettings

    @property
    def benchmark(self) -> str:
        return self.problems[0].benchmark

    @property
    def chosen(self) -> Sequence[Problem]:
        return self.problems[: self.settings.problems] if self.settings.problems else self.problems


Listed = Callable[[Task, str], AbstractContextManager[list[Score]]]  # notes the beginning and the end of a test run


def evaluate_model(
    options: ModelOptions, tasks: Sequence[Task], seed: int = 0, output: Path | None = None,
    listed: Listed = lambda task, model: nullcontext([]),
) -> list[Score]:  # fmt: skip
    """Score a model on each task, in order. `output` keeps generations and scores.json; without it they are deleted.

    Raises ValueError for a model that cannot be used, and for an output folder with samples of another model or way.
    """
    if twice := _twice([task.benchmark for task in tasks]):
        raise ValueError(
            f"two problem sets are called {twice!r}: their generations would share a folder. Rename a file."
        )
    if options.launch and (output is None or options.processes == 1):
        raise ValueError(
            "--launch starts processes on several machines, which need --processes (their number on all machines) and "
            "--output, a folder that all of them see."
        )
    with tempfile.TemporaryDirectory() as temporary, _alone(output or Path(temporary)):
        opened = _Opened(options)
        scores = [_scored(opened, task, seed, output or Path(temporary), listed) for task in tasks]
    return scores


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Makes the folder and keeps other processes out of it. Raises ValueError for a folder in use, and for a file."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file, and generations need a folder: name another --output.")
    output.mkdir(parents=True, exist_ok=True)
    with open_lock(output / ".lock") as held:
        if not take(held):
            raise ValueError(
                f"another process writes generations to {output}: wait until it ends, or name another --output."
            )
        yield


def _twice(names: Sequence[str]) -> str:
    return next((name for name in names if names.count(name) > 1), "")


class _Opened:
    """The model of the options: found at once, and loaded when it is first sampled."""

    def __init__(self, options: ModelOptions):
        self.options = options
        self._candidate: Candidate | None = None
        if options.is_server:
            self.server = options.server()
            self.name = f"{redacted(options.name)} {self.server.model}"
            self.facts: dict[str, Any] = {"name": redacted(options.name), "model": self.server.model}
            self.content: Any = self.facts
            self.folder = None
        else:
            self.folder = open_model(options.name, options.chat_template)
            check_folder(self.folder)  # before torch is loaded
            self.name, self.facts = options.name, provenance(options.name)
            self.content = _fingerprint(self.folder)
        self.prompting = say_prompt(options.prompt, self.folder or self.server.server)

    @property
    def candidate(self) -> Candidate:
        if self._candidate is None:
            options = self.options
            if self.folder is None:
                self._candidate = served_candidate(self.server, options.prompt)
            else:
                parallel = ParallelSettings(device=options.device, processes=options.processes, launch=options.launch)
                given = {"batch": options.batch} if options.batch else {}
                how = {"prompt": options.prompt, "weights": options.weights, "dtype": options.dtype}
                self._candidate = open_candidate(LocalModel(self.folder, parallel, **how, **given))
        return self._candidate


def _scored(opened: _Opened, task: Task, seed: int, output: Path, listed: Listed) -> Score:
    settings = task.settings.model_copy(update={"weights": opened.options.weights})
    refuse_leaks(opened.prompting.examples, task.chosen)
    folder, asked = output / task.benchmark, _asked(opened, task, settings, seed)
    earlier = _earlier(folder, asked)
    kept = next((row for row in _rows(output) if row["benchmark"] == task.benchmark), None) if earlier else None
    if kept is not None:
        say(f"{task.benchmark}: scored already, in {folder}")
        return replace(from_row(Score, kept), stage=opened.name)
    _require_model(output, opened)
    write_json(folder / ASKED, asked)
    with listed(task, opened.name) as noted:
        score = score_problems(opened.candidate, task.problems, settings, seed, output, opened.name)
        noted.append(score)
    others = [row for row in _rows(output) if row["benchmark"] != task.benchmark]
    write_json(output / SCORES, {"scores": [*others, to_row(score)], "model": opened.facts})
    (folder / JOURNAL).unlink()
    return score


def _asked(opened: _Opened, task: Task, settings: ScoreSettings, seed: int) -> dict[str, Any]:
    """All that the samples depend on, as JSON values."""
    problems = json.dumps([asdict(problem) for problem in task.chosen], sort_keys=True, default=str)
    return {
        "model": opened.content,
        "problems": hashlib.sha256(problems.encode(errors="surrogatepass")).hexdigest(),
        "seed": seed,
        "dtype": opened.options.dtype,
        "prompt": json.loads(json.dumps(opened.prompting.to_json())),
        **settings.model_dump(mode="json", exclude={"main", "base_samples", "sets", "problems"}),
    }


def _earlier(folder: Path, asked: dict[str, Any]) -> bool:
    """Whether the folder holds samples that were asked for in the same way. Raises ValueError if in another."""
    if not (folder / ASKED).exists():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(
                f"{folder} holds files, and no {ASKED} that says how they were made: they would be overwritten. Name another "
                "--output, or move the folder away."
            )
        return False
    if not _has_samples(folder):
        return False
    before = read_json(folder / ASKED)
    changed = [f"{key} was {before.get(key)!r}, now {asked[key]!r}" for key in asked if before.get(key) != asked[key]]
    if changed:
        raise ValueError(
            f"{folder} holds samples that were made in another way: {'; '.join(text[:200] for text in changed[:3])}. Name "
            "another --output, or move the folder away."
        )
    return True


def _has_samples(folder: Path) -> bool:
    journal = folder / JOURNAL
    return any(folder.glob("part-*.parquet")) or (journal.exists() and journal.stat().st_size > 0)


def _require_model(output: Path, opened: _Opened) -> None:
    if (output / SCORES).exists() and (before := read_json(output / SCORES).get("model")) not in (None, opened.facts):
        raise ValueError(
            f"{output / SCORES} holds scores of {before.get('name')}, and these are of {opened.name}. Name another --output."
        )


def _rows(output: Path) -> list[dict[str, Any]]:
    return read_scores(output / SCORES) if (output / SCORES).exists() else []


def _fingerprint(folder: Path) -> str:
    """Of a model's files, by their names, sizes and times."""
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
