"""The charts of the training report: inline SVG with labels in HTML, readable at every width.

The SVG is stretched to its box, so its lines keep their width by `vector-effect` and every word is
HTML beside it, as large as the page's own text. Hovering shows the values; there is no script.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_MEAN_FRACTION = 0.05  # the running mean covers this part of the run
_NUM_HOVER_BANDS = 60
_NUM_LOSS_TICKS, _NUM_STEP_TICKS = 5, 4  # at most; so many fit a phone


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plot:
    """What one chart draws over the steps of the run.

    Attributes:
        lines: Class of the line in the page's style -> a value for each step; those that are not
            finite are left out.
        y_ticks: Rising values, from 0 to the top of the chart, with their labels.
        hover: The text of each step.
        label: For those who do not see the chart.
        pivot_step: The pivot, in steps done; it is drawn if it lies within the run.
    """

    lines: dict[str, Sequence[float]]
    y_ticks: dict[float, str]
    hover: Sequence[str]
    label: str
    pivot_step: int


def loss_chart(losses: Sequence[float], pivot_step: int) -> str:
    """Return the losses as a chart: each step, a running mean, and the pivot."""
    window = max(1, round(len(losses) * _MEAN_FRACTION))
    means = _running_mean(losses, window)
    highest = max(filter(math.isfinite, losses), default=0.0) or 1.0
    tick = _nice_step(highest, _NUM_LOSS_TICKS)
    ticks = [i * tick for i in range(math.ceil(highest / tick - 1e-9) + 1)]
    plot = _Plot(
        lines={"thin": losses, "thick": means},
        y_ticks={value: f"{value:g}" for value in ticks},
        hover=[f"loss {a:.4f}, mean {b:.4f}" for a, b in zip(losses, means, strict=True)],
        label=f"Loss of {len(losses)} steps, from 0 to {ticks[-1]:g}; "
        f"the running mean ends at {means[-1]:.4f}.",
        pivot_step=pivot_step,
    )
    covered = "step" if window == 1 else f"{window} steps"
    return (
        '<ul class="legend"><li><i class="thin"></i>each step</li>'
        f'<li><i class="thick"></i>mean of the last {covered}</li></ul>{_chart(plot)}'
    )


def learning_rate_charts(learning_rates: Mapping[str, Sequence[float]], pivot_step: int) -> str:
    """Return one small chart for each parameter group, each up to its own peak.

    Groups differ by powers of ten and are zero for a part of the run, so they share no axis.

    Args:
        learning_rates: Name of the group -> the rate of each step.
        pivot_step: The first step at which the embeddings were frozen.
    """
    charts: list[str] = []
    for group, rates in learning_rates.items():
        name, peak = group.replace("_", " "), max(rates)
        plot = _Plot(
            lines={"thick": rates},
            y_ticks={0.0: "0", peak or 1.0: format_rate(peak or 1.0)},
            hover=[format_rate(rate) for rate in rates],
            label=f"Learning rate of {name}: peak {format_rate(peak)}, "
            f"at the end {format_rate(rates[-1])}.",
            pivot_step=pivot_step,
        )
        charts.append(f"<div><h3>{escape(name)}</h3>{_chart(plot)}</div>")
    return f'<div class="rates">{"".join(charts)}</div>' if charts else ""


def format_rate(rate: float) -> str:
    """Return a learning rate as it is typed: `3e-4`, `0`."""
    mantissa, exponent = f"{rate:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if rate else "0"


def _chart(plot: _Plot) -> str:
    num_steps, top = len(plot.hover), max(plot.y_ticks)

    def x(step: float) -> str:  # steps done
        return f"{100 * step / num_steps:.2f}"

    def polyline(style: str, values: Sequence[float]) -> str:
        points = " ".join(
            f"{x(step)},{100 - 100 * value / top:.2f}"
            for step, value in enumerate(values, start=1)
            if math.isfinite(value)
        )
        return f'<polyline class="{style}" points="{points}"/>'

    grid = [
        f'<line x1="0" x2="100" y1="{y:.2f}" y2="{y:.2f}"/>'
        for y in (100 - 100 * value / top for value in plot.y_ticks)
    ]
    band = math.ceil(num_steps / _NUM_HOVER_BANDS)
    bands = [
        f'<rect x="{x(done)}" y="0" width="{x(min(band, num_steps - done))}" height="100">'
        f"<title>step {done + 1}: {escape(plot.hover[done])}</title></rect>"
        for done in range(0, num_steps, band)
    ]
    pivot_line = pivot_text = ""
    if plot.pivot_step < num_steps:
        at = x(plot.pivot_step)
        pivot_line = f'<line class="pivot" x1="{at}" x2="{at}" y1="0" y2="100"/>'
        pivot_text = _placed("x", float(at), f"pivot: step {plot.pivot_step}", "pivot")
    lines = "".join(polyline(style, values) for style, values in plot.lines.items())
    y_labels = "".join(_placed("y", 100 * v / top, text) for v, text in plot.y_ticks.items())
    x_labels = "".join(_placed("x", float(x(s)), text) for s, text in _step_ticks(num_steps))
    return (
        f'<div class="chart"><div class="y" aria-hidden="true">{y_labels}</div><div class="plot">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(plot.label)}">{"".join(grid)}{pivot_line}{lines}{"".join(bands)}'
        f'</svg>{pivot_text}</div><div class="x" aria-hidden="true">{x_labels}</div></div>'
    )


def _placed(axis: str, percent: float, text: str, style: str = "") -> str:
    """Return a label at a part of its axis; the page's style keeps it inside."""
    return f'<span class="{style}" style="--{axis}:{percent:.2f}%">{text}</span>'


def _step_ticks(num_steps: int) -> list[tuple[int, str]]:
    tick = max(1, round(_nice_step(num_steps, _NUM_STEP_TICKS)))
    # a tick close to the last one would run into its label
    ticks = [step for step in range(tick, num_steps, tick) if num_steps - step > tick / 2]
    return [(0, "0 steps"), *((step, str(step)) for step in (*ticks, num_steps))]


def _nice_step(span: float, max_parts: int) -> float:
    """Return 1, 2 or 5 times a power of ten that divides `span` into `max_parts` or fewer."""
    power = 10.0 ** math.floor(math.log10(span / max_parts))
    # the tolerance keeps 0.3, as 3 * 0.1 is a little more
    return next(n * power for n in (1, 2, 5, 10) if n * power * max_parts >= span * (1 - 1e-9))


def _running_mean(losses: Sequence[float], window: int) -> list[float]:
    means: list[float] = []
    for last in range(1, len(losses) + 1):
        recent = losses[max(0, last - window) : last]
        means.append(sum(recent) / len(recent))
    return means
