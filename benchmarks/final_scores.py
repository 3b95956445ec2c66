"""The final scores of a run on test sets, each run of them listed for ever in benchmarks/results/test_runs.jsonl.

    python -m benchmarks final_scores runs/smollm2                  # every stage and the base, by the protocol below
    python -m benchmarks final_scores runs/smollm2 --stages base rl
    python -m benchmarks final_scores --list                        # every test run ever made

Settings are chosen on held-out problems (`[scores] sets` of the recipe); this is where its models meet the test sets
(`whetstone evaluate` on a known test set adds its line to the same list). A line is appended before a model is scored, and one
with the result after it, so that a look that was broken off is listed, too. Nothing is scored from a checkout with uncommitted
changes: the commit with the settings precedes the test run. A finished row is not scored again; an interrupted one goes on.

Protocol: GSM8K test greedy on all problems, and four answers at temperature 0.6 to 300 of them, chosen by hash; ASDiv's test
fold with four answers; the base and the last stage also greedy on MATH-500 and MAWPS.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware
from benchmarks.data_by_rule import folder_of
from benchmarks.seeds import line, percent
from whetstone.pipeline.machine import git_revision
from whetstone.questions.splits import hash_fraction, normalise
from whetstone.records import Problem, to_row
from whetstone.run.folder import MANIFEST, read_json
from whetstone.run.tables import read_records
from whetstone.test_runs import append as append_to_list
from whetstone.test_runs import now

LIST = Path(__file__).parent / "results" / "test_runs.jsonl"
LIMIT = 300  # tokens of an answer


@dataclass(frozen=True)
class Row:
    """A way to score a model on a test set."""

    benchmark: str
    samples: int
    temperature: float
    problems: int = 0  # 0: all
    ends_only: bool = False  # the base and the last stage alone

    @property
    def name(self) -> str:
        how = "greedy" if not self.temperature else f"mean-{self.samples}"
        return f"{self.benchmark}-{how}{f'-{self.problems}' if self.problems else ''}"


PROTOCOL = (
    Row("gsm8k", 1, 0.0),
    Row("gsm8k", 4, 0.6, 300),
    Row("asdiv", 4, 0.6),
    Row("math500", 1, 0.0, ends_only=True),
    Row("mawps", 1, 0.0, ends_only=True),
)


def models(run: Path) -> dict[str, Path]:
    """The base and the model of every finished stage that trains, in order."""
    base = read_json(run / "run.json")["recipe"]["model"]["path"]
    stages = {read_json(path)["name"]: path.parent / "model" for path in sorted(run.glob(f"[0-9]*/{MANIFEST}"))}
    return {"base": Path(base), **{name: folder for name, folder in stages.items() if folder.is_dir()}}


def prompt_of(run: Path) -> list[str]:
    """The run's own prompt as options, so that the base is asked as the trained models are."""
    given = read_json(run / "run.json")["recipe"].get("prompt") or {}
    return [
        word for key in ("system", "before", "after") if given.get(key) is not None for word in (f"--{key}", given[key])
    ]


def problems_of(run: Path, row: Row) -> list[Problem]:
    tests = [p for p in read_records(Problem, folder_of(run, "questions") / "problems") if p.split == "test"]
    own = [problem for problem in tests if problem.benchmark == row.benchmark]
    if not own:
        raise SystemExit(f"error: {run} has no test problems of {row.benchmark}. The recipe's sources must give some.")
    return sorted(own, key=lambda p: hash_fraction(normalise(p.question)))[: row.problems] if row.problems else own


