"""Figures over several runs: arrays in, a matplotlib `Figure` out.

Fractions go in ([0, 1]), percent is drawn. Shapes: N runs, K classes, S severities. A run keeps its place in the order
given, and so its colour, in all figures.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from common.plotting import (
    BLUE,
    DARK,
    GREY,
    LABEL_SIZE,
    ORANGE,
    PLAIN_TICKS,
    SKY,
    TICK_SIZE,
    VERMILLION,
    class_rows,
    label_points,
    legend_entry,
    new_figure,
    number_marker,
    panels,
    plot_known,
    readable,
    run_style,
    scientific_ticks,
    shared_legend,
    tidy,
    wrap,
)

# One row a run


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
    figure, (axes,) = _run_rows(names, title)
    _draw_values(axes, values, intervals, ylabel, percent)
    return figure


def overview(
    names: Sequence[str],
    quantities: Mapping[str, tuple[Sequence[float], np.ndarray | None, bool]],
    *,
    title: str | None = None,
) -> Figure:
    """Several quantities of several runs, each in a panel like `comparison_bars`, two panels a row.

    Args:
        quantities: what is measured (with its unit), to (N values, N 2 intervals or None, whether they are fractions).
    """
    figure, grid = _run_rows(names, title, len(quantities))
    for axes, (quantity, (values, intervals, percent)) in zip(grid, quantities.items(), strict=True):
        _draw_values(axes, values, intervals, quantity, percent)
    return figure


def epochs_to_target(
    names: Sequence[str],
    epochs: Sequence[int],
    reached: Sequence[bool],
    *,
    target: float,
    title: str | None = None,
) -> Figure:
    """Epochs that each run trained until its validation accuracy reached the target.

    Args:
        epochs: N; of a run that never reached it, all the epochs that it trained.
        reached: N, whether it did.
        target: the validation accuracy, a fraction.
    """
    figure, (axes,) = _run_rows(names, title)
    bars = axes.barh(range(len(names)), epochs, height=0.6, color=SKY)
    texts = []
    for bar, count, success in zip(bars, epochs, reached, strict=True):
        unit = "epoch" if count == 1 else "epochs"
        texts.append(f"{count} {unit}" if success else f"not reached in {count} {unit}")
        if not success:
            bar.set(facecolor="white", edgecolor=GREY, hatch="////")
    _write_beside(axes, texts)
    axes.set(xlim=(0, 1.05 * max([*epochs, 1])), xlabel=f"epochs to {readable(100 * target)} % validation accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    return figure


def grouped_accuracy(names: Sequence[str], seeds: Sequence[Sequence[float]], *, title: str | None = None) -> Figure:
    """Runs that differ in their seed alone: each one a dot, their mean and standard deviation (n - 1).

    Args:
        names: of N groups.
        seeds: of each group the accuracies of its runs, fractions; NaN is left out.
    """
    figure, (axes,) = _run_rows(names, title)
    texts = []
    for row, group in enumerate(seeds):
        values = 100 * np.asarray(group, dtype=float)
        values = values[np.isfinite(values)]
        text = f"{values.mean():.2f}" if len(values) else "no value"
        if len(values) > 1:
            text += f" ± {values.std(ddof=1):.2f}"
            spread = dict(fmt="|", color=DARK, markersize=14, markeredgewidth=2, elinewidth=1.2, capsize=4)
            label = "mean ± standard deviation over seeds"
            axes.errorbar(values.mean(), row, xerr=values.std(ddof=1), **spread, label=label)
        if len(values):
            axes.plot(values, [row] * len(values), "o", color=BLUE, alpha=0.6, label="one seed")
            text += f" %, n = {len(values)}"
        texts.append(text)
    _write_beside(axes, texts)
    axes.set_xlabel("accuracy (%)")
    axes.xaxis.set_major_formatter(PLAIN_TICKS)
    shared_legend(figure)
    return figure


def _run_rows(names: Sequence[str], title: str | None, count: int = 1) -> tuple[Figure, list[Axes]]:
    """Panels with one row a run, first run on top, which share the names at their left."""
    labels = [wrap(name, 3, TICK_SIZE) for name in names]
    lines = max(label.count("\n") + 1 for label in labels)
    height = len(names) * max(0.3, 0.1 + 0.15 * lines) + 0.8
    figure = new_figure(8 if count == 1 else 12, height * math.ceil(count / 2), title)
    grid = panels(figure, count, 2, sharey=True)
    for axes in grid:
        axes.set_yticks(range(len(names)), labels)
        axes.set_ylim(len(names) - 0.5, -0.5)
        tidy(axes, grid="x")
    return figure, grid


def _draw_values(axes: Axes, values: Sequence[float], intervals: np.ndarray | None, quantity: str, percent: bool):
    """What `comparison_bars` shows, in a panel of `_run_rows`."""
    factor, show, unit = (100, "{:.2f}".format, " %") if percent else (1, readable, "")
    values, rows = factor * np.asarray(values, dtype=float), np.arange(len(values))
    texts = [show(value) + unit if np.isfinite(value) else "no value" for value in values]
    if intervals is None:
        axes.barh(rows, values, height=0.6, color=SKY)
        if not (np.abs(values) > 0).any():
            axes.set_xlim(0, 1)
    else:
        bounds = factor * np.asarray(intervals, dtype=float)
        style = dict(fmt="none", ecolor=DARK, elinewidth=1.2, capsize=3, clip_on=False)
        axes.errorbar(bounds.mean(axis=1), rows, xerr=np.ptp(bounds, axis=1) / 2, **style)
        axes.plot(values, rows, "o", color=BLUE, clip_on=False)
        for row in np.flatnonzero(np.isfinite(bounds).all(axis=1)):
            texts[row] += "  [{}, {}]".format(*map(show, bounds[row]))
    _write_beside(axes, texts)
    axes.set_xlabel(quantity + (" (%)" if percent else ""))
    if percent:
        axes.set_xlim(right=min(axes.get_xlim()[1], 100))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(PLAIN_TICKS)


def _write_beside(axes: Axes, texts: Sequence[str]) -> None:
    """A text for each row, in a column right of the panel, so that no text meets a whisker."""
    for row, text in enumerate(texts):
        axes.text(1.02, row, text, va="center", fontsize=TICK_SIZE, transform=axes.get_yaxis_transform())


# One row a class


def per_class_differences(
    difference: np.ndarray,
    interval: np.ndarray,
    class_names: Sequence[str],
    *,
    names: tuple[str, str],
    title: str | None = None,
) -> Figure:
    """By how much the first of two runs is better than the second, class by class, largest difference on top.

    Args:
        difference: K, accuracy of the first minus that of the second, fractions; NaN for a class that never occurs,
            which gets an empty row at the bottom.
        interval: K 2, lower and upper bound of each.
        names: the two runs.
    """
    difference, interval = 100 * np.asarray(difference, dtype=float), 100 * np.asarray(interval, dtype=float)
    order = np.argsort(-difference, kind="stable")  # NaN sorts last
    difference, interval = difference[order], interval[order]
    seen = np.isfinite(difference)
    figure, axes, caps = class_rows([class_names[i] for i in order], seen, title)
    for name, color, better in zip(names, (BLUE, ORANGE), (difference > 0, difference < 0), strict=True):
        axes.barh(np.flatnonzero(better), difference[better], height=0.7, color=color)
        legend_entry(axes, f"{name} is better", color=color, linewidth=6)  # also where no class is
    axes.plot(difference[difference == 0], np.flatnonzero(difference == 0), "|", color=DARK, markersize=6)
    style = dict(fmt="none", ecolor=DARK, elinewidth=1, capsize=caps, label="95 % interval")
    axes.errorbar(interval[seen].mean(axis=1), np.flatnonzero(seen), xerr=np.ptp(interval[seen], axis=1) / 2, **style)
    axes.axvline(0, color=DARK, linewidth=0.8)
    reach = 1.05 * max([1.0, *np.abs(interval[seen]).ravel()])
    axes.set(xlim=(-reach, reach), xlabel="difference in accuracy (percentage points)")
    shared_legend(figure)
    return figure


# Accuracy against what it costs


def pareto_front(costs: Sequence[float], accuracy: Sequence[float]) -> np.ndarray:
    """The runs, bool N, that no other run beats: as accurate for less, or more accurate for as much or less.

    Of runs that are equal in both all are kept. A run with NaN in either is not compared.
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
    """Accuracy against each cost, a panel each, with the runs on the Pareto front coloured and joined by steps.

    Points carry their run's name where names are short and few, else a number that the legend explains.

    Args:
        accuracy: N fractions.
        intervals: N 2, lower and upper bound; None draws none.
        costs: what is paid (with its unit), to N values. NaN: the run is left out of that panel, which says so. The axis
            is logarithmic where they are positive and the largest is more than ten times the smallest.
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


# One line a run


def overlaid_curves(logs: Mapping[str, Mapping[str, Sequence[float]]], *, title: str | None = None) -> Figure:
    """Loss, accuracy and learning rate of several runs against the epoch.

    Args:
        logs: run to its log's columns: `epoch`, `lr`, and `loss` and `accuracy` each for `train_` and `val_`, of equal
            length; `test_accuracy` if there is one. Accuracies are fractions; NaN is not drawn, nor is a column that
            is missing.
    """
    figure = new_figure(12, 4, title)
    loss, accuracy, rate = grid = figure.subplots(1, 3)
    splits = {  # markers: how a run of one epoch is drawn
        "val": ("validation", dict(linestyle="-")),
        "train": ("training", dict(linestyle="--", fillstyle="none")),
        "test": ("test", dict(linestyle=":", fillstyle="left")),
    }
    columns = {f"{split}_loss": (loss, 1) for split in splits} | {"lr": (rate, 1)}
    columns |= {f"{split}_accuracy": (accuracy, 100) for split in splits}
    drawn, peaks = set(), []
    for index, (name, log) in enumerate(logs.items()):
        look = dict(**run_style(index), linewidth=1.3, markevery=max(1, len(log["epoch"]) // 8))
        legend_entry(loss, name, **look)
        for column, (axes, factor) in columns.items():
            values, split = factor * np.asarray(log.get(column, []), dtype=float), column.split("_")[0]
            if np.isfinite(values).any():
                drawn.add(split)
                plot_known(axes, log["epoch"], values, **look, **(splits[split][1] if split in splits else {}))
        peaks.append(np.nanmax([0, *log.get("lr", [])]))
    dots = {"marker": "o"} if all(len(log["epoch"]) == 1 for log in logs.values()) else {}
    for label, look in (splits[split] for split in splits if split in drawn):
        legend_entry(loss, label, color=GREY, **look, **dots)
    positive = [peak for peak in peaks if peak > 0]
    if positive and max(positive) > 10 * min(positive):  # on a linear axis the smaller rates would lie on the floor
        rate.set_yscale("log", nonpositive="mask")
        rate.set_ylim(bottom=min(positive) / 100)
        rate.yaxis.set_major_formatter(PLAIN_TICKS)
    else:
        scientific_ticks(rate)
    for axes, label in zip(grid, ("loss", "accuracy (%)", "learning rate"), strict=True):
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        tidy(axes)
    shared_legend(figure)
    return figure
