"""A run folder as `whetstone run` leaves it, with made-up but lifelike numbers, written in a second."""

import json
import math
import random
import struct
from pathlib import Path
from typing import Any

from whetstone.run.control import reading
from whetstone.run.folder import write_json
from whetstone.run.tables import write_rows

SKILL = {
    "base": 0.0,
    "midtrain": 0.52,
    "sft": 0.61,
    "dpo": 0.72,
    "rl": 0.86,
    "more_midtrain": 0.55,
    "sft_on_chosen": 0.66,
    "midtrain-control-prompt": 0.06,
    "sft-control-midtraining": 0.54,
    "rl-control-random_reward": 0.73,
}
START = {"sft": "midtrain", "dpo": "sft", "rl": "dpo", "more_midtrain": "midtrain", "sft_on_chosen": "sft"}
START |= {"sft-control-midtraining": "midtrain", "rl-control-random_reward": "dpo"}
CONTROLS = [
    (4, "midtrain-control-prompt", "choose_prompt", "midtrain", "prompt"),
    (5, "sft-control-midtraining", "midtrain", "sft", "midtraining"),
    (7, "rl-control-random_reward", "rl", "rl", "random_reward"),
]
STAGES = [
    ("questions", "questions"),
    ("rollouts", "rollouts"),
    ("corpus", "corpus"),
    ("midtrain", "midtrain"),
    ("sft", "sft"),
    ("dpo", "dpo"),
    ("rl", "rl"),
    ("more_midtrain", "midtrain"),
    ("sft_on_chosen", "sft"),
    ("evaluate", "evaluate"),
]
BENCHMARKS = ("three_operations", "four_operations")
SAMPLES, PROBLEMS = 8, 60


