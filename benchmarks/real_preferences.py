"""Promise: a reward model of real preferences is as good as that of TRL's RewardTrainer on the same pairs, or what it lacks.

    make bench-env
    python -m benchmarks real_preferences --json benchmarks/results/real_preferences.json

People's preferences between two answers (HH, the harmless set, in WHETSTONE_DATA), SmolLM2-135M-Instruct (`--model`; a random
model of its shape without it), fp32, one thread. The pairs whose sides have at most `--longest` tokens, one of a first
question, are drawn once; a share of them is held out. Ours is a whole run of one `reward` stage. TRL has the same ids in the
same batches and the same order, learning rate, centring and clipping; its head begins at numbers of its own.

In stages, each of which is kept in `--folder`: the pairs, our run (which goes on where it was interrupted), TRL's. Printed and
filed: the accuracy on the held-out pairs with its 95 % interval, beside always taking the longer or the shorter answer,
whichever is right more often in training, and the paired differences.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._measure import hardware, versions
from benchmarks._real import in_bench_environment, model_folder
from benchmarks.seeds import interval, percent
from whetstone.measure import paired_bootstrap
from whetstone.pipeline.running import stage_for
from whetstone.problems.preferences import Preference, read_preferences
from whetstone.recipe import read_recipe
from whetstone.reward.assess import Judged, assess, by_length, longer_is_better
from whetstone.run.folder import read_json, write_json, write_text
from whetstone.run.tables import read_rows

PREFERENCES = "$WHETSTONE_DATA/hh_rlhf_harmless/test.jsonl.gz"
RUN = "real_preferences"
RATE, BATCH, CENTRING, CLIP = 3e-5, 8, 0.01, 1.0
Ids = list[int]


# --- the pairs


def distinct(pairs: Sequence[Preference]) -> list[Preference]:
    """The first pair of each first question, so that none that is held out has been trained on."""
    found: dict[str, Preference] = {}
    for pair in pairs:
        found.setdefault(next(m.content for m in pair.messages if m.role == "user"), pair)
    return list(found.values())


def ids_of(model: Path, pairs: Sequence[Preference]) -> list[tuple[Ids, Ids, int] | None]:
    """(ids of chosen and of rejected, whole; how many of them stand before the answers); None if the template refuses one."""
    from whetstone.chat import Exchange
    from whetstone.model import load_chat
    from whetstone.reward_model import answer_rows

    sides = [Exchange(pair.messages, text) for pair in pairs for text in (pair.chosen, pair.rejected)]
    rows: list[Any] = answer_rows(load_chat(model)[0], sides)
    found = zip(rows[0::2], rows[1::2], strict=True)
    return [None if isinstance(c, str) or isinstance(r, str) else (c.ids, r.ids, c.prompt) for c, r in found]


def drawn(model: Path, source: str, count: int, longest: int) -> list[dict[str, Any]]:
    """`count` pairs, or as many as there are, as rows of a preference file."""
    pairs = distinct([pair for _, pair in read_preferences(source, "hh") if not isinstance(pair, ValueError)])
    short = [
        pair
        for pair, ids in zip(pairs, ids_of(model, pairs), strict=True)
        if ids and max(len(ids[0]), len(ids[1])) <= longest
    ]
    random.Random(0).shuffle(short)
    return [
        {"prompt": [asdict(m) for m in pair.messages], "chosen": pair.chosen, "rejected": pair.rejected}
        for pair in short[:count]
    ]


# --- the two sides


def recipe(folder: Path, model: Path, share: float, longest: int) -> str:
    return f"""
[run]
name = "{RUN}"
folder = {json.dumps(str(folder))}
threads = 1

[parallel]
forks = 1
micro_batch_tokens = 2048

[model]
path = {json.dumps(str(model))}

[[stage]]
kind = "reward"
source = "files"
max_length = {longest}
held_out = {share}
batch_pairs = {BATCH}
centring = {CENTRING}
optimizer = {{ learning_rate = {RATE}, schedule = "linear", warmup = 0, clip = {CLIP} }}
checkpoint_every = 4

