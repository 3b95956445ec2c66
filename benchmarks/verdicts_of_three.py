"""The same texts graded by ours, by lm-evaluation-harness and by lighteval: how often they agree, and each reason why not.

    make bench-env
    python -m benchmarks verdicts_beside_lm_eval --problems 500 --keep runs/mawps.jsonl
    python -m benchmarks verdicts_of_three --generations runs/mawps.jsonl --json benchmarks/results/verdicts_of_three.json

Texts are the generations in the files named, each a group of its own, and the labelled answers of WHETSTONE_DATA (at most
`--labelled N` of each group, drawn at random with seed 0; 0 leaves them out). The other two run their own metric code, each in
its own environment. The metrics of their GSM8K tasks are asked only about groups whose references are all numbers. A group
without labels says how many texts each grader calls right; of one with labels, false positives are wrong answers that it calls
right. `differences` counts the texts that ours and another judge differently, by reason, with `--shown` of each reason.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._labelled import PLAIN, SETS, data
from benchmarks._measure import hardware, own_cpu, versions, write
from benchmarks._piped import VLLM, installed
from whetstone.verify import MathVerifier

PEER = Path(__file__).with_name("_grader_peer.py")
LIGHTEVAL = Path(".venv-lighteval/bin/python")
END = 160  # characters of the end of a text that is shown


@dataclass(frozen=True)
class Row:
    """A text with its reference, as each side gets it: labelled answers without a sentence get dollar signs for the peers."""

    text: str
    gold: str
    policy: str
    label: bool | None
    peer_text: str


Groups = dict[str, list[Row]]
Verdicts = list[tuple[bool, str]]  # whether it is right, and what was read as the answer


def generations(file: Path) -> list[Row]:
    """What `verdicts_beside_lm_eval --keep` wrote: the harness's own texts, with the reference that both had."""
    rows = map(json.loads, file.read_text().splitlines())
    return [Row(row["text"], row["gold"], row["policy"], None, row["text"]) for row in rows]


def labelled(most: int) -> Groups:
    groups: Groups = defaultdict(list)
    for each in SETS:
        for row in each(data()):
            groups[row.group.replace(",", "")].append(Row(row.text, row.gold, row.policy, row.label, row.peer_text))
    return {
        name: random.Random(0).sample(rows, most) if len(rows) > most else rows for name, rows in groups.items() if most
    }


def numbers_only(rows: Sequence[Row]) -> bool:
    return all(PLAIN.fullmatch(row.gold.replace(",", "")) for row in rows)


def by_us(rows: Sequence[Row]) -> tuple[Verdicts, float]:
    begin = own_cpu()
    with MathVerifier() as verifier:
        verdicts = verifier.check_many([(row.text, row.gold, row.policy) for row in rows])
        found = [(verdict.correct is True, verdict.answer or f"nothing ({verdict.reason})") for verdict in verdicts]
    return found, own_cpu() - begin


def by_peer(python: Path, harness: str, rows: Sequence[Row]) -> tuple[dict[str, Verdicts], dict[str, float]]:
    """Its metrics' verdicts, and CPU seconds by metric. Raises RuntimeError with the end of its output if it fails."""
    with tempfile.TemporaryDirectory() as aside:
        given, out = Path(aside) / "rows.jsonl", Path(aside) / "out.json"
        given.write_text("".join(json.dumps({"text": row.peer_text, "gold": row.gold}) + "\n" for row in rows))
        command = [str(python), str(PEER), harness, str(given), str(out)]
        ended = subprocess.run(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"{harness} ended with status {ended.returncode}:\n{ended.stderr[-2000:]}")
        told = json.loads(out.read_text())
    return {name: [tuple(one) for one in marks] for name, marks in told["metrics"].items()}, told["cpu_s"]


def reason(ours: tuple[bool, str], theirs: tuple[bool, str]) -> str:
    """Why two verdicts on one text differ, by what each side read."""
    if ours[1].startswith("nothing"):
        return "ours reads no stated answer; the other takes a number or formula from the text all the same"
    if theirs[1] == "?":
        return "the other does not say what it read"
    if theirs[1] in ("", "[invalid]"):
        return "the other reads nothing"
    if theirs[1].startswith("error"):
        return f"the other ends with an {theirs[1]}"
    side = "right" if ours[0] else "wrong"
    return f"both read an answer, and ours calls its own {side}"


