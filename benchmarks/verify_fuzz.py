"""Promise: of 20,000 made-up pairs of known truth no different one is accepted, and 99 % of the equal ones are.

    python -m benchmarks verify_fuzz --json benchmarks/results/verify_fuzz.json

`_answer_grammar` makes the pairs, in which truth follows from the construction. math-verify is asked about the same pairs, with
the reference in dollar signs; it has no policy for choices, so those are left out for it.
"""

import argparse
import logging
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._answer_grammar import Pair, pairs
from benchmarks._measure import hardware, versions, write
from benchmarks.verify_agreement import peer_says
from whetstone.verify import MathVerifier

PAIRS, SEED = 20_000, 2026
LEAST_EQUAL = 0.99
SHOWN = 20


def outcome(equal: bool, verdict: bool | None) -> str:
    if verdict is None:
        return "undecided"
    return "right" if verdict is equal else "false accept" if verdict else "refused"


def rates(counts: Counter) -> dict[str, Any]:
    equal = sum(number for (truth, _), number in counts.items() if truth)
    different = sum(number for (truth, _), number in counts.items() if not truth)
    return {
        "equal": equal,
        "equal accepted": counts[True, "right"],
        "different": different,
        "different accepted": counts[False, "false accept"],
        "undecided": counts[True, "undecided"] + counts[False, "undecided"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--peer-every", type=int, default=1, metavar="N", help="it takes forty milliseconds for a pair")
    chosen = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)  # math-verify logs each text that it cannot read
    warnings.filterwarnings("ignore")
    ours: Counter = Counter()
    peer: Counter = Counter()
    by_production: dict[str, Counter] = defaultdict(Counter)
    wrong: list[tuple[str, Pair]] = []
    with MathVerifier(deadline=10.0) as verifier:
        for number, (production, pair) in enumerate(pairs(chosen.pairs, chosen.seed)):
            found = outcome(pair.equal, verifier.check(pair.answer, pair.gold, pair.policy).correct)
            ours[pair.equal, found] += 1
            by_production[production.make.__name__][found] += 1
            if found != "right":
                wrong.append((found, pair))
            if number % chosen.peer_every == 0 and pair.policy != "choice":
                peer[pair.equal, outcome(pair.equal, peer_says(pair.answer, f"${pair.gold}$"))] += 1
    result: dict[str, Any] = {
        "name": "verify_fuzz",
        "seed": chosen.seed,
        "ours": rates(ours),
        "math_verify": rates(peer),
    }
    for side in ("ours", "math_verify"):
        print(f"{side:12} " + ", ".join(f"{name} {number:,}" for name, number in result[side].items()))
    for found, pair in wrong[:SHOWN]:
        print(f"{found}: {pair.answer[-90:]} | {pair.gold}")
    result |= {"productions": by_production, "wrong": [[found, *pair] for found, pair in wrong]}
    write(result | {"versions": versions(["whetstone", "math-verify", "sympy"]), "hardware": hardware()}, chosen.json)
    if result["ours"]["different accepted"] or ours[True, "right"] < LEAST_EQUAL * result["ours"]["equal"]:
        sys.exit("error: a different answer was accepted, or fewer than 99 % of the equal ones were.")


if __name__ == "__main__":
    main()
