"""A heat map over its photo: the opacity of its colour grows with its value; where the map is 0, only the photo is visible.

Shapes: H W pixels of a photo, h w cells of a map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from common.plotting import GREY, show_image

SMALLEST = 512  # pixels of the longer side of an overlay by itself; pixels of smaller images are repeated


@dataclass(frozen=True)
class Style:
    """How a map is drawn over a photo."""

    cmap: str = "plasma"
    """A colour map of matplotlib; its colours should differ from black and from white."""
    strength: float = 0.8
    """Opacity of the largest value."""
    contours: tuple[float, ...] = ()
    """Shares of the largest value at which a line is drawn."""

    def opacity(self, values: np.ndarray) -> np.ndarray:
        """Opacity for values in [0, 1]: 0 is transparent."""
        return self.strength * np.clip(values, 0, 1)

    def blend(self, values: np.ndarray, background: float) -> np.ndarray:
        """The colours of values in [0, 1] over a grey from 0 (black) to 1, [..., 3]."""
        opacity = self.opacity(values)[..., None]
        return (1 - opacity) * background + opacity * colormaps[self.cmap](values)[..., :3]


@dataclass(frozen=True)
class View:
    """A photo, and which part of it was the model's input."""

    photo: np.ndarray
    """uint8 H W 3."""
    seen: tuple[float, float, float, float]
    """Left, top, right, bottom of that part in pixels of the photo; they may lie outside of it."""

    @classmethod
    def whole(cls, photo: np.ndarray) -> "View":
        return cls(photo, (0, 0, photo.shape[1], photo.shape[0]))

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Of the map, as matplotlib counts: a pixel's centre is a whole number."""
        left, top, right, bottom = (edge - 0.5 for edge in self.seen)
        return left, right, bottom, top


def show_view(axes: Axes, view: View) -> None:
    """Draw the photo, with a frame around the model's input if that is only a part of it."""
    show_image(axes, view.photo)
    height, width = view.photo.shape[:2]
    left, top, right, bottom = view.seen
    if max(left, top, width - right, height - bottom) > 0.01 * max(height, width):
        lines = dict(fill=False, edgecolor="white", linewidth=0.8, linestyle=(0, (4, 3)))
        halo = [withStroke(linewidth=2, foreground=GREY)]
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, path_effects=halo, **lines))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def show_overlay(axes: Axes, view: View, cam: np.ndarray, norm: Normalize, style: Style) -> None:
    """Draw the photo and its map (h w, not negative) on top, enlarged bilinearly to the model's input area."""
    show_view(axes, view)
    lay_over(axes, view, cam, norm, style)


def lay_over(axes: Axes, view: View, cam: np.ndarray, norm: Normalize, style: Style) -> None:
    """Draw the map into a panel that already shows the photo."""
    limits = axes.get_xlim(), axes.get_ylim()
    values = np.asarray(norm(cam), float)
    look = dict(cmap=style.cmap, norm=Normalize(0, 1), extent=view.extent, interpolation="bilinear")
    axes.imshow(values, alpha=style.opacity(values), **look)
    levels = [level for level in sorted(style.contours) if values.min() < level < values.max()]
    if levels:
        _draw_contours(axes, view, values, levels)
    axes.set(xlim=limits[0], ylim=limits[1])


def _draw_contours(axes: Axes, view: View, values: np.ndarray, levels: Sequence[float]) -> None:
    """Lines at these values between the centres of the cells; at the edge of the map as in the cells there."""
    left, right, bottom, top = view.extent
    (rows, columns), edges = values.shape, np.pad(values, 1, mode="edge")
    shares = lambda count: np.array([0, *(np.arange(count) + 0.5), count]) / count  # noqa: E731
    x, y = left + shares(columns) * (right - left), top + shares(rows) * (bottom - top)
    lines = axes.contour(x, y, edges, levels=levels, colors="white", linewidths=1.2)
    lines.set_path_effects([withStroke(linewidth=2.6, foreground="black")])


def overlay_alone(view: View, cam: np.ndarray, scale: float, style: Style) -> Figure:
    """Only the photo with its map on top, at the photo's own resolution; small photos are enlarged."""
    height, width = view.photo.shape[:2]
    times = max(1, SMALLEST // max(height, width))
    figure = Figure(figsize=(times * width / 100, times * height / 100), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(view.photo, interpolation="nearest", aspect="auto")
    axes.axis("off")
    lay_over(axes, view, cam, Normalize(0, scale), style)
    axes.set_aspect("auto")
    return figure


def blended_bar(bar_axes: Axes, style: Style, *, upright: bool) -> None:
    """Draw the map's colours into a colour bar twice: as they appear over black, and over white."""
    values = np.linspace(0, 1, 256)
    both = np.stack([style.blend(values, 0), style.blend(values, 1)])  # 2 256 3
    limits = bar_axes.get_xlim(), bar_axes.get_ylim()
    pixels = both.transpose(1, 0, 2)[::-1] if upright else both
    bar_axes.imshow(pixels, extent=(*limits[0], *limits[1]), aspect="auto", zorder=3)
    bar_axes.set(xlim=limits[0], ylim=limits[1])


def scale_of(cams: Sequence[np.ndarray]) -> float:
    """The largest value of the maps; 1 if all are blank, since a colour scale must not be empty."""
    return max((float(np.max(cam)) for cam in cams), default=0) or 1.0
