"""The best of several prompts for a model, chosen on held-out problems: the control of training that only needs asking better.

The recipe's own `[prompt]` is a candidate, and each of the others changes it in what it gives. By default these are a request
for a box, and a few rows of the training data as examples. Candidates are compared by their mean on validation problems, under
the settings of `[scores]`; test problems are never looked at. The pipeline then scores the model with the chosen prompt.
"""

import random
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from whetstone.learner.conversation import read_conversation
from whetstone.prompting import BOX_REQUEST
from whetstone.records import Problem, Score, from_row, to_row
from whetstone.run.control import CHOICE
from whetstone.run.folder import Stage, read_json, write_json
from whetstone.run.progress import say
from whetstone.run.prompt_settings import Example, PromptSettings
from whetstone.run.room import PROMPT_TOKENS, Estimate, Input, Room
from whetstone.run.settings import StageSettings
from whetstone.run.tables import read_records, read_rows

HELD_OUT = "held_out"  # what the validation problems are called as a problem set
LOOKED_AT = 2000  # rows of the training data, of which the shorter half may be examples


class Settings(StageSettings):
    prompts: tuple[PromptSettings, ...] = Field((), description="candidates, beside the recipe's own prompt")
    shots: int = Field(4, description="examples of the candidate that is made if `prompts` is left out")
    held_out: int = Field(200, description="validation problems, at most")


def run(stage: Stage) -> dict[str, Any]:
    problems, prompts = held_out(stage), candidates(stage)
    scores = [_scored(stage, number, prompt, problems) for number, prompt in enumerate(prompts)]
    best = max(range(len(scores)), key=lambda number: scores[number].mean)  # the first of equals
    tried = [
        {"prompt": _json(prompt), "mean": score.mean, "low": score.low, "high": score.high, "problems": score.problems}
        for prompt, score in zip(prompts, scores, strict=True)
    ]
    for number, row in enumerate(tried):
        mark = "; chosen" if number == best else ""
        say(f"   prompt {number}: {100 * row['mean']:.1f} % of {row['problems']} held-out problems{mark}")
    write_json(stage.output("prompt") / CHOICE, {"prompt": tried[best]["prompt"], "candidates": tried})
    return {"chosen": best, "candidates": len(prompts), "problems": len(problems), "mean": scores[best].mean}


def held_out(stage: Stage) -> list[Problem]:
    """A random choice of the validation problems, as a problem set. Raises ValueError if there is none."""
    found = [p for p in read_records(Problem, stage.inputs["problems"]) if p.split == "validation" and p.answer.strip()]
    if not found:
        raise ValueError(
            f"{stage.name} chooses a prompt on held-out problems, and {stage.inputs['problems']} has none. Give the questions "
            "stage some (validation), or leave the control out ([controls] prompt)."
        )
    random.Random(f"{stage.seed}/held out").shuffle(found)
    named = [to_row(problem) | {"benchmark": HELD_OUT} for problem in found[: stage.settings.held_out]]
    return [from_row(Problem, row) for row in named]


def candidates(stage: Stage) -> list[PromptSettings]:
    """The recipe's own prompt first; each once."""
    own, given = stage.prompt, stage.settings.prompts or _usual(stage)
    changed = [own.model_copy(update={name: getattr(other, name) for name in other.given()}) for other in given]
    return [prompt for number, prompt in enumerate([own, *changed]) if prompt not in [own, *changed][:number]]


def _usual(stage: Stage) -> list[PromptSettings]:
    box = PromptSettings(after=f"\n\n{BOX_REQUEST}")
    return [box, PromptSettings(examples=_shots(stage))] if "data" in stage.inputs else [box]


def _shots(stage: Stage) -> tuple[Example, ...]:
    """Rows from the shorter half of the training data, so that several fit into a prompt."""
    rows = map(read_conversation, islice(read_rows(stage.inputs["data"]), LOOKED_AT))
    sound = sorted((row for row in rows if row.split == "train" and not row.fault), key=lambda row: row.size)
    short = sound[: max(len(sound) // 2, stage.settings.shots)]
    chosen = random.Random(f"{stage.seed}/examples").sample(short, min(stage.settings.shots, len(short)))
    return tuple(Example(question=row.question, answer=row.answer) for row in chosen)


def _scored(stage: Stage, number: int, prompt: PromptSettings, problems: list[Problem]) -> Score:
    """Of a candidate, which keeps its score: a resumed stage does not ask again."""
    from whetstone.measure import score_model
    from whetstone.model_folder import find_model

    folder, name = stage.folder / f"candidate-{number}", f"{stage.name}, prompt {number}"
    done = folder / "score.json"
    if done.exists():
        return from_row(Score, read_json(done, needed=["mean"]))
    assert stage.model_source is not None, "a prompt is chosen for a model"
    (score,) = score_model(
        find_model(stage.model_source), problems, stage.scores.model_copy(update={"main": HELD_OUT, "problems": 0}),
        stage.parallel, stage.seed, folder, name, stage.longest, prompt,
    )  # fmt: skip
    write_json(done, to_row(score))
    return score


def chosen_prompt(artifact: Path) -> PromptSettings:
    """What `run` wrote."""
    return PromptSettings.model_validate(read_json(artifact / CHOICE, needed=["prompt"])["prompt"])


def _json(prompt: PromptSettings) -> dict[str, Any]:
    return dict(prompt.given())


def plan(stage: Stage) -> Estimate:
    settings, scores = stage.settings, stage.scores
    count = 1 + (len(settings.prompts) or 2)
    tokens = count * settings.held_out * scores.samples * scores.max_tokens
    return Estimate(
        {
            "prompts": f"at most {count}, on at most {settings.held_out:,} held-out problems",
            "sampled": f"at most {tokens:,} tokens",
        }
    )


ROOM = Room(
    settings=Settings,
    run=run,
    plan=plan,
    inputs={
        "model": Input(("model",), or_path=True),
        "problems": Input(("problems",)),
        "data": Input(("subset", "corpus"), optional=True),
    },
    gives=("prompt",),
    uses=(
        "run.seed",
        "scores.samples",
        "scores.temperature",
        "scores.top_p",
        "scores.top_k",
        "scores.max_tokens",
        "prompt",
    ),
    asks=lambda settings: True,
    prompts=True,
    longest=lambda settings: PROMPT_TOKENS,
)
