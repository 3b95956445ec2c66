"""The page's sections, each a function from the run to HTML; "" for a section that has nothing to show."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from whetstone.report import charts
from whetstone.report.paper import ABLATION, LATER
from whetstone.report.read import RunRecord, StageRecord, model_facts
from whetstone.report.rollouts import choose_problems, split_thinking

TITLES = {
    "base": "Base",
    "midtrain": "Mid-training",
    "sft": "Supervised fine-tuning",
    "dpo": "Rollout DPO",
    "rl": "Reinforcement learning",
}

# Curves drawn first, by kind: (title, metric names that share the panel, percent). Whatever else a stage logged follows.
PANELS: dict[str, list[tuple[str, tuple[str, ...], bool]]] = {
    "midtrain": [("Loss, nats per token", ("loss", "validation_loss"), False)],
    "sft": [("Loss, nats per token", ("loss", "validation_loss"), False)],
    "dpo": [
        ("Chosen preferred to rejected", ("accuracy", "reward_accuracy"), True),
        ("Margin", ("margin", "reward_margin"), False),
        (
            "Log-probability of the two sides",
            ("chosen_logprob", "rejected_logprob", "chosen_logprobs", "rejected_logprobs"),
            False,
        ),
        ("Loss", ("loss",), False),
    ],
    "rl": [
        ("Accuracy of the rollouts", ("accuracy", "validation_accuracy"), True),
        ("Reward", ("reward", "mean_reward"), False),
        ("Entropy, nats per token", ("entropy",), False),
        ("Response length, tokens", ("response_tokens", "mean_tokens", "response_length", "length"), False),
        ("Truncated", ("truncated", "truncation"), True),
        ("Temperature", ("temperature",), False),
        ("Kept", ("kept_share", "kept", "groups_kept", "rollouts_kept"), False),
        ("Gap between sampler and trainer", ("sampler_trainer_gap", "logprob_gap", "gap", "sampler_gap"), False),
    ],
}


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def seconds(value: float) -> str:
    value = round(value)
    if value < 60:
        return f"{value} s"
    minutes, rest = divmod(value, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def head(run: RunRecord) -> str:
    return "".join(
        [
            '<header><div class="mark"><b>Whetstone</b> · ' + escape(run.name) + "</div>",
            f"<h1>{_headline(run)}</h1>",
            _lead(run),
            _facts(run),
            "</header>",
        ]
    )


def _headline(run: RunRecord) -> str:
    first, last = _ends(run)
    if not last:
        return escape(run.name)
    if not first:
        return f"{percent(last['mean'])} % on {escape(last['benchmark'])}"
    return f"From {percent(first['mean'])} % to {percent(last['mean'])} %"


def _lead(run: RunRecord) -> str:
    first, last = _ends(run)
    if not first or not last:
        return ""
    walk = [TITLES[stage.kind].lower() if stage.kind != "dpo" else "Rollout DPO" for stage in run.walk]
    sampled = "greedy" if last["temperature"] == 0 else f"temperature {last['temperature']:g}"
    return (
        f'<p class="lead">Mean accuracy over {last["samples"]} {"samples" if last["samples"] != 1 else "sample"} of each of '
        f"{last['problems']:,} held-out problems (<b>{escape(last['benchmark'])}</b>, {sampled}), before and after "
        f"{_listed(walk)}. 95 % interval of the final score: {percent(last['low'])} to {percent(last['high'])} %.</p>"
    )


def _ends(run: RunRecord) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Headline scores of the base and of the last stage of the walk that has one."""
    if not run.benchmarks:
        return None, None
    found = [score for stage in run.walk if (score := run.score(stage.name, run.benchmarks[0]))]
    return run.score("base", run.benchmarks[0]), (found[-1] if found else None)


