"""A run folder as the report reads it: manifests, metrics.jsonl, card.json, comparisons.json, scores.json with the generations
behind it, run.json. Nothing is computed again.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whetstone.model_files import stored_weights
from whetstone.report.shapes import Card, Evaluation, Run
from whetstone.run.folder import MANIFEST, NEW, OLD, SCORES, read_json, stage_folders
from whetstone.run.manifest import check_shape, read_manifest, read_scores
from whetstone.run.metrics import read_metrics
from whetstone.run.tables import read_rows


@dataclass(frozen=True)
class StageRecord:
    """One complete stage."""

    name: str
    kind: str
    folder: Path
    manifest: dict[str, Any]

    @property
    def trains(self) -> bool:
        return "model" in self.manifest.get("outputs", {}) or bool(self.control_of)

    @property
    def control(self) -> str:
        """Which control of `[controls]` it is; "" for a stage of the recipe's own."""
        return self.manifest.get("control", "")

    @property
    def control_of(self) -> str:
        """The stage that it questions, if `[controls]` made it."""
        return self.manifest.get("control_of", "")

    @property
    def learns_from(self) -> list[str]:
        """The stages whose models it reads without starting from them, as a teacher's."""
        inputs = self.manifest.get("inputs", {})
        return [read["stage"] for name, read in inputs.items() if name != "model" and read.get("artifact") == "model"]

    @property
    def start(self) -> str:
        """The stage whose model it started from; "base" for a model from outside the run or an untrained one."""
        return self.manifest.get("inputs", {}).get("model", {}).get("stage") or "base"

    def metrics(self) -> list[dict[str, Any]]:
        return read_metrics(self.folder)


@dataclass(frozen=True)
class RunRecord:
    folder: Path
    name: str
    stages: list[StageRecord]
    scores: list[dict[str, Any]]
    run: dict[str, Any] = field(default_factory=dict)  # run.json
    evaluation: dict[str, Any] = field(default_factory=dict)  # comparisons.json
    beside: "RunRecord | None" = None  # another run on the same page

    @property
    def training(self) -> list[StageRecord]:
        return [stage for stage in self.stages if stage.trains]

    @property
    def pipeline(self) -> list[StageRecord]:
        """The training stages of which each starts from the one before. The others are controls, or stand beside."""
        pipeline: list[StageRecord] = []
        teachers = self.teachers
        for stage in self.training:
            own = not stage.control_of and stage.name not in teachers
            if own and stage.start == (pipeline[-1].name if pipeline else "base"):
                pipeline.append(stage)
        return pipeline

    @property
    def teachers(self) -> set[str]:
        """The training stages that only teach: another learns from their model and does not descend from it; and those on the
        way to them alone.
        """
        found = {name for stage in self.training for name in stage.learns_from if name not in self._ancestors(stage)}
        for stage in reversed(self.training):
            onward = {other.name for other in self.training if other.start == stage.name}
            if onward and onward <= found:
                found.add(stage.name)
        return found

    def _ancestors(self, stage: StageRecord) -> list[str]:
        found = [stage.start]
        for other in reversed(self.training):  # a stage starts from one above it
            if other.name == found[-1]:
                found.append(other.start)
        return found

    @property
    def controls(self) -> list[tuple[StageRecord, StageRecord | None]]:
        """(control, the stage that it is compared with): the one that it questions, or, if the recipe's user wrote the control,
        the pipeline's that starts from the same model. A teacher is compared with none.
        """
        pipeline, by_name = self.pipeline, {stage.name: stage for stage in self.training}
        beside = {stage.start: stage for stage in reversed(pipeline)}
        teachers = self.teachers

        def compared(stage: StageRecord) -> StageRecord | None:
            if stage.control_of:
                return by_name.get(stage.control_of)
            return None if stage.name in teachers else beside.get(stage.start)

        return [(stage, compared(stage)) for stage in self.training if stage not in pipeline]

    @property
    def benchmarks(self) -> list[str]:
        """The headline problem set first."""
        names = dict.fromkeys(score["benchmark"] for score in sorted(self.scores, key=lambda score: not score["main"]))
        return list(names)

    def score(self, stage: str, benchmark: str) -> dict[str, Any] | None:
        return next((s for s in self.scores if s["stage"] == stage and s["benchmark"] == benchmark), None)

    def difference(self, stage: str, start: str, benchmark: str) -> dict[str, Any] | None:
        """The paired difference between two stages on one problem set, overall."""
        wanted = {"stage": stage, "start": start, "benchmark": benchmark, "by": "all"}
        rows = self.evaluation.get("comparisons", [])
        return next((row for row in rows if wanted.items() <= row.items()), None)

    @property
    def scoring(self) -> list[dict[str, Any]]:
        """The manifest of each model's scoring."""
        paths = sorted((self.folder / "scores").glob(f"*/{MANIFEST}"))
        return [read_manifest(path, "scores") for path in paths if not path.parent.name.startswith((NEW, OLD))]

    def first_rollouts(self, stage: str, benchmark: str) -> Iterator[dict[str, Any]]:
        """The first sample of every problem, in constant memory."""
        folder = self.folder / "scores" / stage / benchmark
        if folder.is_dir():
            yield from (row for row in read_rows(folder) if row.get("index") == 0)

    def card(self) -> dict[str, Any]:
        """The data card of the last corpus stage."""
        cards = [stage.folder / "card.json" for stage in self.stages if (stage.folder / "card.json").exists()]
        return _read_if_there(cards[-1], Card) if cards else {}


def read_run(folder: Path) -> RunRecord:
    """Raises ValueError for a folder without a complete stage."""
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is missing: a report is made from a run folder. Make one with whetstone run RECIPE."
        )
    stages = []
    for stage in stage_folders(folder):
        if (stage / MANIFEST).exists():
            content = read_manifest(stage / MANIFEST)
            stages.append(StageRecord(stage.name.partition("-")[2], content["kind"], stage, content))
    if not stages:
        raise ValueError(
            f"{folder} holds no complete stage (no NN-name/manifest.json), so it is no run to show or export. Finish a "
            "stage with whetstone run RECIPE, or name another run folder."
        )
    comparisons = sorted(folder.glob("*/evaluation/comparisons.json"))
    return RunRecord(
        folder=folder,
        name=folder.resolve().name,
        stages=stages,
        scores=read_scores(folder / SCORES) if (folder / SCORES).exists() else [],
        run=_read_if_there(folder / "run.json", Run),
        evaluation=_read_if_there(comparisons[-1], Evaluation) if comparisons else {},
    )


def _read_if_there(path: Path, shape: Any = dict) -> dict[str, Any]:
    """{} if there is no such file. Raises DamagedFile if it is not of the shape."""
    return check_shape(path, shape, read_json(path)) if path.exists() else {}


def model_facts(folder: Path) -> dict[str, Any]:
    """Shape and number of parameters of a Hugging Face folder, from config.json and the safetensors headers."""
    facts: dict[str, Any] = {"parameters": sum(math.prod(tensor.shape) for tensor in stored_weights(folder).values())}
    config = _read_if_there(folder / "config.json")
    facts |= {"class": (config.get("architectures") or [""])[0]}
    for name in ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size"):
        facts[name] = config.get(name)
    return facts
