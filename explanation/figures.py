"""Figures of heat maps: arrays in, a matplotlib `Figure` out.

Shapes: H W pixels of an image, h w cells of a class activation map (CAM).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from common.plotting import (
    BLUE,
    LABEL_SIZE,
    MARKS,
    SKY,
    TICK_SIZE,
    colorbar,
    new_figure,
    panels,
    run_style,
    shorten,
    show_image,
    text_width,
    tidy,
    wrap,
)

CAM_COLORS, CAM_ALPHA = "inferno", 0.45  # lightness grows with the value: no colour vision needed


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
    names = [shorten(name) for name, _ in likeliest]
    widths = [width] * 3 + [2] * bool(likeliest)
    figure = new_figure(sum(widths) + 1.6 + text_width(names, TICK_SIZE), height + 0.7, title)
    picture, grid, overlay, *bars = figure.subplots(1, len(widths), width_ratios=widths)

    show_image(picture, image)
    # A cell covers (H / h) x (W / w) pixels: the map's panel gets the shape of the picture's.
    cell_aspect = (image.shape[0] / cam.shape[0]) / (image.shape[1] / cam.shape[1])
    norm = Normalize(0, _scale([cam]))
    colors = grid.imshow(cam, cmap=CAM_COLORS, norm=norm, interpolation="nearest", aspect=cell_aspect)
    grid.set(xticks=[], yticks=[])
    colorbar(grid, colors, "\n".join(filter(None, ["attribution", wrap(scale_note, height, TICK_SIZE)])), width)
    _show_overlay(overlay, image, cam, norm)
    map_title = f"map, {cam.shape[0]} × {cam.shape[1]}" + ("" if cam.any() else ", zero everywhere")
    for axes, text in ((picture, "image"), (grid, map_title), (overlay, "overlay")):
        axes.set_title(wrap(text, width, LABEL_SIZE), fontsize=LABEL_SIZE)
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
    texts = [text for row in rows for text in (row["label"], *(f"✗ {words}" for _, words, _ in row["cells"]))]
    lines = max(wrap(text, cell, TICK_SIZE).count("\n") + 1 for text in texts)  # below each image
    figure = new_figure(num_columns * (cell + 0.1), sum(heights) + (0.15 * lines + 0.15) * len(rows) + 1.0, title)
    grid = figure.subplots(len(rows), num_columns, squeeze=False, height_ratios=heights)
    for axes, name in zip(grid[0], ["image", *column_titles], strict=True):
        axes.set_title(wrap(name, cell, LABEL_SIZE), fontsize=LABEL_SIZE)
    for line, row in zip(grid, rows, strict=True):
        show_image(line[0], row["image"])
        line[0].set_xlabel(wrap(row["label"], cell, TICK_SIZE), fontsize=TICK_SIZE)
        row_scale = _scale([cam for cam, _, _ in row["cells"] if cam is not None])
        for axes, (cam, caption, correct) in zip(line[1:], row["cells"], strict=True):
            if cam is None:
                show_image(axes, np.full_like(row["image"], 255))
                axes.text(0.5, 0.5, "no map", ha="center", va="center", fontsize=TICK_SIZE, transform=axes.transAxes)
            else:
                _show_overlay(axes, row["image"], cam, Normalize(0, row_scale if shared_scale else _scale([cam])))
            mark, color = MARKS[correct]
            axes.set_xlabel(wrap(mark + caption, cell, TICK_SIZE), fontsize=TICK_SIZE, color=color)
    colors, inch = ScalarMappable(Normalize(0, 1), CAM_COLORS), 1 / figure.get_figheight()
    style = dict(location="bottom", fraction=0.12 * inch, pad=0.2 * inch, shrink=0.6, aspect=30, panchor=False)
    bar = figure.colorbar(colors, ax=grid, ticks=[0, 0.5, 1], **style)
    label = colorbar_label or f"attribution, relative to the {'row' if shared_scale else 'map'}'s maximum"
    bar.set_label(wrap(label, num_columns * cell, TICK_SIZE), fontsize=TICK_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE)
    return figure


def _show_overlay(axes: Axes, image: np.ndarray, cam: np.ndarray, norm: Normalize) -> None:
    """The image under its map, which is stretched over it bilinearly."""
    show_image(axes, image)
    extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
    axes.imshow(cam, cmap=CAM_COLORS, norm=norm, interpolation="bilinear", extent=extent, alpha=CAM_ALPHA)


def _probability_bars(axes: Axes, names: Sequence[str], percent: Sequence[float]) -> None:
    """Horizontal bars, the first one highlighted, each with its value at its end."""
    bars = axes.barh(range(len(names)), percent, height=0.6, color=[BLUE] + [SKY] * (len(names) - 1))
    axes.bar_label(bars, fmt="%.1f %%", padding=3, fontsize=TICK_SIZE)
    axes.set_yticks(range(len(names)), names)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set(xlim=(0, 140), xticks=[0, 50, 100], ylim=(4.5, -0.5), xlabel="probability (%)")
    tidy(axes, grid="x")


def _scale(cams: Sequence[np.ndarray]) -> float:
    """The largest value of the maps; 1 where they are blank, since a colour scale needs a length."""
    return max((float(np.max(cam)) for cam in cams), default=0) or 1.0


def head_panels(image: np.ndarray, heads: np.ndarray, *, title: str) -> Figure:
    """The attention of each head of a layer, and their mean, over one image.

    Args:
        image: uint8 H W 3.
        heads: M h w, each on its own scale from 0 to its 98th percentile.
    """
    drawn = [("mean of heads", heads.mean(axis=0)), *[(f"head {i + 1}", map_) for i, map_ in enumerate(heads)]]
    columns = min(len(drawn) + 1, 7)
    rows = -(-(len(drawn) + 1) // columns)
    side = 1.5
    figure = new_figure(columns * side, rows * (side + 0.25), title)
    first, *others = panels(figure, len(drawn) + 1, columns)
    show_image(first, image)
    first.set_title("image", fontsize=TICK_SIZE)
    for axes, (name, map_) in zip(others, drawn):
        brightest = np.quantile(map_, 0.98) or map_.max()  # a few tokens that all look at would leave the rest black
        axes.imshow(map_, cmap=CAM_COLORS, vmin=0, vmax=brightest, extent=(0, image.shape[1], image.shape[0], 0))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{name}, max {map_.max():.2g}", fontsize=TICK_SIZE)
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
