"""What others published (published.toml), beside scores of ours: with its source, and with how its protocol differs."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from whetstone.run.settings import Settings

FILE = Path(__file__).with_name("published.toml")
ASKED = ("samples", "temperature", "top_p", "max_tokens")  # what a protocol states and a score holds


class Table(Settings):
    name: str = Field(description="as it is shown beside the numbers")
    source: str = Field(description="where the numbers were published")
    read: Literal["primary", "secondary"] = Field(description="from the source itself, or from a copy")
    protocol: dict[str, Any] = Field(
        description="`measure`, and what is stated: for all problem sets, or by problem set"
    )
    scores: dict[str, dict[str, float]] = Field(description="model -> problem set -> per cent")

    def stated(self, name: str, benchmark: str) -> Any:
        """A value of the protocol for a problem set; None if it is not stated."""
        value = self.protocol.get(name)
        return value.get(benchmark) if isinstance(value, dict) else value


@cache
def tables() -> tuple[Table, ...]:
    return tuple(Table.model_validate(t) for t in tomllib.loads(FILE.read_text(encoding="utf-8"))["table"])


def beside(scores: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for every published score on the problem sets of `scores` (rows of a scores.json, or the names of sets alone): its
    `value` as a fraction, and `differs`, what its protocol has other than the last of `scores` on that problem set. Controls do
    not count.
    """
    last = {score["benchmark"]: score for score in scores if not score.get("control_of")}
    return [row for benchmark, score in last.items() for row in _rows(benchmark, score)]


def _rows(benchmark: str, score: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for table in tables():
        for model, values in table.scores.items():
            if benchmark in values:
                yield {
                    "benchmark": benchmark, "model": model, "value": round(values[benchmark] / 100, 6), "table": table.name,
                    "source": table.source, "read": table.read, "measure": table.protocol["measure"],
                    "differs": list(differences(table, benchmark, score)) if "mean" in score else [],
                }  # fmt: skip


def differences(table: Table, benchmark: str, score: Mapping[str, Any]) -> Iterator[str]:
    """In words: what is another, and what the source does not state."""
    unstated = []
    for name in ASKED:
        theirs, ours = table.stated(name, benchmark), score.get(name)
        if theirs is None:
            unstated.append(name)
        elif theirs != ours and not (
            name == "top_p" and score["temperature"] == table.stated("temperature", benchmark) == 0
        ):
            yield f"{name} {theirs:g}, ours {ours or 'not known'}"
    if (top_k := score.get("top_k")) and table.stated("top_k", benchmark) != top_k:
        yield f"top_k not stated, ours {top_k}"
    shots = (score.get("prompt") or {}).get("examples", 0)
    if (theirs := table.stated("shots", benchmark)) is not None and theirs != shots:
        yield f"{theirs} examples, ours {shots}"
    if (whole := SIZES.get(benchmark)) and score["problems"] != whole:
        yield f"all {whole:,} problems, ours {score['problems']:,}"
    if unstated:
        yield f"not stated: {', '.join(unstated)}"


# Problems of the sets that tables are of
SIZES = {
    "gsm8k": 1319,
    "math500": 500,
    "aime24": 30,
    "aime25": 30,
    "gpqa_diamond": 198,
    "amc23": 40,
    "olympiadbench": 675,
    "mawps": 2065,
}