def _facts(run: RunRecord) -> str:
    facts: list[tuple[str, str, str]] = []
    if run.walk:
        model = model_facts(run.walk[-1].folder / "model")
        if model["parameters"]:
            shape = (
                f"{model['num_hidden_layers']} layers of width {model['hidden_size']}, "
                f"{model['num_attention_heads']} heads on {model['num_key_value_heads']}, vocabulary {model['vocab_size']:,}"
                if model["num_hidden_layers"]
                else ""
            )
            facts.append(("Model", f"{charts.number(model['parameters'], precise=True)} parameters", shape))
    wall = sum(stage.manifest.get("wall_seconds", 0) for stage in run.stages)
    cpu = sum(stage.manifest.get("cpu_seconds", 0) for stage in run.stages)
    if wall:
        facts.append(("Time of the stages", f"{seconds(wall)} wall", f"{seconds(cpu)} of CPU; scoring not counted"))
    peak = max((stage.manifest.get("peak_memory", 0) for stage in run.stages), default=0)
    if peak:
        facts.append(("Peak memory", f"{peak / 2**30:.2f} GiB", "the largest stage"))
    hardware = run.run.get("hardware", {})
    if hardware:
        speed = _matmul(run)
        detail = f"{hardware.get('memory', 0) / 2**30:.0f} GiB{', ' + speed if speed else ''}"
        facts.append(("Machine", f"{escape(str(hardware.get('cpu')))}, {hardware.get('cores')} cores", detail))
    seed = run.run.get("recipe", {}).get("run", {}).get("seed")
    if seed is not None:
        facts.append(("Seed", str(seed), ""))
    cells = [f"<div><dt>{name}</dt><dd>{value}<small>{detail}</small></dd></div>" for name, value, detail in facts]
    return f'<dl class="facts">{"".join(cells)}</dl>' if cells else ""


def _matmul(run: RunRecord) -> str:
    history = run.run.get("history", [])
    speeds = [v for entry in history for v in entry.get("matmul_gflops", {}).values() if v]
    if not speeds:
        return ""
    low, high = min(speeds), max(speeds)
    return f"matmul {low:.0f}–{high:.0f} GFLOP/s" if high > 1.05 * low else f"matmul {high:.0f} GFLOP/s"


# --- the ladder: our stages beside the paper's


def ladder(run: RunRecord) -> str:
    if not run.scores:
        return ""
    return (
        '<section id="stages"><h2>What each stage gave</h2><div class="two">'
        f"<div>{_our_ladder(run)}</div><div>{_paper_ladder()}</div></div></section>"
    )


def _rows(run: RunRecord) -> list[tuple[str, StageRecord | None, str]]:
    """(score name, stage, class): base, the walk, and each control under the stage it controls for."""
    rows: list[tuple[str, StageRecord | None, str]] = [("base", None, "")]
    for stage in run.walk:
        rows.append((stage.name, stage, "final" if stage is run.walk[-1] else ""))
        rows += [(control.name, control, "control") for control, of in run.controls if of is stage]
    rows += [(control.name, control, "control") for control, of in run.controls if of is None]
    return rows


def _label(name: str, stage: StageRecord | None, kind: str) -> str:
    title = TITLES.get(stage.kind if stage else "base", name)
    plain = name in (title.lower(), stage.kind if stage else "base")
    own = "" if plain else f"<br><small>{escape(name)}{', control' if kind == 'control' else ''}</small>"
    if kind == "control" and plain:
        own = "<br><small>control</small>"
    return f"{title}{own}"


def _our_ladder(run: RunRecord) -> str:
    benchmark = run.benchmarks[0]
    rows = []
    for name, stage, kind in _rows(run):
        score = run.score(name, benchmark)
        if score is None:
            continue
        plot = charts.interval(score["mean"], score["low"], score["high"], quiet=kind == "control")
        rows.append(
            f'<tr class="{kind}"><td>{_label(name, stage, kind)}</td>'
            f'<td class="n score">{percent(score["mean"])}<br><small>{percent(score["low"])}–{percent(score["high"])}'
            f"</small></td><td>{plot}</td><td class='n'>{_gain(run, stage, benchmark)}</td></tr>"
        )
    return (
        f"<h3>This run: {escape(benchmark)}</h3>"
        '<table><thead><tr><th>after</th><th class="n">mean, %</th><th class="plot"><span><i>0</i><i>50</i><i>100</i></span>'
        f'</th><th class="n">over its start</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        '<p class="note">Small numbers are 95 % intervals; differences are paired over the same problems.</p>'
    )


