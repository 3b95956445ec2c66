"""What `whetstone compare` does: generations that are saved, or made now, compared in pairs and printed."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from whetstone.evaluate.any_model import ModelOptions
from whetstone.evaluate.paired import compare_saved
from whetstone.evaluate.problem_sets import set_name
from whetstone.evaluate.protocols import find_protocol
from whetstone.evaluate.regrade import graded_by_us
from whetstone.evaluate.saved import KINDS, Saved, find_saved, read_saved
from whetstone.evaluation import Sets, score
from whetstone.model_folder import check_model
from whetstone.run.folder import write_json
from whetstone.run.names import fitting_name
from whetstone.run.secrets import redacted
from whetstone.terminal import print_comparison


def compare_and_print(
    a: ModelOptions, b: ModelOptions, sets: Sets, seed: int, output: Path | None, json: Path | None
) -> None:  # fmt: skip
    """Raises ValueError for a model without saved generations if no problem set is named to score it on."""
    with tempfile.TemporaryDirectory() as temporary:
        wanted = _wanted(sets)
        found = [(side, _saved(side, wanted)) for side in (a, b)]
        for side, saved in found:
            if saved is None:
                _require_sets(side, sets)
        place = output or Path(temporary)
        sides = [saved or _scored(side, sets, seed, place) for side, saved in found]
    rows = compare_saved(*map(graded_by_us, sides), benchmarks=wanted)
    print_comparison(sides[0].name, sides[1].name, rows)
    if json:
        write_json(json, {"a": sides[0].name, "b": sides[1].name, "comparisons": rows})


def served_by(sides: Sequence[ModelOptions], served: Sequence[str]) -> list[ModelOptions]:
    """The sides with the names of their models at servers, in order. Raises ValueError for a name without a server."""
    names = iter(served)
    named = [replace(side, served=next(names, "")) if side.is_server else side for side in sides]
    if left := next(names, None):
        raise ValueError(f"--served {left}: there is no server for it among {', '.join(side.name for side in sides)}.")
    return named


def _wanted(sets: Sets) -> list[str]:
    """The names of the problem sets that are compared; none: all that both sides have."""
    names = sets.names or (list(find_protocol(sets.protocol).sets) if sets.protocol else ())
    return list(dict.fromkeys(map(set_name, names)))


def _saved(side: ModelOptions, wanted: Sequence[str]) -> Saved | None:
    """None if there are no saved generations, or if a model has none of a set that is wanted: it is scored then."""
    saved = find_saved(side.name)
    if saved is None or all(name in saved.rows for name in wanted):
        return saved
    try:
        check_model(side.name)
    except (ValueError, OSError):  # a file of generations
        return saved
    return None


def _require_sets(side: ModelOptions, sets: Sets) -> None:
    if not side.is_server:
        check_model(side.name)
    if not (sets.names or sets.protocol):
        raise ValueError(
            f"{side.name} is a model without saved generations: name problem sets to score it on, with --benchmark or "
            f"--protocol. Generations are saved in {KINDS}."
        )


def _scored(side: ModelOptions, sets: Sets, seed: int, place: Path) -> Saved:
    name = f"{redacted(side.name)} {side.served}".strip()
    folder = place / fitting_name(name.strip("/"))
    score(side, sets, seed, folder)
    return replace(read_saved(str(folder)), name=name)
