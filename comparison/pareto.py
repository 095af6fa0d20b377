"""Accuracy against cost, with the Pareto front: arrays in, a matplotlib `Figure` out. Shapes: N runs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from common.plotting import (
    GREY,
    LABEL_SIZE,
    PLAIN_TICKS,
    VERMILLION,
    label_points,
    legend_entry,
    new_figure,
    number_marker,
    panels,
    shared_legend,
    tidy,
    wrap,
)


def pareto_front(costs: Sequence[float], accuracy: Sequence[float]) -> np.ndarray:
    """Which runs are on the Pareto front, bool N: no other run is at least as good in both and better in one.

    Runs that are equal in both are all kept. A run with NaN in either is left out.
    """
    costs, accuracy = np.asarray(costs, dtype=float), np.asarray(accuracy, dtype=float)
    as_good = (costs <= costs[:, None]) & (accuracy >= accuracy[:, None])  # [i, j]: j is as good as i in both
    better = (costs < costs[:, None]) | (accuracy > accuracy[:, None])
    return np.isfinite(costs) & np.isfinite(accuracy) & ~(as_good & better).any(axis=1)


def accuracy_against_cost(
    names: Sequence[str],
    accuracy: Sequence[float],
    intervals: np.ndarray | None,
    costs: Mapping[str, Sequence[float]],
    *,
    title: str | None = None,
) -> Figure:
    """Accuracy against each cost, one panel per cost; runs on the Pareto front are coloured and joined by steps.

    Points are labelled with their run's name if names are short and few, else with a number that the legend explains.

    Args:
        accuracy: N fractions.
        intervals: N 2, lower and upper bound; None draws none.
        costs: name of the cost (with its unit) to N values. NaN: the run is left out of that panel, which says so. The
            axis is logarithmic if all values are positive and the largest is more than ten times the smallest.
    """
    accuracy = 100 * np.asarray(accuracy, dtype=float)
    bounds = 100 * np.asarray(intervals, dtype=float) if intervals is not None else None
    direct = len(names) <= 6 and max(map(len, names)) <= 12
    labels = list(names) if direct else [str(number) for number in range(1, len(names) + 1)]
    columns = 2 if len(costs) == 4 else min(len(costs), 3)
    figure = new_figure(max(1.0 + 3.3 * columns, 5.5), 0.6 + 3.2 * math.ceil(len(costs) / columns), title)
    grid = panels(figure, len(costs), columns, sharey=True)
    obstacles = []
    for axes, (cost, values) in zip(grid, costs.items(), strict=True):
        obstacles.append(_draw_costs(axes, np.asarray(values, dtype=float), accuracy, bounds))
        missing = [label for label, x, y in zip(labels, values, accuracy, strict=True) if not np.isfinite(x + y)]
        note = f"\nwithout a value: {', '.join(missing)}" if missing else ""
        axes.set_xlabel(wrap(cost + note, 3, LABEL_SIZE))
        tidy(axes)
    for axes in grid[::columns]:
        axes.set_ylabel("accuracy (%)")
    if not direct:
        for label, name in zip(labels, names, strict=True):
            legend_entry(grid[0], name, **number_marker(label))
    shared_legend(figure)
    figure.draw_without_rendering()
    for axes, values, lines in zip(grid, costs.values(), obstacles, strict=True):
        points = np.column_stack([values, accuracy]).astype(float)
        runs = np.flatnonzero(np.isfinite(points).all(axis=1))
        label_points(axes, points[runs], [labels[i] for i in runs], lines)
    return figure


def _draw_costs(axes: Axes, costs: np.ndarray, accuracy: np.ndarray, bounds: np.ndarray | None) -> list[np.ndarray]:
    """One panel of `accuracy_against_cost`, without its labels. Returns the lines that no label should cover."""
    known, front, lines = np.isfinite(costs + accuracy), pareto_front(costs, accuracy), []
    if bounds is not None:
        style = dict(fmt="none", ecolor=GREY, elinewidth=1, capsize=2, label="95 % interval")
        axes.errorbar(costs[known], bounds[known].mean(axis=1), yerr=np.ptp(bounds[known], axis=1) / 2, **style)
        lines = [np.column_stack([[costs[i]] * 2, bounds[i]]) for i in np.flatnonzero(known)]
    steps = np.flatnonzero(front)[np.lexsort((accuracy[front], costs[front]))]
    style = dict(color=VERMILLION, linewidth=1.2, markersize=7)
    axes.step(costs[steps], accuracy[steps], "o-", where="post", **style, label="Pareto front")
    for i in range(len(steps) - 1):
        left, right = steps[i : i + 2]
        corner = [costs[right], accuracy[left]]
        lines += [np.array([end, corner]) for end in ([costs[left], accuracy[left]], [costs[right], accuracy[right]])]
    axes.plot(costs[known & ~front], accuracy[known & ~front], "o", color=GREY, markersize=6)
    axes.margins(0.12)
    if known.any() and costs[known].min() > 0 and costs[known].max() > 10 * costs[known].min():
        decades = np.log10(costs[known].max() / costs[known].min())
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1, 3) if decades < 3 else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter(PLAIN_TICKS)
    axes.yaxis.set_major_formatter(PLAIN_TICKS)
    return lines
