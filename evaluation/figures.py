"""Figures of one run: arrays in, a matplotlib `Figure` out.

Arguments are fractions in [0, 1]; figures show percent. pyplot's global state is not used; save with `figure.savefig(path)`.
Shapes: K classes, B bins.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import NullLocator

from common.plotting import (
    BLUE,
    DARK,
    GREY,
    LABEL_SIZE,
    MARKS,
    MAX_LABELS,
    SKY,
    TICK_SIZE,
    VERMILLION,
    class_rows,
    colorbar,
    draw_class_accuracy,
    new_figure,
    panels,
    run_looks,
    run_style,
    shared_legend,
    shorten,
    show_image,
    text_width,
    tidy,
    wrap,
)


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str], *, title: str | None = None) -> Figure:
    """Counts of (true, predicted) pairs, coloured by their share of the true class.

    Args:
        counts: K K integers, row = true class, column = predicted class. A row may be empty.
        class_names: K names.
    """
    return confusion_matrices({"": counts}, class_names, title=title)


def confusion_matrices(
    counts: Mapping[str, np.ndarray], class_names: Sequence[str], *, title: str | None = None
) -> Figure:
    """The confusion matrices of several runs side by side, with one colour scale; see `confusion_matrix`.

    With up to 20 classes the cells show the counts and their percentage of the row.

    Args:
        counts: run to K K integers.
        class_names: K names.
    """
    num_classes, alone = len(class_names), len(counts) == 1
    assert all(np.shape(values) == (num_classes, num_classes) for values in counts.values()), num_classes
    numbered = num_classes <= 20
    if num_classes <= 5:
        side = (2 if alone else 1.2) + num_classes * (1 if alone else 0.8)
    else:
        side = max(7 if alone else 5, (0.56 if numbered else 0.14) * min(num_classes, MAX_LABELS))
    cell, size = side / num_classes, TICK_SIZE if numbered else 7 if num_classes <= 50 else 6
    names = [shorten(name) for name in class_names]
    margin = text_width(names, size)
    upright = margin > cell  # names wider than a column are rotated
    columns = 1 if side > 6 else min(len(counts), 2)
    height = side + (margin if upright else 0.2) + (0.5 if alone else 0.8)
    figure = new_figure(columns * (side + margin + 0.6) + 0.8, height * math.ceil(len(counts) / columns), title)
    grid = panels(figure, len(counts), columns)
    for axes, (run, values) in zip(grid, counts.items(), strict=True):
        image = _draw_confusion(axes, np.asarray(values), numbered=numbered, size=size)
        ticks = np.arange(0, num_classes, math.ceil(num_classes / MAX_LABELS))
        axes.set_xticks(ticks, [names[i] for i in ticks], rotation=90 if upright else 0)
        axes.set_yticks(ticks, [names[i] for i in ticks])
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_title(wrap(run, side, LABEL_SIZE), fontsize=LABEL_SIZE)
        tidy(axes, grid=None, tick_size=size)
    colorbar(grid[columns - 1], image, "share of the true class (%)", side)
    return figure


def _draw_confusion(axes: Axes, counts: np.ndarray, *, numbered: bool, size: float) -> AxesImage:
    """One panel of `confusion_matrices`, without its names."""
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    if numbered:
        for (row, column), count in np.ndenumerate(counts):
            share = percent[row, column]
            text = f"{count:,}\n{share:.1f} %" if count else "0"
            color = "white" if share > 60 else DARK if count else GREY
            axes.text(column, row, text, ha="center", va="center", fontsize=size - 0.5, color=color, linespacing=1.1)
    return image


def per_class_accuracy(
    accuracy: np.ndarray,
    interval: np.ndarray,
    class_names: Sequence[str],
    *,
    mean: float | None = None,
    title: str | None = None,
) -> Figure:
    """Accuracy of each class with its 95 % interval, in the order of the classes, the first on top.

    Args:
        accuracy: K fractions; NaN for a class without images, which gets an empty row.
        interval: K 2, lower and upper bound of each.
        class_names: K names.
        mean: accuracy over all images, a fraction, drawn as a line.
    """
    figure, (axes,), caps = class_rows(class_names, np.isfinite(np.asarray(accuracy, dtype=float)), title)
    draw_class_accuracy(axes, accuracy, interval, caps)
    if mean is not None:
        label = f"all images: {100 * mean:.2f} %"
        axes.axvline(100 * mean, color=VERMILLION, linestyle="--", linewidth=1.3, label=label)
    shared_legend(figure)
    return figure


MIN_IMAGES = 5  # in a bin, so that its accuracy is drawn as a point


def reliability_diagram(
    confidence: np.ndarray,
    accuracy: np.ndarray,
    counts: np.ndarray,
    *,
    ece: float,
    scaled: Mapping | None = None,
    title: str | None = None,
) -> Figure:
    """Accuracy against confidence, the gap between them, and the number of images in each bin.

    Args:
        confidence, accuracy: B means over the images of each of B equally wide bins of [0, 1].
        counts: B, the number of images in each bin. If it is 0, the two means are ignored and may be NaN.
        ece: expected calibration error, a fraction: the mean of |accuracy - confidence| weighted by counts.
        scaled: the same four after temperature scaling (Guo et al. 2017), and the `temperature`; drawn as a line over bins
            with MIN_IMAGES or more images.
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
    heading, most = f"expected calibration error: {100 * ece:.2f} %, {counts.sum():,} images", counts.max()
    bottom.bar(centers, counts, width, color=GREY)
    if scaled is not None:
        heading += f"\nafter temperature scaling: {100 * scaled['ece']:.2f} %"
        most = max(most, _draw_scaled(top, bottom, scaled))
    top.set_title(heading, fontsize=LABEL_SIZE)
    bottom.set_yscale("symlog", linthresh=1)  # most images are in the last bin; a log scale that includes 0
    bottom.set(ylim=(0, max(10, 2 * most)), xlabel="confidence (%)", ylabel="images\n(log scale)")
    bottom.yaxis.set_minor_locator(NullLocator())
    bottom.yaxis.set_major_formatter("{x:,.0f}")
    tidy(top)
    tidy(bottom, grid="y")
    shared_legend(figure)
    return figure


