"""The data types that every part of the package shares, and the protocols between the parts.

Problem -> Trace (a teacher's text) or Rollout (ids that the student sampled) -> verdict -> Pair or group -> Batch.
These are plain data: no torch, and no file formats, which are in `run/tables.py`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from math import inf
from typing import Any, Protocol, TypeVar

R = TypeVar("R")

PROGRAM_REQUEST = " Let's write a program."  # added to a question, it asks for a program of thought (MAmmoTH)
PROGRAM = "program"  # the augmentation of traces that are programs of thought
CUT_OFF = "cut off at the token limit"  # what the reason of such a trace ends with
NO_REFERENCE = "no reference answer"  # the reason of a trace that cannot be verified


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with a checkable answer.

    >>> Problem(id="p1", question="What is 2 + 3?", answer="5").split
    'train'
    """

    id: str
    question: str
    answer: str
    split: str = "train"  # train | validation | test
    benchmark: str = ""  # the problem set that a test problem is scored in
    level: int | None = None  # 1 is easiest; None: the source does not say
    domain: str = ""  # family or subject: chain, equation, word, algebra, …
    source: str = ""  # where it came from
    licence: str = ""
    policy: str = "math"  # the policy that its answers are verified under (verify/)
    formula: str = ""  # an arithmetic expression that the procedural teacher can explain; "": unknown
    origin: str = ""  # id of the problem it was made from (MetaMath); "": an original
    system: str = ""  # what a system turn before the question says
    equations: str = ""  # of the solution that it came with, as annotated: "48/2=24; 48+24=72"; "": none are


@dataclass(frozen=True, slots=True)
class Trace:
    """A teacher's answer to a problem. It is text, because the teacher's vocabulary is not ours."""

    problem_id: str
    index: int  # 0 … G-1 among the rollouts of the problem
    text: str  # the whole completion, `<think>…</think>` included
    teacher: str = ""
    correct: bool | None = None  # None: not verified, or the verifier could not decide
    reason: str = ""  # the verifier's
    augmentation: str = ""  # "", answer, rephrased, self_verification, fobar, program


