"""What `whetstone compare` does: generations that are saved, or made now, compared in pairs and printed."""

import tempfile
from dataclasses import replace
from pathlib import Path

from whetstone.evaluate.any_model import ModelOptions
from whetstone.evaluate.paired import compare_saved
from whetstone.evaluate.regrade import graded_by_us
from whetstone.evaluate.saved import KINDS, Saved, find_saved, read_saved
from whetstone.evaluation import Sets, score
from whetstone.model_folder import check_model
from whetstone.run.folder import write_json
from whetstone.run.names import fitting_name
from whetstone.terminal import print_comparison


def compare_and_print(
    a: ModelOptions, b: ModelOptions, sets: Sets, seed: int, output: Path | None, json: Path | None
) -> None:  # fmt: skip
    """Raises ValueError for a model without saved generations if no problem set is named to score it on."""
    with tempfile.TemporaryDirectory() as temporary:
        found = [(side, find_saved(side.name)) for side in (a, b)]
        for side, saved in found:
            if saved is None:
                _require_sets(side, sets)
        place = output or Path(temporary)
        sides = [
            saved or _scored(side, sets, seed, place / fitting_name(side.name.strip("/"))) for side, saved in found
        ]
    wanted = [name for name in sides[0].rows if name in sides[1].rows] if sets.names or sets.protocol else ()
    rows = compare_saved(*map(graded_by_us, sides), benchmarks=wanted)
    print_comparison(sides[0].name, sides[1].name, rows)
    if json:
        write_json(json, {"a": sides[0].name, "b": sides[1].name, "comparisons": rows})


def _require_sets(side: ModelOptions, sets: Sets) -> None:
    if not side.is_server:
        check_model(side.name)
    if not (sets.names or sets.protocol):
        raise ValueError(
            f"{side.name} is a model without saved generations: name problem sets to score it on, with --benchmark or "
            f"--protocol. Generations are saved in {KINDS}."
        )


def _scored(side: ModelOptions, sets: Sets, seed: int, folder: Path) -> Saved:
    score(side, sets, seed, folder)
    return replace(read_saved(str(folder)), name=side.name)
