"""`[controls]`: what a stage has to beat. Each control is a stage, derived from the one that it questions by one rule.

prompt         no training: the model that the stage starts from, asked with the best of several prompts
midtraining    mid-training on as many tokens, in as many optimizer steps, from the model that the stage starts from
rejection      fine-tuning on the right rollouts of the stage, on as many tokens, in as many optimizer steps
random_reward  the same RL on the same prompts, with verdicts drawn at random, as often right as the stage's own

Controls run after the last stage that trains. No stage reads what a control gives: inputs are found before controls are
added. What a control needs to know of the finished stage (its tokens, steps, share of right answers) it takes from that
stage's manifest (`Control.takes`). So a control waits for its stage, and is stale if the stage is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from whetstone.choose_prompt import ROOM as CHOOSE_PROMPT
from whetstone.recipe_stage import Control, RecipeStage, Source
from whetstone.run.control import control_name
from whetstone.run.control_settings import ControlSettings
from whetstone.run.mistakes import suggestion
from whetstone.run.room import Room
from whetstone.run.settings import MOST_EPOCHS

ON_ROLLOUTS = ("dpo", "rl")
STEPS = {"rl": "updates"}  # what a kind of stage calls its optimizer steps in its summary, if not steps


@dataclass(frozen=True)
class Known:
    """What a rule may look at besides the stage."""

    table: ControlSettings
    stages: Sequence[RecipeStage]  # the recipe's own, in order
    load_room: Callable[[str], Room]
    has_path: bool  # whether the recipe has a `[model] path`

    def above(self, stage: RecipeStage) -> Sequence[RecipeStage]:
        return self.stages[: stage.number - 1]

    def latest(self, artifact: str, stage: RecipeStage) -> Source | None:
        givers = (other for other in reversed(self.above(stage)) if artifact in other.room.gives)
        return next((Source(other.name, artifact) for other in givers), None)


@dataclass(frozen=True)
class Rule:
    """How a control is derived from a stage."""

    kinds: tuple[str, ...]  # of the stages that it can question
    usual: Callable[[RecipeStage], bool]  # which of them it questions if the recipe says `true`
    usually: str  # those in words
    derive: Callable[[RecipeStage, Known], RecipeStage]  # raises ValueError if there can be none, and says why


def with_controls(known: Known, place: Callable[[str], str]) -> tuple[tuple[RecipeStage, ...], tuple[str, ...]]:
    """(the stages, with the controls after the last one that trains; a note for each control that cannot be made).

    `place` is the file and line of a key of `[controls]`. Raises ValueError if a stage that the recipe names cannot have the
    control.
    """
    controls: list[RecipeStage] = []
    notes: list[str] = []
    for name, rule in RULES.items():
        wanted = getattr(known.table, name)
        for stage in _questioned(name, rule, known, place, notes):
            try:
                controls.append(rule.derive(stage, known))
            except ValueError as error:
                if wanted is not True:
                    raise ValueError(f"{place(name)} {name} cannot question {stage.name!r}: {error}.") from error
                notes.append(f"note: {stage.name} gets no control {name}: {error}.")
    end = max((stage.number for stage in known.stages if stage.room.trains), default=0)
    controls.sort(key=lambda control: control.number)
    return (*known.stages[:end], *controls, *known.stages[end:]), tuple(notes)


def _questioned(
    name: str, rule: Rule, known: Known, place: Callable[[str], str], notes: list[str]
) -> Iterator[RecipeStage]:
    """The stages that a control questions. Raises ValueError for a name that fits none."""
    wanted = getattr(known.table, name)
    if isinstance(wanted, bool):
        usual = [stage for stage in known.stages if stage.kind in rule.kinds and rule.usual(stage)] if wanted else []
        if wanted and not usual:
            notes.append(f"note: no control {name}: the recipe has no stage {rule.usually}.")
        yield from usual
        return
    by_name = {stage.name: stage for stage in known.stages}
    for stage_name in dict.fromkeys(wanted):
        if stage_name not in by_name:
            raise ValueError(
                f"{place(name)} {name} names {stage_name!r}, and there is no such stage{suggestion(stage_name, by_name)} "
                f"Stages are {', '.join(by_name)}."
            )
        if by_name[stage_name].kind not in rule.kinds:
            raise ValueError(
                f"{place(name)} {name} cannot question {stage_name!r}, which is of kind {by_name[stage_name].kind}: name "
                f"stages of kind {' or '.join(rule.kinds)}, or write {name} = true for those that it fits."
            )
        yield by_name[stage_name]


# --- one rule for each control


def _prompt(stage: RecipeStage, known: Known) -> RecipeStage:
    table = known.table
    if "model" not in stage.sources and not known.has_path:
        raise ValueError("it starts from random weights, which understand no prompt")
    problems, data = known.latest("problems", stage), known.latest("subset", stage) or known.latest("corpus", stage)
    if problems is None:
        raise ValueError("no stage above it gives problems")
    given: Any = next(other for other in known.stages if other.name == problems.stage).settings
    if not any("validation" in source.splits for source in getattr(given, "source", ())):
        raise ValueError(f"prompts are compared on held-out problems, and {problems.stage} gives none (validation)")
    settings = CHOOSE_PROMPT.settings(kind="choose_prompt")
    settings = settings.model_copy(update={key: getattr(table, key) for key in ("prompts", "shots", "held_out")})
    sources = {"problems": problems} | ({"data": data} if data else {}) | _model_of(stage)
    return _control(stage, "prompt", CHOOSE_PROMPT, settings, sources)


def _midtraining(stage: RecipeStage, known: Known) -> RecipeStage:
    """The rows of the last mid-training above, at the stage's own learning rates."""
    room = known.load_room("midtrain")
    like = next((other for other in reversed(known.above(stage)) if other.kind == "midtrain"), None)
    corpus = like.sources.get("corpus") if like else known.latest("corpus", stage)
    if corpus is None:
        raise ValueError("no stage above it gives a corpus to train on")
    settings = like.settings if like else room.settings(kind="midtrain")
    more = {"curriculum": 0.0, "patience": 0}  # the model is no beginner any more, and all tokens are to be spent
    sources = {"corpus": corpus} | _model_of(stage)
    return _next_token(stage, "midtraining", room, settings.model_copy(update=more), sources, known.table)