def _draw_scaled(top: Axes, bottom: Axes, scaled: Mapping) -> int:
    """Draw the calibration after temperature scaling over the bars of the one before. Returns the largest bin's count."""
    counts = np.asarray(scaled["counts"])
    enough = counts >= MIN_IMAGES
    confidence, accuracy = (100 * np.asarray(scaled[name], dtype=float)[enough] for name in ("confidence", "accuracy"))
    label = f"after temperature scaling, T = {scaled['temperature']:.2f}"
    # Drawn at its mean confidence, a calibrated bin lies on the diagonal.
    top.plot(confidence, accuracy, "o-", color=BLUE, markersize=4, linewidth=1.5, clip_on=False, label=label)
    bottom.stairs(counts, np.linspace(0, 100, len(counts) + 1), color=BLUE, linewidth=1.5)
    return counts.max()


def risk_coverage(curves: Mapping[str, np.ndarray], *, title: str | None = None) -> Figure:
    """Share of errors among the most confident images, against the share of images kept (El-Yaniv and Wiener 2010).

    Args:
        curves: name to N shares of errors, among its 1, 2, ..., N most confident images. Lines start at 20 images, since a
            single error among fewer would change the share by more than 5 points.
    """
    figure = new_figure(5.6, 3.6, title)
    axes = figure.subplots()
    for index, (name, risk) in enumerate(curves.items()):
        kept = 100 * np.arange(1, len(risk) + 1) / len(risk)
        style = run_style(index) | {"marker": ""}
        axes.plot(kept[19:], 100 * risk[19:], **style, linewidth=1.3, label=shorten(name))
    axes.set(
        xlim=(0, 100),
        ylim=(0, None),
        xlabel="images kept, the most confident first (%)",
        ylabel="errors among them (%)",
    )
    tidy(axes)
    if any(curves):  # a single curve needs no name
        shared_legend(figure)
    return figure


