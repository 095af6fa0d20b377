"""The common style of all figures: sizes, colours, panels, and text that fits."""

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter

matplotlib.rcParams["text.parse_math"] = False  # names of classes and files may hold dollar signs

# Okabe and Ito (2008), "Color universal design": colours that colour-blind readers tell apart.
BLUE, SKY, GREEN, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00"
DARK, GREY, LIGHT = "#333333", "#888888", "#DDDDDD"
DPI = 150
TITLE_SIZE, LABEL_SIZE, TICK_SIZE = 11, 9, 8  # points
EM = 0.62  # width of an average DejaVu Sans character, in units of the font size
# Colours for runs side by side: Okabe and Ito's, but for their yellow, which is faint on white (Tol's wine instead).
RUN_COLORS = (BLUE, ORANGE, GREEN, VERMILLION, SKY, "#CC79A7", "#000000", "#882255")
RUN_MARKERS = ("", "o", "s", "^", "D", "v")  # once the colours are used up
MAX_LABELS = 100  # classes named on an axis; with more of them every n-th is named
MARKS = {True: ("✓ ", GREEN), False: ("✗ ", VERMILLION), None: ("", DARK)}  # correct, wrong, not judged


def new_figure(width: float, height: float, title: str | None) -> Figure:
    """An empty figure of this size in inches, with the title above it, wrapped to the width."""
    text = wrap(title or "", width - 0.2, TITLE_SIZE)
    lines = text.count("\n") + 1 if text else 0
    figure = Figure(figsize=(width, height + 0.2 * lines), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    if text:
        figure.suptitle(text, fontsize=TITLE_SIZE)
    return figure


def tidy(axes: Axes, *, grid: str | None = "both", tick_size: float = TICK_SIZE) -> None:
    """The style of every panel with axes: a light grid behind the data, no box."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=tick_size)
    axes.xaxis.label.set_size(LABEL_SIZE)
    axes.yaxis.label.set_size(LABEL_SIZE)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=LIGHT, linewidth=0.6)


def scientific_ticks(axes: Axes) -> None:
    """Write very small or large values of y with a common power of ten above the axis."""
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.yaxis.get_offset_text().set_fontsize(TICK_SIZE)


def panels(figure: Figure, count: int, columns: int, **options) -> list[Axes]:
    """``count`` panels, row by row, in at most ``columns`` columns."""
    columns = min(count, columns)
    grid = figure.subplots(math.ceil(count / columns), columns, squeeze=False, **options).ravel()
    for axes in grid[count:]:
        axes.remove()
    return list(grid[:count])


def run_style(index: int) -> dict:
    """Colour and marker of the run with this index: eight colours, then the same ones with another marker."""
    markers = index // len(RUN_COLORS) % len(RUN_MARKERS)
    return dict(color=RUN_COLORS[index % len(RUN_COLORS)], marker=RUN_MARKERS[markers], markersize=4)


def run_looks(runs: Iterable[str], models: Mapping[str, str] | None = None) -> dict[str, tuple[str, dict]]:
    """Run -> its label and its style; ``models``: run -> model, whose runs then share both."""
    labels = {run: (models or {}).get(run, run) for run in runs}
    order = list(dict.fromkeys(labels.values()))
    return {run: (label, run_style(order.index(label))) for run, label in labels.items()}


def plot_known(axes: Axes, x: Sequence[float], y: np.ndarray, **style) -> None:
    """Draw the line through the finite values, if there are any; a single point gets a marker so that it is visible."""
    known = np.isfinite(y)
    if known.any():
        style["marker"] = style.get("marker") or ("o" if known.sum() == 1 else None)
        axes.plot(np.asarray(x)[known], y[known], **style)


def shared_legend(figure: Figure) -> None:
    """One legend for all panels, below them, where it hides no data; the figure grows by its height."""
    entries = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    labels = [wrap(label, figure.get_figwidth() - 1, TICK_SIZE) for label in entries]
    style = dict(loc="outside lower center", frameon=False, fontsize=TICK_SIZE)
    for columns in range(min(4, len(labels)), 0, -1):
        legend = figure.legend(list(entries.values()), labels, ncols=columns, **style)
        box = legend.get_window_extent()
        if columns == 1 or box.width < figure.bbox.width - 0.1 * figure.dpi:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + max(box.height / figure.dpi - 0.3, 0))


def legend_entry(axes: Axes, label: str, **style) -> None:
    """Add an entry to the legend that belongs to no single line of the panel."""
    axes.add_line(Line2D([], [], label=label, **style))


def number_marker(number: str) -> dict:
    """The style of a legend's entry that shows a number where others show a line."""
    outline = TextPath((0, 0), number)
    center = (outline.vertices.min(axis=0) + outline.vertices.max(axis=0)) / 2
    size = 6 if len(number) == 1 else 8.5  # of the longer side, so that all digits are equally large
    marker = Path(outline.vertices - center, outline.codes)
    return dict(color=DARK, linestyle="", marker=marker, markersize=size, markeredgewidth=0)


def class_rows(
    class_names: Sequence[str], seen: np.ndarray, title: str | None, count: int = 1
) -> tuple[Figure, list[Axes], int]:
    """Panels with one row per class, the first on top, at most three side by side, and the cap length of error bars.

    A class that is not in ``seen`` (bool K) gets the words "no images". The cap length is 0 where rows are narrow.
    """
    names, step = [shorten(name) for name in class_names], math.ceil(len(class_names) / MAX_LABELS)
    pitch, size, caps = (0.3, TICK_SIZE, 2) if len(names) <= 30 else (0.15, 7, 0)
    columns = min(count, 3)
    height = (min(len(names), MAX_LABELS) * pitch + 0.8) * math.ceil(count / columns) + 0.4
    figure = new_figure((5 if count == 1 else 3.3 * columns) + text_width(names, size), height, title)
    grid = panels(figure, count, columns, sharey=True)
    for axes in grid:
        place = dict(transform=axes.get_yaxis_transform(), va="center", fontsize=size, style="italic", color=DARK)
        for row in np.flatnonzero(~seen)[::step]:
            axes.text(0.01, row, "no images", **place)
        axes.set_yticks(np.arange(0, len(names), step), names[::step])
        axes.set_ylim(len(names) - 0.4, -0.6)
        tidy(axes, grid="x", tick_size=size)
    return figure, grid, caps


def draw_class_accuracy(axes: Axes, accuracy: np.ndarray, interval: np.ndarray, caps: float) -> None:
    """Draw K accuracies and their intervals (K 2), fractions, into the rows of a panel of `class_rows`."""
    accuracy, interval = 100 * np.asarray(accuracy, dtype=float), 100 * np.asarray(interval, dtype=float)
    seen = np.isfinite(accuracy)
    rows = np.flatnonzero(seen)
    axes.barh(rows, accuracy[seen], height=0.7, color=SKY)
    style = dict(fmt="none", ecolor=DARK, elinewidth=1, capsize=caps, label="95 % interval")
    axes.errorbar(interval[seen].mean(axis=1), rows, xerr=np.ptp(interval[seen], axis=1) / 2, **style)
    axes.set(xlim=(0, 100), xlabel="accuracy (%)")


def label_points(axes: Axes, points: np.ndarray, texts: Sequence[str], obstacles: Sequence[np.ndarray] = ()) -> None:
    """Write each text near its point, N 2, where it covers no other text, point or obstacle; with a line if far away.

    Call it last, after `figure.draw_without_rendering()`, since it measures the panel as it is then.

    Args:
        obstacles: pairs of opposite corners, 2 2, in the units of the data.
    """
    pixel, panel = axes.figure.dpi / 72, axes.get_window_extent().extents[None]  # pixels per typographic point
    places = axes.transData.transform(points)
    marks = np.hstack([places, places])  # boxes are left, bottom, right, top in pixels
    corners = axes.transData.transform(np.reshape(obstacles, (-1, 2))).reshape(-1, 2, 2)
    lines = _padded(np.hstack([corners.min(axis=1), corners.max(axis=1)]), pixel)
    written = np.empty((0, 4))
    compass = np.array([(1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)])
    centered = dict(textcoords="offset points", ha="center", va="center", fontsize=TICK_SIZE)
    for point, place, text in zip(points, places, texts, strict=True):
        halo = [withStroke(linewidth=2, foreground="white")]
        label = axes.annotate(text, point, (0, 0), **centered, path_effects=halo, zorder=4)
        half = np.array(label.get_window_extent().size) / 2
        offsets = np.vstack([compass * (half + distance * pixel) for distance in (5, 9, 15, 22, 30, 40, 52)])
        boxes = np.hstack([place + offsets - half, place + offsets + half])
        others = marks[np.abs(places - place).max(axis=1) > 2 * pixel]
        outside = 4 * half.prod() - _covered(boxes, panel)
        firm = np.vstack([written, _padded(marks, 4 * pixel)])
        soft = np.vstack([lines, _padded(others, 7 * pixel)])  # close to another point: whose label is it?
        cost = 10 * (_covered(boxes, firm) + outside) + _covered(boxes, soft)
        best = cost.round(2).argmin()  # rounded, so that the first free place wins, the nearest
        written = np.vstack([written, boxes[best]])
        label.xyann = tuple(offsets[best] / pixel)
        if best >= 2 * len(compass):
            near = offsets[best] - np.clip(offsets[best], -half, half)  # the text's place that is nearest to the point
            line = dict(arrowstyle="-", color=GREY, linewidth=0.7, shrinkA=0, shrinkB=3)
            axes.annotate("", point, near / pixel, textcoords="offset points", arrowprops=line)


def _padded(boxes: np.ndarray, margin: float) -> np.ndarray:
    """The boxes, N 4, made larger by a margin on every side."""
    return boxes + margin * np.array([-1, -1, 1, 1])


def _covered(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each box, N 4, the sum of the areas that it shares with the others, M 4."""
    low, high = np.maximum(boxes[:, None, :2], others[:, :2]), np.minimum(boxes[:, None, 2:], others[:, 2:])
    return np.clip(high - low, 0, None).prod(axis=-1).sum(axis=-1)


def colorbar(axes: Axes, colors: ScalarMappable, label: str, width: float) -> Colorbar:
    """A colour bar as tall as the panel beside it, which is `width` inches wide."""
    bar = axes.figure.colorbar(colors, cax=axes.inset_axes([1 + 0.08 / width, 0, 0.16 / width, 1]))
    bar.set_label(label, fontsize=TICK_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE)
    return bar


def show_image(axes: Axes, image: np.ndarray) -> None:
    """The image without ticks; a small one keeps its pixels visible."""
    axes.imshow(image, interpolation="nearest" if max(image.shape[:2]) < 64 else None)
    axes.set(xticks=[], yticks=[])


def readable(value: float, digits: int = 4) -> str:
    """The number in a readable form: 0.0123, 45.6, 12,345, 5.717 M."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.{digits}g} {unit}"
    return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.{digits}g}"


# For an axis: its ticks may lie so close together that they differ only in a later digit.
PLAIN_TICKS = FuncFormatter(lambda value, _: readable(value, 7))


class _Wrapper(textwrap.TextWrapper):
    """Breaks lines at blanks, but not between a number and its percent sign."""

    wordsep_simple_re = re.compile(r"(\s+(?!%))")


class _NameWrapper(_Wrapper):
    """Breaks lines also after separators within names."""

    wordsep_simple_re = re.compile(r"(\s+(?!%))|(?<=[_/,.-])(?=[^\d\s])")


def wrap(text: str, width: float, size: float) -> str:
    """The text in lines of at most `width` inches at a font of `size` points; its own line breaks stay.

    A word is broken only if it is longer than a line.
    """
    count = max(int(72 * width / (EM * size)), 4)
    long = any(len(word) > count for word in text.split())
    wrapper = (_NameWrapper if long else _Wrapper)(width=count, break_on_hyphens=False)
    return "\n".join(wrapper.fill(line) for line in text.split("\n"))


def shorten(name: str, length: int = 32) -> str:
    """The name, its middle left out if it is longer than `length` characters."""
    return name if len(name) <= length else f"{name[: length // 2]}…{name[1 - length // 2 :]}"


def text_width(texts: Sequence[str], size: float) -> float:
    """About how many inches the longest line of the texts takes at a font of `size` points."""
    return max((len(line) for text in texts for line in text.split("\n")), default=0) * EM * size / 72
