"""A problem set's score: mean@n with its 95 % interval, pass@k, majority vote, share of truncated answers, tokens.

Samples of one problem are not independent, so the unit of every interval and of resampling is the problem.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from whetstone.answer import boxed, count_votes
from whetstone.candidate import Candidate, LocalModel
from whetstone.prompting import prompting_of, refuse_leaks
from whetstone.records import Problem, Rollout, Sampling, Score, Verifier
from whetstone.run.prompt_settings import AS_TRAINED, PromptSettings
from whetstone.run.settings import ParallelSettings, ScoreSettings
from whetstone.run.tables import write_rows
from whetstone.sample import shown_row
from whetstone.sampling_worker import open_candidate
from whetstone.verify import extract, get_policy
from whetstone.verify.flexible import last_answer

Z = 1.959964  # quantile of the standard normal distribution for a 95 % interval
RESAMPLES = 10_000  # of the bootstrap
STATED = ("stated", "formula", "bare")  # how an answer is found that stands in no box (verify/extract.py)
JOURNAL = "journal.jsonl"  # of samples, until their score is kept
NOT_ASKED = "not asked"  # why a sample ended that never began (window.py)


def score_model(
    model: Path, problems: Sequence[Problem], scores: ScoreSettings, parallel: ParallelSettings, seed: int,
    out_folder: Path, stage: str, longest: int = 0, prompt: PromptSettings = AS_TRAINED,
) -> list[Score]:  # fmt: skip
    """Score one model folder on every benchmark among `problems`; generations go to out_folder/BENCHMARK/, with the prompt.

    `longest` is the number of tokens of the run's longest sequence; 0: of the model's context (`model.load`).
    """
    refuse_leaks(prompting_of(prompt, model).examples, problems)
    candidate = open_candidate(LocalModel(model, parallel, longest, prompt, scores.weights))
    results = []
    for benchmark in dict.fromkeys(problem.benchmark for problem in problems):
        chosen = [problem for problem in problems if problem.benchmark == benchmark]
        results.append(score_problems(candidate, chosen, scores, seed, out_folder, stage))
    for score in results:  # only now: until all are scored a kill may come
        (out_folder / score.benchmark / JOURNAL).unlink()
    return results


def score_problems(
    candidate: Candidate, problems: Sequence[Problem], scores: ScoreSettings, seed: int, out_folder: Path, stage: str
) -> Score:
    """Score a model on the problems of one benchmark, `scores.problems` of them; generations go to out_folder/BENCHMARK/.

    The journal stays beside them: who calls removes it once the score is kept.
    """
    from whetstone.verify import MathVerifier

    chosen = problems[: scores.problems] if scores.problems else problems
    benchmark = chosen[0].benchmark
    folder, label = out_folder / benchmark, f"scoring {stage} on {benchmark}"
    samples = scores.samples if scores.temperature > 0 else 1
    sampling = Sampling(scores.temperature, scores.max_tokens, scores.top_k, scores.top_p, seed)
    unaskable = candidate.unaskable(chosen, scores.max_tokens, label)
    asked = [problem for problem in chosen if problem.id not in unaskable]
    with MathVerifier() as verifier:
        answers = candidate.answers(asked, samples, sampling, verifier, folder / JOURNAL, label)
        groups = {problem.id: group for problem, group in zip(asked, answers.groups_PG, strict=True)}
        groups |= {name: unasked(name, samples, why) for name, why in unaskable.items()}
        pairs = [(problem, rollout) for problem in chosen for rollout in groups[problem.id]]
        rows = [as_row(p, r, answers.tokens.get((p.id, r.index))) for p, r in pairs]
        rows = with_flexible(rows, verifier)
        write_rows(folder, rows)
        candidate.prompting.save(folder)
        score = summarise(rows, verifier, stage, benchmark, benchmark == scores.main, scores.temperature)
    how = {"top_p": scores.top_p, "top_k": scores.top_k, "max_tokens": scores.max_tokens}
    return replace(score, prompt=candidate.prompting.summary(chosen[0].policy), weights=candidate.weights, **how)


def unasked(problem_id: str, samples: int, why: str) -> list[Rollout]:
    """What stands for the samples of a problem that cannot be asked. They are wrong."""
    reason = f"{NOT_ASKED}: {why}"
    return [Rollout(problem_id, g, [], [], [], 0.0, NOT_ASKED, "", False, reason) for g in range(samples)]


def as_row(problem: Problem, rollout: Rollout, tokens: int | None = None) -> dict[str, Any]:
    """A sample as scores keep it. `tokens`: as a server counted them, which gives no ids."""
    row = shown_row(problem, rollout) | {"form": form_of(rollout.text, problem.policy)}
    return row if tokens is None else row | {"tokens": tokens}


def form_of(text: str, policy: str) -> str:
    """How an answer is given: box, stated, formula or bare; "" for no answer."""
    found = extract(text, get_policy(policy))
    return "" if found.answer is None else found.how


def with_flexible(rows: Sequence[dict[str, Any]], verifier: Verifier) -> list[dict[str, Any]]:
    """The rows with `flexible`: `correct` if the last number or expression of a text without an answer is taken as one."""
    taken = {
        place: last
        for place, row in enumerate(rows)
        if not row["form"] and row["correct"] is False and (last := last_answer(row["text"], get_policy(row["policy"])))
    }
    items = [(boxed(last), rows[place]["gold"], rows[place]["policy"]) for place, last in taken.items()]
    granted = dict(zip(taken, verifier.check_many(items), strict=True)) if items else {}
    return [
        row | {"flexible": granted[place].correct if place in granted else row["correct"]}
        for place, row in enumerate(rows)
    ]


def summarise(
    rows: Sequence[dict[str, Any]], verifier: Verifier, stage: str, benchmark: str, main: bool, temperature: float
) -> Score:
    """The Score of these generations (`as_row`, `with_flexible`); `verifier` compares the answers that vote.

    An undecided answer (correct is None) is wrong here, and counted beside the score. So is a problem that could not be asked;
    its samples have no length. pass@k is the mean over the problems with at least k answers.
    """
    by_problem: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_problem[row["problem_id"]].append(row)
    mean, low, high, _ = mean_interval(rows)
    samples = max((len(group) for group in by_problem.values()), default=0)
    right = [(len(group), sum(row["correct"] is True for row in group)) for group in by_problem.values()]
    asked = [row for row in rows if row["stop"] != NOT_ASKED]
    passed = {k: [pass_at_k(n, c, k) for n, c in right if n >= k] for k in (1, 2, 4, 8, 16, 32, 64)}
    return Score(
        stage=stage,
        benchmark=benchmark,
        main=main,
        problems=len(by_problem),
        samples=samples,
        mean=mean,
        low=low,
        high=high,
        pass_at_k={str(k): sum(shares) / len(shares) for k, shares in passed.items() if shares},
        majority=sum(majority_right(group, verifier) for group in by_problem.values()) / max(1, len(by_problem)),
        truncated=sum(row["stop"] == "length" for row in asked) / max(1, len(asked)),
        mean_tokens=sum(row["tokens"] for row in asked) / max(1, len(asked)),
        temperature=temperature,
        undecided=sum(row["correct"] is None for row in rows) / max(1, len(rows)),
        not_asked=len(by_problem) - len({row["problem_id"] for row in asked}),
        **_format_of(rows, asked),
    )


def _format_of(rows: Sequence[dict[str, Any]], asked: Sequence[dict[str, Any]]) -> dict[str, float]:
    """In which form the answers stand, and the mean with the format granted; nothing of rows that do not tell."""
    if not all("flexible" in row for row in rows):
        return {}
    forms = [row["form"] for row in asked]
    mean, low, high, _ = mean_interval(row | {"correct": row["flexible"]} for row in rows)
    return {
        "boxed": forms.count("box") / max(1, len(asked)),
        "stated": sum(form in STATED for form in forms) / max(1, len(asked)),
        "flexible": mean,
        "flexible_low": low,
        "flexible_high": high,
    }


def mean_interval(rows: Iterable[dict[str, Any]]) -> tuple[float, float, float, int]:
    """(mean, low, high, problems): the mean over problems of the share of right samples. Undecided is not right.

    The interval is Wilson's for the number of independent trials that would have the observed variance between problem
    means; if all problems have the same mean, for the number of problems. So a perfect score on ten problems does not claim
    certainty.
    """
    means = _means(rows).values()
    if not means:
        return 0.0, 0.0, 1.0, 0
    problems = len(means)
    mean = sum(means) / problems
    between = sum((m - mean) ** 2 for m in means) / max(problems - 1, 1) / problems
    effective = mean * (1 - mean) / between if between > 0 else problems
    return mean, *wilson(mean, effective), problems


def _means(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Problem id -> the share of right samples."""
    marks: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        marks[row["problem_id"]].append(float(row["correct"] or 0))
    return {problem: sum(right) / len(right) for problem, right in marks.items()}


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval for a share observed in `n` trials.

    >>> [round(x, 3) for x in wilson(1.0, 10)]
    [0.722, 1.0]
    """
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    # Rounding must not put the share outside its own interval at 0 and 1.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def pass_at_k(n: int, right: int, k: int) -> float:
    """Unbiased estimate of the probability that one of k samples is right (Chen et al. 2021, arXiv 2107.03374).

    >>> round(pass_at_k(4, 1, 2), 3)
    0.5
    """
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def majority_right(rows: Sequence[dict[str, Any]], verifier: Verifier) -> float:
    """Is the most frequent answer to one problem right? Equally frequent ones share the point.

    Equal answers vote together (`answer.count_votes`); samples without an answer do not vote.
    """
    answers = [row["answer"] for row in rows if row["answer"]]
    right = {row["answer"] for row in rows if row["answer"] and row["correct"] is True}
    if not right or right.issuperset(answers):  # all are wrong, or all right: no need to compare them
        return float(bool(right))
    votes = count_votes(answers, verifier, rows[0]["policy"])
    winners = [vote.answer for vote in votes if vote.votes == votes[0].votes]
    return sum(answer in right for answer in winners) / len(winners)


def paired_bootstrap(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], seed: int = 0
) -> tuple[float, float, float]:
    """(difference of means, low, high), a 95 % interval: problems are resampled, each with all its samples on both sides.

    Raises ValueError if the two sets of generations have no problem in common.
    """
    import numpy as np

    a, b = _means(ours), _means(theirs)
    shared = [problem for problem in a if problem in b]
    if not shared:
        raise ValueError(
            "the two sets of generations share no problem, and only scores on the same problems can be compared: "
            "evaluate both models on one problem set."
        )
    differences = np.array([a[problem] - b[problem] for problem in shared])
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(shared), [1 / len(shared)] * len(shared), size=RESAMPLES)
    low, high = np.quantile(counts @ differences / len(shared), [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)
