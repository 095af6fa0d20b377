"""Figures over several runs: arrays in, a matplotlib `Figure` out.

Fractions go in ([0, 1]), percent is drawn. Shapes: N runs, K classes.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from analysis.style import BLUE, DARK, SKY, TICK_SIZE, new_figure, readable, tidy, wrap


def comparison_bars(
    names: Sequence[str],
    values: Sequence[float],
    *,
    intervals: np.ndarray | None = None,
    ylabel: str,
    title: str | None = None,
    percent: bool = False,
) -> Figure:
    """One quantity of several runs, first run on top, its value printed beside it.

    With intervals: points with whiskers, on an axis that need not start at zero. Without: bars from zero.

    Args:
        names: N runs.
        values: N; fractions if `percent`. NaN: the row says "no value".
        intervals: N 2, lower and upper bound.
        ylabel: the quantity, with its unit; " (%)" is added if `percent`.
    """
    factor, show = (100, "{:.2f} %".format) if percent else (1, readable)
    values, rows = factor * np.asarray(values, dtype=float), np.arange(len(names))
    texts = [show(value) if np.isfinite(value) else "no value" for value in values]
    labels = [wrap(name, 3, TICK_SIZE) for name in names]
    lines = max(label.count("\n") + 1 for label in labels)
    figure = new_figure(8, len(names) * max(0.3, 0.1 + 0.15 * lines) + 0.8, title)
    axes = figure.subplots()
    if intervals is None:
        axes.barh(rows, values, height=0.6, color=SKY)
    else:
        bounds = factor * np.asarray(intervals, dtype=float)
        style = dict(fmt="none", ecolor=DARK, elinewidth=1.2, capsize=3, clip_on=False)
        axes.errorbar(bounds.mean(axis=1), rows, xerr=np.ptp(bounds, axis=1) / 2, **style)
        axes.plot(values, rows, "o", color=BLUE, clip_on=False)
        for row in np.flatnonzero(np.isfinite(bounds).all(axis=1)):
            texts[row] += "  [{}, {}]".format(*map(show, bounds[row]))
    for row, text in zip(rows, texts, strict=True):  # a column of its own, so that no text meets a whisker
        axes.text(1.02, row, text, va="center", fontsize=TICK_SIZE, transform=axes.get_yaxis_transform())
    axes.set_yticks(rows, labels)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel=ylabel + (" (%)" if percent else ""))
    if percent:
        axes.set_xlim(right=min(axes.get_xlim()[1], 100))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
    tidy(axes, grid="x")
    return figure