def _rejection(stage: RecipeStage, known: Known) -> RecipeStage:
    """On the student's right rollouts; of a DPO stage on a teacher's pairs, on their right sides."""
    room = known.load_room("sft")
    artifact = "pairs" if getattr(stage.settings, "source", "student") == "teacher" else "right_rollouts"
    settings = room.settings(kind="sft", max_length=stage.room.longest(stage.settings))
    sources = {"data": Source(stage.name, artifact)} | _model_of(stage)
    return _next_token(stage, "rejection", room, settings, sources, known.table)


def _next_token(
    stage: RecipeStage, name: str, room: Room, settings: Any, sources: dict[str, Source], table: ControlSettings
) -> RecipeStage:
    """A control that spends the stage's tokens in its number of optimizer steps, with its optimizer and adapter."""
    own: Any = stage.settings
    rate = {"learning_rate": table.learning_rate[name]} if name in table.learning_rate else {}
    same = {
        "optimizer": own.optimizer.model_copy(update=rate),
        "checkpoint_every": own.checkpoint_every,
        "adapter": own.adapter,
    }
    settings = settings.model_copy(update={**same, "epochs": MOST_EPOCHS, "tokens": 0, "steps": 0})
    return _control(stage, name, room, settings, sources, tokens="tokens", steps=STEPS.get(stage.kind, "steps"))


def _random_reward(stage: RecipeStage, known: Known) -> RecipeStage:
    """Only the verdicts differ. A reward that reads the answer gives way to one that does not."""
    own: Any = stage.settings
    changed = {
        "reward": "zero_one" if own.reward == "zero_one" else "plus_minus_one",
        "tripwires": own.tripwires.only("sampler_gap"),  # the others say how learning goes, and nothing is to be learnt
        "random_verdicts": 0.5,
    }
    settings = own.model_copy(update=changed)
    sources = {name: source for name, source in stage.sources.items() if stage.room.inputs[name].used(settings)}
    return _control(stage, "random_reward", stage.room, settings, sources, random_verdicts="right")


def _control(
    stage: RecipeStage, name: str, room: Room, settings: Any, sources: dict[str, Source], **takes: str
) -> RecipeStage:
    """`takes`: a setting -> the number in the stage's summary that it is set to."""
    own_name = control_name(stage.name, name)
    settings = settings.model_copy(update={"name": own_name})
    control = Control(name, stage.name, MappingProxyType(takes))
    return RecipeStage(stage.number, own_name, settings.kind, room, settings, MappingProxyType(sources), control)


def _model_of(stage: RecipeStage) -> dict[str, Source]:
    """The model that the stage starts from; none if that is `[model] path`."""
    return {"model": stage.sources["model"]} if "model" in stage.sources else {}


RULES = {
    "prompt": Rule(
        ("midtrain", "sft", *ON_ROLLOUTS), lambda stage: "model" not in stage.sources, "that trains", _prompt
    ),
    "midtraining": Rule(("sft", *ON_ROLLOUTS), lambda stage: stage.kind == "sft", "of kind sft", _midtraining),
    "rejection": Rule(ON_ROLLOUTS, lambda stage: True, "of kind dpo or rl", _rejection),
    "random_reward": Rule(("rl",), lambda stage: True, "of kind rl", _random_reward),
}
