"""Figures of heat maps: arrays in, a matplotlib `Figure` out.

Shapes: H W pixels of an image, h w cells of a class activation map (CAM).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from common.plotting import (
    BLUE,
    LABEL_SIZE,
    SKY,
    TICK_SIZE,
    colorbar,
    new_figure,
    panels,
    run_style,
    shorten,
    text_width,
    tidy,
    wrap,
)
from explanation.overlays import Style, View, blended_bar, scale_of, show_overlay, show_view


def cam_overview(
    view: View,
    cam: np.ndarray,
    *,
    title: str,
    probabilities: Sequence[tuple[str, float]] | None = None,
    explained: int | None = None,
    scale_note: str = "",
    style: Style | None = None,
) -> Figure:
    """One photo, its class activation map on the map's own grid, the overlay, and the most probable classes.

    Args:
        cam: h w, not negative, not upsampled; the colour bars are in its own units.
        title: may hold several lines.
        probabilities: (class name, probability) pairs; the five most probable are drawn.
        explained: position among them of the explained class; it is always drawn, in bold.
        scale_note: the units of the map, written beside the colour bar.
    """
    cam, style = np.asarray(cam), style or Style()
    photo_height, photo_width = view.photo.shape[:2]
    left, top, right, bottom = view.seen
    width, height = _panel_size(photo_width / photo_height)
    cells_width, cells_height = _panel_size((right - left) / (bottom - top))
    bars = _bars_shown(probabilities or [], explained)
    names = [shorten(name) for name, _, _ in bars]
    widths = [width, cells_width, width] + [1.8] * bool(bars)
    figure = new_figure(sum(widths) + 2.4 + text_width(names, TICK_SIZE), max(height, cells_height) + 0.7, title)
    picture, grid, overlay, *rest = figure.subplots(1, len(widths), width_ratios=widths)

    show_view(picture, view)
    # A cell covers (H / h) x (W / w) pixels, so that the map's panel has the shape of the model's input.
    cell_aspect = ((bottom - top) / cam.shape[0]) / ((right - left) / cam.shape[1])
    norm = Normalize(0, scale_of([cam]))
    colors = grid.imshow(cam, cmap=style.cmap, norm=norm, interpolation="nearest", aspect=cell_aspect)
    grid.set(xticks=[], yticks=[])
    note = wrap(scale_note, cells_height, TICK_SIZE)
    colorbar(grid, colors, "\n".join(filter(None, ["attribution", note])), cells_width)
    show_overlay(overlay, view, cam, norm, style)
    bar = colorbar(overlay, colors, "over black (left) and white", width)
    blended_bar(bar.ax, style, upright=True)
    map_title = f"map, {cam.shape[0]} × {cam.shape[1]}" + ("" if cam.any() else ", zero everywhere")
    for axes, text, space in ((picture, "image", width), (grid, map_title, cells_width), (overlay, "overlay", width)):
        axes.set_title(wrap(text, space, LABEL_SIZE), fontsize=LABEL_SIZE)
    if bars:
        _probability_bars(rest[0], names, [100 * p for _, p, _ in bars], [bold for _, _, bold in bars])
    return figure


def _panel_size(aspect: float) -> tuple[float, float]:
    """Width and height in inches of a panel for a picture with this ratio of width to height."""
    width = float(np.clip(2.8 * aspect, 1.4, 4.2))
    return width, float(np.clip(width / aspect, 1.4, 2.8))


def _bars_shown(probabilities: Sequence[tuple[str, float]], explained: int | None) -> list[tuple[str, float, bool]]:
    """The five most probable classes, and the explained one if it is not among them: name, probability, whether explained."""
    order = sorted(range(len(probabilities)), key=lambda i: -probabilities[i][1])
    explained = order[0] if explained is None and order else explained
    shown = order[:5] if explained in order[:5] else [*order[:5], explained]
    return [(*probabilities[i], i == explained) for i in shown if i is not None]


def _probability_bars(axes: Axes, names: Sequence[str], percent: Sequence[float], bold: Sequence[bool]) -> None:
    """Horizontal bars, each with its value at its end; those in bold stand out."""
    axes.barh(range(len(names)), percent, height=0.6, color=[BLUE if strong else SKY for strong in bold])
    axes.set_yticks(range(len(names)), names)
    for row, (value, strong, label) in enumerate(zip(percent, bold, axes.get_yticklabels())):
        text = "<0.1 %" if value < 0.05 else f"{value:.1f} %"
        inside = value > 60
        color = "white" if inside and strong else "black"
        place = dict(ha="right" if inside else "left", va="center", fontsize=TICK_SIZE, color=color)
        axes.text(value - 3 if inside else value + 3, row, text, **place)
        label.set_fontweight("bold" if strong else "normal")
    axes.set(xlim=(0, 100), xticks=[0, 50, 100], ylim=(max(len(names), 5) - 0.5, -0.5), xlabel="probability (%)")
    tidy(axes, grid="x")


def head_panels(
    view: View, heads: np.ndarray, *, title: str, patch: tuple[int, int] | None = None, style: Style | None = None
) -> Figure:
    """The attention of each head of a layer, and their mean, over one image.

    Args:
        view: the image; all of it was the model's input.
        heads: M h w, each drawn on its own scale from 0 to its 98th percentile.
        patch: row and column of the query patch, which is framed.
    """
    style = style or Style()
    drawn = [("mean", heads.mean(axis=0)), *[(f"head {i + 1}", map_) for i, map_ in enumerate(heads)]]
    columns = min(len(drawn) + 1, 7)
    rows = -(-(len(drawn) + 1) // columns)
    side = 1.5
    figure = new_figure(max(columns * side, 7.5), rows * (side + 0.25), title)
    first, *others = panels(figure, len(drawn) + 1, columns)
    show_view(first, view)
    first.set_title("image", fontsize=TICK_SIZE)
    left, right, bottom, top = view.extent
    for axes, (name, map_) in zip(others, drawn):
        brightest = (
            np.quantile(map_, 0.98) or map_.max()
        )  # with the maximum, a few tokens of very high attention would leave the rest black
        axes.imshow(map_, cmap=style.cmap, vmin=0, vmax=brightest, extent=view.extent, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{name}, max {map_.max():.2g}", fontsize=TICK_SIZE)
    if patch is not None:
        high, wide = (bottom - top) / heads.shape[1], (right - left) / heads.shape[2]
        corner = left + patch[1] * wide, top + patch[0] * high
        for axes in (first, *others[: len(drawn)]):
            halo = [withStroke(linewidth=3, foreground="black")]
            frame = dict(fill=False, edgecolor="white", linewidth=1.2, path_effects=halo)
            axes.add_patch(Rectangle(corner, wide, high, **frame))
    return figure


def similarity_matrices(pairs: Sequence[Mapping], *, title: str) -> Figure:
    """Similarity of layers, a panel per pair of models; 1 is the same representation.

    Args:
        pairs: each with ``names`` (of the two models), ``layers`` (names of the rows, of the columns) and ``cka`` (L1 L2).
    """
    columns = min(len(pairs), 3)
    figure = new_figure(3.6 * columns + 0.8, 3.7 * -(-len(pairs) // columns), title)
    drawn = panels(figure, len(pairs), columns)
    for axes, pair in zip(drawn, pairs):
        image = axes.imshow(pair["cka"], cmap="viridis", vmin=0, vmax=1, origin="lower", aspect="auto")
        for axis, names in ((axes.yaxis, pair["layers"][0]), (axes.xaxis, pair["layers"][1])):
            shown = sorted({0, len(names) // 2, len(names) - 1})
            axis.set_ticks(shown, [shorten(names[i], 18) for i in shown])
        axes.set_xticks(axes.get_xticks(), axes.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")
        axes.tick_params(labelsize=TICK_SIZE)
        axes.set_xlabel(f"{wrap(pair['names'][1], 2.8, LABEL_SIZE)}, depth →", fontsize=LABEL_SIZE)
        axes.set_ylabel(f"{wrap(pair['names'][0], 2.8, LABEL_SIZE)}, depth →", fontsize=LABEL_SIZE)
    bar = figure.colorbar(image, ax=drawn, fraction=0.05)
    bar.set_label("linear CKA", fontsize=LABEL_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE)
    return figure


def distance_by_depth(models: Mapping[str, Sequence[Sequence[float]]], *, title: str) -> Figure:
    """Mean attention distance of every head (points) and of every layer (line) against depth, a colour per model.

    Args:
        models: name -> for each layer, first to last, its heads' distances as shares of the image's diagonal.
    """
    figure = new_figure(6, 3.4, title)
    axes = figure.subplots()
    for number, (name, layers) in enumerate(models.items()):
        style = run_style(number)
        depth = np.arange(1, len(layers) + 1) / len(layers)
        axes.plot(depth, [np.mean(heads) for heads in layers], label=shorten(name), **style)
        for place, heads in zip(depth, layers):
            axes.plot([place] * len(heads), heads, ".", color=style["color"], alpha=0.4, markersize=4)
    axes.set(
        xlabel="depth (share of the layers)", ylabel="mean attention distance\n(share of the diagonal)", ylim=(0, None)
    )
    tidy(axes)
    axes.legend(fontsize=TICK_SIZE, frameon=False)
    return figure