@dataclass(frozen=True, slots=True)
class Rollout:
    """A student's answer, as the ids that it sampled. They are never tokenised again from text."""

    problem_id: str
    index: int
    prompt_ids: list[int]
    ids: list[int]  # the completion, with the end token if it stopped by itself
    logprobs: list[float]  # of `ids`, under softmax(logits / temperature)
    temperature: float
    stop: str  # "end" | "stop" | "length"
    text: str
    correct: bool | None = None
    reason: str = ""
    answer: str = ""  # what the verifier extracted
    reward: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A right and a wrong answer to a problem. A student's answers have ids, a teacher's are text only."""

    problem_id: str
    question: str
    chosen: str
    rejected: str
    prompt_ids: list[int] = field(default_factory=list)
    chosen_ids: list[int] = field(default_factory=list)
    rejected_ids: list[int] = field(default_factory=list)
    source: str = ""  # teacher | student
    system: str = ""  # what a system turn before the question says
    policy: str = "math"  # the problem's


@dataclass(frozen=True, slots=True)
class Score:
    """The score of a stage on a problem set. Fractions are in 0–1; `low` and `high` bound the 95 % interval of `mean`."""

    stage: str
    benchmark: str
    main: bool
    problems: int
    samples: int
    mean: float
    low: float
    high: float
    pass_at_k: dict[str, float]
    majority: float
    truncated: float
    mean_tokens: float
    temperature: float
    undecided: float = 0.0  # share of samples that the verifier could not decide; they are wrong in the score
    not_asked: int = 0  # problems that are too long for the model; they are in the score, as not solved
    # of the samples that were asked for, the shares with an answer in a box, and with one that is stated in another way
    boxed: float | None = None
    stated: float | None = None
    # `mean` with its interval if samples without an answer get the last number or expression of their text (verify/flexible.py)
    flexible: float | None = None
    flexible_low: float | None = None
    flexible_high: float | None = None
    prompt: dict[str, Any] = field(default_factory=dict)  # `Prompting.summary`
    control_of: str = ""  # the stage that this one, a control, questions
    weights: str = "stored"  # "int8" if the model that answered was rounded to 8 bits
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 0  # 0: an older version did not write it


@dataclass(frozen=True, slots=True)
class Message:
    role: str  # system | user | assistant
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request for one completion. Problem and index name its random stream."""

    problem_id: str
    index: int  # which of the problem's rollouts
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample tokens, and when to stop. `temperature` 0 is greedy.

    >>> Sampling(temperature=0.6).plain, Sampling(top_p=0.9).plain
    (True, False)
    """

    temperature: float = 1.0
    max_tokens: int = 512
    top_k: int = 0  # sample from the k likeliest tokens; 0: off
    top_p: float = 1.0  # from the fewest tokens that hold this share of the probability mass; 1: off
    seed: int = 0
    min_p: float = 0.0  # from tokens at least this many times as likely as the likeliest; 0: off
    repetition_penalty: float = 1.0  # above 1, ids of the prompt and the completion become less likely; 1: off
    bias: tuple[tuple[int, float], ...] = ()  # (id, number added to its logit); minus infinity forbids it
    stop: tuple[str, ...] = ()  # a completion ends before the first of these strings
    stop_ids: tuple[int, ...] = ()  # ids that end it, besides the model's own

    def __post_init__(self) -> None:
        bounds = {
            "temperature": 0 <= self.temperature < inf,
            "max_tokens": self.max_tokens >= 1,
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "repetition_penalty": 0.01 <= self.repetition_penalty <= 100,
            "stop": all(self.stop),
        }
        for name, fits in bounds.items():
            if not fits:
                raise ValueError(
                    f"{name} = {getattr(self, name)!r}: temperature (finite), top_k and min_p are 0 or more, max_tokens at "
                    "least 1, top_p above 0, top_p and min_p at most 1, repetition_penalty 0.01 to 100, and no stop is empty."
                )

    @property
    def plain(self) -> bool:
        """Whether tokens are sampled from the model's own distribution at the temperature, as a policy gradient assumes."""
        return (
            self.temperature > 0
            and (self.top_k, self.top_p, self.min_p, self.repetition_penalty) == (0, 1.0, 0.0, 1.0)
            and not self.bias
        )


@dataclass(frozen=True, slots=True)
class Completion:
    problem_id: str
    index: int
    text: str  # with the thinking that its prompt opened
    stop: str  # end | stop (a string or id of `Sampling`) | length | cancelled
    prompt_ids: list[int] = field(default_factory=list)  # empty if a server does not return them
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)  # of `ids`, under the distribution they were sampled from
    usage: tuple[int, int] = (0, 0)  # tokens of prompt and completion, as a server counted them


@dataclass(frozen=True, slots=True)
class Verdict:
    """`correct` is None if the verifier could not decide, as after a timeout. Such an answer is wrong in a
    score and counted beside it; RL leaves it out."""

    correct: bool | None
    reason: str  # one short phrase: "equal", "different", "no answer", "timeout", …
    answer: str = ""  # what was extracted from the text


class Generator(Protocol):
    """Completes prompts: the engine of this process, a server, a script. Completions come as they finish."""

    def generate(self, prompts: Iterable[Prompt], sampling: Sampling) -> Iterator[Completion]: ...


class Scorer(Protocol):
    """A number for a completion: a verifier's verdict, a reward model, a user's function."""

    def __call__(self, problem: Problem, completion: str) -> float: ...


class Verifier(Protocol):
    """Decides whether a text's answer is right, in bounded time and memory: callers need no guard."""

    def check(self, text: str, gold: str, policy: str = "math") -> Verdict: ...

    def check_many(self, items: Iterable[tuple[str, str, str]]) -> Iterable[Verdict]:
        """A verdict for each (text, gold, policy), in order."""
        ...


def to_row(record: Any) -> dict[str, Any]:
    return asdict(record)


def from_row(kind: type[R], row: dict[str, Any]) -> R:
    """A record from a row of a table. Columns that the record does not have are ignored."""
    names = _names(kind)
    return kind(**{k: v for k, v in row.items() if k in names})


@cache
def _names(kind: type) -> frozenset[str]:
    return frozenset(f.name for f in fields(kind))
