"""Scoring a pretrained model on GSM8K from command to verdicts: `whetstone evaluate` beside lm-evaluation-harness.

    make bench-env
    python -m benchmarks real_evaluate --json benchmarks/results/real_evaluate.json
    python -m benchmarks real_evaluate --problems 8 --tokens 48 --repeats 1         # a part, in minutes

The first 100 problems of GSM8K's test set, greedy, at most 300 tokens, SmolLM2-135M-Instruct (`--model`; a random model of its
shape without it). Each side is a process of its own in each repeat: start, loading, prompts, decoding, verdicts; the rate is
problems per CPU second of all that, and the CPU seconds of a start (one problem, one token) are told beside it. The
harness gets the ids that ours asks with (the question alone, in the template), the same stops and the same limit; its
backends are transformers (the fastest of batches 8, 32 and 64 in a trial of few tokens) and vLLM's CPU build. One thread each,
ours a process for each core from 64 problems on. In bfloat16 where the CPU multiplies it faster than float32, else in float32.

Verdicts are compared: how many completions are the same text, and on those how often our verifier and the harness's two
filters (a number after ####; any last number) agree.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from benchmarks._measure import Work, beside, in_turns, own_cpu
from benchmarks._paced import ONE_THREAD
from benchmarks._piped import BENCH, VLLM, installed
from benchmarks._real import Cases, model_folder, number_types, options, problems, wanted

PROBLEMS = 100
TOKENS = 300
TRIAL_TOKENS = 32
BATCHES = (8, 32, 64)
REPEATS = 3
BACKENDS = {"hf": BENCH, "vllm": VLLM}
OURS = "from whetstone.cli import main; main()"
PEER = Path(__file__).with_name("_lm_eval_peer.py")


def command(words: Sequence[str]) -> None:
    """Raises RuntimeError with the end of its output if it fails."""
    more = {
        "VLLM_CPU_OMP_THREADS_BIND": str(min(os.sched_getaffinity(0))), "VLLM_CPU_KVCACHE_SPACE": "4",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING", "HF_DATASETS_OFFLINE": "1",
    }  # fmt: skip
    ended = subprocess.run(words, env=os.environ | ONE_THREAD | more, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(words[:6])} … ended with status {ended.returncode}:\n{ended.stderr[-2000:]}")


class Sides:
    """The commands of both sides over the same problems, and what the last of each wrote."""

    def __init__(self, folder: Path, rows: Sequence[Mapping[str, str]], tokens: int, dtype: str, aside: Path):
        self.folder, self.rows, self.tokens, self.dtype, self.aside = folder, list(rows), tokens, dtype, aside
        self.runs = 0
        self.best: dict[str, int] = {}
        self.written: dict[str, Any] = {}

    def ours(self) -> Work:
        given, out = self.new("problems.jsonl"), self.new("scores")
        given.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        words = [sys.executable, "-c", OURS, "evaluate", "--model", self.folder, "--benchmark", given]
        words += ["--temperature", "0", "--max-tokens", self.tokens, "--output", out]

        def work() -> int:
            command(list(map(str, words)))
            self.written["ours"] = out
            return len(self.rows)

        return work

    def theirs(self, backend: str) -> Work:
        out = self.new("out.json")
        words = self.peer_words(backend, self.best.get(backend, 1), self.tokens, out)

        def work() -> int:
            command(words)
            self.written[backend] = json.loads(out.read_text())
            return len(self.rows)

        return work

    def peer_words(self, backend: str, batch: int, tokens: int, out: Path) -> list[str]:
        given, work = self.new("prompts.jsonl"), self.new("work.json")
        prompts, stops = self.prompts()
        asked = zip(prompts, self.rows, strict=True)
        given.write_text("".join(json.dumps({"prompt": p, "answer": row["answer"]}) + "\n" for p, row in asked))
        work.write_text(
            json.dumps({"rows": str(given), "stops": stops, "max_tokens": tokens, "batches": self.batches()})
        )
        python = str(BACKENDS[backend])
        return [python, str(PEER), backend, str(self.folder), self.dtype, str(batch), str(work), str(out)]

    def batches(self) -> list[int]:
        """A batch that holds all problems is as good as a larger one."""
        return [size for i, size in enumerate(BATCHES) if not i or BATCHES[i - 1] < len(self.rows)]

    def choose_batch(self, backend: str) -> dict[str, float]:
        """Sets the batch for the harness's transformers backend: the fastest in a trial. CPU seconds by batch."""
        out = self.new("trial.json")
        command([*self.peer_words(backend, 1, TRIAL_TOKENS, out), "trial"])
        taken = json.loads(out.read_text())
        self.best[backend] = int(min(taken, key=taken.__getitem__))
        return taken

    def prompts(self) -> tuple[list[str], list[str]]:
        """The texts of our prompts, of which the peer makes the same ids, and the texts of our stops."""
        from whetstone.model import load_chat

        chat, _ = load_chat(self.folder)
        tokenizer, texts = chat.tokenizer, []
        for row in self.rows:
            ids = chat.question_ids(row["question"])
            texts.append(tokenizer.decode(ids))
            if tokenizer(texts[-1])["input_ids"] != ids:
                raise ValueError(f"the harness would read another prompt than ours of {row['question'][:60]!r}.")
        return texts, [tokenizer.decode([i]) for i in chat.stops]

    def new(self, name: str) -> Path:
        self.runs += 1
        return self.aside / f"{self.runs}-{name}"


