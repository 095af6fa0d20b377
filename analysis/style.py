"""The one look of all figures: sizes, colours, panels, and text that fits."""

import re
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure

# Okabe and Ito (2008), "Color universal design": colours that colour-blind readers tell apart.
BLUE, SKY, GREEN, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00"
DARK, GREY, LIGHT = "#333333", "#888888", "#DDDDDD"
DPI = 150
TITLE_SIZE, LABEL_SIZE, TICK_SIZE = 11, 9, 8  # points
EM = 0.62  # width of an average DejaVu Sans character, in units of the font size
MARKS = {True: ("✓ ", GREEN), False: ("✗ ", VERMILLION), None: ("", DARK)}  # correct, wrong, not judged


def new_figure(width: float, height: float, title: str | None) -> Figure:
    """An empty figure of this size in inches, and on top of it the title, wrapped to the width."""
    text = wrap(title or "", width - 0.2, TITLE_SIZE)
    lines = text.count("\n") + 1 if text else 0
    figure = Figure(figsize=(width, height + 0.2 * lines), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    if text:
        figure.suptitle(text, fontsize=TITLE_SIZE)
    return figure


def tidy(axes: Axes, *, grid: str | None = "both", tick_size: float = TICK_SIZE) -> None:
    """The style of every panel with scales: light grid behind the data, no box."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=tick_size)
    axes.xaxis.label.set_size(LABEL_SIZE)
    axes.yaxis.label.set_size(LABEL_SIZE)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=LIGHT, linewidth=0.6)


def shared_legend(figure: Figure) -> None:
    """One legend for all panels, below them, where it hides no data."""
    entries = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    style = dict(loc="outside lower center", ncols=3, frameon=False, fontsize=TICK_SIZE)
    figure.legend(list(entries.values()), list(entries), **style)


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


def readable(value: float) -> str:
    """The number as people write it: 0.0123, 45.6, 12,345, 5.717 M."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.4g}"


class _Wrapper(textwrap.TextWrapper):
    """Breaks names after their separators as well as at blanks, but no number from its percent sign."""

    wordsep_simple_re = re.compile(r"(\s+(?!%))|(?<=[_/,.-])(?=[^\d\s])")


def wrap(text: str, width: float, size: float) -> str:
    """The text in lines of at most `width` inches at a font of `size` points; its own line breaks stay."""
    wrapper = _Wrapper(width=max(int(72 * width / (EM * size)), 4), break_on_hyphens=False)
    return "\n".join(wrapper.fill(line) for line in text.split("\n"))


def shorten(name: str, length: int = 32) -> str:
    """The name, its middle left out if it is longer than `length` characters."""
    return name if len(name) <= length else f"{name[: length // 2]}…{name[1 - length // 2 :]}"


def text_width(texts: Sequence[str], size: float) -> float:
    """About how many inches the longest of the texts takes at a font of `size` points."""
    return max(map(len, texts), default=0) * EM * size / 72
