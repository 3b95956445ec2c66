"""Rollout DPO (Phi-4-Mini-Reasoning, stage 3): right rollouts preferred to wrong ones of the same problem.

The paper pairs the *teacher's* right and wrong rollouts; here the default is the *student's* own, because on a small model
the teacher's mistakes are not the student's (docs/rollout_dpo.md has the measurement). `source = "teacher"` is the paper's
way. The reference is the model the stage starts from. Its log-probabilities are computed once per pair, before the first
step, and kept on disk: no epoch and no resumed run computes them again, and no second model is held.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from whetstone.chat import Exchange
from whetstone.dpo.settings import Settings
from whetstone.pairing import build_pairs, ranked_pairs
from whetstone.pool import try_student
from whetstone.prompting import BARE, Prompting
from whetstone.records import Pair, Problem, Rollout
from whetstone.run.folder import Stage
from whetstone.run.progress import say
from whetstone.run.room import PROMPT_TOKENS, TRAINING, Estimate, Input, Room
from whetstone.run.tables import read_records, read_rows, write_records, write_rows
from whetstone.sample import RIGHT_ROLLOUTS, right_rows

if TYPE_CHECKING:
    from whetstone.batch import Row
    from whetstone.chat import Chat
    from whetstone.learner.learner import Learner
    from whetstone.learner.parallel import ProcessGroup
    from whetstone.learner.student import Student

CHOSEN_MAY_FALL = 0.05  # nats per token below the reference before there is a warning
SCORED_AT_ONCE = 4096  # rows whose tokens' log-probabilities are in memory
WITHOUT_REFERENCE = ("simpo",)
BY_REWARD = "reward_model"
Sides: TypeAlias = tuple[list[int], list[int], list[int]]  # ids of the prompt, the chosen and the rejected answer


def run(stage: Stage) -> dict[str, Any]:
    from whetstone.dpo.loss import PairLoss, pair_rows, weighted, with_reference
    from whetstone.learner.order import plan_steps
    from whetstone.learner.parallel import join
    from whetstone.learner.schedule import learning_rate
    from whetstone.learner.steps import Steps
    from whetstone.learner.student import load

    settings: Settings = stage.settings
    student = load(stage)
    process_group = join(stage.parallel, student.model.device.type)
    sides, counts = sides_of_pairs(stage, student, process_group)  # before a process keeps only its share of the model
    learner = student.learner()
    rows = [pair_rows(*ids) for ids in sides]
    if settings.loss not in WITHOUT_REFERENCE:
        rows = with_reference(rows, reference_logprobs(stage, learner, [row for pair in rows for row in pair]))
    plan = plan_steps([1] * len(rows), settings.batch_pairs, stage.seed, settings.epochs)
    loss = PairLoss(settings)
    with Steps(stage, learner, len(plan)) as steps:
        for step in steps:
            batch = weighted([rows[i] for i in plan[step]])
            sums = learner.gradient(batch, loss)
            rate = learning_rate(settings.optimizer, step, len(plan))
            norm = steps.update(step, sums["loss"], rate)
            if norm is None:  # training goes back to a checkpoint
                continue
            tokens = sum(len(row.ids) for pair in batch for row in pair)
            steps.log(step, tokens, learning_rate=rate, gradient_norm=norm, **sums)
            steps.state |= {"last": sums, "tokens": steps.state.get("tokens", 0) + tokens}
            watch_chosen_side(stage.name, steps.state, sums["chosen_log_ratio"], last=step == len(plan) - 1)
    student.save(learner)
    state = steps.state
    fell = state["first_chosen_log_ratio"] - state["last"]["chosen_log_ratio"]
    counts |= {"pairs": len(rows), "steps": len(plan), "tokens": state["tokens"]}
    return counts | {"chosen_logprob_fell": fell}


def reference_logprobs(stage: Stage, learner: "Learner", rows: Sequence["Row"]) -> list[float]:
    """The summed log-probability of each row under the model as it is now; from disk if all of them are there."""
    kept = stage.folder / "reference"
    on_disk = learner.process_group.main and kept.exists() and any(kept.iterdir())
    logprobs = learner.process_group.first([row["logprob"] for row in read_rows(kept)] if on_disk else [])
    if len(logprobs) != len(rows):
        logprobs = []
        for at in range(0, len(rows), SCORED_AT_ONCE):
            logprobs += [float(values.sum()) for values in learner.row_logprobs(list(rows[at : at + SCORED_AT_ONCE]))]
        if learner.process_group.main:
            write_rows(kept, ({"logprob": value} for value in logprobs))
    return logprobs


def watch_chosen_side(name: str, state: dict[str, Any], log_ratio: float, last: bool) -> None:
    """Warns once if right answers become less likely: in three consecutive steps, or in the last one.

    `log_ratio` is to the reference, on the step's own pairs, in nats per token.
    """
    fallen = state.setdefault("first_chosen_log_ratio", log_ratio) - log_ratio
    state["fallen_for"] = state.get("fallen_for", 0) + 1 if fallen > CHOSEN_MAY_FALL else 0
    if (state["fallen_for"] >= 3 or (last and state["fallen_for"])) and not state.get("warned_of_fall"):
        state["warned_of_fall"] = True
        say(
            f"warning: {name} makes its own chosen side less likely (by {fallen:.3f} nats per token): the model may be "
            "unlearning right answers. Lower optimizer.learning_rate, or set chosen_nll = 1.0."
        )


def student_pairs(
    stage: Stage, student: "Student", process_group: "ProcessGroup"
) -> tuple[list[Pair], list[dict[str, str]], dict[str, Any]]:
    """(pairs, a row for each prompt that cannot be used, facts for the manifest): the model's right rollouts with its wrong
    ones, or those that a reward model likes with others, on the prompts of the pool. Raises ValueError if there is no pair.
    """
    tried = try_student(stage, student, process_group)
    pair_up = pairs_of(stage, student)
    pairs = [
        pair for problem, group in zip(tried.problems, tried.groups, strict=True) for pair in pair_up(problem, group)
    ]
    if not pairs and stage.settings.pairing == BY_REWARD:
        raise ValueError(
            f"{stage.name} has no pair: of none of {len(tried.problems):,} problems are there two finished rollouts with "
            f"different rewards. {' '.join(tried.lacks.values())} Raise max_tokens or pool.samples."
        )
    if not pairs:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in Counter(map(one_sided, tried.groups)).most_common())
        raise ValueError(
            f"{stage.name} has no pair: no problem has both a right and a wrong rollout of the student. Of "
            f"{len(tried.problems):,} problems: {counts}. {' '.join(tried.lacks.values())} Sample more (pool.samples, "
            "pool.prompts), at other levels (pool.levels), or from a better model."
        )
    for words in tried.lacks.values():
        say(f"warning: {stage.name}: {words}")
    if process_group.main:
        write_rows(stage.output(RIGHT_ROLLOUTS), right_rows(rollout for group in tried.groups for rollout in group))
    return pairs, tried.dropped, tried.counts


def pairs_of(stage: Stage, student: "Student") -> Callable[[Problem, Sequence[Rollout]], list[Pair]]:
    """What makes pairs of a problem's rollouts."""
    settings: Settings = stage.settings
    most = settings.pairs_per_problem
    if settings.pairing != BY_REWARD:
        return lambda problem, group: build_pairs(problem, group, most, stage.seed, settings.pairing)
    from whetstone.reward_model import RewardModel

    model = RewardModel.load(stage.inputs["reward_model"], stage.parallel, stage.model.dtype)
    return lambda problem, group: ranked_pairs(problem, group, model.of_group(problem, group, student.chat), most)


