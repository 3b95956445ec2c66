"""Numbers and names as the report prints them."""

import math
from collections.abc import Sequence
from html import escape

from whetstone.report.read import RunRecord, StageRecord
from whetstone.run.control import FEW, caution
from whetstone.run.control import TITLES as CONTROL_TITLES

TITLES = {
    "base": "Base",
    "midtrain": "Mid-training",
    "sft": "Fine-tuning",
    "dpo": "Rollout DPO",
    "rl": "Reinforcement learning",
    "distill": "Distillation",
}

# (name in scores.json, its stage, class of its row): "" for a stage of the pipeline, "final" for its last, "control"
Place = tuple[str, StageRecord | None, str]


def title(kind: str, name: str) -> str:
    """Of a stage of this kind; of a kind of the user's own, its name."""
    return TITLES.get(kind, escape(name))


def places(run: RunRecord) -> list[Place]:
    """The base, the stages of the pipeline, and each control below the stage that it is compared with."""
    rows: list[Place] = [("base", None, "")]
    pipeline, controls = run.pipeline, run.controls

    def below(stage: StageRecord | None) -> list[Place]:
        """Its controls, and theirs: a stage of the user's that stands beside another may have its own."""
        own = [control for control, of in controls if of is stage]
        return [place for control in own for place in [(control.name, control, "control"), *below(control)]]

    for stage in pipeline:
        rows += [(stage.name, stage, "final" if stage is pipeline[-1] else ""), *below(stage)]
    return rows + below(None)


def label(name: str, stage: StageRecord | None, place: str = "") -> str:
    """A stage's title; below it, its own name if that is another, and whether it stands beside the pipeline."""
    if stage and stage.control:
        return f"{CONTROL_TITLES.get(stage.control, escape(stage.control))}<br><small>{escape(name)}</small>"
    kind = stage.kind if stage else "base"
    below = [escape(name)] if name not in (kind, title(kind, name).lower()) else []
    below += ["beside"] if place == "control" else []
    return title(kind, name) + (f"<br><small>{', '.join(below)}</small>" if below else "")


def percent(fraction: float | None, digits: int = 1) -> str:
    """0.123 -> 12.3, without the sign, which the column heads have."""
    return "–" if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.{digits}f}"


def seconds(value: float) -> str:
    value = round(value)
    if value < 60:
        return f"{value} s"
    minutes, rest = divmod(value, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def plus(fraction: float) -> str:
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def signed(difference: float, low: float, high: float, problems: int = FEW) -> str:
    """A difference above its interval, in colour if the interval excludes 0; of few problems with a caution."""
    colour = "up" if low > 0 else "down" if high < 0 else ""
    few = f"<br><small>{caution(problems)}</small>" if caution(problems) else ""
    return f'<span class="{colour}">{plus(difference)}</span><br><small>{plus(low)} to {plus(high)}</small>{few}'


def gain(run: RunRecord, stage: StageRecord | None, benchmark: str) -> str:
    """The paired difference to the model that the stage started from."""
    if stage is None:
        return ""
    row = run.difference(stage.name, stage.start, benchmark)
    return signed(row["difference"], row["low"], row["high"], row.get("problems", FEW)) if row else "–"


def table(heads: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    """A table that scrolls sideways if it is too wide. Columns whose head begins with `>` are right-aligned."""
    cells = "".join(f'<th class="n">{head[1:]}</th>' if head.startswith(">") else f"<th>{head}</th>" for head in heads)
    return (
        f'<div class="scroll"><table class="wide {kind}"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def n(*values: object) -> str:
    """Right-aligned cells."""
    return "".join(f'<td class="n">{value}</td>' for value in values)


def panel(title: str, content: str, kind: str = "") -> str:
    return f'<div class="panel {kind}"><h4>{title}</h4>{content}</div>'


def section(anchor: str, title: str, *content: str) -> str:
    return f'<section id="{anchor}"><h2>{title}</h2>{"".join(content)}</section>'