[[stage.preferences]]
path = {json.dumps(str(folder / "pairs.jsonl"))}
"""


def ours(folder: Path, model: Path, share: float, longest: int) -> dict[str, Any]:
    path = folder / "recipe.toml"
    path.write_text(recipe(folder, model, share, longest), encoding="utf-8")
    command = [sys.executable, "-m", "whetstone.cli", "run", str(path)]
    if status := subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        sys.exit(f"error: our run ended with status {status}; the same command goes on with it")
    stage = folder / RUN / "01-reward"
    manifest = read_json(stage / "manifest.json")
    judged = [Judged(r["problem_id"], tuple(r["rewards"]), tuple(r["lengths"])) for r in read_rows(stage / "held_out")]
    before = read_json(stage / "assessment.json")["before"]
    return {
        "judged": judged, "cpu_seconds": manifest["cpu_seconds"], "peak_memory": manifest["peak_memory"],
        "before": before["accuracy"], "pairs": manifest["summary"]["pairs"],
    }  # fmt: skip


def split(folder: Path, model: Path, held: Sequence[str]) -> tuple[list[tuple[Ids, Ids, int]], list[Any]]:
    """The pairs of the file as ids: trained on in their order, and held out in that of `held`."""
    read = list(read_preferences(str(folder / "pairs.jsonl"), folder.name))
    found = ids_of(model, [pair for _, pair in read if isinstance(pair, Preference)])
    by_name = dict(zip((name for name, _ in read), found, strict=True))
    return [ids for name, ids in by_name.items() if name not in held and ids], [by_name[name] for name in held]


def peer(folder: Path, model: Path, held: Sequence[str], seed: int) -> dict[str, Any]:
    """TRL's trainer on the ids of our pairs, in our order; the rewards of the held-out pairs, as it reads them."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed
    from trl import RewardConfig, RewardTrainer

    from whetstone.learner.order import plan_steps

    train, judged = split(folder, model, held)
    plan = plan_steps([1] * len(train), BATCH, seed, 1)
    order = [i for step in plan for i in step]
    torch.set_num_threads(1)
    began = time.process_time()
    set_seed(0)
    scored = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype="float32")

    class InOurOrder(RewardTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return order

    trainer = InOurOrder(
        model=scored,
        args=RewardConfig(
            output_dir=str(folder / "trl"), num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=RATE,
            lr_scheduler_type="linear", warmup_steps=0, weight_decay=0.0, max_grad_norm=CLIP,
            center_rewards_coefficient=CENTRING, bf16=False, use_cpu=True, gradient_checkpointing=False, report_to=[],
            save_strategy="no", logging_steps=1,
        ),
        train_dataset=Dataset.from_dict({"chosen_ids": [c for c, _, _ in train], "rejected_ids": [r for _, r, _ in train]}),
        processing_class=AutoTokenizer.from_pretrained(model),
    )  # fmt: skip
    trainer.train()
    scored.eval()
    rewards = [value for chosen, rejected, _ in judged for value in _values(trainer, [chosen, rejected])]
    return {
        "rewards": list(zip(rewards[0::2], rewards[1::2], strict=True)),
        "cpu_seconds": time.process_time() - began,
        "log": [row for row in trainer.state.log_history if "loss" in row],
    }


def _values(trainer: Any, sides: Sequence[Ids]) -> list[float]:
    import torch

    batch = trainer.data_collator([{"chosen_ids": sides[0], "rejected_ids": sides[1]}])
    with torch.no_grad():
        return [float(value) for value in trainer.model(**batch).logits[:, 0]]


# --- the result


def figures(sides: Mapping[str, Sequence[Judged]], prefer_longer: bool) -> dict[str, Any]:
    """Each side's assessment, and paired differences between the sides and to the length alone."""
    marks = {
        name: [{"problem_id": one.problem_id, "correct": one.correct} for one in rows] for name, rows in sides.items()
    }
    length_alone = [by_length(one, prefer_longer) for one in next(iter(sides.values()))]
    marks["length"] = [{"problem_id": one.problem_id, "correct": one.correct} for one in length_alone]
    names = list(marks)
    return {
        "sides": {name: assess(rows, prefer_longer) for name, rows in sides.items()},
        "differences": {
            f"{a} - {b}": paired_bootstrap(marks[a], marks[b]) for i, a in enumerate(names) for b in names[i + 1 :]
        },
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    length = next(iter(found["sides"].values()))["length_only"]
    for name, accuracy in [*((n, s["accuracy"]) for n, s in found["sides"].items()), ("length alone", length)]:
        yield f"{name:14}{percent(accuracy['mean'])} [{percent(accuracy['low'])}, {percent(accuracy['high'])}]"
    yield from (f"{name:14}{interval(difference)}" for name, difference in found["differences"].items())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the numbers here")
    parser.add_argument("--model", type=Path, metavar="FOLDER")
    parser.add_argument("--folder", type=Path, default=Path("runs") / RUN, help="where each stage is kept")
    parser.add_argument("--preferences", default=PREFERENCES, help="a preference file")
    parser.add_argument("--pairs", type=int, default=360, help="of which a share is held out")
    parser.add_argument("--held-out", type=float, default=0.6, help="this share")
    parser.add_argument("--longest", type=int, default=96, help="tokens of a side")
    parser.add_argument("--without-trl", action="store_true", help="ours and the length alone")
    chosen = parser.parse_args(arguments)
    if not chosen.without_trl:
        in_bench_environment(RUN)
    folder = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    path, model = model_folder(chosen.model, folder / "random")
    model_path = path.resolve()
    if not (folder / "pairs.jsonl").exists():
        rows = drawn(model_path, chosen.preferences, chosen.pairs, chosen.longest)
        write_text(folder / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    own = ours(folder, model_path, chosen.held_out, chosen.longest)
    held = [one.problem_id for one in own["judged"]]
    train, _ = split(folder, model_path, held)
    prefer_longer = longer_is_better([(len(c), len(r)) for c, r, _ in train])
    sides, facts = {"ours": own["judged"]}, {}
    if not chosen.without_trl:
        kept = folder / "trl.json"
        if not kept.exists():
            recipe_of_ours = read_recipe(folder / "recipe.toml")
            seed = stage_for(recipe_of_ours, recipe_of_ours.stage("reward")).seed  # which orders the pairs
            write_json(kept, peer(folder, model_path, held, seed))
        trl = read_json(kept)
        sides["TRL"] = [
            Judged(one.problem_id, tuple(rewards), one.lengths)
            for one, rewards in zip(own["judged"], trl["rewards"], strict=True)
        ]
        facts = {"trl_cpu_seconds": trl["cpu_seconds"]}
    found = figures(sides, prefer_longer)
    print("\n".join(lines(found)))
    print(f"CPU s: ours {own['cpu_seconds']:.0f}" + "".join(f", TRL {s:.0f}" for s in facts.values()))
    if chosen.json:
        packages = ("torch", "transformers") + (() if chosen.without_trl else ("trl",))
        facts |= {"name": RUN, "date": date.today().isoformat(), "hardware": hardware(), "versions": versions(packages)}
        facts |= {"model": model, "trained_pairs": own["pairs"], "longest": chosen.longest, "learning_rate": RATE}
        facts |= {"before": own["before"], "cpu_seconds": own["cpu_seconds"], "peak_memory": own["peak_memory"]}
        write_text(chosen.json, json.dumps(facts | found, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
