"""Training and decoding by this checkout and by an earlier revision, in turns: what became faster, and what slower.

    python -m benchmarks revisions ae52bd5 --json FILE
    python -m benchmarks revisions ae52bd5 --avx2 --json benchmarks/results/revisions_avx2.json

`peer` is the earlier revision, in a folder of its own and with the same packages. One thread, fp32, tokens per CPU
second. Models: a Qwen 2 of 0.6 million parameters and one of 5 million with random weights, and SmolLM2-135M (`--model`; a
random model of its shape without it). Training is gradient and step over ragged rows; decoding is several answers to one
prompt.

`--avx2` measures on a processor with AVX-512 what one without it does: numba, oneDNN and torch are told to use AVX2, and
Whetstone that there is no more. The BLAS of torch chooses by itself, for both revisions alike.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _ragged as ragged
from benchmarks._measure import Case, Work, compare, rates, write
from benchmarks._paced import ONE_THREAD
from benchmarks._piped import Piped
from benchmarks._real import model_folder
from benchmarks.house import ROOT, at_revision

WORKER = Path(__file__).with_name("_revision.py")
AVX2 = {
    "NUMBA_CPU_NAME": "znver3", "NUMBA_CPU_FEATURES": "", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
    "WHETSTONE_WITHOUT_AVX512": "1",  # read by the worker
}  # fmt: skip
SMALL = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 384}
TRAINED = {"0.6 M": 16, "5 M": 8, "135 M": 2}  # rows of a repeat
DECODED = (("0.6 M", 1), ("0.6 M", 64), ("5 M", 1), ("5 M", 32), ("135 M", 1), ("135 M", 32))  # model, sequences
STEPS = {"0.6 M": 100, "5 M": 50, "135 M": 8}  # of decoding in a repeat


def started(tree: Path, models: dict[str, Path], environment: dict[str, str], cache: Path) -> Piped:
    """A process with the code of `tree`, and these models loaded. Compiled kernels are kept apart from the user's."""
    own = {"PYTHONPATH": str(tree), "NUMBA_CACHE_DIR": str(cache)}
    named = [f"{name}={folder.resolve()}" for name, folder in models.items()]
    return Piped([sys.executable, str(WORKER), *named], ONE_THREAD | environment | own)


def asked(one: Piped, work: dict[str, Any]) -> Callable[[], Work]:
    return lambda: lambda: one.ask(work)["tokens"]


def works(models: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, rows in TRAINED.items():
        if name in models:
            yield f"training, {name}", {"do": "train", "model": name, "rows": rows}
    for name, batch in DECODED:
        if name in models:
            yield (
                f"decoding, {name}, batch {batch}",
                {"do": "decode", "model": name, "batch": batch, "steps": STEPS[name]},
            )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="the earlier one, by any name that git knows")
    parser.add_argument("--avx2", action="store_true", help="as on a processor without AVX-512")
    parser.add_argument("--model", type=Path, help="SmolLM2's folder")
    parser.add_argument("--without", nargs="*", default=[], metavar="MODEL", help=f"of {', '.join(TRAINED)}")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        make = {
            "0.6 M": lambda: ragged.write_folder(folder / "small", **SMALL, num_key_value_heads=2),
            "5 M": lambda: ragged.write_folder(folder / "ragged"),
            "135 M": lambda: model_folder(chosen.model, folder / "large")[0],
        }
        models = {name: make[name]() for name in make if name not in chosen.without}
        earlier = at_revision(chosen.revision, folder / "earlier")
        environment = AVX2 if chosen.avx2 else {}
        ours = started(ROOT, models, environment, folder / "kernels now")
        peer = started(earlier, models, environment, folder / "kernels then")
        try:
            cases = [Case(name, "tokens", asked(ours, work), asked(peer, work)) for name, work in works(list(models))]
            for case in cases:  # kernels are compiled, caches filled
                for side in (case.ours, case.peer):
                    rates(side())
            result = compare("revisions", cases, chosen.repeats, ["whetstone", "torch", "transformers", "numba"])
        finally:
            ours.close()
            peer.close()
    write(result | {"peer": chosen.revision, "avx2_only": chosen.avx2}, chosen.json)


if __name__ == "__main__":
    main()