def one_sided(group: Sequence[Rollout]) -> str:
    """Why the rollouts of a problem give no pair."""
    decided = [rollout for rollout in group if rollout.correct is not None]
    right = [rollout for rollout in decided if rollout.correct]
    if not decided:
        return "undecided"
    if not right:
        return "never solved"
    return "always solved" if len(right) == len(decided) else "solved only in rollouts that were cut off"


def sides_of_pairs(
    stage: Stage, student: "Student", process_group: "ProcessGroup"
) -> tuple[list[Sides], dict[str, Any]]:
    """(the ids of each pair that is trained on, facts for the manifest); writes `pairs` and `dropped`.

    Raises ValueError if there is no pair.
    """
    settings: Settings = stage.settings
    if settings.source == "student":
        pairs, dropped, counts = student_pairs(stage, student, process_group)
    else:
        pairs, dropped, counts = list(read_records(Pair, stage.inputs["pairs"])), [], {}
    if settings.max_pairs:
        random.Random(f"{stage.seed}/pairs").shuffle(pairs)
        pairs = pairs[: settings.max_pairs]
    context = student.model.config.max_position_embeddings
    kept: list[Pair] = []
    sides: list[Sides] = []
    for pair in pairs:
        try:
            prompt, chosen, rejected = ids_of(student.chat, pair, student.prompting)
        except ValueError as error:
            dropped.append({"problem_id": pair.problem_id, "reason": "cannot be tokenised", "detail": str(error)})
            continue
        if (length := len(prompt) + max(len(chosen), len(rejected))) <= context:
            kept.append(pair)
            sides.append((prompt, chosen, rejected))
        else:
            why = f"{length:,} tokens exceed the model's context of {context:,}"
            dropped.append({"problem_id": pair.problem_id, "reason": "longer than the context", "detail": why})
    if not sides:
        found = f"none of its {len(pairs):,} pairs can be used ({dropped[-1]['detail']})" if pairs else "it is empty"
        raise ValueError(
            f"{stage.name} has no pair in {stage.inputs['pairs']}: {found}. A pair is a right and a wrong rollout of one "
            "problem: ask the teacher for more (samples of the rollouts stage), name imported_pairs in the corpus stage, or "
            'set source = "student".'
        )
    if process_group.main:
        write_records(stage.output("pairs"), kept)
        write_rows(stage.output("dropped"), dropped)
    if dropped:
        say(f"{stage.name}: {len(dropped):,} prompts or pairs left out (listed in {stage.folder / 'dropped'})")
    return sides, counts


