"""Promise: what each means of the word-problem recipe adds: one left out or added at a time.

    WHETSTONE_DATA=… python -m benchmarks word_problem_means
    WHETSTONE_DATA=… python -m benchmarks word_problem_means --only all no_retelling --seeds 1

Every variant is a run of `recipes/word_problems.toml` up to fine-tuning in `runs/word_problem_means/VARIANT-sSEED`, with as
many tokens of mid-training as every other, half the recipe's (at a fifth nothing is learnt yet: 9 %): with less data they are
repeated. Finished stages are not repeated. Printed as Markdown: problems and conversations, accuracy on the held-out
fold after mid-training and after fine-tuning, and the paired difference to the variant `all` with the 95 % interval of a
bootstrap over problems.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, machine_speed, versions
from benchmarks.seeds import interval, line, percent, run_seed
from whetstone.evaluate.comparisons import read_marks
from whetstone.measure import paired_bootstrap
from whetstone.run.folder import read_json

RECIPE = Path(__file__).parent.parent / "recipes" / "word_problems.toml"
FOLDER = "word_problem_means"
TOKENS = 3_000_000
EVERY = ("midtrain.epochs=200", f"midtrain.tokens={TOKENS}")
NO_DROPOUT = ("midtrain.word_dropout=0", "midtrain.rare_word_dropout=0", "midtrain.sentence_dropout=0")
VARIANTS: dict[str, tuple[str, ...]] = {
    "all": (),
    "no_mawps": ("questions.source.1.search_formula=false",),  # without a formula no teacher explains it
    "no_resampling": ("questions.metamath.resample=0", "questions.metamath.retell=0"),
    "no_retelling": ("questions.metamath.retell=0",),
    "no_fobar": ("questions.metamath.fobar=0",),
    "no_self_verification": ("questions.metamath.self_verification=0",),
    "no_inverse": ("questions.metamath.fobar=0", "questions.metamath.self_verification=0"),
    "no_given": ("rollouts.procedural.given=false",),
    "no_question_dropout": NO_DROPOUT,
    "words_alone_dropped": NO_DROPOUT[1:],
    "programs_too": (
        "rollouts.programs=1",
    ),  # MAmmoTH's hybrid: a program of thought for every problem beside the chains
    "limo_subset": ("corpus.subset.by=quality", "corpus.subset.problems=817"),  # LIMO's quality score and its number
    "one_answer_more": ("corpus.traces_per_problem=2",),  # MetaMath's answer augmentation
}


def read_variant(folder: Path) -> dict[str, Any]:
    scores = {s["stage"]: s for s in read_json(folder / "scores.json")["scores"] if s["main"]}
    manifests = {m["name"]: m for m in map(read_json, sorted(folder.glob("[0-9]*-*/manifest.json")))}
    benchmark = scores["sft"]["benchmark"]
    return {
        "augmented": manifests["questions"]["summary"]["augmented"],
        "conversations": manifests["midtrain"]["summary"]["conversations"],
        "tokens": manifests["midtrain"]["summary"]["tokens"],
        "midtrain": scores["midtrain"]["mean"],
        "sft": scores["sft"]["mean"],
        "cpu_seconds": sum(m["cpu_seconds"] for m in manifests.values()),
        "marks": read_marks(folder / "scores" / "sft" / benchmark),
    }


def difference(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """For the seeds of both; the same problem under two seeds counts as two."""
    sides = [
        [row | {"problem_id": f"{seed}/{row['problem_id']}"} for seed, run in enumerate(runs) for row in run["marks"]]
        for runs in (ours[: len(theirs)], theirs[: len(ours)])
    ]
    return paired_bootstrap(*sides)


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    yield line(
        [
            "variant",
            "made by MetaMath",
            "conversations",
            "after mid-training, %",
            "after fine-tuning, %",
            "to all [95 %]",
        ]
    )
    yield line(["---", "---:", "---:", "---:", "---:", "---:"])
    for name, runs in found.items():
        beside = difference(runs, found["all"]) if name != "all" and "all" in found else None
        yield line(
            [
                name.replace("_", " "),
                f"{sum(runs[0]['augmented'].values()):,}",
                f"{runs[0]['conversations']:,}",
                percent(statistics.fmean(run["midtrain"] for run in runs)),
                percent(statistics.fmean(run["sft"] for run in runs)),
                interval(beside),
            ]
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="VARIANT", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where the runs lie")
    parser.add_argument("--set", action="append", default=[], metavar="NAME.KEY=VALUE", help="as for whetstone run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    chosen = parser.parse_args(arguments)
    root, before = chosen.folder / FOLDER, machine_speed()
    found: dict[str, list[dict[str, Any]]] = {}
    for name in chosen.only:
        for seed in chosen.seeds:
            title = f"{name}-s{seed}"
            sets = [*EVERY, *VARIANTS[name], *chosen.set, f"run.folder={json.dumps(str(root))}"]
            failed = run_seed(RECIPE, sets, title, seed, root / title, aloud=True, to="sft")
            if failed:
                sys.exit(f"{name}, {failed}")
            found.setdefault(name, []).append(read_variant(root / title))
    print("\n".join(table(found)))
    if chosen.json:
        kept = {
            name: [{key: value for key, value in run.items() if key != "marks"} for run in runs]
            for name, runs in found.items()
        }
        facts = {
            "date": date.today().isoformat(),
            "hardware": hardware(),
            "versions": versions(("torch", "transformers")),
            "tokens": TOKENS,
        }
        speed = {"matmul_gflops": {"before": before, "after": machine_speed()}, "seeds": chosen.seeds}
        differences = {n: difference(r, found["all"]) for n, r in found.items() if n != "all" and "all" in found}
        chosen.json.write_text(json.dumps({**facts, **speed, "variants": kept, "to_all": differences}, indent=1) + "\n")


if __name__ == "__main__":
    main()