def score(run: Path, stage: str, model: Path, row: Row) -> dict[str, Any]:
    """The score, from the folder of an earlier call or measured now and listed."""
    output = run / "test_scores" / stage / row.name
    if (output / "scores.json").exists():
        return read_json(output / "scores.json")["scores"][0]
    problems = problems_of(run, row)
    output.mkdir(parents=True, exist_ok=True)
    file = output / f"{row.benchmark}.jsonl"
    file.write_text("".join(json.dumps(to_row(problem)) + "\n" for problem in problems))
    facts = {
        "run": run.name, "seed": read_json(run / "run.json")["recipe"]["run"]["seed"], "stage": stage, **asdict(row),
        "problems": len(problems), "max_tokens": LIMIT, "revision": (git_revision() or "").removesuffix("-dirty"),
        "cpu": hardware()["cpu"],
    }  # fmt: skip
    append({"begun": now(), **facts})
    command = [
        "evaluate",
        "--model",
        model,
        "--benchmark",
        file,
        "--samples",
        row.samples,
        "--temperature",
        row.temperature,
    ]
    options = ["--max-tokens", LIMIT, "--output", output]
    evaluate(*map(str, command + options), *prompt_of(run))
    result = read_json(output / "scores.json")["scores"][0]
    append({"finished": now(), **facts, "score": {key: value for key, value in result.items() if key != "stage"}})
    return result


def evaluate(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "whetstone.cli", *words], check=True)


def append(entry: dict[str, Any]) -> None:
    append_to_list(entry, LIST)


def listed() -> Iterator[str]:
    """The list as a table. A run that was begun and not finished is a row without a score."""
    yield line(["when", "run", "stage", "set", "how", "problems", "score, % [95 %]", "revision"])
    yield line(["---"] * 8)
    entries = [json.loads(text) for text in LIST.read_text(encoding="utf-8").splitlines()] if LIST.exists() else []
    done = {_key(entry) for entry in entries if "score" in entry}
    for entry in entries:
        if "score" not in entry and _key(entry) in done:
            continue
        how = f"mean@{entry['samples']} at {entry['temperature']:g}" if entry["temperature"] else "greedy"
        result = entry.get("score")
        shown = (
            f"{percent(result['mean'])} [{percent(result['low'])}, {percent(result['high'])}]"
            if result
            else "not finished"
        )
        when = entry.get("finished") or entry["begun"]
        yield line(
            [
                when,
                entry["run"],
                entry["stage"],
                entry["benchmark"],
                how,
                f"{entry['problems']:,}",
                shown,
                entry["revision"][:8],
            ]
        )


def _key(entry: dict[str, Any]) -> tuple[Any, ...]:
    names = ("run", "seed", "stage", "benchmark", "samples", "temperature", "problems", "revision")
    return tuple(entry.get(name) for name in names)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="a run folder")
    parser.add_argument("--stages", nargs="+", metavar="STAGE", help="default: the base and every stage that trains")
    parser.add_argument("--list", action="store_true", help="print every test run that was made")
    chosen = parser.parse_args(arguments)
    if chosen.list or chosen.run is None:
        print("\n".join(listed()))
        return
    if git_revision() and _changed():
        sys.exit(
            "error: there are uncommitted changes. The commit with the settings precedes the test run: commit first."
        )
    found = models(chosen.run)
    stages = chosen.stages or list(found)
    unknown = [name for name in stages if name not in found]
    if unknown:
        sys.exit(f"error: {chosen.run} has no model of {unknown[0]!r}. There are {', '.join(found)}.")
    last = [name for name in found if "-control-" not in name][-1]
    print(line(["stage", *(row.name for row in PROTOCOL)]))
    print(line(["---", *["---:"] * len(PROTOCOL)]))
    for stage in stages:
        ends = stage in ("base", last)
        results = [
            score(chosen.run, stage, found[stage], row) if ends or not row.ends_only else None for row in PROTOCOL
        ]
        shown = [f"{percent(r['mean'])} [{percent(r['low'])}, {percent(r['high'])}]" if r else "" for r in results]
        print(line([stage, *shown]), flush=True)


def _changed() -> bool:
    """Whether tracked files differ from the commit, the list itself aside: it is committed after the run."""
    command = ["git", "-C", str(LIST.parent), "status", "--porcelain", "--untracked-files=no", "--", ":/"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return any(not text.endswith(LIST.name) for text in lines)


if __name__ == "__main__":
    main()