def ids_of(chat: "Chat", pair: Pair, prompting: Prompting = BARE) -> Sides:
    """The ids of prompt, chosen and rejected side: sampled ids as they are, a teacher's text tokenised."""
    if pair.chosen_ids:
        return pair.prompt_ids, pair.chosen_ids, pair.rejected_ids
    messages = prompting.messages(pair.question, pair.system, pair.policy, pair.chosen)
    chosen, rejected = chat.rows([Exchange(messages, answer) for answer in (pair.chosen, pair.rejected)])
    for side in (chosen, rejected):
        if isinstance(side, str):
            raise ValueError(f"the pair of {pair.problem_id} cannot be trained on: {side}")
    prompt = shared_start(chosen.prompt_ids, rejected.prompt_ids)
    chosen_ids, rejected_ids = ([*side.prompt_ids, *side.answer_ids][len(prompt) :] for side in (chosen, rejected))
    return prompt, chosen_ids, rejected_ids


def shared_start(one: list[int], other: list[int]) -> list[int]:
    """The first ids that are the same. Prompts of one question differ where one of the two answers opens no thinking."""
    count = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:count]


def plan(stage: Stage) -> Estimate:
    """What can be known beforehand: of the student's pairs only an upper bound."""
    from math import ceil

    from whetstone.learner.cost import training_estimate, with_sampling

    settings: Settings = stage.settings
    bound = "at most "
    if settings.source == "student":
        samples = settings.pool.samples
        per_problem = {"one": 1, "all": samples // 2 * (samples - samples // 2)}.get(settings.pairing, samples // 2)
        pairs = settings.pool.prompts * min(settings.pairs_per_problem, per_problem)
    elif stage.inputs["pairs"].exists():
        pairs, bound = sum(1 for _ in read_rows(stage.inputs["pairs"])), ""
    else:
        pairs = settings.max_pairs
    pairs = min(pairs, settings.max_pairs or pairs)
    side = settings.max_tokens  # of an answer; the prompt is short beside it
    estimate = training_estimate(
        stage,
        step_tokens=2 * side * settings.batch_pairs,
        row_tokens=2 * side,
        tokens=ceil(settings.epochs * pairs) * 2 * side if pairs else None,
        steps=ceil(settings.epochs * pairs / settings.batch_pairs) if pairs else None,
        passes=1 + 1 / (3 * settings.epochs),  # the reference's log-probabilities, once per pair
        bound="at most ",
        lines={"pairs": f"{bound}{pairs:,} of two answers of at most {side:,} tokens"} if pairs else {},
    )
    if settings.source == "teacher":
        return estimate
    rollouts = settings.pool.prompts * settings.pool.samples
    estimate.lines["rollouts"] = f"at most {rollouts:,} of at most {side:,} tokens"
    return with_sampling(estimate, stage, rollouts * side, side)


ROOM = Room(
    settings=Settings,
    run=run,
    plan=plan,
    inputs={
        "model": Input(("model",), or_path=True),
        "prompts": Input(
            ("prompts", "problems"), used=lambda s: s.source == "student", description='with source = "student"'
        ),
        "pairs": Input(
            ("pairs",), made_by=("corpus",), used=lambda s: s.source == "teacher", description='with source = "teacher"'
        ),
        "reward_model": Input(
            ("reward_model",), used=lambda s: s.pairing == BY_REWARD, description='with pairing = "reward_model"'
        ),
    },
    gives=("model", "pairs"),
    uses=TRAINING,
    trains=True,
    longest=lambda settings: PROMPT_TOKENS + settings.max_tokens,
)
