"""The data card: what a corpus holds and what was left out, as counts."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from whetstone.corpus.contamination import Match
from whetstone.records import Problem

BIN = 100  # characters in a bin of the length histogram
EXAMPLES = 5  # contamination matches shown


@dataclass
class Card:
    rows: dict[str, int] = field(default_factory=dict)  # of each table
    splits: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    domains: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)  # by lower end of the bin
    pass_rates: Counter[float] = field(default_factory=Counter)  # train problems, to one decimal
    drops: Counter[str] = field(default_factory=Counter)
    matches: Counter[str] = field(default_factory=Counter)  # with test questions, by rule
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, problem: Problem, row: dict[str, Any]) -> None:
        """One corpus row."""
        self.splits[problem.split] += 1
        self.sources[problem.source or "unnamed"] += 1
        self.licences[problem.licence or "not stated"] += 1
        self.levels[str(row["level"])] += 1
        self.domains[row["domain"]] += 1
        self.lengths[len(row["text"]) // BIN * BIN] += 1

    def add_match(self, problem: Problem, match: Match) -> None:
        self.matches[match.rule] += 1
        if match.contaminated and len(self.examples) < EXAMPLES:
            self.examples.append({"problem": problem.id, "test": match.test_id, "rule": match.rule})

    def to_json(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("splits", "sources", "levels", "domains", "licences")}
        return {
            "rows": self.rows,
            **{name: dict(sorted(count.items())) for name, count in counts.items()},
            "drops": dict(self.drops.most_common()),
            "characters": {str(low): self.lengths[low] for low in sorted(self.lengths)},
            "characters_bin": BIN,
            "pass_rates": {f"{rate:.1f}": self.pass_rates[rate] for rate in sorted(self.pass_rates)},
            "contamination": {"matches": dict(self.matches), "examples": self.examples},
        }