def rates(verdicts: Sequence[tuple[bool, str]], rows: Sequence[Row]) -> dict[str, int]:
    marked = [(mark, row.label) for (mark, _), row in zip(verdicts, rows, strict=True)]
    told = {"right": sum(mark for mark, _ in marked)}
    if any(label is not None for _, label in marked):
        told["false_positives"] = sum(mark and label is False for mark, label in marked)
        told["false_negatives"] = sum(not mark and label is True for mark, label in marked)
    return told


def differences(rows: Sequence[Row], ours: Verdicts, theirs: Verdicts, shown: int) -> dict[str, Any]:
    """By reason: how many, on how many of them the label sides with ours, and the first few."""
    found: dict[str, dict[str, Any]] = {}
    for row, mine, other in zip(rows, ours, theirs, strict=True):
        if mine[0] != other[0]:
            group = found.setdefault(reason(mine, other), {"texts": 0, "label_is_ours": 0, "shown": []})
            group["texts"] += 1
            group["label_is_ours"] += row.label is mine[0]
            if len(group["shown"]) < shown:
                group["shown"].append(
                    {
                        "end": row.text[-END:], "gold": row.gold, "label": row.label,
                        "ours": list(mine), "theirs": list(other),
                    }
                )  # fmt: skip
    return found


def table(rows: Sequence[Row], ours: Verdicts, theirs: Mapping[str, Verdicts], shown: int) -> dict[str, Any]:
    """One group, by grader."""
    known = [row.label for row in rows if row.label is not None]
    told: dict[str, Any] = {"texts": len(rows)}
    told |= {"labelled_right": sum(known), "labelled_wrong": len(known) - sum(known)} if known else {}
    graders: dict[str, Any] = {"ours": rates(ours, rows)}
    for name, marks in theirs.items():
        same = sum(a[0] == b[0] for a, b in zip(ours, marks, strict=True))
        graders[name] = rates(marks, rows) | {"as_ours": same, "differences": differences(rows, ours, marks, shown)}
    return told | {"graders": graders}


def slices(groups: Mapping[str, Sequence[Row]]) -> Iterator[tuple[str, Sequence[Row], slice]]:
    start = 0
    for name, rows in groups.items():
        yield name, rows, slice(start, start + len(rows))
        start += len(rows)


def graded(groups: Groups, peers: Mapping[str, Path], shown: int) -> dict[str, Any]:
    """Each grader gets all texts at once, so that none is started more than once."""
    rows = [row for group in groups.values() for row in group]
    ours, taken = by_us(rows)
    theirs: dict[str, Verdicts] = {}
    seconds = {"ours": taken}
    for harness, python in peers.items():
        verdicts, cpu = by_peer(python, harness, rows)
        theirs |= verdicts
        seconds |= cpu
    tables = {}
    for name, group, part in slices(groups):
        asked = {
            metric: marks[part] for metric, marks in theirs.items() if "gsm8k" not in metric or numbers_only(group)
        }
        tables[name] = table(group, ours[part], asked, shown)
    return {"groups": tables, "texts": len(rows), "cpu_seconds": seconds}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--labelled", type=int, default=500, metavar="N", help="of each labelled group at most")
    parser.add_argument("--shown", type=int, default=3, help="texts of each reason that are kept")
    parser.add_argument("--lm-eval", type=Path, default=VLLM, metavar="PYTHON")
    parser.add_argument("--lighteval", type=Path, default=LIGHTEVAL, metavar="PYTHON")
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(arguments)
    peers = {"lm_eval": chosen.lm_eval, "lighteval": chosen.lighteval}
    found = {harness: installed(python, harness) for harness, python in peers.items()}
    if missing := [f"{peers[harness]} has no {harness}" for harness, version in found.items() if version is None]:
        sys.exit(f"error: {'; '.join(missing)}: `make bench-env` installs them.")
    groups = {file.stem: generations(file) for file in chosen.generations} | labelled(chosen.labelled)
    result = {"name": "verdicts_of_three"} | graded(groups, peers, chosen.shown)
    result |= {"versions": versions(["whetstone", "math-verify", "sympy"]) | found, "hardware": hardware()}
    write(result | {"date": date.today().isoformat()}, chosen.json)
    for name, told in result["groups"].items():
        print(
            f"\n{name}: {told['texts']} texts"
            + (f", {told['labelled_right']} right" if "labelled_right" in told else "")
        )
        for grader, numbers in told["graders"].items():
            print(f"  {grader:36}", {key: value for key, value in numbers.items() if key != "differences"})
    print("\nCPU seconds:", {name: round(value, 1) for name, value in result["cpu_seconds"].items()})


if __name__ == "__main__":
    main()
