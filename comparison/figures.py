"""Figures over several runs: arrays in, a matplotlib `Figure` out.

Arguments are fractions in [0, 1]; figures show percent. Shapes: N runs, K classes, S severities. Runs are drawn in the order
given, so that a run, or a model of several seeds, has the same colour in all figures.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.plotting import (
    BLUE,
    DARK,
    GREY,
    LABEL_SIZE,
    ORANGE,
    PLAIN_TICKS,
    SKY,
    TICK_SIZE,
    class_rows,
    draw_class_accuracy,
    legend_entry,
    new_figure,
    panels,
    plot_known,
    readable,
    run_looks,
    scientific_ticks,
    shared_legend,
    text_width,
    tidy,
    wrap,
)

# One row per run


def comparison_bars(
    names: Sequence[str],
    values: Sequence[float],
    *,
    intervals: np.ndarray | None = None,
    ylabel: str,
    title: str | None = None,
    percent: bool = False,
) -> Figure:
    """One quantity of several runs, the first run on top, with the values printed beside the panel.

    With intervals: points with error bars, on an axis that need not start at zero. Without: bars from zero.

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
    """Several quantities of several runs, each in a panel like `comparison_bars`, two panels per row.

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
        epochs: N; for a run that never reached it, all its epochs.
        reached: N, whether the run reached it.
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
    """Runs that differ only in their seed: a dot for each, and their mean with standard deviation (n - 1).

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
    """Panels with one row per run, the first run on top, and the names on the left."""
    labels = [wrap(name, 3, TICK_SIZE) for name in names]
    lines = max(label.count("\n") + 1 for label in labels)
    height = len(names) * max(0.3, 0.1 + 0.15 * lines) + 0.8
    width = np.clip(4.5 + text_width(labels, TICK_SIZE), 5.5, 8) if count == 1 else 12
    figure = new_figure(width, height * math.ceil(count / 2), title)
    grid = panels(figure, count, 2, sharey=True)
    for axes in grid:
        axes.set_yticks(range(len(names)), labels)
        axes.set_ylim(len(names) - 0.5, -0.5)
        tidy(axes, grid="x")
    return figure, grid


def _draw_values(axes: Axes, values: Sequence[float], intervals: np.ndarray | None, quantity: str, percent: bool):
    """Draw the values of `comparison_bars` in a panel of `_run_rows`."""
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
    """Write a text for each row in a column right of the panel, so that no text covers an error bar."""
    for row, text in enumerate(texts):
        axes.text(1.02, row, text, va="center", fontsize=TICK_SIZE, transform=axes.get_yaxis_transform())


# One row per class


def per_class_accuracy(
    accuracies: Mapping[str, tuple[np.ndarray, np.ndarray]], class_names: Sequence[str], *, title: str | None = None
) -> Figure:
    """Accuracy of each class, a panel for each run in one scale.

    Args:
        accuracies: run to its accuracies (K, fractions; NaN for a class that never occurs) and their intervals (K 2).
        class_names: K; they keep their order, the first on top.
    """
    seen = np.isfinite(next(iter(accuracies.values()))[0])
    figure, grid, caps = class_rows(class_names, seen, title, count=len(accuracies))
    for axes, (run, (accuracy, interval)) in zip(grid, accuracies.items(), strict=True):
        draw_class_accuracy(axes, accuracy, interval, caps)
        axes.set_title(wrap(run, 2.5, LABEL_SIZE), fontsize=LABEL_SIZE)
    shared_legend(figure)
    return figure