def make(folder: Path) -> Path:
    """Write the run folder `folder` and return it."""
    rng = random.Random(0)
    for number, (name, kind) in enumerate(STAGES, start=1):
        _stage(folder / f"{number:02d}-{name}", number, name, kind, rng)
    for number, name, kind, of, control in CONTROLS:
        _stage(folder / f"{number:02d}-{name}", number, name, kind, rng, control=control, control_of=of)
    write_json(folder / "04-midtrain-control-prompt" / "prompt" / "choice.json", CHOICE)
    of = {name: stage for _, name, _, stage, _ in CONTROLS}
    scores = []
    for name in SKILL:
        for benchmark in BENCHMARKS:
            scores.append(_generations(folder / "scores" / name / benchmark, name, benchmark, rng))
        used = {"wall_seconds": 12.5, "cpu_seconds": 20.1, "peak_memory": 900_000_000}
        write_json(folder / "scores" / name / "manifest.json", {"scores": scores[-len(BENCHMARKS) :], **used})
    scores = [score | ({"problems": 40} if score["stage"] in of else {}) for score in scores]
    scores = [score | (_beside(of[score["stage"]], score, scores) if score["stage"] in of else {}) for score in scores]
    write_json(folder / "scores.json", {"scores": scores})
    write_json(
        folder / "run.json",
        {
            "name": folder.name,
            "recipe_file": "recipes/tiny.toml",
            "recipe": {"run": {"seed": 0}, "notes": ["note: dpo gets no control midtraining: made up."]},
            "hardware": {"cpu": "Example CPU 2.4 GHz", "cores": 2, "memory": 8 << 30, "system": "Linux-6.1-x86_64"},
            "versions": {"whetstone": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
            "history": [{"threads": 2, "matmul_gflops": {"before": 61.2, "after": 58.9}}],
        },
    )
    write_rows(folder / "07-rl" / "rollouts", _rl_rollouts())
    _comparisons(folder, {(s["stage"], s["benchmark"]): s["mean"] for s in scores})
    return folder


def _beside(of: str, score: dict[str, Any], scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a control: intervals that exclude 0 on the headline problem set, and include it on the other."""
    found = {}
    beside = {"stage_minus_control": of} | ({"last_minus_control": "rl"} if of == "midtrain" else {})
    for key, stage in beside.items():
        ours = next(s["mean"] for s in scores if s["stage"] == stage and s["benchmark"] == score["benchmark"])
        difference, half = ours - score["mean"], 0.02 if score["main"] else 0.5
        numbers = {"difference": difference, "low": difference - half, "high": difference + half, "problems": 40}
        found[key] = {"stage": stage, **numbers, "reading": reading(numbers["low"], numbers["high"])}
    return {"control_of": of, **found}


def _stage(folder: Path, number: int, name: str, kind: str, rng: random.Random, **control: str) -> None:
    inputs = {"model": {"stage": START[name], "artifact": "model", "hash": "0"}} if name in START else {}
    if kind in METRICS:
        folder.mkdir(parents=True)
        steps = {"midtrain": 900, "sft": 120, "dpo": 60, "rl": 90}[kind]
        lines = [json.dumps({"step": step} | METRICS[kind](step / steps, step, rng)) for step in range(1, steps + 1)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        _model(folder / "model")
    if kind == "corpus":
        write_json(folder / "card.json", CARD)
    write_json(
        folder / "manifest.json",
        {
            "name": name,
            "number": number,
            **control,
            "kind": kind,
            "settings": {"learning_rate": 0.004, "batch_tokens": 4096} if kind in METRICS else {"samples": 8},
            "inputs": inputs,
            "outputs": {"model": "0"} if kind in METRICS else {},
            "summary": {"chosen": 1} if kind == "choose_prompt" else {},
            "versions": {"torch": "2.13.0"},
            "python": "3.11.9",
            "git_revision": "0123456789abcdef0123456789abcdef01234567",
            "wall_seconds": {"midtrain": 171.0, "rl": 94.2}.get(kind, 21.5),
            "cpu_seconds": {"midtrain": 320.4, "rl": 180.9}.get(kind, 30.2),
            "peak_memory": 1_350_000_000 if kind in METRICS else 210_000_000,
            "finished": "2026-01-05T10:20:30.123+00:00",
        },
    )


def _midtrain(t: float, step: int, rng: random.Random) -> dict[str, Any]:
    loss = 0.31 + 2.9 * math.exp(-9 * t) + rng.gauss(0, 0.02)
    row = {"loss": loss, "learning_rate": 0.004 * min(1, 10 * t) * (1 - 0.9 * t), "tokens": 4096 * step}
    return row | ({"validation_loss": loss + 0.01} if step % 50 == 0 else {})


def _dpo(t: float, step: int, rng: random.Random) -> dict[str, Any]:
    return {
        "loss": 0.69 - 0.2 * t + rng.gauss(0, 0.02),
        "accuracy": 0.5 + 0.35 * t + rng.gauss(0, 0.04),
        "margin": 1.4 * t + rng.gauss(0, 0.08),
        "chosen_reward": 0.4 * t + rng.gauss(0, 0.05),
        "rejected_reward": -1.0 * t + rng.gauss(0, 0.05),
        "chosen_logprob": -0.09 + 0.01 * t + rng.gauss(0, 0.002),
        "rejected_logprob": -0.14 - 0.05 * t + rng.gauss(0, 0.002),
    }


def _rl(t: float, step: int, rng: random.Random) -> dict[str, Any]:
    accuracy = 0.28 + 0.4 * t + rng.gauss(0, 0.05)
    return {
        "accuracy": accuracy,
        "reward": 2 * accuracy - 1,
        "entropy": 0.35 * math.exp(-2 * t) + 0.05 + rng.gauss(0, 0.01),
        "response_length": 150 + 20 * t + rng.gauss(0, 4),
        "truncated": max(0.0, 0.06 - 0.05 * t + rng.gauss(0, 0.01)),
        "temperature": 1 - 0.4 * min(1, 2 * t),
        "kept_groups": 0.85 - 0.2 * t + rng.gauss(0, 0.03),
        "kept_rollouts": 0.55 - 0.2 * t + rng.gauss(0, 0.03),
        "sampler_gap": abs(rng.gauss(0, 2e-5)),
        "gradient_norm": 0.5 + rng.random() if step != 40 else math.inf,
    }


METRICS = {
    "midtrain": _midtrain,
    "sft": lambda t, step, rng: {"loss": 0.28 + 0.08 * math.exp(-5 * t) + rng.gauss(0, 0.01)},
    "dpo": _dpo,
    "rl": _rl,
}


def _model(folder: Path) -> None:
    folder.mkdir(parents=True)
    config = {"architectures": ["Phi3ForCausalLM"], "num_hidden_layers": 4, "hidden_size": 128}
    config |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 312}
    write_json(folder / "config.json", config)
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "embed": {"dtype": "F32", "shape": [312, 128], "data_offsets": [0, 159_744]},
            "layers": {"dtype": "F32", "shape": [4, 1500, 128], "data_offsets": [159_744, 3_231_744]},
        }
    ).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 3_231_744)  # zeros


def _generations(folder: Path, stage: str, benchmark: str, rng: random.Random) -> dict[str, Any]:
    rows = []
    for i in range(PROBLEMS):
        level, easy = 1 + i % 3, (i * 37 % PROBLEMS) / PROBLEMS
        a, b, c = 12 + i, 340 + 3 * i, 7 + i % 9
        gold = a + b - c
        chance = min(
            1.0, max(0.0, SKILL[stage] * (1.5 - easy) - 0.1 * (level - 2) - 0.25 * (benchmark == BENCHMARKS[1]))
        )
        for j in range(SAMPLES):
            right = rng.random() < chance
            answer = gold if right else gold + rng.choice([1, -1, 10, 100])
            text = (
                f"<think>\n{a}+{b}-{c}\n{a}+{b}: {a % 10}+{b % 10} … so {a + b}\n{a + b}-{c}: so {answer}\n</think>\n"
            )
            text += f"The answer is \\boxed{{{answer}}}."
            if stage == "base":
                text = "".join(rng.choice("0123456789+-<think>carry ") for _ in range(80))
            rows.append(
                {
                    "problem_id": f"{benchmark}-{i:03d}",
                    "index": j,
                    "question": f"What is {a} + {b} - {c}? <b>Think</b> & answer.",
                    "gold": str(gold),
                    "level": level,
                    "domain": ("chain", "equation", "word")[i % 3 - (i % 7 == 0)],
                    "text": text,
                    "answer": str(answer),
                    "correct": None if (i, j) == (5, 0) and stage == "sft" else right,
                    "reason": "timeout" if (i, j) == (5, 0) and stage == "sft" else "equal" if right else "different",
                    "stop": "length" if stage == "base" else "end",
                    "tokens": len(text) // 2,
                }
            )
    write_rows(folder, rows)
    mean = sum(bool(row["correct"]) for row in rows) / len(rows)
    half = 1.96 * math.sqrt(max(mean * (1 - mean), 1e-4) / PROBLEMS) * 0.7
    return {
        "stage": stage,
        "benchmark": benchmark,
        "main": benchmark == BENCHMARKS[0],
        "problems": PROBLEMS,
        "samples": SAMPLES,
        "mean": mean,
        "low": max(0.0, mean - half),
        "high": min(1.0, mean + half),
        "pass_at_k": {"1": mean, "2": min(1, mean * 1.1), "4": min(1, mean * 1.18), "8": min(1, mean * 1.22)},
        "majority": min(1, mean * 1.08),
        "truncated": 1.0 if stage == "base" else 0.02 * (1 - mean),
        "mean_tokens": 512.0 if stage == "base" else 160.0 - 20 * mean,
        "temperature": 0.6,
    }


RL_ROLLOUTS = 40


def _rl_rollouts() -> list[dict[str, Any]]:
    """As RL keeps them: right ones by turns, the first of a step trained on."""
    return [
        {
            "step": 1 + i // 10,
            "problem_id": f"train-{i // 10}",
            "index": i % 10,
            "question": "What is 1/2 + 1/2?",
            "gold": "1",
            "level": 1,
            "domain": "chain",
            "text": f"<think>halves</think>\\boxed{{{1 + i % 2}}}",
            "answer": str(1 + i % 2),
            "correct": i % 2 == 0,
            "reason": "different" if i % 2 else "equal",
            "stop": "end",
            "tokens": 9,
            "temperature": 1.0,
            "reward": -1.0 if i % 2 else 1.0,
            "trained": i % 10 == 0,
        }
        for i in range(RL_ROLLOUTS)
    ]


def _comparisons(folder: Path, means: dict[tuple[str, str], float]) -> None:
    pairs = [("midtrain", "base"), *START.items(), ("sft", "more_midtrain"), ("dpo", "sft_on_chosen")]
    comparisons = [
        {
            "stage": stage,
            "start": start,
            "benchmark": benchmark,
            "by": "all",
            "value": "",
            "problems": PROBLEMS,
            "difference": means[stage, benchmark] - means[start, benchmark],
            "low": means[stage, benchmark] - means[start, benchmark] - 0.05,
            "high": means[stage, benchmark] - means[start, benchmark] + 0.05,
        }
        for stage, start in pairs
        for benchmark in BENCHMARKS
    ]
    groups = [
        {
            "stage": stage,
            "benchmark": benchmark,
            "by": by,
            "value": value,
            "problems": 20,
            "samples": SAMPLES,
            "mean": (mean := max(0.0, min(1.0, SKILL[stage] * factor))),
            "low": max(0.0, mean - 0.07),
            "high": min(1.0, mean + 0.07),
        }
        for stage in SKILL
        for benchmark in BENCHMARKS
        for by, value, factor in [
            ("level", "1", 1.15),
            ("level", "2", 1.0),
            ("level", "3", 0.8),
            ("domain", "chain", 1.05),
            ("domain", "equation", 0.7),
            ("domain", "word", 1.0),
        ]
    ]
    write_json(
        folder / "10-evaluate" / "evaluation" / "comparisons.json", {"comparisons": comparisons, "groups": groups}
    )


CHOICE = {
    "prompt": {"examples": [{"question": "1+1?", "answer": "2"}] * 4},
    "candidates": [
        {"prompt": {}, "mean": 0.01, "low": 0.0, "high": 0.03, "problems": 200},
        {
            "prompt": {"examples": [{"question": "1+1?", "answer": "2"}] * 4, "system": "Be <b>brief</b>."},
            "mean": 0.05,
            "low": 0.03,
            "high": 0.09,
            "problems": 200,
        },
    ],
}
CARD = {
    "rows": {"corpus": 11893, "pairs": 1702, "prompts": 2105, "dropped": 4107, "subset": 600},
    "splits": {"train": 11829, "validation": 64},
    "sources": {"procedural": 11893},
    "levels": {"1": 4108, "2": 4012, "3": 3773},
    "domains": {"chain": 5901, "equation": 2980, "word": 3012},
    "licences": {"Apache-2.0": 11893},
    "drops": {"wrong: different": 3214, "duplicate trace": 830, "test question (equal)": 41, "repetitive": 22},
    "characters": {str(100 * i): int(3000 * math.exp(-((i - 4) ** 2) / 5)) + 3 for i in range(1, 14)},
    "characters_bin": 100,
    "pass_rates": {f"{i / 10:.1f}": 20 + 8 * i * i for i in range(11)},
    "contamination": {"matches": {"equal": 41, "look-alike": 17}, "examples": []},
}
