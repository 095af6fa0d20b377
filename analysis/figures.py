"""Figures: arrays in, a matplotlib `Figure` out, in one style.

Fractions go in ([0, 1]), percent is drawn. Nothing here touches pyplot's global state; save with `figure.savefig(path)`.
Shapes: K classes, B bins, N runs, H W pixels of an image, h w cells of a class activation map (CAM).
"""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

# Okabe and Ito (2008), "Color universal design": colours that colour-blind readers tell apart.
BLUE, SKY, GREEN, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00"
DARK, GREY, LIGHT = "#333333", "#888888", "#DDDDDD"
CAM_COLORS, CAM_ALPHA = "inferno", 0.45  # lightness grows with the value: no colour vision needed
DPI = 150
TITLE_SIZE, LABEL_SIZE, TICK_SIZE = 11, 9, 8  # points
EM = 0.62  # width of an average DejaVu Sans character, in units of the font size
MAX_LABELS = 100  # classes named on an axis; with more of them every n-th is named
MARKS = {True: ("✓ ", GREEN), False: ("✗ ", VERMILLION), None: ("", DARK)}  # correct, wrong, not judged


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
    figure = _figure(9, 3.6, title)
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
        _tidy(axes)
    _legend(figure)
    return figure


def learning_rate(epochs: Sequence[float], lr: Sequence[float], *, title: str | None = None) -> Figure:
    """The learning rate of every step.

    Args:
        epochs: where each step stands, in (fractional) epochs.
        lr: the rate used at that step.
    """
    figure = _figure(6, 3, title)
    axes = figure.subplots()
    axes.plot(epochs, lr, color=BLUE, marker="o" if len(lr) <= 30 else None, markersize=4)
    axes.set(xlabel="epoch", ylabel="learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    axes.yaxis.get_offset_text().set_fontsize(TICK_SIZE)
    _tidy(axes)
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
    names, step = [_shorten(name) for name in class_names], math.ceil(num_classes / MAX_LABELS)
    margin = _text_width(names, size)
    upright = margin > cell  # names wider than a column stand on end

    figure = _figure(side + margin + 1.4, side + (margin if upright else 0.2) + 0.5, title)
    axes = figure.subplots()
    # A good model's errors are a few percent of a row: the power law keeps them visible beside the diagonal.
    norm = PowerNorm(0.4, vmin=0, vmax=100)
    image = axes.imshow(percent, cmap="Blues", norm=norm, interpolation="nearest")
    bar = _colorbar(axes, image, "share of the true class (%),\ncolours follow its power 0.4", side)
    bar.set_ticks([0, 1, 5, 20, 50, 100])
    ticks = np.arange(0, num_classes, step)
    axes.set_xticks(ticks, names[::step], rotation=90 if upright else 0)
    axes.set_yticks(ticks, names[::step])
    axes.set(xlabel="predicted class", ylabel="true class")
    _tidy(axes, grid=None, tick_size=size)
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
    names = [_shorten(class_names[i]) for i in order]
    rows, step = np.arange(num_classes), math.ceil(num_classes / MAX_LABELS)
    pitch, size, caps = (0.3, TICK_SIZE, 2) if num_classes <= 30 else (0.15, 7, 0)

    figure = _figure(5 + _text_width(names, size), min(num_classes, MAX_LABELS) * pitch + 1.2, title)
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
    _tidy(axes, grid="x", tick_size=size)
    _legend(figure)
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

    figure = _figure(5.4, 5.8, title)
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
    _tidy(top)
    _tidy(bottom, grid="y")
    _legend(figure)
    return figure


def cam_overview(
    image: np.ndarray,
    cam: np.ndarray,
    *,
    title: str,
    probabilities: Sequence[tuple[str, float]] | None = None,
    scale_note: str = "",
) -> Figure:
    """One image, its class activation map on the map's own grid, the overlay, and the likeliest classes.

    Args:
        image: uint8 H W 3, all of what the model saw: the map is stretched over the whole of it.
        cam: h w, not negative, not upsampled; the colour bar is in its own units.
        title: may hold several lines.
        probabilities: (class name, probability) pairs; the five likeliest are drawn, the first highlighted.
        scale_note: what the units of the map are, beside the colour bar.
    """
    cam, aspect = np.asarray(cam), image.shape[1] / image.shape[0]
    width = np.clip(2.8 * aspect, 1.4, 4.2)  # of a panel, in inches
    height = np.clip(width / aspect, 1.4, 2.8)
    likeliest = sorted(probabilities or [], key=lambda pair: -pair[1])[:5]
    names = [_shorten(name) for name, _ in likeliest]
    widths = [width] * 3 + [2] * bool(likeliest)
    figure = _figure(sum(widths) + 1.6 + _text_width(names, TICK_SIZE), height + 0.7, title)
    picture, grid, overlay, *bars = figure.subplots(1, len(widths), width_ratios=widths)

    _show_image(picture, image)
    # A cell covers (H / h) x (W / w) pixels: the map's panel gets the shape of the picture's.
    cell_aspect = (image.shape[0] / cam.shape[0]) / (image.shape[1] / cam.shape[1])
    norm = Normalize(0, _scale([cam]))
    colors = grid.imshow(cam, cmap=CAM_COLORS, norm=norm, interpolation="nearest", aspect=cell_aspect)
    grid.set(xticks=[], yticks=[])
    _colorbar(grid, colors, "\n".join(filter(None, ["attribution", _wrap(scale_note, height, TICK_SIZE)])), width)
    _show_overlay(overlay, image, cam, norm)
    map_title = f"map, {cam.shape[0]} × {cam.shape[1]}" + ("" if cam.any() else ", zero everywhere")
    for axes, text in ((picture, "image"), (grid, map_title), (overlay, "overlay")):
        axes.set_title(_wrap(text, width, LABEL_SIZE), fontsize=LABEL_SIZE)
    if likeliest:
        _probability_bars(bars[0], names, [100 * probability for _, probability in likeliest])
    return figure


def cam_grid(
    rows: Sequence[Mapping],
    column_titles: Sequence[str],
    *,
    title: str | None = None,
    colorbar_label: str | None = None,
    shared_scale: bool = False,
) -> Figure:
    """Images against models (or layers, or methods): one overlay for each pair, captioned with its prediction.

    Args:
        rows: each with `image` (uint8 H W 3), `label` (text under the image), and `cells`: for each column
            (cam, caption, correct), where cam is h w, not negative, or None; correct is True, False or None.
        column_titles: one for each column of overlays.
        colorbar_label: what the colours mean; the default says what they are relative to.
        shared_scale: colours are relative to the largest value of the row instead of each map's own.
    """
    cell, num_columns = 1.7, len(column_titles) + 1  # inches
    heights = [cell * np.clip(row["image"].shape[0] / row["image"].shape[1], 0.5, 1) for row in rows]
    figure = _figure(num_columns * (cell + 0.1), sum(heights) + 0.5 * len(rows) + 1.0, title)
    grid = figure.subplots(len(rows), num_columns, squeeze=False, height_ratios=heights)
    for axes, name in zip(grid[0], ["image", *column_titles], strict=True):
        axes.set_title(_wrap(name, cell, LABEL_SIZE), fontsize=LABEL_SIZE)
    for line, row in zip(grid, rows, strict=True):
        _show_image(line[0], row["image"])
        line[0].set_xlabel(_wrap(row["label"], cell, TICK_SIZE), fontsize=TICK_SIZE)
        row_scale = _scale([cam for cam, _, _ in row["cells"] if cam is not None])
        for axes, (cam, caption, correct) in zip(line[1:], row["cells"], strict=True):
            if cam is None:
                _show_image(axes, np.full_like(row["image"], 255))
                axes.text(0.5, 0.5, "no map", ha="center", va="center", fontsize=TICK_SIZE, transform=axes.transAxes)
            else:
                _show_overlay(axes, row["image"], cam, Normalize(0, row_scale if shared_scale else _scale([cam])))
            mark, color = MARKS[correct]
            axes.set_xlabel(_wrap(mark + caption, cell, TICK_SIZE), fontsize=TICK_SIZE, color=color)
    colors, inch = ScalarMappable(Normalize(0, 1), CAM_COLORS), 1 / figure.get_figheight()
    style = dict(location="bottom", fraction=0.12 * inch, pad=0.1 * inch, shrink=0.6, aspect=30, panchor=False)
    bar = figure.colorbar(colors, ax=grid, ticks=[0, 0.5, 1], **style)
    label = colorbar_label or f"attribution, relative to the {'row' if shared_scale else 'map'}'s maximum"
    bar.set_label(_wrap(label, num_columns * cell, TICK_SIZE), fontsize=TICK_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE)
    return figure


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
    factor, show = (100, "{:.2f} %".format) if percent else (1, _number)
    values, rows = factor * np.asarray(values, dtype=float), np.arange(len(names))
    texts = [show(value) if np.isfinite(value) else "no value" for value in values]
    labels = [_wrap(name, 3, TICK_SIZE) for name in names]
    lines = max(label.count("\n") + 1 for label in labels)
    figure = _figure(8, len(names) * max(0.3, 0.1 + 0.15 * lines) + 0.8, title)
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
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
    _tidy(axes, grid="x")
    return figure


def _figure(width: float, height: float, title: str | None) -> Figure:
    """An empty figure of this size in inches, and on top of it the title, wrapped to the width."""
    text = _wrap(title or "", width - 0.2, TITLE_SIZE)
    lines = text.count("\n") + 1 if text else 0
    figure = Figure(figsize=(width, height + 0.2 * lines), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    if text:
        figure.suptitle(text, fontsize=TITLE_SIZE)
    return figure


def _tidy(axes: Axes, *, grid: str | None = "both", tick_size: float = TICK_SIZE) -> None:
    """The style of every panel with scales: light grid behind the data, no box."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=tick_size)
    axes.xaxis.label.set_size(LABEL_SIZE)
    axes.yaxis.label.set_size(LABEL_SIZE)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=LIGHT, linewidth=0.6)


def _legend(figure: Figure) -> None:
    """One legend for all panels, below them, where it hides no data."""
    entries = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    style = dict(loc="outside lower center", ncols=3, frameon=False, fontsize=TICK_SIZE)
    figure.legend(list(entries.values()), list(entries), **style)


def _colorbar(axes: Axes, colors: ScalarMappable, label: str, width: float) -> Colorbar:
    """A colour bar as tall as the panel beside it, which is `width` inches wide."""
    bar = axes.figure.colorbar(colors, cax=axes.inset_axes([1 + 0.08 / width, 0, 0.16 / width, 1]))
    bar.set_label(label, fontsize=TICK_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE)
    return bar


def _show_image(axes: Axes, image: np.ndarray) -> None:
    """The image without ticks; a small one keeps its pixels visible."""
    axes.imshow(image, interpolation="nearest" if max(image.shape[:2]) < 64 else None)
    axes.set(xticks=[], yticks=[])


def _show_overlay(axes: Axes, image: np.ndarray, cam: np.ndarray, norm: Normalize) -> None:
    """The image under its map, which is stretched over it bilinearly."""
    _show_image(axes, image)
    extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
    axes.imshow(cam, cmap=CAM_COLORS, norm=norm, interpolation="bilinear", extent=extent, alpha=CAM_ALPHA)


def _probability_bars(axes: Axes, names: Sequence[str], percent: Sequence[float]) -> None:
    """Horizontal bars, the first one highlighted, each with its value at its end."""
    bars = axes.barh(range(len(names)), percent, height=0.6, color=[BLUE] + [SKY] * (len(names) - 1))
    axes.bar_label(bars, fmt="%.1f %%", padding=3, fontsize=TICK_SIZE)
    axes.set_yticks(range(len(names)), names)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set(xlim=(0, 140), xticks=[0, 50, 100], ylim=(4.5, -0.5), xlabel="probability (%)")
    _tidy(axes, grid="x")


def _scale(cams: Sequence[np.ndarray]) -> float:
    """The largest value of the maps; 1 where they are blank, since a colour scale needs a length."""
    return max((float(np.max(cam)) for cam in cams), default=0) or 1.0


def _number(value: float) -> str:
    """The number as people write it: 0.0123, 45.6, 12,345, 5.717 M."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.4g}"


class _Wrapper(textwrap.TextWrapper):
    """Breaks names after their separators as well as at blanks, but no number from its percent sign."""

    wordsep_simple_re = re.compile(r"(\s+(?!%))|(?<=[_/,.-])(?=[^\d\s])")


def _wrap(text: str, width: float, size: float) -> str:
    """The text in lines of at most `width` inches at a font of `size` points; its own line breaks stay."""
    wrapper = _Wrapper(width=max(int(72 * width / (EM * size)), 4), break_on_hyphens=False)
    return "\n".join(wrapper.fill(line) for line in text.split("\n"))


def _shorten(name: str, length: int = 32) -> str:
    """The name, its middle left out if it is longer than `length` characters."""
    return name if len(name) <= length else f"{name[: length // 2]}…{name[1 - length // 2 :]}"


def _text_width(texts: Sequence[str], size: float) -> float:
    """About how many inches the longest of the texts takes at a font of `size` points."""
    return max(map(len, texts), default=0) * EM * size / 72
