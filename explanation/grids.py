"""Many heat maps on pages: images against models, methods, layers or classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from common.plotting import DARK, LABEL_SIZE, MARKS, TICK_SIZE, new_figure, wrap
from explanation.overlays import Style, View, blended_bar, scale_of, show_overlay, show_view

CELL = 1.7  # inches
MOST_COLUMNS, PAGE_HEIGHT = 6, 11.0  # of a page, cells and inches
LINE = 0.15  # inches of a line of text


@dataclass(frozen=True)
class Cell:
    """One picture of a grid: a photo, alone or with its map on top."""

    view: View
    caption: str
    correct: bool | None = None
    cam: np.ndarray | None = None
    """h w, not negative; None in the column of the images, and if there is no map."""
    fault: str = ""
    """Why there is no map."""
    scale: float = 1.0
    """The map's value at the end of the colour scale."""


def cam_grid(
    rows: Sequence[Sequence[Cell]],
    column_titles: Sequence[str],
    *,
    title: str | None = None,
    shared_scale: bool = False,
    style: Style | None = None,
) -> list[Figure]:
    """Images against models (or layers, methods, classes): pages, none taller than `PAGE_HEIGHT`.

    Few columns are placed on a page several times, side by side; columns that do not fit are continued on the line below.

    Args:
        rows: for each image the image itself and a cell for each of the columns.
        column_titles: one for each column of overlays.
        shared_scale: colours are relative to the largest value of the row instead of each map's own.
    """
    titles, style = ["image", *column_titles], style or Style()
    scaled = [_with_scales(row, shared_scale) for row in rows]
    lines = _lines(scaled, titles)
    pages, columns = _pages(lines), max(len(line) for line in lines)
    return [
        _page(page, columns, f"{title or ''}{f' ({i} of {len(pages)})' if len(pages) > 1 else ''}", shared_scale, style)
        for i, page in enumerate(pages, start=1)
    ]


Line = list[tuple[str, Cell]]


def _with_scales(row: Sequence[Cell], shared: bool) -> list[Cell]:
    of_row = scale_of([cell.cam for cell in row if cell.cam is not None])
    own = [of_row if shared or cell.cam is None else scale_of([cell.cam]) for cell in row]
    return [Cell(**{**vars(cell), "scale": scale}) for cell, scale in zip(row, own)]


def _lines(rows: Sequence[Sequence[Cell]], titles: Sequence[str]) -> list[Line]:
    """The cells with their titles in lines of a page."""
    titled = [list(zip(titles, row, strict=True)) for row in rows]
    if len(titles) > MOST_COLUMNS + 1:  # an image's maps go on below, unless one alone would
        return [line[i : i + MOST_COLUMNS] for line in titled for i in range(0, len(line), MOST_COLUMNS)]
    most = max(1, MOST_COLUMNS // len(titles))
    on_page = lambda across: len(_pages(_abreast(titled, across))) == 1  # noqa: E731
    across = next((n for n in range(1, most) if on_page(n)), most)
    return _abreast(titled, across)


def _abreast(titled: Sequence[Line], across: int) -> list[Line]:
    starts = range(0, len(titled), across)
    return [[cell for line in titled[i : i + across] for cell in line] for i in starts]


def _pages(lines: Sequence[Line]) -> list[list[Line]]:
    pages, used = [[]], 0.0
    for line in lines:
        height = _line_height(line, pages[-1][-1] if pages[-1] else None)
        if pages[-1] and used + height > PAGE_HEIGHT - 1.3:  # what title and colour bar take
            pages.append([])
            used, height = 0.0, _line_height(line, None)
        pages[-1].append(line)
        used += height
    return pages


def _image_height(line: Line) -> float:
    tallest = max(cell.view.photo.shape[0] / cell.view.photo.shape[1] for _, cell in line)
    return CELL * float(np.clip(tallest, 0.5, 1))


def _line_height(line: Line, above: Line | None) -> float:
    """Height in inches of the images, the text below them, and the titles above, unless the line above has the same ones."""
    captions = [wrap(f"✗ {cell.caption}", CELL, TICK_SIZE) for _, cell in line]
    titles = [wrap(title, CELL, LABEL_SIZE) for title, _ in line] if _has_titles(line, above) else []
    height = _image_height(line) + LINE * (max(text.count("\n") for text in captions) + 2)
    return height + 0.17 * max((text.count("\n") + 1 for text in titles), default=0)


def _has_titles(line: Line, above: Line | None) -> bool:
    return above is None or [title for title, _ in line] != [title for title, _ in above][: len(line)]


def _page(lines: Sequence[Line], columns: int, title: str, shared_scale: bool, style: Style) -> Figure:
    above = [None, *lines[:-1]]
    heights = [_line_height(line, other) for line, other in zip(lines, above)]
    figure = new_figure(columns * (CELL + 0.1), sum(heights) + 0.8, title)
    grid = figure.subplots(len(lines), columns, squeeze=False, height_ratios=list(map(_image_height, lines)))
    for line, other, panels in zip(lines, above, grid):
        for axes, (text, cell) in zip(panels, line):
            _draw(axes, cell, style)
            if _has_titles(line, other):
                axes.set_title(wrap(text, CELL, LABEL_SIZE), fontsize=LABEL_SIZE)
        for axes in panels[len(line) :]:
            axes.remove()
    _bar_below(figure, grid, columns, shared_scale, style)
    return figure


def _draw(axes: Axes, cell: Cell, style: Style) -> None:
    if cell.fault:
        pale = 255 - (255 - cell.view.photo) // 4
        show_view(axes, View(pale, cell.view.seen))
        text = wrap(f"no map: {cell.fault}", CELL - 0.1, TICK_SIZE)
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=TICK_SIZE, color=DARK, transform=axes.transAxes)
    elif cell.cam is None:
        show_view(axes, cell.view)
    else:
        show_overlay(axes, cell.view, cell.cam, Normalize(0, cell.scale), style)
    mark, color = MARKS[cell.correct]
    axes.set_xlabel(wrap(mark + cell.caption, CELL, TICK_SIZE), fontsize=TICK_SIZE, color=color)


def _bar_below(figure: Figure, grid: np.ndarray, columns: int, shared_scale: bool, style: Style) -> None:
    colors, inch = ScalarMappable(Normalize(0, 1), style.cmap), 1 / figure.get_figheight()
    look = dict(location="bottom", fraction=0.16 * inch, pad=0.2 * inch, shrink=min(0.6, 3.5 / columns), panchor=False)
    drawn = [axes for axes in grid.ravel() if axes.figure is not None]
    bar = figure.colorbar(colors, ax=drawn, ticks=[0, 0.5, 1], aspect=20, **look)
    blended_bar(bar.ax, style, upright=False)
    label = f"attribution, relative to the {'row' if shared_scale else 'map'}'s maximum; over black (above) and white"
    bar.set_label(wrap(label, math.ceil(columns * CELL), TICK_SIZE), fontsize=TICK_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE)
