"""One set of problems by `whetstone evaluate` and by lm-evaluation-harness: each verdict that differs, and why.

    make bench-env
    python -m benchmarks verdicts_beside_lm_eval --problems 500 --json benchmarks/results/verdicts_beside_lm_eval.json
    python -m benchmarks verdicts_beside_lm_eval --problems 40 --tokens 96       # a part, in minutes

MAWPS's test problems, greedy, SmolLM2-135M-Instruct (`--model`). Both sides get the same prompt ids, which is checked, the same
stops and the same limit. `texts` says how many completions are the same. `verdicts` holds, for the harness's filters
(strict-match: the number after ####; flexible-extract: the last number), how often the two agree on the same text, and
`differences` each text on which they do not, with the reason. `on_their_texts` are our verdicts on the harness's own texts, as
`whetstone regrade` gives them. CPU seconds are of whole processes, from start to end, in turns.
"""

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from benchmarks import real_evaluate
from benchmarks._measure import hardware, own_cpu, versions, write
from benchmarks._paced import ONE_THREAD
from benchmarks._piped import installed
from benchmarks._real import model_folder, number_types, options
from benchmarks.real_evaluate import Sides, asked_alone

SHOWN = 200  # characters of the end of a text that is shown


def problems(count: int) -> list[dict[str, str]]:
    from whetstone.evaluate.problem_sets import read_problems

    return [{"question": p.question, "answer": p.answer} for p in read_problems("mawps")[:count]]


def reasons(ours: Mapping[str, Any], theirs: bool, filter_name: str) -> str:
    """Why two verdicts on one text differ, from what the filter reads and what ours says."""
    if filter_name == "strict-match" and "####" not in ours["text"]:
        return "the filter reads nothing, as the text has no ####"
    if ours["correct"]:
        return f"the text states {ours['answer']!r}, and the filter reads another number after it"
    if not ours["answer"]:
        return f"ours: {ours['reason']}; the filter takes the last number of the text all the same"
    taken = "the first number after ####" if filter_name == "strict-match" else "the last number of the text"
    return f"ours reads {ours['answer']!r} ({ours['reason']}), the filter {taken}"


def differences(ours: Sequence[Mapping[str, Any]], theirs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each text of both sides with verdicts that differ."""
    for number, row in enumerate(ours):
        for name, rows in theirs["by_filter"].items():
            other = rows[str(number)]
            if row["text"].strip() == other["text"].strip() and bool(row["correct"]) != other["correct"]:
                yield {
                    "question": row["question"], "gold": row["gold"], "text": row["text"][-SHOWN:], "filter": name,
                    "ours": bool(row["correct"]), "theirs": other["correct"], "why": reasons(row, other["correct"], name),
                }  # fmt: skip


def on_their_texts(ours: Sequence[Mapping[str, Any]], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Our verdicts on the harness's texts, beside its own."""
    from whetstone.verify import MathVerifier

    rows = next(iter(theirs["by_filter"].values()))
    with MathVerifier() as verifier:
        items = [(rows[str(i)]["text"], row["gold"], row["policy"]) for i, row in enumerate(ours)]
        verdicts = [verdict.correct is True for verdict in verifier.check_many(items)]
    table = {}
    for name, marks in theirs["by_filter"].items():
        pairs = [(mine, marks[str(i)]["correct"]) for i, mine in enumerate(verdicts)]
        counts = Counter(pairs)
        table[name] = {
            "both_right": counts[True, True], "both_wrong": counts[False, False],
            "only_ours": counts[True, False], "only_theirs": counts[False, True],
        }  # fmt: skip
    return table


def keep(ours: Sequence[Mapping[str, Any]], theirs: Mapping[str, Any], file: Path) -> None:
    """The texts of both sides with their verdicts: a row per problem."""
    columns = ("question", "gold", "policy", "text", "correct", "answer", "reason", "tokens", "stop")
    rows = (
        {name: row[name] for name in columns}
        | {"lm_eval": {name: marks[str(number)] for name, marks in theirs["by_filter"].items()}}
        for number, row in enumerate(ours)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def timed(work: Any) -> float:
    begin = own_cpu()
    work()
    return own_cpu() - begin


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, 1)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=300, help="of the longest answer")
    parser.add_argument("--python", type=Path, help="of an environment with lm_eval; default: that of make bench-env")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="the texts of both sides, as JSON lines")
    chosen = parser.parse_args(arguments)
    if chosen.python:
        real_evaluate.BACKENDS["hf"] = chosen.python
    version = installed(real_evaluate.BACKENDS["hf"], "lm_eval")
    if version is None:
        sys.exit(f"error: {real_evaluate.BACKENDS['hf']} has no lm_eval: `make bench-env` installs it.")
    os.environ.update(ONE_THREAD)
    from whetstone.run.tables import read_rows

    with tempfile.TemporaryDirectory() as aside:
        folder, model = model_folder(chosen.model, Path(aside) / "random")
        rows, dtype = problems(chosen.problems), number_types()[-1]
        sides = Sides(asked_alone(folder, Path(aside) / "model"), rows, chosen.tokens, dtype, Path(aside))
        sides.best["hf"] = min(32, len(rows))
        sides.prompts()  # raises if the harness would read other ids
        taken = {"ours": timed(sides.ours()), "lm_eval": timed(sides.theirs("hf"))}
        (ours,) = [list(read_rows(path)) for path in sides.written["ours"].iterdir() if path.is_dir()]
        theirs = sides.written["hf"]
    if chosen.keep:
        keep(ours, theirs, chosen.keep)
    found = list(differences(ours, theirs))
    result = {
        "name": "verdicts_beside_lm_eval", "model": model, "dtype": dtype,
        "settings": {"set": "mawps", "problems": len(rows), "tokens": chosen.tokens, "temperature": 0.0},
        "same_prompt_ids": len(rows), "verdicts": real_evaluate.agreement(ours, theirs),
        "on_their_texts": on_their_texts(ours, theirs), "differences_by_reason": dict(Counter(
            f"{row['filter']}: {row['why'].split(chr(39))[0]}" for row in found).most_common()),
        "differences": found, "cpu_seconds": taken,
        "versions": versions(["whetstone", "torch", "transformers"]) | {"lm_eval": version}, "hardware": hardware(),
    }  # fmt: skip
    write(result, chosen.json)
    shown = {key: value for key, value in result.items() if key not in ("differences", "hardware", "versions")}
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