def per_class_differences(
    differences: Mapping[str, tuple[np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    *,
    reference: str,
    title: str | None = None,
) -> Figure:
    """By how much each run is better than the reference in each class; a panel for each run, all with the same scale.

    Args:
        differences: run to its differences (K, accuracy minus that of the reference, fractions; NaN for a class without
            images) and their intervals (K 2).
        class_names: K, in the order in which they are drawn, the first on top.
        reference: the run with which the others are compared.
    """
    found = {run: (100 * np.asarray(values), 100 * np.asarray(bounds)) for run, (values, bounds) in differences.items()}
    seen = np.isfinite(next(iter(found.values()))[0])
    figure, grid, caps = class_rows(class_names, seen, title, count=len(found))
    reach = 1.05 * max([1.0, *(np.abs(bounds[seen]).max() for _, bounds in found.values() if seen.any())])
    for axes, (run, (difference, interval)) in zip(grid, found.items(), strict=True):
        for word, color, apart in (("better", BLUE, difference > 0), ("worse", ORANGE, difference < 0)):
            axes.barh(np.flatnonzero(apart), difference[apart], height=0.7, color=color)
            legend_entry(axes, f"{word} than {reference}", color=color, linewidth=6)  # also if no class is
        axes.plot(difference[difference == 0], np.flatnonzero(difference == 0), "|", color=DARK, markersize=6)
        style = dict(fmt="none", ecolor=DARK, elinewidth=1, capsize=caps, label="95 % interval")
        middle, half = interval[seen].mean(axis=1), np.ptp(interval[seen], axis=1) / 2
        axes.errorbar(middle, np.flatnonzero(seen), xerr=half, **style)
        axes.axvline(0, color=DARK, linewidth=0.8)
        axes.set_title(wrap(run, 2.5, LABEL_SIZE), fontsize=LABEL_SIZE)
        axes.set(xlim=(-reach, reach), xlabel="difference (percentage points)")
    shared_legend(figure)
    return figure


# One line per run


def overlaid_curves(
    logs: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    models: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Figure:
    """Loss, accuracy and learning rate of several runs against the epoch.

    Args:
        logs: run to its log's columns: `epoch`, `lr`, and `loss` and `accuracy` each for `train_` and `val_`, of equal
            length; `test_accuracy` and `val_top5_accuracy` if there are any. Accuracies are fractions; NaN is not drawn,
            nor is a column that is missing.
        models: run to model, whose runs then share a colour.
    """
    labels = {"loss": "loss", "accuracy": "accuracy (%)", "top5_accuracy": "top-5 accuracy (%)", "lr": "learning rate"}
    if not any(np.isfinite(np.asarray(log.get("val_top5_accuracy", []), dtype=float)).any() for log in logs.values()):
        del labels["top5_accuracy"]
    figure = new_figure(4 * len(labels), 4, title)
    grid = dict(zip(labels, figure.subplots(1, len(labels)), strict=True))
    loss, rate = grid["loss"], grid["lr"]
    splits = {  # markers: how a run of one epoch is drawn
        "val": ("validation", dict(linestyle="-")),
        "train": ("training", dict(linestyle="--", fillstyle="none")),
        "test": ("test", dict(linestyle=":", fillstyle="left")),
    }
    columns = {f"{split}_loss": (loss, 1) for split in splits} | {"lr": (rate, 1)}
    shares = grid.keys() - {"loss", "lr"}
    columns |= {f"{split}_{share}": (grid[share], 100) for share in shares for split in splits}
    drawn, peaks = set(), []
    for (label, style), log in zip(run_looks(logs, models).values(), logs.values()):
        look = dict(**style, linewidth=1.3, markevery=max(1, len(log["epoch"]) // 8))
        legend_entry(loss, label, **look)
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
    if positive and max(positive) > 10 * min(positive):  # on a linear axis the smaller rates would be invisible
        rate.set_yscale("log", nonpositive="mask")
        rate.set_ylim(bottom=min(positive) / 100)
        rate.yaxis.set_major_formatter(PLAIN_TICKS)
    else:
        rate.set_ylim(bottom=0)
        scientific_ticks(rate)
    for key, axes in grid.items():
        axes.set(xlabel="epoch", ylabel=labels[key])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        tidy(axes)
    shared_legend(figure)
    return figure
