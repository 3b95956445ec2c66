"""The scores: our stages beside the paper's, every problem set in full, groups of problems."""

from collections.abc import Sequence
from html import escape
from typing import Any

from whetstone.prompting import in_words
from whetstone.report.charts import interval
from whetstone.report.numbers import Place, gain, label, n, percent, places, plus, seconds, section, table
from whetstone.report.read import RunRecord

# The paper's own stages, pass@1 in %: AIME 24, MATH-500, GPQA-Diamond (Phi-4-Mini-Reasoning, arXiv 2504.21233, ablation)
ABLATION = (
    ("Phi-4-Mini", "10.0", 71.8, "36.9"),
    ("+ mid-training", "30.0", 82.9, "42.6"),
    ("+ fine-tuning", "43.3", 89.3, "48.3"),
    ("+ Rollout DPO", "50.0", 93.6, "49.0"),
    ("+ RL (final)", "57.5", 94.6, "52.0"),
)
# Microsoft's later evaluation, over 64 samples (AIME) and 8: the model card of Phi-4-mini-flash-reasoning
LATER = ("48.1", "91.2", "44.5")

SCALE = '<span class="plot"><b>0</b><b>50</b><b>100</b></span>'


def ladder(run: RunRecord) -> str:
    if not run.scores:
        return ""
    return section("stages", "What each stage gave", f'<div class="two">{_ours(run)}{_papers()}</div>')


def _ours(run: RunRecord) -> str:
    benchmark = run.benchmarks[0]
    rows = []
    for name, stage, kind in places(run):
        score = run.score(name, benchmark)
        if score:
            plot = interval(score["mean"], score["low"], score["high"], quiet=kind == "control")
            rows.append(
                f'<tr class="{kind}"><td>{label(name, stage, kind)}</td><td class="n score">{percent(score["mean"])}'
                f"<br><small>{percent(score['low'])}–{percent(score['high'])}</small></td>"
                f'<td class="plotted">{plot}</td>'
                f"{n(gain(run, stage, benchmark))}</tr>"
            )
    note = "Small numbers are 95 % intervals; differences are paired over the same problems."
    return _ladder(f"This run: {escape(benchmark)}", ["after", ">mean, %", SCALE, ">over its start"], rows, note)


def _ladder(title: str, heads: Sequence[str], rows: Sequence[str], note: str) -> str:
    return f'<div><h3>{title}</h3>{table(heads, rows)}<p class="note">{note}</p></div>'


def _papers() -> str:
    rows = []
    for place, (name, aime, math500, gpqa) in enumerate(ABLATION, start=1):
        kind = "final" if place == len(ABLATION) else ""
        plot = interval(math500 / 100, math500 / 100, math500 / 100, quiet=True)
        rows.append(
            f'<tr class="{kind}"><td class="one">{name}</td>{n(aime)}<td class="n score">{math500}</td>'
            f'<td class="plotted">{plot}</td>{n(gpqa)}</tr>'
        )
    aime, math500, gpqa = LATER
    cells = f'{n(aime, math500)}<td class="plotted"></td>{n(gpqa)}'
    rows.append(f'<tr class="control"><td class="one">measured later</td>{cells}</tr>')
    heads = ["after", ">AIME 24", ">MATH-500", SCALE, ">GPQA-D"]
    note = (
        "Another model at another scale on other problems: the order of the stages compares, the numbers do not. "
        "Pass@1 in % (arXiv 2504.21233); the last row is Microsoft’s own later measurement of the final model with "
        "more samples, from the card of Phi-4-mini-flash-reasoning. The bars are MATH-500."
    )
    return _ladder("The paper: Phi-4-Mini, 3.8 B parameters", heads, rows, note)


def scores(run: RunRecord) -> str:
    if not run.scores:
        return ""
    note = (
        "In %. Pass@k is the chance that one of k samples is right; majority is the share of problems whose most "
        "frequent answer is right; truncated is the share of samples that ran into the length limit; tokens is their "
        "mean length. Flexible is the mean by flexible extraction: if no answer is in a box or stated, the last number or "
        "expression counts as one; boxed is the share of answers in a box."
    )
    tables = [_scores_on(run, benchmark) for benchmark in run.benchmarks]
    return section("scores", "All scores", f'<p class="note">{note}</p>', *tables)