def asked_alone(folder: Path, aside: Path) -> Path:
    """The same model, of which its prompt.json says that it is asked the question alone: so is the harness's."""
    aside.mkdir()
    for path in folder.iterdir():
        if path.name != "prompt.json":
            (aside / path.name).symlink_to(path.absolute())
    bare = {"system": "", "before": "", "after": "", "examples": [], "thinking": None}
    (aside / "prompt.json").write_text(json.dumps(bare))
    return aside


def agreement(ours: Sequence[Mapping[str, Any]], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Completions with the same text, verdicts on them, and how many each side calls right."""
    told: dict[str, Any] = {"problems": len(ours), "right_ours": sum(bool(row["correct"]) for row in ours)}
    for name, rows in theirs["by_filter"].items():
        pairs = [(row, rows[str(i)]) for i, row in enumerate(ours)]
        same = [(a, b) for a, b in pairs if a["text"].strip() == b["text"].strip()]
        told |= {
            "same_text": len(same),
            f"right_{name}": sum(b["correct"] for _, b in pairs),
            f"same_verdict_on_same_text_{name}": sum(bool(a["correct"]) == b["correct"] for a, b in same),
        }
    return told


def measure(sides: Sides, backends: Sequence[str], chosen: Any, cases: Cases, settings: Mapping[str, Any]) -> None:
    trial = {name: sides.choose_batch(name) for name in backends if name == "hf"}
    starts = start_seconds(sides, backends)
    turns: dict[str, Callable[[], Work]] = {"ours": sides.ours}
    turns |= {name: lambda name=name: sides.theirs(name) for name in backends}
    rates = in_turns(turns, chosen.repeats)
    from whetstone.run.tables import read_rows

    (rows,) = [list(read_rows(path)) for path in sides.written["ours"].iterdir() if path.is_dir()]
    for name in backends:
        row = beside(case_name(sides.dtype, name), "problems", rates["ours"], rates[name])
        more = {"start_cpu_s": {"ours": starts["ours"], "peer": starts[name]}}
        more |= {"our_mean_tokens": sum(row["tokens"] for row in rows) / len(rows)}
        more |= {"peer_batch": sides.best[name], "peer_trial_cpu_s": trial[name]} if name in trial else {}
        cases.add(row, settings, chosen.repeats, verdicts=agreement(rows, sides.written[name]), **more)


def start_seconds(sides: Sides, backends: Sequence[str]) -> dict[str, float]:
    """CPU seconds of one problem with one token, which is the start."""
    one = Sides(sides.folder, sides.rows[:1], 1, sides.dtype, sides.aside / "start")
    one.aside.mkdir()
    taken = {}
    for name in ("ours", *backends):
        work = one.ours() if name == "ours" else one.theirs(name)
        begin = own_cpu()
        work()
        taken[name] = own_cpu() - begin
    return taken


def case_name(dtype: str, backend: str) -> str:
    return f"GSM8K, lm-eval {backend} {dtype}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, REPEATS)
    parser.add_argument("--problems", type=int, default=PROBLEMS)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of the longest answer")
    chosen = parser.parse_args(arguments)
    os.environ.update(ONE_THREAD)
    settings = {"problems": chosen.problems, "tokens": chosen.tokens}
    asked = wanted(chosen.only)
    with tempfile.TemporaryDirectory() as aside:
        folder, model = model_folder(chosen.model, Path(aside) / "random")
        cases = Cases("real_evaluate", chosen.json, model, ["whetstone", "torch", "transformers"], chosen.again)
        dtype = number_types()[-1]
        backends = []
        for name, python in BACKENDS.items():
            version = installed(python, "lm_eval")
            if version is None:
                cases.missing(f"lm-eval {name}", f"{python} has no lm_eval: `make bench-env` installs it")
                continue
            cases.result["versions"]["lm_eval"] = version
            case = case_name(dtype, name)
            if asked(case) and not cases.has(case, settings):
                backends.append(name)
        rows = [
            {"question": row["question"], "answer": row["answer"].rpartition("#### ")[2].replace(",", "")}
            for row in problems(chosen.problems)
        ]
        if backends:
            model_asked = asked_alone(folder, Path(aside) / "model")
            measure(Sides(model_asked, rows, chosen.tokens, dtype, Path(aside)), backends, chosen, cases, settings)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
