"""Tiny rooms that stand in for the real ones, so that the pipeline is tested without training anything."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar

import hypothesis
import pytest
from pydantic import BeforeValidator, SerializeAsAny, field_validator

from tests.skipped import pytest_terminal_summary  # noqa: F401  (a hook of pytest)
from whetstone import recipe as recipes
from whetstone.records import Problem, Score
from whetstone.run.folder import Stage, write_text
from whetstone.run.prompt_settings import AS_TRAINED, PromptSettings
from whetstone.run.room import Estimate, Input, Room
from whetstone.run.settings import Settings, StageSettings
from whetstone.run.tables import write_records, write_rows

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one stops a test for half a second
hypothesis.settings.load_profile("any machine")
os.environ["WHETSTONE_TEST_RUNS"] = os.devnull  # tests are no looks at a test set
# Some job runners start us with these blocked or ignored, and our children would inherit it
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Columns(Settings):
    question: str = "question"

    MOVED: ClassVar[dict[str, str]] = {"prompt": "question"}


class Part(Settings):
    kind: str

    @classmethod
    def of(cls, table: dict[str, Any]) -> type["Part"]:
        return {"made": Made, "read": Read}[table["kind"]]


class Made(Part):
    howmany: int = 1


class Read(Part):
    path: str

    @field_validator("path")
    @classmethod
    def names_a_file(cls, path: str) -> str:
        if not path:
            raise ValueError("no file. Name one")
        return path


def _by_kind(table: Any) -> Any:
    return Part.of(table).model_validate(table) if isinstance(table, dict) else table


class QuestionSettings(StageSettings):
    part: tuple[Annotated[SerializeAsAny[Part], BeforeValidator(_by_kind)], ...] = ()
    count: int = 4
    columns: Columns = Columns()
    stop_after: int = -1  # stop as a kill would, once, when so many lines are in the journal
    wait: float = 0.0  # seconds to sleep, for those who interrupt
    file: str = ""  # a file of the user's


class TrainSettings(StageSettings):
    learning_rate: float = 1e-3


class ReportSettings(StageSettings):
    title: str = "report"


class Rooms:
    """What the fake rooms did: stage names in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.scored: list[tuple[str, int]] = []


