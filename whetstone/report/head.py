"""The top of the page: the result, the model, the cost."""

from html import escape
from typing import Any

from whetstone.report.charts import number
from whetstone.report.numbers import percent, seconds, title
from whetstone.report.read import RunRecord, model_facts


def head(run: RunRecord) -> str:
    mark = f'<div class="mark"><b>Whetstone</b> · {escape(run.name)}</div>'
    return f'<header class="top">{mark}<h1>{_headline(run)}</h1>{_lead(run)}{_facts(run)}</header>'


def _ends(run: RunRecord) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Headline scores of the base and of the last scored stage of the pipeline."""
    if not run.benchmarks:
        return None, None
    scores = [score for stage in run.pipeline if (score := run.score(stage.name, run.benchmarks[0]))]
    return run.score("base", run.benchmarks[0]), (scores[-1] if scores else None)


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
    titles = [title(stage.kind, stage.name) for stage in run.pipeline]
    *others, final = [text if "DPO" in text else text.lower() for text in titles]
    stages = f"{', '.join(others)} and {final}" if others else final
    sampled = "greedy" if last["temperature"] == 0 else f"temperature {last['temperature']:g}"
    times = "one sample" if last["samples"] == 1 else f"{last['samples']} samples"
    return (
        f'<p class="lead">Mean accuracy over {times} of each of {last["problems"]:,} held-out problems '
        f"(<b>{escape(last['benchmark'])}</b>, {sampled}), before and after {stages}. "
        f"95 % interval of the final score: {percent(last['low'])} to {percent(last['high'])} %.</p>"
    )


def _facts(run: RunRecord) -> str:
    facts = [_model(run), _time(run), _memory(run), _machine(run), _seed(run)]
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{value}<small>{detail}</small></dd></div>" for name, value, detail in facts if value
    )
    return f'<dl class="facts">{cells}</dl>' if cells else ""


def _model(run: RunRecord) -> tuple[str, str, str]:
    model = model_facts(run.pipeline[-1].folder / "model") if run.pipeline else {"parameters": 0}
    if not model["parameters"]:
        return "Model", "", ""
    shape = f"{escape(model['class'])}"
    if model["num_hidden_layers"]:
        shape += f": {model['num_hidden_layers']} layers of width {model['hidden_size']}, "
        shape += f"{model['num_attention_heads']} heads on {model['num_key_value_heads']}, "
        shape += f"vocabulary {model['vocab_size']:,}"
    return "Model", f"{number(model['parameters'], precise=True)} parameters", shape


def _time(run: RunRecord) -> tuple[str, str, str]:
    stages = [stage.manifest for stage in run.stages]
    every = stages + run.scoring
    wall, cpu, scoring = (
        sum(part.get(key, 0) for part in parts)
        for parts, key in ((every, "wall_seconds"), (every, "cpu_seconds"), (run.scoring, "wall_seconds"))
    )
    if not wall:
        return "Time", "", ""
    return "Time", f"{seconds(wall)} wall", f"{seconds(cpu)} of CPU; {seconds(scoring)} of the wall time is scoring"


def _memory(run: RunRecord) -> tuple[str, str, str]:
    peak = max((part.get("peak_memory", 0) for part in [s.manifest for s in run.stages] + run.scoring), default=0)
    return "Peak memory", f"{peak / 2**30:.2f} GiB" if peak else "", "of the largest stage"


def _machine(run: RunRecord) -> tuple[str, str, str]:
    hardware = run.run.get("hardware", {})
    if not hardware:
        return "Machine", "", ""
    speeds = [v for entry in run.run.get("history", []) for v in entry.get("matmul_gflops", {}).values() if v]
    detail = f"{hardware.get('memory', 0) / 2**30:.0f} GiB"
    if speeds:
        low, high = min(speeds), max(speeds)
        detail += f", matmul {low:.0f}–{high:.0f}" if high > 1.05 * low else f", matmul {high:.0f}"
        detail += " GFLOP/s"
    return "Machine", f"{escape(str(hardware.get('cpu')))}, {hardware.get('cores')} cores", detail


def _seed(run: RunRecord) -> tuple[str, str, str]:
    seed = run.run.get("recipe", {}).get("run", {}).get("seed")
    threads = next((entry.get("threads") for entry in reversed(run.run.get("history", []))), None)
    detail = f"{threads} thread{'' if threads == 1 else 's'}" if threads else ""
    return "Seed", "" if seed is None else str(seed), detail