def _gain(run: RunRecord, stage: StageRecord | None, benchmark: str) -> str:
    row = run.difference(stage.name, stage.start, benchmark) if stage else None
    if row is None:
        return "–" if stage else ""
    return signed(row["difference"], row["low"], row["high"])


def signed(difference: float, low: float, high: float) -> str:
    """+3.1 with its interval; coloured only where the interval leaves 0 out."""
    colour = "up" if low > 0 else "down" if high < 0 else ""
    return f'<span class="{colour}">{_plus(difference)}</span><br><small>{_plus(low)} to {_plus(high)}</small>'


def _plus(value: float) -> str:
    text = f"{100 * value:+.1f}"
    return text.replace("-", "−") if text not in ("+0.0", "-0.0") else "0.0"


def _paper_ladder() -> str:
    rows = []
    for place, (name, aime, math500, gpqa) in enumerate(ABLATION):
        kind = ' class="final"' if place == len(ABLATION) - 1 else ""
        plot = charts.interval(math500 / 100, math500 / 100, math500 / 100, quiet=True)
        rows.append(
            f"<tr{kind}><td>{name}</td><td class='n'>{aime}</td><td class='n score'>{math500}</td><td>{plot}</td>"
            f"<td class='n'>{gpqa}</td></tr>"
        )
    later = "".join(f'<td class="n">{value}</td>' + ("<td></td>" if i == 1 else "") for i, value in enumerate(LATER))
    return (
        "<h3>The paper: Phi-4-Mini, 3.8 B parameters</h3><table><thead><tr><th>after</th><th class='n'>AIME 24</th>"
        "<th class='n'>MATH-500</th><th class='plot'><span><i>0</i><i>50</i><i>100</i></span></th>"
        f"<th class='n'>GPQA-D</th></tr></thead><tbody>{''.join(rows)}<tr class='control'><td>Final, evaluated "
        f"again</td>{later}</tr></tbody></table>"
        '<p class="note">Another model at another scale on other problems: the order of the stages compares, the numbers do '
        "not. Pass@1 in %, after arXiv 2504.21233; the last row is Microsoft’s own later evaluation with more samples, from "
        "the card of Phi-4-mini-flash-reasoning. The bar is MATH-500.</p>"
    )


# --- the full table