def _text(folder: Path, text: str) -> None:
    write_text(folder / "content.txt", text)


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rooms]:
    """Kinds questions, corpus, midtrain, sft and report, done by fake rooms; `score_model` gives 0.5 everywhere."""
    seen = Rooms()

    def room(name: str, settings: type[StageSettings], work: Callable[[Stage], dict[str, Any]], **facts: Any) -> str:
        """The name of a module with a ROOM."""

        def run(stage: Stage) -> dict[str, Any]:
            seen.calls.append(stage.name)
            return work(stage)

        module = ModuleType(f"fake_{name}")
        module.ROOM = Room(settings=settings, run=run, **facts)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return module.__name__

    def questions(stage: Stage) -> dict[str, Any]:
        journal = stage.folder / "journal.txt"
        done = len(journal.read_text().splitlines()) if journal.exists() else 0
        with journal.open("a") as lines:
            for number in range(done, stage.settings.count):
                lines.write(f"p{number}\n")
                lines.flush()
                if number == stage.settings.stop_after and not (stage.folder / "stopped").exists():
                    (stage.folder / "stopped").touch()
                    raise KeyboardInterrupt
        time.sleep(stage.settings.wait)
        ids = journal.read_text().split()
        problems = [
            Problem(id=name, question=f"{stage.seed} {name}?", answer="1", split=split, benchmark=benchmark)
            for name in ids
            for split, benchmark in (("train", ""), ("test", "easy"), ("test", "hard"))
        ]
        return {"problems": write_records(stage.output("problems"), problems), "continued_at": done}

    def corpus(stage: Stage) -> dict[str, Any]:
        rows = [{"problem_id": "p0", "text": "1"}]
        for name in ("subset", "pairs"):
            write_rows(stage.output(name), rows)
        write_rows(stage.output("dropped"), [{"problem_id": "p1", "reason": "wrong"}])
        return {"rows": 1}

    def train(stage: Stage) -> dict[str, Any]:
        if "model" not in stage.inputs:
            _text(stage.output("base"), "untrained")
        before = (stage.inputs["model"] / "content.txt").read_text() if "model" in stage.inputs else ""
        _text(stage.output("model"), f"{before}{stage.name} {stage.settings.learning_rate};")
        return {"steps": 1}

    def report(stage: Stage) -> dict[str, Any]:
        scores = json.loads((stage.folder.parent / "scores.json").read_text())["scores"]
        _text(stage.output("report"), f"{stage.settings.title} {len(scores)}")
        return {}

    kinds = {
        "questions": room(
            "questions",
            QuestionSettings,
            questions,
            gives=("problems",),
            reads=lambda settings: [Path(settings.file)] if settings.file else [],
            plan=lambda stage: Estimate({"problems": str(3 * stage.settings.count)}),
        ),
        "corpus": room(
            "corpus", StageSettings, corpus, inputs={"problems": Input(("problems",))}, gives=("subset", "pairs")
        ),
        "midtrain": room(
            "midtrain",
            TrainSettings,
            train,
            inputs={"data": Input(("subset",)), "model": Input(("model",), optional=True)},
            gives=("model",),
            uses=("run.seed", "model"),
            trains=True,
        ),
        "sft": room(
            "sft",
            TrainSettings,
            train,
            inputs={"model": Input(("model",)), "data": Input(("subset", "pairs"))},
            gives=("model",),
            trains=True,
        ),
        "report": room("report", ReportSettings, report, gives=("report",), uses=(), reads_run=True),
    }
    monkeypatch.setattr(recipes, "KINDS", kinds)
    monkeypatch.setattr("whetstone.pipeline.machine.PROBE_SECONDS", 0.005)

    def score_model(
        model: Path,
        problems: list[Problem],
        settings: Any,
        parallel: Any,
        seed: int,
        out: Path,
        stage: str,
        longest: int,
        prompt: PromptSettings = AS_TRAINED,
    ) -> list[Score]:
        assert (model / "content.txt").exists(), f"{model} is no model folder"
        seen.scored.append((stage, len(problems)))
        scores = []
        for benchmark in dict.fromkeys(problem.benchmark for problem in problems):
            count = sum(problem.benchmark == benchmark for problem in problems)
            write_rows(out / benchmark, [{"problem_id": "p0"}])
            numbers = {"mean": 0.5, "low": 0.4, "high": 0.6, "majority": 0.5, "truncated": 0.0, "mean_tokens": 3.0}
            scores.append(
                Score(
                    stage, benchmark, False, count, settings.samples, pass_at_k={"1": 0.5}, temperature=1.0, **numbers
                )
            )
        return scores

    monkeypatch.setattr("whetstone.measure.score_model", score_model)
    yield seen


FOUR_STAGES = """
[run]
name = "walk"
folder = "{folder}"
seed = 3

[scores]
samples = 2

[[stage]]
kind = "questions"
count = 4

[[stage]]
kind = "corpus"

[[stage]]
kind = "midtrain"

[[stage]]
kind = "sft"
learning_rate = 1e-4

[[stage]]
kind = "report"
"""


@pytest.fixture
def walk(tmp_path: Path, rooms: Rooms) -> Path:
    """A recipe file of the fake rooms, which runs in `tmp_path/runs/walk`."""
    path = tmp_path / "walk.toml"
    path.write_text(FOUR_STAGES.format(folder=tmp_path / "runs"))
    return path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What training rooms read: an untrained model, corpus, subset, problems, pairs, prompts."""
    from tests.tiny_world import write_world

    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def adder(world: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that adds one-digit numbers right about every third time."""
    from tests.tiny_world import teach

    return teach(tmp_path_factory.mktemp("taught") / "adder", world, epochs=15)
