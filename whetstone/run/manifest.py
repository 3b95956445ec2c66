"""The manifest of a stage or of a model's scores, and scores.json: written last, sealed, and checked when they are read.

The seal is a hash of the content. A file without one is read too: who edits a manifest on purpose removes the line.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from whetstone.records import Score
from whetstone.run.folder import DamagedFile, read_json, write_json

SEAL = "seal"

Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Input(BaseModel):
    stage: str
    artifact: str
    hash: str | None


class _Manifest(BaseModel):
    """What others read of a manifest or of `started.json`; the rest is for people."""

    model_config = ConfigDict(extra="allow")

    name: str = ""
    kind: str = ""
    settings: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    inputs: dict[str, _Input] = {}
    outputs: dict[str, str] = {}
    summary: dict[str, Any] = {}
    wall_seconds: Number = 0
    cpu_seconds: Number = 0
    peak_memory: Number = 0
    attempts: int = Field(0, ge=0)
    computed_on: list[dict[str, Any]] = []
    key: dict[str, Any] = {}
    scores: list[Score] = []


def write_manifest(path: Path, value: Mapping[str, Any]) -> None:
    write_json(path, {**value, SEAL: _seal(value)})


def read_manifest(path: Path, needed: str = "kind") -> dict[str, Any]:
    """What `write_manifest` wrote, with numbers that are missing as 0. `needed` is a key that it must have.

    Raises DamagedFile, FileNotFoundError.
    """
    manifest = read_json(path, needed=[needed])
    seal = manifest.pop(SEAL, None)
    if seal is not None and seal != _seal(manifest):
        raise DamagedFile(path, "it was changed after it was written (its seal does not fit)")
    check_shape(path, _Manifest, manifest)
    return {name: field.default for name, field in _Manifest.model_fields.items() if name != "key"} | manifest


class _Minus(BaseModel):
    stage: str
    difference: float
    low: float
    high: float
    problems: int
    reading: str
    flexible_difference: float | None = None
    flexible_low: float | None = None
    flexible_high: float | None = None


class _Beside(BaseModel):
    """What the score of a control has in addition (pipeline/beside.py)."""

    stage_minus_control: _Minus | None = None
    last_minus_control: _Minus | None = None


def read_scores(path: Path) -> list[dict[str, Any]]:
    """The rows of a scores.json. Raises DamagedFile, FileNotFoundError."""
    rows = check_shape(path, list[Score], read_json(path).get("scores"))
    return check_shape(path, list[_Beside], rows)


def check_shape(path: Path, kind: Any, value: Any) -> Any:
    """The value, which was read from a file. Raises DamagedFile if it is no `kind`, in pydantic's sense."""
    try:
        TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise DamagedFile(path, f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}") from error
    return value


def _seal(value: Mapping[str, Any]) -> str:
    """Of the content, whatever its layout and the order of its keys."""
    plain = json.loads(json.dumps(value, default=str))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
