"""What the corpus stage makes of some problems and their rollouts: rows of its tables, counts, and candidates of the subset.

A part is made without a look at others, so that several processes can share them (`run/fanout.py`): what depends on other
problems (contamination of an original, near duplicates, who is held out) comes with it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from whetstone.corpus import label
from whetstone.corpus.accept import reason_to_drop
from whetstone.corpus.card import Card
from whetstone.corpus.contamination import Match
from whetstone.corpus.duplicates import mark_duplicates
from whetstone.corpus.limo import Solved, quality, why_not_limo
from whetstone.corpus.pairs import make_pairs
from whetstone.corpus.settings import Settings
from whetstone.corpus.subset import Stratum
from whetstone.records import PROGRAM, PROGRAM_REQUEST, Pair, Problem, Trace, from_row, to_row
from whetstone.run.tables import read_between

TABLES = ("corpus", "pairs", "prompts", "dropped", "matches")


class Asked(NamedTuple):
    """A problem, and what is known of it from elsewhere."""

    problem: Problem
    rollouts: int  # how many it has
    rated: Solved
    match: Match | None  # with a test question
    left_out: tuple[str, str] | None  # reason and detail


class Part(NamedTuple):
    first: int  # row of the first rollout
    problems: Sequence[Asked]

    @property
    def rollouts(self) -> int:
        return sum(asked.rollouts for asked in self.problems)


@dataclass
class Made:
    problems: int = 0
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in TABLES})
    card: Card = field(default_factory=Card)
    offers: list[tuple[str, Stratum, float, list[int]]] = field(default_factory=list)  # to the subset


@dataclass(frozen=True)
class Maker:
    """Part -> Made."""

    settings: Settings
    seed: int
    rollouts: Path | None

    def __call__(self, part: Part) -> Made:
        making = Making(self.settings, self.seed)
        rows = read_between(self.rollouts, part.first, part.first + part.rollouts) if self.rollouts else iter(())
        for asked in part.problems:
            making.add(asked, [from_row(Trace, row) for row in islice(rows, asked.rollouts)])
        return making.made


def shuffle_key(seed: int, name: str) -> str:
    """Sorting by it shuffles, in a way that depends only on the seed and the names."""
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def drops(match: Match, settings: Settings) -> bool:
    """Whether a problem with this match goes: it is contaminated, or look-alikes go too."""
    return match.contaminated or settings.contamination.look_alikes > 0


class Making:
    """A part that is being made."""

    def __init__(self, settings: Settings, seed: int):
        self.settings, self.seed, self.made = settings, seed, Made()
        self.card = self.made.card

    def drop(self, problem_id: str, reason: str, index: int | None = None, detail: str = "") -> None:
        self.card.drops[reason] += 1
        self._row("dropped", {"problem_id": problem_id, "index": index, "reason": reason, "detail": detail})

    def _row(self, table: str, row: dict[str, Any]) -> None:
        self.made.rows[table].append(row)

    def add(self, asked: Asked, traces: list[Trace]) -> None:
        self.made.problems += 1
        problem, settings, trains = asked.problem, self.settings, asked.problem.split == "train"
        if problem.split == "test" or self._left_out(asked):
            return
        rate = label.pass_rate(traces)
        labels = {"level": label.level(problem, rate), "domain": label.domain(problem), "pass_rate": rate}
        reserved = trains and self._reserved(problem)
        practised = trains and (reserved or not settings.reserve)  # gives pairs and prompts
        if practised:
            self._add_prompt(problem, labels)
        if settings.levels is not None and labels["level"] not in settings.levels:
            return self.drop(problem.id, "level is not taught", detail=f"level {labels['level']}")
        right, wrong = self._sort_out(traces)
        if practised:
            self._add_pairs(problem, right, wrong)
        if reserved:
            return self.drop(problem.id, "reserved for pairs and prompts")
        taught = self._taught(right) if trains else right[:1]
        if trains:
            self._offer(problem, taught, labels, asked.rated)
        labels |= {"school": label.school(problem.question), "language": label.language(problem.question)}
        self._teach(problem, taught, labels)
        indices = {trace.index for trace in taught}
        for trace in (trace for trace in right if trace.index not in indices):
            limit = "traces_per_problem" if trains else "one validation trace a problem"
            self.drop(problem.id, f"beyond {limit}", trace.index)

    def _teach(self, problem: Problem, taught: list[Trace], labels: dict[str, Any]) -> None:
        for trace in taught:
            row = corpus_row(problem, trace, labels)
            self._row("corpus", row)
            self.card.add(problem, row)

    def add_match(self, problem: Problem, match: Match | None) -> None:
        """Records a match with a test question."""
        if match is not None:
            self.card.add_match(problem, match)
            self._row("matches", {"problem_id": problem.id, "question": problem.question, **asdict(match)})

    def _left_out(self, asked: Asked) -> bool:
        problem, languages = asked.problem, self.settings.languages
        self.add_match(problem, asked.match)
        if asked.left_out is not None:
            reason, detail = asked.left_out
            self.drop(problem.id, reason, detail=detail)
        elif languages is not None and (spoken := label.language(problem.question)) not in languages:
            self.drop(problem.id, "language is not taught", detail=spoken)
        else:
            return False
        return True

    def _reserved(self, problem: Problem) -> bool:
        """By hash of the original's id: what MetaMath made of a problem goes where the problem goes."""
        draw = int(shuffle_key(self.seed, problem.origin or problem.id)[:12], 16) / 16**12
        return draw < self.settings.reserve

    def _sort_out(self, traces: list[Trace]) -> tuple[list[Trace], list[Trace]]:
        """The right and the wrong traces that are well formed and differ. All but the right ones are dropped."""
        right, wrong = [], []
        settings = self.settings
        for trace, first, duplicate in mark_duplicates(traces, settings.near_traces):
            if duplicate:
                self.drop(trace.problem_id, duplicate, trace.index, f"of rollout {first}")
                continue
            reason = reason_to_drop(trace, settings.max_repetition, settings.max_characters, settings.unverified)
            if not reason:
                right.append(trace)
                continue
            if reason.startswith("wrong"):
                wrong.append(trace)
            self.drop(trace.problem_id, reason, trace.index)
        return right, wrong

    def _taught(self, right: list[Trace]) -> list[Trace]:
        """The first chains of thought and the first programs, as many of each as a problem may have."""
        limit = self.settings.traces_per_problem
        thoughts, programs = _by_kind(right)
        return thoughts[:limit] + programs[:limit]

    def _offer(self, problem: Problem, taught: list[Trace], labels: dict[str, Any], rated: Solved) -> None:
        """Offers the problem to the subset, with its best argued traces."""
        if not taught:
            return
        settings = self.settings.subset
        if unfit := why_not_limo(rated, settings.solved):
            self.card.not_in_subset[unfit] += 1
            return
        best = sorted(taught, key=lambda trace: (-quality(trace.text), trace.index))
        stratum, merit = self._merit(best[0].text, labels)
        self.made.offers.append((problem.id, stratum, merit, [trace.index for trace in best[: settings.traces]]))

    def _merit(self, text: str, labels: dict[str, Any]) -> tuple[Stratum, float]:
        """The stratum in which a problem competes for a place in the subset, and its merit there."""
        by, well_argued = self.settings.subset.by, quality(text)
        if by == "limo":
            return ("", ""), well_argued
        if by == "diverse":
            return ("", labels["domain"]), float(len(text))
        return (str(labels["level"]), labels["domain"]), well_argued

    def _add_pairs(self, problem: Problem, right: list[Trace], wrong: list[Trace]) -> None:
        """Pairs two chains of thought, or two programs."""
        for chosen, rejected, request in zip(_by_kind(right), _by_kind(wrong), ("", PROGRAM_REQUEST), strict=True):
            for pair in make_pairs(problem, chosen, rejected, self.settings.pairs_per_problem):
                self.add_pair(replace(pair, question=pair.question + request))

    def add_pair(self, pair: Pair) -> None:
        self._row("pairs", to_row(pair))
        self.card.add_pair(pair)

    def _add_prompt(self, problem: Problem, labels: dict[str, Any]) -> None:
        levels = self.settings.prompt_levels
        if labels["pass_rate"] is not None:
            self.card.pass_rates[round(labels["pass_rate"], 1)] += 1
        if not problem.answer.strip():
            self.drop(problem.id, "prompt without an answer to verify")
        elif levels is None or labels["level"] in levels:
            self._row("prompts", {**to_row(problem), **labels})
            self.card.add_prompt(labels)
        else:
            self.card.not_in_prompts["its level is not among prompt_levels"] += 1


def _by_kind(traces: list[Trace]) -> tuple[list[Trace], list[Trace]]:
    """Chains of thought, and programs."""
    return [t for t in traces if t.augmentation != PROGRAM], [t for t in traces if t.augmentation == PROGRAM]


def corpus_row(problem: Problem, trace: Trace, labels: dict[str, Any]) -> dict[str, Any]:
    return {
        "problem_id": problem.id,
        "index": trace.index,
        "question": problem.question + (PROGRAM_REQUEST if trace.augmentation == PROGRAM else ""),
        "system": problem.system,
        "text": trace.text,
        "answer": problem.answer,
        "policy": problem.policy,
        **labels,
        "augmentation": trace.augmentation,
        "teacher": trace.teacher,
        "repetition": round(label.repetition(trace.text), 3),
        "characters": len(trace.text),
        "source": problem.source,
        "licence": problem.licence,
        "split": problem.split,
    }
