"""The data card: what a corpus holds and what was left out, as counts."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from whetstone.corpus.contamination import Match
from whetstone.problems.published import is_non_commercial
from whetstone.records import Pair, Problem

BIN = 100  # characters in a bin of the length histogram
EXAMPLES = 5  # contamination matches shown
COUNTED = ("splits", "sources", "levels", "schools", "domains", "languages", "teachers", "licences")
MERGED = (
    "lengths", "pass_rates", "drops", "subset_levels", "prompt_levels", "prompt_rates", "not_in_subset", "not_in_prompts",
    "matches",
)  # fmt: skip


@dataclass
class Card:
    rows: dict[str, int] = field(default_factory=dict)  # by table
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTED})
    lengths: Counter[int] = field(default_factory=Counter)  # by lower end of the bin
    pass_rates: Counter[float] = field(default_factory=Counter)  # train problems, to one decimal
    drops: Counter[str] = field(default_factory=Counter)
    subset_levels: Counter[str] = field(default_factory=Counter)
    pair_lengths: list[int] = field(default_factory=lambda: [0, 0])  # characters of all chosen and all rejected sides
    prompt_levels: Counter[str] = field(default_factory=Counter)
    prompt_rates: Counter[str] = field(default_factory=Counter)  # never, sometimes, always, unknown
    not_in_subset: Counter[str] = field(default_factory=Counter)  # problems, by LIMO's reason
    not_in_prompts: Counter[str] = field(default_factory=Counter)  # problems, by reason
    matches: Counter[str] = field(default_factory=Counter)  # with test questions, by rule
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, problem: Problem, row: dict[str, Any]) -> None:
        """One corpus row."""
        source, licence = problem.source or "unnamed", problem.licence or "not stated"
        labels = str(row["level"]), row["school"], row["domain"], row["language"]
        values = (problem.split, source, *labels, row["teacher"] or "unnamed", licence)
        for name, value in zip(COUNTED, values, strict=True):
            self.counts[name][value] += 1
        self.lengths[len(row["text"]) // BIN * BIN] += 1

    def add_pair(self, pair: Pair) -> None:
        self.pair_lengths[0] += len(pair.chosen)
        self.pair_lengths[1] += len(pair.rejected)

    def add_prompt(self, labels: dict[str, Any]) -> None:
        rate = labels["pass_rate"]
        self.prompt_levels[str(labels["level"])] += 1
        self.prompt_rates["unknown" if rate is None else {0: "never", 1: "always"}.get(rate, "sometimes")] += 1

    def stages(self) -> dict[str, str]:
        """What each training stage gets, by the paper's rules."""
        chosen, rejected = self.pair_lengths
        rates = ", ".join(f"{count:,} {rate}" for rate, count in sorted(self.prompt_rates.items()))
        return {
            "mid-training: all that is right and well formed": f"{self.rows.get('corpus', 0):,} traces; levels "
            f"{_shares(self.counts['levels'])}",
            "fine-tuning: compact, all levels": f"{self.rows.get('subset', 0):,} traces; levels {_shares(self.subset_levels)}",
            "DPO: right against wrong, of like length": f"{self.rows.get('pairs', 0):,} pairs; the right sides are "
            f"{chosen / rejected if rejected else 0:.2f} times as long",
            "RL: prompts with an answer to verify": f"{self.rows.get('prompts', 0):,} prompts; levels "
            f"{_shares(self.prompt_levels)}; solved by the teacher {rates or 'unknown'}. The RL stage draws from them those "
            "that its model solves now and then",
        }

    def add_match(self, problem: Problem, match: Match) -> None:
        self.matches[match.rule] += 1
        if match.contaminated and len(self.examples) < EXAMPLES:
            self.examples.append({"problem": problem.id, "test": match.test_id, "rule": match.rule})

    def merge(self, other: "Card") -> None:
        """Adds the counts of what comes after."""
        for name in COUNTED:
            self.counts[name].update(other.counts[name])
        for name in MERGED:
            getattr(self, name).update(getattr(other, name))
        self.pair_lengths = [one + more for one, more in zip(self.pair_lengths, other.pair_lengths, strict=True)]
        self.examples = [*self.examples, *other.examples][:EXAMPLES]

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            **{name: dict(sorted(counts.items())) for name, counts in self.counts.items()},
            "drops": dict(self.drops.most_common()),
            "stages": self.stages(),
            "not_in_subset": dict(self.not_in_subset.most_common()),
            "characters": {str(low): self.lengths[low] for low in sorted(self.lengths)},
            "characters_bin": BIN,
            "pass_rates": {f"{rate:.1f}": self.pass_rates[rate] for rate in sorted(self.pass_rates)},
            "contamination": {"matches": dict(self.matches), "examples": self.examples},
        }

    def to_markdown(self, name: str) -> str:
        """The card as a page that can be published beside the data."""
        parts = [f"# Data card: {name}", "", "| table | rows |", "| --- | ---: |"]
        parts += [f"| {table} | {count:,} |" for table, count in self.rows.items()]
        parts += ["", "## What each training stage gets", "", "| rule | here |", "| --- | --- |"]
        parts += [f"| {rule} | {here} |" for rule, here in self.stages().items()]
        for heading, counts in self.counts.items():
            if counts:
                parts += ["", f"## {heading.capitalize()}", "", *_table(counts)]
        non_commercial = sum(count for licence, count in self.counts["licences"].items() if is_non_commercial(licence))
        if non_commercial:
            parts += ["", f"**{non_commercial:,} rows are under licences that forbid commercial use.**"]
        lengths = Counter({f"{low:,} to {low + BIN - 1:,}": self.lengths[low] for low in sorted(self.lengths)})
        parts += ["", "## Length of the traces in characters", "", *_table(lengths, by_count=False)]
        parts += ["", "## Left out, by reason", "", *(_table(self.drops) or ["Nothing."])]
        if self.not_in_subset:
            parts += ["", "## Not for the subset, by difficulty", "", *_table(self.not_in_subset)]
        parts += ["", "## Training questions like test questions", "", *(_table(self.matches) or ["None."])]
        parts += ["", "Those that are equal, hold a test question or say it in another order are left out."]
        return "\n".join(parts) + "\n"


def _shares(counts: Counter[str]) -> str:
    """`1: 40%, 2: 60%`"""
    total = max(1, counts.total())
    return ", ".join(f"{name}: {count / total:.0%}" for name, count in sorted(counts.items())) or "none"


def _table(counts: Counter[str], by_count: bool = True) -> list[str]:
    if not counts:
        return []
    rows = counts.most_common() if by_count else counts.items()
    return ["| | rows |", "| --- | ---: |", *(f"| {str(name).replace('|', '/')} | {count:,} |" for name, count in rows)]