def image_grid(
    images: Sequence[np.ndarray],
    captions: Sequence[str | Sequence[tuple[str, bool | None]]],
    *,
    columns: int = 5,
    title: str | None = None,
) -> Figure:
    """Pictures row by row, each with its caption below.

    Args:
        images: uint8 H W 3 each; sizes may differ.
        captions: one for each image: a text, or (text, correct) lines, marked and coloured as right (True), wrong
            (False) or neither (None).
    """
    cell, line_height = 1.75, 1.25 * TICK_SIZE / 72  # inches
    columns = min(columns, len(images))
    texts = []  # of each image: (text of one or more lines, colour)
    for caption in captions:
        lines = [(caption, None)] if isinstance(caption, str) else caption
        marked = [(MARKS[correct][0] + text, MARKS[correct][1]) for text, correct in lines]
        texts.append([(wrap(text, cell, TICK_SIZE), color) for text, color in marked])
    lengths = [sum(text.count("\n") + 1 for text, _ in lines) for lines in texts]
    heights, room = [], 0.0
    for start in range(0, len(images), columns):
        heights.append(max(cell * min(image.shape[0] / image.shape[1], 1) for image in images[start : start + columns]))
        room += line_height * max(lengths[start : start + columns]) + 0.2
    figure = new_figure(columns * (cell + 0.15) + 0.1, sum(heights) + room, title)
    grid = panels(figure, len(images), columns, height_ratios=heights)
    for axes, image, lines in zip(grid, images, texts, strict=True):
        show_image(axes, image)
        axes.set_anchor("S")  # aligns the lower edges of the pictures in a row
        below = dict(xycoords="axes fraction", textcoords="offset points", ha="center", va="top", fontsize=TICK_SIZE)
        offset = -3.0
        for text, color in lines:
            axes.annotate(text, (0.5, 0), (0, offset), color=color, **below)
            offset -= 72 * line_height * (text.count("\n") + 1)
    return figure


def accuracy_against_severity(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    severities: Sequence[float],
    clean: Mapping[str, float],
    *,
    intervals: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    clean_intervals: Mapping[str, Sequence[float]] | None = None,
    models: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Figure:
    """Accuracy of several runs on corrupted images, a panel for each corruption.

    Args:
        curves: run to corruption to S accuracies, fractions. A corruption that a run was not tested on is left out.
        severities: S, rising, above 0.
        clean: run to its accuracy on the uncorrupted images, drawn at severity 0.
        intervals: run to corruption to S 2, lower and upper bounds, drawn as bands.
        clean_intervals: run to the bounds at severity 0, from which its bands then start.
        models: run to model, whose runs then share a colour.
    """
    corruptions = list(dict.fromkeys(corruption for run in curves.values() for corruption in run))
    columns = min(len(corruptions), 4)
    figure = new_figure(max(1 + 2.6 * columns, 5), 0.5 + 2.4 * math.ceil(len(corruptions) / columns), title)
    grid = panels(figure, len(corruptions), columns, sharey=True)
    for axes, corruption in zip(grid, corruptions, strict=True):
        for name, (label, style) in run_looks(curves, models).items():
            run = curves[name]
            if corruption not in run:
                continue
            values = 100 * np.array([clean[name], *run[corruption]], dtype=float)
            style = style | {"marker": style["marker"] or "."}
            axes.plot([0, *severities], values, "-", **style, linewidth=1.3, label=label)
            if intervals is not None:
                start = [(0, clean_intervals[name])] if clean_intervals else []
                places, bounds = zip(*start, *zip(severities, intervals[name][corruption], strict=True), strict=True)
                low, high = 100 * np.asarray(bounds, dtype=float).T
                axes.fill_between(places, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.set_title(wrap(corruption, 2.2, LABEL_SIZE), fontsize=LABEL_SIZE)
        axes.set_xticks([0, *severities])
        axes.set_xlabel("severity (0: clean)")
        tidy(axes)
    for axes in grid[::columns]:
        axes.set_ylabel("accuracy (%)")
    shared_legend(figure)
    return figure


def embedding(
    places: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    class_names: Sequence[str],
    *,
    note: str = "",
    title: str,
) -> Figure:
    """Images as points, coloured by their class; wrongly predicted ones are crosses.

    Args:
        places: positions N 2, without a unit.
        labels: int N; predicted: int N.
        note: a sentence below the points.
    """
    present = np.unique(labels)
    named = [shorten(class_names[k], 24) for k in present] if len(present) <= 20 else []
    legend = text_width(named, TICK_SIZE) + 0.6 if named else 0
    figure = new_figure(5.4 + legend, 4.8, title)
    axes = figure.subplots()
    colors = colormaps["tab20" if len(present) > 10 else "tab10"]
    size = 9 if len(labels) > 500 else 18
    wrong = predicted != labels
    for number, k in enumerate(present):
        chosen, color = labels == k, colors(number % colors.N)
        axes.scatter(*places[chosen & ~wrong].T, s=size, color=color, linewidths=0, label=shorten(class_names[k], 24))
        axes.scatter(*places[chosen & wrong].T, s=size + 13, color=color, marker="x", linewidths=1)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.04)
    text = f"t-SNE; × {wrong.sum():,} of {len(labels):,} are taken for another class"
    axes.set_xlabel("\n".join(wrap(line, 5.2, LABEL_SIZE) for line in (text, note) if line), fontsize=LABEL_SIZE)
    if named:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=TICK_SIZE, frameon=False)
    return figure