def _scores_on(run: RunRecord, benchmark: str) -> str:
    rows = [(place, score) for place in places(run) if (score := run.score(place[0], benchmark))]
    ks = sorted({int(k) for _, score in rows for k in score["pass_at_k"]} - {1})
    main = benchmark == run.benchmarks[0]
    heads = ["after", ">mean", ">95 % interval", ">over its start", *(f">pass@{k}" for k in ks)]
    heads += [">flexible", ">boxed", ">majority", ">truncated", ">tokens", *([">wall", ">CPU"] if main else [])]
    last = next((score for place, score in reversed(rows) if place[2] != "control"), rows[-1][1])
    fewer = [f"{place[0]} × {score['samples']}" for place, score in rows if score["samples"] != last["samples"]]
    how = f"{last['problems']:,} problems × {', '.join([str(last['samples']), *fewer])}, temperature {last['temperature']:g}"
    how += (
        f", {last['not_asked']} of them cannot be asked (too long) and count as not solved"
        if last.get("not_asked")
        else ""
    )
    counts = sorted({score["problems"] for place, score in rows if place[2] == "control"} - {last["problems"]})
    how += f"; controls on {' or '.join(f'{count:,}' for count in counts)} problems" if counts else ""
    how += f"; asked with {in_words(last['prompt'])}" if last.get("prompt") else ""
    return (
        f'<h3>{escape(benchmark)}{" (headline)" if main else ""} <span class="quiet">{escape(how)}</span></h3>'
        f"{table(heads, [_score_row(run, place, score, ks, main) for place, score in rows])}"
        f"{_only_format(run, benchmark)}"
    )


def _only_format(run: RunRecord, benchmark: str) -> str:
    """Says which gains are gone once the format is granted."""
    words = []
    for name, stage, _ in places(run):
        row = run.difference(stage.name, stage.start, benchmark) if stage else None
        low, granted = (row.get("flexible_low"), row.get("flexible_difference")) if row else (None, None)
        if row and low is not None and granted is not None and row["low"] > 0 >= low:
            by = f"{plus(granted)} [{plus(low)}, {plus(row['flexible_high'])}]"
            words.append(f"The gain of {escape(name)} is one of format: by flexible extraction it is {by}.")
    return f'<p class="note">{" ".join(words)}</p>' if words else ""


def _score_row(run: RunRecord, place: Place, score: dict[str, Any], ks: Sequence[int], main: bool) -> str:
    name, stage, kind = place
    cells = n(
        f"{percent(score['low'])}–{percent(score['high'])}",
        gain(run, stage, score["benchmark"]),
        *(percent(score["pass_at_k"].get(str(k))) for k in ks),
        percent(score.get("flexible")),
        percent(score.get("boxed")),
        percent(score["majority"]),
        percent(score["truncated"]),
        f"{score['mean_tokens']:,.0f}",
    )
    if main:
        usage = stage.manifest if stage else {}
        cells += n(*(seconds(usage[key]) if key in usage else "" for key in ("wall_seconds", "cpu_seconds")))
    mean = f'<td class="n score">{percent(score["mean"])}</td>'
    return f'<tr class="{kind}"><td>{label(name, stage, kind)}</td>{mean}{cells}</tr>'


def groups(run: RunRecord) -> str:
    rows = [row for row in run.evaluation.get("groups", []) if row["by"] != "all"]
    tables = []
    for benchmark in run.benchmarks:
        for by in ("level", "domain"):
            group = [row for row in rows if row["benchmark"] == benchmark and row["by"] == by]
            if len({row["value"] for row in group}) > 1:
                tables.append(f"<h3>{escape(benchmark)} by {by}</h3>{_group_table(run, group, by)}")
    if not tables:
        return ""
    note = '<p class="note">Mean accuracy in %, with its 95 % interval.</p>'
    return section("levels", "By level and domain", note, *tables)


def _group_table(run: RunRecord, rows: list[dict[str, Any]], by: str) -> str:
    stages = [name for name, _, kind in places(run) if kind != "control" and any(row["stage"] == name for row in rows)]
    values = sorted({row["value"] for row in rows}, key=lambda v: (not v.isdigit(), int(v) if v.isdigit() else 0, v))
    lines = []
    for value in values:
        by_stage = {row["stage"]: row for row in rows if row["value"] == value}
        count = max(row["problems"] for row in by_stage.values())
        cells = "".join(_group_cell(by_stage.get(stage)) for stage in stages)
        lines.append(f"<tr><td>{escape(value)} <small>{count:,} problems</small></td>{cells}</tr>")
    return table([by, *(f">{escape(stage)}" for stage in stages)], lines, "heat")


def _group_cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return n("–")
    bounds = f"{percent(row['low'], 0)}–{percent(row['high'], 0)}"
    bar = f'<i><b style="width:{100 * row["mean"]:.0f}%"></b></i>'
    return n(f"{percent(row['mean'], 0)} <small>{bounds}</small>{bar}")
