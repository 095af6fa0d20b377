"""Where a map is zero the photo is bare; elsewhere it is the colour that the bar says, in the place that the model saw."""

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure
from support import random_image

from explanation.gallery import layers
from explanation.overlays import Style, View, blended_bar, overlay_alone


def pixels(figure: Figure) -> np.ndarray:
    """What is drawn, int H W 3."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


@pytest.mark.parametrize("shape", [(600, 800), (375, 500), (32, 32)])
def test_an_overlay_has_the_photos_own_pixels_where_the_map_is_zero(shape):
    photo, cam = random_image(*shape), np.zeros((4, 4))
    cam[:, 0] = 1
    times = max(1, 512 // max(shape))
    enlarged = photo.repeat(times, axis=0).repeat(times, axis=1)
    drawn = pixels(overlay_alone(View.whole(photo), cam, 1, Style()))
    assert drawn.shape == enlarged.shape
    half = enlarged.shape[1] // 2
    np.testing.assert_array_equal(drawn[:, half:], enlarged[:, half:])
    left = Style(strength=0.8).blend(np.ones(1), 0)[0] * 255  # over black; the rest is a fifth of the photo
    expected = left + 0.2 * enlarged[:, : half // 4]
    assert np.abs(drawn[:, : half // 4] - expected).max() <= 3


def test_a_map_lies_where_the_model_looked():
    photo = np.full((100, 200, 3), 90, np.uint8)
    view = View(photo, (120, 10, 180, 70))
    drawn = pixels(overlay_alone(view, np.ones((3, 3)), 1, Style(strength=1)))
    rows, columns = np.nonzero((drawn != 90).any(axis=2))
    edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 2  # drawn twice as large
    np.testing.assert_allclose(edges, view.seen, atol=0.51)


def test_opacity_and_colour_grow_with_the_value():
    cam = np.array([[0, 0.25, 0.5, 0.75, 1]])
    style = Style(cmap="viridis", strength=0.6)
    for level in (0, 255):
        photo = np.full((100, 500, 3), level, np.uint8)
        drawn = pixels(overlay_alone(View.whole(photo), 7 * cam, 7, style))
        centres = drawn[50, 50::100]
        assert np.abs(centres - 255 * style.blend(cam[0], level / 255)).max() <= 3
        np.testing.assert_array_equal(centres[0], level)
    assert np.allclose(style.blend(np.ones(1), 0)[0], 0.6 * np.array(colormaps["viridis"](1.0)[:3]))


def test_no_strength_leaves_the_photo_and_contours_alone():
    photo = np.full((100, 100, 3), 128, np.uint8)
    cam = np.array([[0, 0, 0, 1]] * 4, float)
    view = View.whole(photo)
    assert (pixels(overlay_alone(view, cam, 1, Style(strength=0))) == 128).all()
    drawn = pixels(overlay_alone(view, cam, 1, Style(strength=0, contours=(0.5,))))
    columns = np.flatnonzero((drawn != 128).any(axis=(0, 2))) / len(drawn)
    assert columns.mean() == pytest.approx(0.75, abs=0.02)  # half of the maximum is reached between the last two cells
    assert (drawn.max(axis=(1, 2)) > 200).all()  # a bright line from edge to edge


@pytest.mark.parametrize("upright", [True, False])
def test_the_bar_shows_the_blended_colours(upright):
    figure = Figure()
    axes, style = figure.subplots(), Style(cmap="turbo", strength=0.5)
    blended_bar(axes, style, upright=upright)
    bar = axes.images[0].get_array()
    over_black, over_white = (bar[::-1, 0], bar[::-1, 1]) if upright else (bar[0], bar[1])
    np.testing.assert_allclose(over_black[-1], 0.5 * np.array(colormaps["turbo"](1.0)[:3]))
    np.testing.assert_allclose(over_white[-1], 0.5 + over_black[-1])
    np.testing.assert_allclose([over_black[0], over_white[0]], [[0] * 3, [1] * 3])


def test_layers_put_together_are_the_overlay_and_large_photos_become_smaller():
    photo = random_image(60, 80)
    view, style, cam = View(photo, (-20, 0, 60, 60)), Style(strength=1), np.array([[0.0, 2.0], [4.0, 1.0]])
    below, heat = layers(view, cam, 4, style)
    np.testing.assert_array_equal(below, photo)
    assert heat.shape == (60, 80, 4) and not heat[:, 60:, 3].any()  # the model saw nothing there
    value = heat[45, 0, 3] / 255  # of the lower left cell, whose centre lies at the left edge of the photo
    assert value == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(heat[45, 0, :3] / 255, colormaps[style.cmap](1.0)[:3], atol=0.03)
    below, heat = layers(View.whole(random_image(900, 600)), cam, 4, style)
    assert below.shape[:2] == heat.shape[:2] == (400, 267)
