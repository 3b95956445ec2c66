"""A corpus without a row for a stage below stops here, with the reasons by count and what to change."""

from collections import Counter

from whetstone.corpus.card import Card
from whetstone.records import CUT_OFF, NO_REFERENCE
from whetstone.run.folder import Stage

TAUGHT = ("corpus", "subset", "pairs", "prompts")
SHOWN = 4  # reasons named
REMEDIES = {  # how a reason begins -> what to change
    f"undecided: {NO_REFERENCE}": "To teach answers without a reference, set unverified = true; else name the column of the "
    "answer in the questions stage",
    "undecided": "Ask for more rollouts (samples of the rollouts stage), or set a judge there",
    "wrong": "Ask for more rollouts (samples of the rollouts stage), choose easier problems, or another teacher",
    "thinking never closes": "Raise max_tokens of the teacher, whose answers are cut off",
    "repetitive": "Raise max_repetition",
    "longer than": "Raise max_characters",
    "level is not taught": "Name other levels",
    "language is not taught": "Name other languages",
    "reserved for pairs": "Lower reserve",
    "test question": "The training problems are the test problems: take others for one of them",
    "prompt without an answer": "Name the column of the answer in the questions stage",
    "its level is not among": "Name other prompt_levels",
    "imported pair": "Mend the file of imported_pairs",
}
OTHERWISE = {
    "corpus": "Give training problems in the questions stage (train), and put a rollouts stage above this one",
    "subset": "Raise subset.problems, or widen subset.solved",
    "pairs": "A pair is a right and a wrong rollout of one problem: ask for more (samples of the rollouts stage), or set "
    'source = "student" in the dpo stage',
    "prompts": "Give training problems in the questions stage (train)",
}


def refuse_empty(stage: Stage, card: Card) -> None:
    """Raises ValueError if a table that a stage below reads is empty, or if all are."""
    rows = card.rows | {"corpus": card.counts["splits"]["train"]}  # held-out traces train nothing
    empty = [name for name in TAUGHT if not rows[name]]
    lacking = [name for name in empty if name in stage.wanted] or (empty if len(empty) == len(TAUGHT) else [])
    if not lacking:
        return
    reasons = _reasons(card, lacking)
    counted = "; ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(SHOWN)) or "nothing"
    raise ValueError(
        f"{stage.name} has no row for {' and '.join(lacking)}, so that nothing can be trained on. Left out: {counted} "
        f"(listed in {stage.folder / 'dropped'}). {_remedy(reasons, lacking[0])}."
    )


def _reasons(card: Card, lacking: list[str]) -> Counter[str]:
    """Why the tables are empty. What was left out of one table alone counts if the others have rows."""
    if lacking == ["subset"] and card.rows["corpus"]:
        return card.not_in_subset
    return (lacking == ["prompts"] and card.not_in_prompts) or card.drops


def _remedy(reasons: Counter[str], table: str) -> str:
    most = next((reason for reason, _ in reasons.most_common(1)), "")
    if table == "pairs" and not most.startswith("imported pair"):
        return OTHERWISE[table]
    if most.endswith(CUT_OFF):
        return REMEDIES["thinking never closes"]
    return next((words for begin, words in REMEDIES.items() if most.startswith(begin)), OTHERWISE[table])
