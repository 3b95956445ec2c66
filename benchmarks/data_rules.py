"""What each rule of data is worth at equal tokens: annotations, written solutions, both, other numbers, programs, ….

    WHETSTONE_DATA=… python -m benchmarks data_rules --model models/smollm2 --json benchmarks/results/data_rules.json
    WHETSTONE_DATA=… python -m benchmarks data_rules --model models/smollm2 --only annotations

Every variant is a run of `recipes/smollm2.toml` up to mid-training in `runs/data_rules/VARIANT-sSEED`, on GSM8K's training
problems alone, with as many tokens as every other: smaller data is repeated. It is scored on the recipe's held-out problems; no
test set is read for a score. An interrupted run goes on with the same command; `--set` is that of `whetstone run`.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, machine_speed, versions
from benchmarks.seeds import interval, line, percent, run_seed
from benchmarks.word_problem_means import difference
from whetstone.evaluate.comparisons import read_marks
from whetstone.recipe import read_recipe
from whetstone.run.folder import read_json

RECIPE = Path(__file__).parent.parent / "recipes" / "smollm2.toml"
FOLDER = "data_rules"
TOKENS = 650_000  # one epoch of the annotations
SOURCES = (0, 2)  # of the recipe: GSM8K train, and ASDiv's held-out problems
EVERY = ("corpus.max_characters=0", "corpus.reserve=0", "midtrain.epochs=1000", "midtrain.patience=0")
PLAIN = ("questions.metamath.resample=0", "questions.metamath.fobar=0", "questions.metamath.self_verification=0")
CHAINS = ("questions.source.0.traces=false", "rollouts.beside_shipped=false")
VARIANTS: dict[str, tuple[str, ...]] = {
    "annotations": (*PLAIN, *CHAINS),
    "written": (*PLAIN, 'rollouts.teacher="none"', "rollouts.beside_shipped=false"),
    "both": (*PLAIN, "corpus.traces_per_problem=2"),
    "other_numbers": (*PLAIN, *CHAINS, "questions.metamath.resample=4"),
    "inverse_questions": (*PLAIN, *CHAINS, "questions.metamath.fobar=1", "questions.metamath.self_verification=1"),
    "programs": (*PLAIN, *CHAINS, "rollouts.programs=1"),
    "all": ("questions.metamath.resample=4", "corpus.traces_per_problem=2", "rollouts.programs=1"),
}
FIRST = "annotations"  # what the others are compared with


def sources() -> str:
    """The two sources of the recipe as a TOML list."""
    settings = read_recipe(RECIPE).stage("questions").settings.source
    written = [
        {k: v for k, v in settings[n].model_dump(mode="json", exclude_defaults=True).items() if v} for n in SOURCES
    ]
    written[1]["teach"] = False
    return f"[{', '.join(map(_inline, written))}]"


def _inline(table: Mapping[str, Any]) -> str:
    return f"{{ {', '.join(f'{key} = {json.dumps(value)}' for key, value in table.items())} }}"


def sets_of(variant: str, tokens: int, model: str, root: Path) -> list[str]:
    return [
        f"questions.source={sources()}", f"model.path={json.dumps(model)}", f"run.folder={json.dumps(str(root))}",
        f"midtrain.tokens={tokens}", *EVERY, *VARIANTS[variant],
    ]  # fmt: skip


def read_variant(folder: Path) -> dict[str, Any]:
    scores = {s["benchmark"]: s for s in read_json(folder / "scores.json")["scores"] if s["stage"] == "midtrain"}
    manifests = {m["name"]: m for m in map(read_json, sorted(folder.glob("[0-9]*-*/manifest.json")))}
    main = next(score for score in scores.values() if score["main"])
    return {
        "rows": manifests["midtrain"]["summary"]["conversations"],
        "tokens": manifests["midtrain"]["summary"]["tokens"],
        "scores": scores,
        "cpu_seconds": sum(m["cpu_seconds"] for m in manifests.values()),
        "marks": read_marks(folder / "scores" / "midtrain" / main["benchmark"]),
    }


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    names = list(next(iter(found.values()))[0]["scores"])
    yield line(["data", "rows", *(f"{name}, %" for name in names), "cut off, %", f"to {FIRST} [95 %]"])
    yield line(["---", *["---:"] * (len(names) + 3)])
    for variant, runs in found.items():
        run = runs[0]
        beside = difference(runs, found[FIRST]) if variant != FIRST and FIRST in found else None
        shown = [f"{percent(s['mean'])} [{percent(s['low'])}, {percent(s['high'])}]" for s in run["scores"].values()]
        cut = percent(next(iter(run["scores"].values()))["truncated"])
        yield line([variant.replace("_", " "), f"{run['rows']:,}", *shown, cut, interval(beside)])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/smollm2", help="folder that every variant starts from")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="VARIANT", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of each variant")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where the runs lie")
    parser.add_argument("--set", action="append", default=[], metavar="NAME.KEY=VALUE", help="as for whetstone run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    chosen = parser.parse_args(arguments)
    root, before = chosen.folder / FOLDER, machine_speed()
    found: dict[str, list[dict[str, Any]]] = {}
    for name in chosen.only:
        for seed in chosen.seeds:
            title = f"{name}-s{seed}"
            sets = [*sets_of(name, chosen.tokens, chosen.model, root), *chosen.set]
            failed = run_seed(RECIPE, sets, title, seed, root / title, aloud=True, to="midtrain")
            if failed:
                sys.exit(f"{name}, {failed}")
            found.setdefault(name, []).append(read_variant(root / title))
        if chosen.json:  # what is finished is kept at once
            _write(chosen.json, found, chosen, before)
    print("\n".join(table(found)))


def _write(path: Path, found: Mapping[str, Any], chosen: argparse.Namespace, before: float) -> None:
    kept = {name: [{k: v for k, v in run.items() if k != "marks"} for run in runs] for name, runs in found.items()}
    beside = {n: difference(r, found[FIRST]) for n, r in found.items() if n != FIRST and FIRST in found}
    facts = {
        "name": "data_rules", "date": date.today().isoformat(), "hardware": hardware(),
        "versions": versions(("torch", "transformers")), "tokens": chosen.tokens, "seeds": chosen.seeds,
        "matmul_gflops": {"before": before, "after": machine_speed()},
    }  # fmt: skip
    path.write_text(json.dumps({**facts, "variants": kept, f"to_{FIRST}": beside}, indent=1) + "\n")


if __name__ == "__main__":
    main()
