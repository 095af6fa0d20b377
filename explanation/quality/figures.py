"""Figures of what was measured on heat maps and attention: numbers in, a matplotlib `Figure` out.

Shapes: N rows (runs or methods), S steps, G groups of layers, M heads.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.plotting import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    LABEL_SIZE,
    ORANGE,
    SKY,
    TICK_SIZE,
    VERMILLION,
    new_figure,
    shared_legend,
    shorten,
    text_width,
    tidy,
    wrap,
)

COLORS = (BLUE, ORANGE, GREEN, VERMILLION, SKY, DARK)
MARKERS = "osD^vP"


def statistics_panels(
    names: Sequence[str],
    panels: Mapping[str, tuple[Sequence[float | None], Sequence[Sequence[float] | None]]],
    *,
    references: Mapping[str, float] | None = None,
    title: str | None = None,
) -> Figure:
    """Several numbers of several maps side by side: a panel per number, a row per run or method, with intervals.

    Args:
        names: N rows, the first on top.
        panels: label of a number -> N values and N [lower, upper] bounds; None is not drawn.
        references: label -> the value of an even map, drawn as a dashed line.
    """
    labels, rows = [wrap(name, 2.2, TICK_SIZE) for name in names], np.arange(len(names))
    longest = text_width([line for label in labels for line in label.split("\n")], TICK_SIZE)
    height = sum(0.12 + 0.15 * (label.count("\n") + 1) for label in labels)
    figure = new_figure(2.3 * len(panels) + longest, height + 0.9, title)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (label, (values, intervals)) in zip(grid, panels.items(), strict=True):
        if references and label in references:
            axes.axvline(references[label], color=GREY, linestyle="--", linewidth=1, label="a map that is even")
        for row, value, bounds in zip(rows, values, intervals, strict=True):
            if bounds is not None and None not in bounds:
                axes.plot(bounds, [row, row], color=DARK, linewidth=1.4, solid_capstyle="butt")
            if value is not None:
                axes.plot(value, row, "o", color=BLUE, markersize=5)
        axes.set(xlabel=wrap(label, 2.1, LABEL_SIZE), ylim=(len(names) - 0.5, -0.5))
        axes.set_yticks(rows, labels)
        axes.locator_params(axis="x", nbins=5)
        tidy(axes, grid="x")
    if references:
        shared_legend(figure)
    return figure


def faithfulness_curves(
    fractions: Sequence[float],
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]] | None]]],
    *,
    baselines: Sequence[str] = (),
    title: str | None = None,
) -> Figure:
    """Probability of the class as the image is taken away or built up, a panel per way, a line per method.

    Every panel reaches from its lowest to its highest value, not from 0.

    Args:
        fractions: S shares of the area, 0 to 1.
        panels: what is done, such as "insertion, blurred" -> method -> S probabilities and their S [lower, upper] bounds,
            drawn as a band.
        baselines: the methods that are drawn dashed.
    """
    count = len(panels)
    columns = min(2, count)
    rows = -(-count // columns)
    figure = new_figure(4.2 * columns, 2.7 * rows + 0.6, title)
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    percent = 100 * np.asarray(fractions)
    for axes, (what, curves) in zip(grid, panels.items(), strict=False):
        for (name, (curve, bounds)), style in zip(curves.items(), _line_styles(curves, baselines)):
            axes.plot(percent, 100 * np.asarray(curve), label=name, **style)
            if bounds is not None:
                _band(axes, percent, 100 * np.asarray(bounds), style)
        axes.set_title(what, fontsize=LABEL_SIZE)
        axes.set_xlim(0, 100)
        axes.margins(y=0.04)
        tidy(axes)
    for axes in grid[max(count - columns, 0) : count]:
        axes.set_xlabel("share of the image (%), most important first", fontsize=LABEL_SIZE)
    for axes in grid[count:]:
        axes.remove()
    figure.supylabel("probability of the explained class (%)", fontsize=LABEL_SIZE)
    shared_legend(figure)
    return figure


def randomization(
    groups: Sequence[str],
    correlations: Mapping[str, tuple[Sequence[float | None], Sequence[Sequence[float] | None]]],
    *,
    title: str | None = None,
) -> Figure:
    """Rank correlation of a map with that of the model whose layers were randomised down to each depth, with bands.

    Args:
        groups: G names in the order of their randomisation.
        correlations: method -> G means and G [lower, upper] bounds; None where every map was blank, drawn as a gap.
    """
    labels = [shorten(group, 24) for group in groups]
    figure = new_figure(max(6, 0.32 * len(groups) + 1.2), 2.9 + text_width(labels, TICK_SIZE) * 0.8, title)
    axes, places = figure.subplots(), np.arange(len(groups) + 1)
    for (method, (means, intervals)), style in zip(correlations.items(), _line_styles(correlations, ())):
        values = np.array([1, *[np.nan if mean is None else mean for mean in means]], float)
        bounds = np.array([[1, 1], *[bound or [np.nan, np.nan] for bound in intervals]], float)
        axes.plot(places, values, label=method, **style)
        _band(axes, places, bounds, style)
    axes.axhline(0, color=DARK, linewidth=0.8)
    axes.set_xticks(places, ["trained", *labels], rotation=90)
    axes.set(ylim=(None, 1.05), ylabel="rank correlation with\nthe trained model's map", xlabel="randomised down to")
    tidy(axes)
    shared_legend(figure)
    return figure


def _band(axes: Axes, x: np.ndarray, bounds: np.ndarray, style: Mapping) -> None:
    """Between S 2 bounds, in the pale colour of their line."""
    axes.fill_between(x, bounds[:, 0], bounds[:, 1], color=style["color"], alpha=0.15, linewidth=0)


def attention_heads(
    layers: Sequence[str],
    distance: Sequence[Sequence[float]],
    entropy: Sequence[Sequence[float]],
    *,
    title: str | None = None,
) -> Figure:
    """Mean attention distance and entropy of every head, by layer, first layer left.

    Args:
        layers: names.
        distance: for each layer, pixels of its M heads; layers may differ in M.
        entropy: for each layer, nats of its M heads.
    """
    labels = [shorten(name.removesuffix(".attn"), 24) for name in layers]
    width = max(4, 0.3 * len(layers) + 1)
    figure = new_figure(2 * width, 2.7 + text_width(labels, TICK_SIZE) * 0.8, title)
    panels = (("mean attention distance (pixels)", distance), ("mean attention entropy (nats)", entropy))
    for axes, (ylabel, values) in zip(figure.subplots(1, 2), panels):
        _heads_of_layers(axes, values)
        top = 1.08 * max(float(np.max(heads)) for heads in values)
        axes.set(ylabel=ylabel, ylim=(0, top or 1), xlim=(-0.6, len(layers) - 0.4))
        axes.set_xticks(range(len(layers)), labels, rotation=90)
        tidy(axes, grid="y")
    shared_legend(figure)
    return figure


def _heads_of_layers(axes: Axes, values: Sequence[Sequence[float]]) -> None:
    for place, heads in enumerate(values):
        spread = np.linspace(-0.2, 0.2, len(heads)) if len(heads) > 1 else [0]
        label = {} if place else {"label": "a head"}
        axes.plot(place + np.asarray(spread), heads, "o", color=SKY, markersize=4, alpha=0.9, **label)
    means = [float(np.mean(heads)) for heads in values]
    axes.plot(range(len(means)), means, "_-", color=BLUE, markersize=12, linewidth=1.2, label="mean of the layer")


def _line_styles(names: Sequence[str], baselines: Sequence[str]) -> list[dict]:
    """Colour, marker and dashes of each line; baselines in grey and black."""
    styles, known = [], 0
    for name in names:
        if name in baselines:
            color, dashes = (GREY, DARK)[list(baselines).index(name) % 2], "--"
            styles.append(dict(color=color, linestyle=dashes, linewidth=1.3))
        else:
            marker = MARKERS[known % len(MARKERS)]
            styles.append(dict(color=COLORS[known % len(COLORS)], marker=marker, markersize=3.5, linewidth=1.4))
            known += 1
    return styles
