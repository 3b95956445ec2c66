"""What the report relies on in the files of a run, so that an edited file is an error with its name."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

Counts = dict[str, int]


class Contamination(BaseModel):
    matches: Counts = {}


class Card(BaseModel):
    """card.json, the data card of a corpus stage."""

    rows: Counts
    levels: Counts = {}
    domains: Counts = {}
    sources: Counts = {}
    licences: Counts = {}
    drops: Counts = {}
    characters: dict[float, int] = {}
    characters_bin: int = 1
    pass_rates: dict[float, int] = {}
    contamination: Contamination = Contamination()


class Share(BaseModel):
    mean: float
    low: float
    high: float


class Bin(BaseModel):
    count: int
    probability: float
    accuracy: float


class Assessed(BaseModel):
    judged: int
    accuracy: Share
    length_correlation: float
    calibration: list[Bin]
    calibration_error: float
    length_only: Share | None = None
    shorter: Share | None = None
    longer: Share | None = None


Nothing = Annotated[dict[str, Any], Field(max_length=0)]


class Assessment(BaseModel):
    """assessment.json of a reward stage; {} if nothing was held out."""

    before: Assessed | Nothing = {}
    after: Assessed | Nothing = {}


class Comparison(BaseModel):
    stage: str
    start: str
    benchmark: str
    by: str
    difference: float
    low: float
    high: float
    problems: int = 0
    flexible_difference: float | None = None  # with the format granted
    flexible_low: float | None = None
    flexible_high: float | None = None


class Published(BaseModel):
    benchmark: str
    model: str
    value: float
    table: str
    source: str
    read: str
    measure: str
    differs: list[str] = []


class Evaluation(BaseModel):
    """comparisons.json of an evaluate stage."""

    comparisons: list[Comparison] = []
    published: list[Published] = []


class Candidate(BaseModel):
    prompt: dict[str, Any]
    mean: float
    low: float
    high: float
    problems: int


class Choice(BaseModel):
    """choice.json of a control that chose a prompt."""

    candidates: list[Candidate] = []


class Hardware(BaseModel):
    memory: int = 0


class Attempt(BaseModel):
    threads: int | None = None
    matmul_gflops: dict[str, float | None] = {}


class Run(BaseModel):
    """run.json."""

    recipe: dict[str, Any] = {}
    hardware: Hardware = Hardware()
    versions: dict[str, str | None] = {}
    history: list[Attempt] = []