def details(run: RunRecord) -> str:
    if not run.scores:
        return ""
    sections = []
    for benchmark in run.benchmarks:
        found = [(name, stage, kind, run.score(name, benchmark)) for name, stage, kind in _rows(run)]
        found = [row for row in found if row[3]]
        ks = sorted({int(k) for *_, score in found for k in score["pass_at_k"]})
        rows = [_detail_row(run, *row, ks) for row in found]
        one = found[0][3]
        main = " (headline)" if benchmark == run.benchmarks[0] else ""
        sections.append(
            f'<h3>{escape(benchmark)}{main} <span class="quiet">{one["problems"]:,} problems × {one["samples"]}, '
            f"temperature {one['temperature']:g}</span></h3>"
            '<div class="scroll"><table class="wide"><thead><tr><th>after</th><th class="n">mean</th>'
            '<th class="n">95 % interval</th><th class="n">over its start</th>'
            + "".join(f'<th class="n">pass@{k}</th>' for k in ks if k > 1)
            + '<th class="n">majority</th><th class="n">truncated</th><th class="n">tokens</th>'
            f"{'<th class=n>wall</th><th class=n>CPU</th>' if main else ''}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )
    return (
        '<section id="scores"><h2>All scores</h2><p class="note">In %. Pass@k is the chance that one of k samples is right; '
        "majority is the share of problems whose most frequent answer is right; truncated is the share of samples that ran "
        f"into the length limit; tokens is the mean length of an answer.</p>{''.join(sections)}{_controls(run)}</section>"
    )


def _detail_row(
    run: RunRecord, name: str, stage: StageRecord | None, kind: str, score: dict[str, Any], ks: Sequence[int]
) -> str:
    cells = [
        f'<td class="n score">{percent(score["mean"])}</td>',
        f'<td class="n">{percent(score["low"])}–{percent(score["high"])}</td>',
        f'<td class="n">{_gain(run, stage, score["benchmark"])}</td>',
        *(f'<td class="n">{percent(score["pass_at_k"].get(str(k)))}</td>' for k in ks if k > 1),
        f'<td class="n">{percent(score["majority"])}</td>',
        f'<td class="n">{percent(score["truncated"])}</td>',
        f'<td class="n">{score["mean_tokens"]:,.0f}</td>',
    ]
    if score["benchmark"] == run.benchmarks[0]:
        used = stage.manifest if stage else {}
        cells += [
            f'<td class="n">{seconds(used["wall_seconds"]) if "wall_seconds" in used else ""}</td>',
            f'<td class="n">{seconds(used["cpu_seconds"]) if "cpu_seconds" in used else ""}</td>',
        ]
    return f'<tr class="{kind}"><td>{_label(name, stage, kind)}</td>{"".join(cells)}</tr>'


def _controls(run: RunRecord) -> str:
    """Each stage against what the same start gives without the idea of the stage."""
    if not run.controls:
        return ""
    rows = []
    for control, of in run.controls:
        for benchmark in run.benchmarks:
            row = run.difference(of.name, control.name, benchmark) if of else None
            ours, theirs = (run.score(stage.name, benchmark) if stage else None for stage in (of, control))
            if ours and theirs:
                gain = signed(row["difference"], row["low"], row["high"]) if row else "–"
                rows.append(
                    f"<tr><td>{_label(of.name, of, '')}</td><td>{_label(control.name, control, 'control')}</td>"
                    f"<td>{escape(benchmark)}</td><td class='n'>{percent(ours['mean'])}</td>"
                    f"<td class='n'>{percent(theirs['mean'])}</td><td class='n'>{gain}</td></tr>"
                )
    if not rows:
        return ""
    return (
        "<h3>Stages against their controls</h3><p>A climb proves little alone. A control starts from the same model as the "
        "stage and spends its effort without the stage’s idea.</p>"
        '<div class="scroll"><table class="wide"><thead><tr><th>stage</th><th>control</th><th>problems</th>'
        '<th class="n">stage</th><th class="n">control</th><th class="n">stage − control</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


# --- curves


def curves(run: RunRecord) -> str:
    sections = []
    for stage in run.training:
        rows = stage.metrics()
        if not rows:
            continue
        first, more = _panels(stage.kind, rows)
        folded = f'<details><summary>{len(more)} more</summary><div class="panels">{"".join(more)}</div></details>'
        control = ' <span class="quiet">control</span>' if stage not in run.walk else ""
        name = "" if stage.name == stage.kind else f' <span class="quiet">{escape(stage.name)}</span>'
        sections.append(
            f"<h3>{TITLES[stage.kind]}{name}{control}</h3>"
            f'<div class="panels">{"".join(first)}</div>{folded if more else ""}'
        )
    return f'<section id="curves"><h2>Curves</h2>{"".join(sections)}</section>' if sections else ""


def _panels(kind: str, rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    names = dict.fromkeys(name for row in rows for name, value in row.items() if _is_number(value))
    names.pop("step", None)
    first = []
    for title, keys, as_percent in PANELS[kind]:
        found = [key for key in keys if key in names]
        if found:
            first.append(_panel(title, [_line(key, rows) for key in found], as_percent))
            for key in found:
                names.pop(key)
    more = [_panel(words(name), [_line(name, rows)], False) for name in names]
    return [panel for panel in first if panel], [panel for panel in more if panel]


def _panel(title: str, lines: list[charts.Line], as_percent: bool) -> str:
    log = not as_percent and all("loss" in line.name for line in lines) and _spans_decades(lines)
    drawn = charts.line_chart(lines, percent=as_percent, log=log)
    if not drawn:
        return ""
    scale = ' <span class="quiet">log scale</span>' if log else ""
    named = [charts.Line(words(line.name), line.xs, line.ys) for line in lines]
    return f'<div class="panel"><h4>{escape(title)}{scale}</h4>{charts.legend(named, as_percent)}{drawn}</div>'


def _spans_decades(lines: Iterable[charts.Line]) -> bool:
    values = [y for line in lines for y in line.ys if math.isfinite(y)]
    return bool(values) and min(values) > 0 and max(values) / min(values) > 20


def _line(name: str, rows: Sequence[dict[str, Any]]) -> charts.Line:
    points = [(row["step"], row[name]) for row in rows if _is_number(row.get(name)) and _is_number(row.get("step"))]
    return charts.Line(name, [float(x) for x, _ in points], [float(y) for _, y in points])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def words(name: str) -> str:
    return name.replace("_", " ").replace("/", ": ").replace("logprob", "log-prob")


# --- levels and domains


def groups(run: RunRecord) -> str:
    rows = run.evaluation.get("groups", [])
    if not rows:
        return ""
    tables = []
    for benchmark in run.benchmarks:
        for by in ("level", "domain"):
            found = [row for row in rows if row["benchmark"] == benchmark and row["by"] == by]
            if len({row["value"] for row in found}) > 1:
                tables.append(f"<h3>{escape(benchmark)} by {by}</h3>{_heat(run, found, by)}")
    if not tables:
        tables = [f"<h3>Each problem set</h3>{_heat(run, [row for row in rows if row['by'] == 'all'], 'benchmark')}"]
    return (
        '<section id="levels"><h2>By level and domain</h2><p class="note">Mean accuracy in %, with its 95 % interval.</p>'
        f"{''.join(tables)}</section>"
    )


def _heat(run: RunRecord, rows: list[dict[str, Any]], by: str) -> str:
    key = "benchmark" if by == "benchmark" else "value"
    stages = [name for name, _, _ in _rows(run) if any(row["stage"] == name for row in rows)]
    values = sorted({str(row[key]) for row in rows}, key=lambda v: (not v.isdigit(), int(v) if v.isdigit() else 0, v))
    lines = []
    for value in values:
        found = {row["stage"]: row for row in rows if str(row[key]) == value}
        cells = []
        for stage in stages:
            row = found.get(stage)
            if row is None:
                cells.append('<td class="n">–</td>')
                continue
            fill = f"right:{100 - 97 * row['mean']:.0f}%"
            cells.append(
                f'<td class="n"><i style="{fill}"></i><span>{percent(row["mean"], 0)} '
                f"<small>{percent(row['low'], 0)}–{percent(row['high'], 0)}</small></span></td>"
            )
        count = next(iter(found.values()))["problems"]
        lines.append(f"<tr><td>{escape(value)} <small>{count:,} problems</small></td>{''.join(cells)}</tr>")
    heads = "".join(f'<th class="n">{escape(stage)}</th>' for stage in stages)
    return (
        f'<div class="scroll"><table class="wide heat"><thead><tr><th>{by}</th>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


# --- rollouts to read


def reading(run: RunRecord) -> str:
    if not run.benchmarks:
        return ""
    stages = [name for name, _, kind in _rows(run) if kind != "control"]
    problems = choose_problems(run, stages, run.benchmarks[0])
    if not problems:
        return ""
    articles = []
    for answers in problems:
        any_row = next(iter(answers.values()))
        cards = [_answer(stage, answers[stage]) for stage in stages if stage in answers]
        labels = ", ".join(
            str(x) for x in (f"level {any_row['level']}" if any_row.get("level") else "", any_row.get("domain")) if x
        )
        articles.append(
            f'<article><p>{escape(str(any_row["question"]))}</p><span class="note">Answer {escape(str(any_row["gold"]))}'
            f'{" · " + escape(labels) if labels else ""}</span><div class="answers">{"".join(cards)}</div></article>'
        )
    return (
        '<section id="rollouts"><h2>Rollouts to read</h2><p>The first sample of every stage on the same problems: right and '
        f"wrong ones, chosen by what changed and not by how well they read.</p>{''.join(articles)}</section>"
    )


def _answer(stage: str, row: dict[str, Any]) -> str:
    thinking, final = split_thinking(str(row["text"]))
    verdict, colour = {True: ("right", "up"), False: ("wrong", "down")}.get(row["correct"], ("undecided", "quiet"))
    folded = (
        f'<details><summary>thinking, {len(thinking):,} characters</summary><pre class="thinking">{escape(thinking)}</pre>'
        "</details>"
        if thinking
        else ""
    )
    stopped = "" if row.get("stop") == "end" else ", cut off"
    return (
        f'<div class="answer"><header><b>{escape(stage)}</b><span class="chip {colour}">{verdict}</span>'
        f'<span class="quiet">{escape(str(row.get("reason") or ""))} · {row.get("tokens", 0)} tokens{stopped}</span></header>'
        f"{folded}<pre>{escape(final) or '<span class=quiet>(nothing after the thinking)</span>'}</pre></div>"
    )


# --- data


def data(run: RunRecord) -> str:
    card = run.card()
    if not card:
        return ""
    counts = "".join(
        f"<div><dt>{name}</dt><dd>{count:,}</dd></div>"
        for name, count in sorted(card["rows"].items(), key=lambda item: -item[1])
    )
    panels = []
    for title, key in (("Levels", "levels"), ("Domains", "domains"), ("Sources", "sources"), ("Licences", "licences")):
        if card.get(key):
            panels.append(f'<div class="panel"><h4>{title}</h4>{charts.bars(card[key])}</div>')
    if card.get("drops"):
        panels.append(f'<div class="panel"><h4>Left out, by reason</h4>{charts.bars(card["drops"])}</div>')
    lengths = {float(low): count for low, count in card.get("characters", {}).items()}
    if lengths:
        drawn = charts.histogram(lengths, card["characters_bin"], "characters")
        panels.append(f'<div class="panel"><h4>Length of the accepted traces</h4>{drawn}</div>')
    rates = {float(rate): count for rate, count in card.get("pass_rates", {}).items()}
    if rates:
        drawn = charts.histogram(rates, 0.1, "pass rate")
        panels.append(f'<div class="panel"><h4>The teacher’s pass rate on train problems</h4>{drawn}</div>')
    matches = card.get("contamination", {}).get("matches", {})
    found = ", ".join(f"{count:,} {escape(rule)}" for rule, count in matches.items()) or "none"
    return (
        f'<section id="data"><h2>Data</h2><dl class="facts">{counts}</dl>'
        f'<div class="panels">{"".join(panels)}</div>'
        f'<p class="note">Training questions compared with every test question: {found}. Equal ones and long shared runs '
        "with the same numbers are dropped; look-alikes with other numbers are counted only.</p></section>"
    )


# --- how to make it again


def reproduce(run: RunRecord) -> str:
    last = run.stages[-1].manifest
    versions = run.run.get("versions") or last.get("versions", {})
    pairs = [
        ("Recipe", f"<code>{escape(str(run.run.get('recipe_file', '')))}</code>"),
        ("Command", f"<code>whetstone run {escape(str(run.run.get('recipe_file', 'RECIPE')))}</code>"),
        ("Revision", f"<code>{escape(str(last.get('git_revision') or 'not a checkout'))}</code>"),
        ("Versions", escape(", ".join(f"{k} {v}" for k, v in versions.items() if v))),
        ("Python", escape(str(last.get("python", "")))),
        ("System", escape(str(run.run.get("hardware", {}).get("system", "")))),
        ("Finished", escape(str(last.get("finished", ""))[:19].replace("T", " ") + " UTC")),
    ]
    stages = "".join(
        f'<tr><td>{escape(stage.folder.name)}</td><td class="n">{seconds(stage.manifest.get("wall_seconds", 0))}</td>'
        f'<td class="n">{seconds(stage.manifest.get("cpu_seconds", 0))}</td>'
        f'<td class="n">{stage.manifest.get("peak_memory", 0) / 2**20:,.0f} MiB</td>'
        f"<td>{_settings(stage)}</td></tr>"
        for stage in run.stages
    )
    return (
        '<section id="reproduce"><h2>How to make it again</h2><dl class="pairs">'
        + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in pairs)
        + '</dl><div class="scroll"><table class="wide"><thead><tr><th>stage</th><th class="n">wall</th><th class="n">CPU</th>'
        f'<th class="n">memory</th><th>settings</th></tr></thead><tbody>{stages}</tbody></table></div></section>'
    )


def _settings(stage: StageRecord) -> str:
    settings = stage.manifest.get("settings", {})
    if not settings:
        return ""
    shown = "\n".join(f"{name} = {value!r}" for name, value in settings.items() if value is not None)
    return f"<details><summary>{len(settings)} settings</summary><pre>{escape(shown)}</pre></details>"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
