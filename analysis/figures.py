"""Figures of one run: arrays in, a matplotlib `Figure` out.

Fractions go in ([0, 1]), percent is drawn. Nothing here touches pyplot's global state; save with `figure.savefig(path)`.
Shapes: K classes, B bins.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from analysis.style import (
    BLUE,
    DARK,
    GREY,
    LABEL_SIZE,
    ORANGE,
    SKY,
    TICK_SIZE,
    VERMILLION,
    colorbar,
    new_figure,
    shared_legend,
    shorten,
    text_width,
    tidy,
)

MAX_LABELS = 100  # classes named on an axis; with more of them every n-th is named


def training_curves(
    log: Mapping[str, Sequence[float]], *, best_epoch: int | None = None, title: str | None = None
) -> Figure:
    """Loss and accuracy by epoch, with the epoch whose weights were kept marked.

    Args:
        log: columns `epoch`, `train_loss`, `val_loss`, `train_accuracy`, `val_accuracy` of equal length; accuracies
            are fractions. NaN is not drawn: an epoch without validation, or a run without a validation split.
        best_epoch: the epoch to mark.
    """
    epochs, validation = (np.asarray(log[name], dtype=float) for name in ("epoch", "val_accuracy"))
    figure = new_figure(9, 3.6, title)
    for axes, quantity, factor in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True):
        for split, name, style in (("train", "training", "--"), ("val", "validation", "-")):
            values = factor * np.asarray(log[f"{split}_{quantity}"], dtype=float)
            known = np.isfinite(values)
            if known.any():
                color = BLUE if split == "train" else ORANGE
                marker = "o" if known.sum() <= 30 else None  # a lone point is invisible without one
                axes.plot(epochs[known], values[known], style, color=color, marker=marker, markersize=4, label=name)
        if best_epoch is not None and np.isfinite(validation).any():
            label = f"kept: epoch {best_epoch}, validation accuracy {100 * validation[epochs == best_epoch][0]:.2f} %"
            axes.axvline(best_epoch, color=DARK, linestyle=":", linewidth=1.2, zorder=1, label=label)
        axes.set(xlabel="epoch", ylabel="accuracy (%)" if factor == 100 else quantity)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        tidy(axes)
    shared_legend(figure)
    return figure


def learning_rate(epochs: Sequence[float], lr: Sequence[float], *, title: str | None = None) -> Figure:
    """The learning rate of every step.

    Args:
        epochs: where each step stands, in (fractional) epochs.
        lr: the rate used at that step.
    """
    figure = new_figure(6, 3, title)
    axes = figure.subplots()
    axes.plot(epochs, lr, color=BLUE, marker="o" if len(lr) <= 30 else None, markersize=4)
    axes.set(xlabel="epoch", ylabel="learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    axes.yaxis.get_offset_text().set_fontsize(TICK_SIZE)
    tidy(axes)
    return figure


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str], *, title: str | None = None) -> Figure:
    """Counts of (true, predicted) pairs, coloured by their share of the true class.

    Up to 20 classes the cells carry the counts, and their row's percentage where there is room.

    Args:
        counts: K K integers, row = true class, column = predicted class. A row may be empty.
        class_names: K names.
    """
    counts, num_classes = np.asarray(counts), len(class_names)
    assert counts.shape == (num_classes, num_classes), (counts.shape, num_classes)
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    numbered = num_classes <= 20
    side = max(7, (0.5 if numbered else 0.14) * min(num_classes, MAX_LABELS)) if num_classes > 5 else 2 + num_classes
    cell, size = side / num_classes, TICK_SIZE if numbered else 7 if num_classes <= 50 else 6
    names, step = [shorten(name) for name in class_names], math.ceil(num_classes / MAX_LABELS)
    margin = text_width(names, size)
    upright = margin > cell  # names wider than a column stand on end

    figure = new_figure(side + margin + 1.4, side + (margin if upright else 0.2) + 0.5, title)
    axes = figure.subplots()
    # A good model's errors are a few percent of a row: the power law keeps them visible beside the diagonal.
    norm = PowerNorm(0.4, vmin=0, vmax=100)
    image = axes.imshow(percent, cmap="Blues", norm=norm, interpolation="nearest")
    bar = colorbar(axes, image, "share of the true class (%),\ncolours follow its power 0.4", side)
    bar.set_ticks([0, 1, 5, 20, 50, 100])
    ticks = np.arange(0, num_classes, step)
    axes.set_xticks(ticks, names[::step], rotation=90 if upright else 0)
    axes.set_yticks(ticks, names[::step])
    axes.set(xlabel="predicted class", ylabel="true class")
    tidy(axes, grid=None, tick_size=size)
    if numbered:
        for (row, column), count in np.ndenumerate(counts):
            share = percent[row, column]
            text = f"{count}\n{share:.1f} %" if count and cell >= 0.55 else str(count)
            color = "white" if norm(share) > 0.6 else DARK if count else GREY
            axes.text(column, row, text, ha="center", va="center", fontsize=LABEL_SIZE, color=color)
    return figure


def per_class_accuracy(
    accuracy: np.ndarray,
    interval: np.ndarray,
    class_names: Sequence[str],
    *,
    mean: float | None = None,
    title: str | None = None,
) -> Figure:
    """Accuracy of each class with its 95 % interval, the best class on top.

    Args:
        accuracy: K fractions; NaN for a class that never occurs, which gets an empty row at the bottom.
        interval: K 2, lower and upper bound of each.
        class_names: K names.
        mean: accuracy over all images, a fraction, drawn as a line.
    """
    num_classes = len(class_names)
    order = np.argsort(-np.asarray(accuracy, dtype=float), kind="stable")  # NaN sorts last
    accuracy = 100 * np.asarray(accuracy, dtype=float)[order]
    interval = 100 * np.asarray(interval, dtype=float)[order]
    names = [shorten(class_names[i]) for i in order]
    rows, step = np.arange(num_classes), math.ceil(num_classes / MAX_LABELS)
    pitch, size, caps = (0.3, TICK_SIZE, 2) if num_classes <= 30 else (0.15, 7, 0)

    figure = new_figure(5 + text_width(names, size), min(num_classes, MAX_LABELS) * pitch + 1.2, title)
    axes = figure.subplots()
    seen = np.isfinite(accuracy)
    axes.barh(rows[seen], accuracy[seen], height=0.7, color=SKY)
    style = dict(fmt="none", ecolor=DARK, elinewidth=1, capsize=caps, label="95 % interval")
    axes.errorbar(interval[seen].mean(axis=1), rows[seen], xerr=np.ptp(interval[seen], axis=1) / 2, **style)
    for row in rows[~seen][::step]:
        axes.text(1, row, "no images", va="center", fontsize=size, style="italic", color=DARK)
    if mean is not None:
        label = f"all images: {100 * mean:.2f} %"
        axes.axvline(100 * mean, color=VERMILLION, linestyle="--", linewidth=1.3, label=label)
    axes.set_yticks(rows[::step], names[::step])
    axes.set(xlim=(0, 100), ylim=(num_classes - 0.4, -0.6), xlabel="accuracy (%)")
    tidy(axes, grid="x", tick_size=size)
    shared_legend(figure)
    return figure


def reliability_diagram(
    confidence: np.ndarray, accuracy: np.ndarray, counts: np.ndarray, *, ece: float, title: str | None = None
) -> Figure:
    """Accuracy against confidence, the gap between them, and how many images each bin holds.

    Args:
        confidence, accuracy: B means over the images of each of B equally wide bins of [0, 1].
        counts: B images in each bin. Where it is 0, the two means are ignored and may be NaN.
        ece: expected calibration error, a fraction: the mean of |accuracy - confidence| weighted by counts.
    """
    counts = np.asarray(counts)
    filled, pitch = counts > 0, 100 / len(counts)
    centers, width = pitch * (np.arange(len(counts)) + 0.5), 0.92 * pitch
    confidence = 100 * np.asarray(confidence, dtype=float)[filled]
    accuracy = 100 * np.asarray(accuracy, dtype=float)[filled]

    figure = new_figure(5.4, 5.8, title)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.bar(centers[filled], accuracy, width, color=SKY, label="accuracy")
    style = dict(facecolor="none", edgecolor=VERMILLION, hatch="////", label="gap to mean confidence")
    top.bar(centers[filled], confidence - accuracy, width, bottom=accuracy, **style)
    top.plot([0, 100], [0, 100], "--", color=DARK, linewidth=1.2, label="perfectly calibrated")
    top.set(xlim=(0, 100), ylim=(0, 100), ylabel="accuracy (%)")
    top.set_title(f"expected calibration error: {100 * ece:.2f} %, {counts.sum():,} images", fontsize=LABEL_SIZE)
    bottom.bar(centers, counts, width, color=GREY)
    bottom.set_yscale("symlog", linthresh=1)  # most images sit in the last bin; a log scale with room for 0
    bottom.set(ylim=(0, max(10, 2 * counts.max())), xlabel="confidence (%)", ylabel="images\n(log scale)")
    bottom.yaxis.set_minor_locator(NullLocator())
    bottom.yaxis.set_major_formatter("{x:,.0f}")
    tidy(top)
    tidy(bottom, grid="y")
    shared_legend(figure)
    return figure
