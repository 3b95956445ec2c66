"""Charts as inline SVG, without scripts or requests. Their colours are CSS variables of the page, for light and dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH = 380  # of a chart
POINTS = 240  # a longer line is thinned to this many points, each the mean of a stretch
SMOOTH = 30  # a noisy line of more points than this is also drawn smoothed


@dataclass(frozen=True)
class Line:
    name: str
    xs: Sequence[float]
    ys: Sequence[float]


def line_chart(
    lines: Sequence[Line], percent: bool = False, log: bool = False, steps: tuple[float, float] | None = None
) -> str:
    """Lines over steps, from the first of `steps` to the last. Noisy ones are drawn faint, with their moving mean on top.
    Infinities are left out.
    """
    lines = [line for line in map(thin, map(finite, lines)) if line.xs]
    if not lines:
        return ""
    log = log and all(y > 0 for line in lines for y in line.ys)
    scale = math.log10 if log else float
    high, left, right, top, bottom = 190, 46, 10, 10, 26
    low_x, high_x = steps or (min(line.xs[0] for line in lines), max(line.xs[-1] for line in lines))
    low, high_y = bounds([y for line in lines for y in line.ys], scale, percent)

    def x(value: float) -> float:
        return left + (value - low_x) / ((high_x - low_x) or 1) * (WIDTH - left - right)

    def y(value: float) -> float:
        return high - bottom - (scale(value) - low) / ((high_y - low) or 1) * (high - top - bottom)

    def polyline(place: int, xs: Sequence[float], ys: Sequence[float], kind: str = "") -> str:
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, ys, strict=True))
        return f'<polyline class="line c{place}{kind}" points="{points}"/>'

    parts = []
    for tick in log_ticks(low, high_y) if log else nice_ticks(low, high_y):
        value = 10**tick if log else tick
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y(value) + 3.5:.1f}" class="end">{number(value, percent)}</text>')
    parts += _x_axis(low_x, high_x, x, high - 8, "step")
    for place, line in enumerate(lines, start=1):
        if len(line.xs) == 1:
            parts.append(f'<circle class="dot c{place}" cx="{x(line.xs[0]):.1f}" cy="{y(line.ys[0]):.1f}" r="3"/>')
        elif is_noisy(line):
            parts += [polyline(place, line.xs, line.ys, " faint"), polyline(place, line.xs, moving_mean(line.ys))]
        else:
            parts.append(polyline(place, line.xs, line.ys))
    return _svg(high, ", ".join(line.name for line in lines), parts)


def _svg(height: int, label: str, parts: Sequence[str]) -> str:
    box = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}"'
    return f'<svg class="chart" {box}>{"".join(parts)}</svg>'


def _x_axis(low: float, high: float, x: Callable[[float], float], y: float, name: str) -> list[str]:
    """Ticks, and the name of the axis at its right end."""
    ticks = [f'<text x="{x(tick):.1f}" y="{y}" class="middle">{number(tick)}</text>' for tick in x_ticks(low, high)]
    return [*ticks, f'<text x="{WIDTH - 10}" y="{y}" class="end quiet">{escape(name)}</text>']


def is_noisy(line: Line) -> bool:
    return len(line.xs) > SMOOTH and roughness(line.ys) > 0.2


def legend(lines: Sequence[Line], percent: bool = False) -> str:
    """The names of the lines with their last values; of a noisy line, the mean of its last tenth."""
    spans = []
    for place, line in enumerate([line for line in map(finite, lines) if line.xs], start=1):
        last = line.ys[-max(len(line.ys) // 10, 1) :] if is_noisy(line) else line.ys[-1:]
        value = number(sum(last) / len(last), percent, precise=True)
        spans.append(f'<span class="key"><i class="c{place}"></i>{escape(line.name)} <b>{value}</b></span>')
    return f'<div class="legend">{"".join(spans)}</div>'


def interval(mean: float, low: float, high: float, quiet: bool = False) -> str:
    """A bar from 0 to the mean and its 95 % interval, on a scale of 0 to 1."""
    label = f"{100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    kind = "interval quiet" if quiet else "interval"
    ticks = "".join(f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="20"/>' for x in (0.5, 50, 100, 150, 199.5))
    return (
        f'<svg class="{kind}" viewBox="0 0 200 20" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f"<title>{label}</title>{ticks}"
        f'<rect class="bar" x="0" y="5" width="{200 * mean:.1f}" height="10"/>'
        f'<rect class="whisker" x="{200 * low:.1f}" y="9" width="{max(200 * (high - low), 1):.1f}" height="2"/>'
        f'<rect class="mean" x="{200 * mean - 1:.1f}" y="4" width="2" height="12"/></svg>'
    )


def bars(counts: dict[str, float], total: float | None = None) -> str:
    """Labelled horizontal bars, as an HTML table."""
    if not counts:
        return ""
    largest, total = max(counts.values()) or 1, total or sum(counts.values())
    rows = [
        f'<tr><td>{escape(name)}</td><td class="n">{count:,.0f}</td>'
        f'<td class="n quiet">{100 * count / total:.1f} %</td>'
        f'<td class="barcell"><span style="width:{100 * count / largest:.1f}%"></span></td></tr>'
        for name, count in counts.items()
    ]
    return f'<table class="bars">{"".join(rows)}</table>'


def histogram(counts: dict[float, float], width: float, x_name: str) -> str:
    """Columns over bins of `width` that begin at the keys."""
    if not counts:
        return ""
    high, bottom = 120, 26
    first, last, largest = min(counts), max(counts) + width, max(counts.values())

    def x(value: float) -> float:
        return 10 + (value - first) / (last - first) * (WIDTH - 20)

    parts = []
    for low, count in counts.items():
        tall = count / largest * (high - bottom - 14)
        parts.append(
            f'<rect class="column" x="{x(low):.1f}" y="{high - bottom - tall:.1f}" '
            f'width="{max(x(low + width) - x(low) - 1, 0.8):.1f}" height="{tall:.1f}">'
            f"<title>{low:g}–{low + width:g}: {count:,.0f}</title></rect>"
        )
    parts.append(f'<line class="axis" x1="10" x2="{WIDTH - 10}" y1="{high - bottom}" y2="{high - bottom}"/>')
    parts += _x_axis(first, last, x, high - 9, x_name)
    return _svg(high, f"histogram of {x_name}", parts)


# --- numbers


def number(value: float, percent: bool = False, precise: bool = False) -> str:
    """12k, 0.35, 3.0e-5, 41 %; with a true minus sign."""
    if percent:
        return f"{100 * value:.1f} %" if precise else f"{100 * value:g} %"
    size = abs(value)
    if size >= 1e6:
        text = f"{value / 1e6:.4g}M"
    elif size >= 10_000:
        text = f"{value / 1e3:.4g}k"
    elif size >= 1 or size == 0:
        text = f"{value:.4g}" if precise else f"{value:g}"
    elif size >= 1e-3:
        text = f"{value:.3g}"
    else:
        text = f"{value:.1e}".replace("e-0", "e-")
    return "−" + text[1:] if text.startswith("-") else text


def finite(line: Line) -> Line:
    pairs = [(x, y) for x, y in zip(line.xs, line.ys, strict=True) if math.isfinite(y)]
    return Line(line.name, [x for x, _ in pairs], [y for _, y in pairs])


def thin(line: Line, points: int = POINTS) -> Line:
    if len(line.xs) <= points:
        return line
    size = math.ceil(len(line.xs) / points)
    starts = range(0, len(line.xs), size)

    def mean(values: Sequence[float]) -> list[float]:
        return [sum(values[i : i + size]) / len(values[i : i + size]) for i in starts]

    return Line(line.name, mean(line.xs), mean(line.ys))


def moving_mean(values: Sequence[float]) -> list[float]:
    """Over a centred window of a tenth of the line."""
    half = max(len(values) // 20, 2)
    return [sum(near) / len(near) for i in range(len(values)) if (near := values[max(0, i - half) : i + half + 1])]


def roughness(values: Sequence[float]) -> float:
    """Share of the line's ups and downs that cancel out: 0 for a monotone line, near 1 for noise."""
    way = sum(abs(b - a) for a, b in pairwise(values))
    return 1 - (max(values) - min(values)) / way if way else 0.0


def bounds(values: Sequence[float], scale: Callable[[float], float], percent: bool) -> tuple[float, float]:
    low, high = scale(min(values)), scale(max(values))
    if percent and low >= 0:
        low = 0.0
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    if percent and high <= 1:
        return low - (0 if low == 0 else room), min(high + room, 1.0)
    return (low if low == 0 else low - room), high + room


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten; other round numbers if there are not two of them."""
    powers = [float(power) for power in range(math.ceil(low), math.floor(high) + 1)]
    return powers if len(powers) > 1 else [math.log10(v) for v in nice_ticks(10**low, 10**high, 3) if v > 0]


def x_ticks(low: float, high: float) -> list[float]:
    """Ticks that leave the right end free for the name of the axis."""
    if high <= low:
        return [low]
    return [tick for tick in nice_ticks(low, high) if tick <= low + 0.88 * (high - low)]
