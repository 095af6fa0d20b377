"""Heat maps are drawn as they are, and no two texts of a figure overlap or leave the page."""

import numpy as np
import pytest
from support import class_names, layout_faults, random_cam, random_image

from explanation import figures as explanation_figures


def test_cam_overview_shows_the_map_on_its_own_grid():
    image, cam = random_image(60, 120), random_cam(4, 7, scale=3e-3)
    figure = explanation_figures.cam_overview(image, cam, title="image #42\nlabel cat")
    picture, grid, overlay = figure.axes
    np.testing.assert_array_equal(picture.images[0].get_array(), image)
    np.testing.assert_array_equal(grid.images[0].get_array(), cam)
    assert grid.images[0].get_interpolation() == "nearest"
    assert grid.images[0].get_clim() == (0, cam.max())
    assert "4 × 7" in grid.get_title()
    assert overlay.images[1].get_interpolation() == "bilinear"
    assert overlay.images[1].get_extent() == overlay.images[0].get_extent()
    assert overlay.images[1].get_alpha() == pytest.approx(0.45)

    figure.draw_without_rendering()
    sizes = [(box.width, box.height) for box in (axes.get_window_extent() for axes in figure.axes)]
    np.testing.assert_allclose(sizes, [sizes[0]] * 3, rtol=0.01)  # the panels have the picture's shape
    assert sizes[0][0] / sizes[0][1] == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("shape", [(8, 8), (16, 16), (32, 32), (224, 224), (120, 400), (400, 200)])
def test_cam_overview_is_readable(shape):
    probabilities = [(name, 0.01) for name in class_names(7)] + [("sunflowers", 0.93)]
    figure = explanation_figures.cam_overview(
        random_image(*shape),
        random_cam(),
        title="flowers_vit_tiny: image #42, label tulips\npredicted sunflowers (93.0 %), Grad-CAM at blocks.10.norm1",
        probabilities=probabilities,
        scale_note="weighted sum of the layer's output, after ReLU",
    )
    assert figure.axes[0].images[0].get_interpolation() == ("nearest" if max(shape) < 64 else "auto")
    assert not layout_faults(figure)


def test_cam_overview_highlights_the_likeliest_class():
    probabilities = [
        ("cat", 0.1),
        ("dog", 0.7),
        ("deer", 0.05),
        ("frog", 0.05),
        ("ship", 0.06),
        ("bird", 0.04),
    ]
    figure = explanation_figures.cam_overview(random_image(), random_cam(), title="", probabilities=probabilities)
    axes = figure.axes[3]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dog", "cat", "ship", "deer", "frog"]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [70, 10, 6, 5, 5])
    colors = [bar.get_facecolor() for bar in axes.patches]
    assert colors[0] not in colors[1:] and len(set(colors[1:])) == 1


def test_blank_cam_is_named_and_drawn_without_warning(recwarn):
    figure = explanation_figures.cam_overview(random_image(), np.zeros((4, 4)), title="blank")
    assert "zero everywhere" in figure.axes[1].get_title()
    figure.draw_without_rendering()
    assert not recwarn.list


def grid_row(index: int, num_columns: int) -> dict:
    """A row whose j-th cell is right for even j, wrong for odd j."""
    cells = [
        (random_cam(scale=j + 1), "n01532829_house_finch 51 %" if j % 2 else "cat 87 %", j % 2 == 0)
        for j in range(num_columns)
    ]
    return {"image": random_image(), "label": f"#{index} automobile", "cells": cells}


def test_cam_grid_marks_right_and_wrong_predictions():
    row = grid_row(42, 2)
    row["cells"].append((None, "dog 50 %", None))
    figure = explanation_figures.cam_grid([row], ["vit", "swin", "resnet18"])
    image, right, wrong, unjudged = figure.axes[:4]
    assert image.get_xlabel() == "#42 automobile"
    assert right.get_xlabel() == "✓ cat 87 %"
    assert wrong.get_xlabel().startswith("✗ n01532829") and wrong.get_xlabel().endswith("51 %")
    assert unjudged.get_xlabel() == "dog 50 %"
    assert [text.get_text() for text in unjudged.texts] == ["no map"]
    assert len({axes.xaxis.label.get_color() for axes in (right, wrong, unjudged)}) == 3


def test_cam_grid_shares_the_scale_of_a_row_on_request():
    row = grid_row(0, 3)
    maxima = [cam.max() for cam, _, _ in row["cells"]]
    for shared, expected in ((False, maxima), (True, [max(maxima)] * 3)):
        figure = explanation_figures.cam_grid([row], ["a", "b", "c"], shared_scale=shared)
        assert [axes.images[1].get_clim()[1] for axes in figure.axes[1:4]] == expected
        assert ("row" if shared else "map") in figure.axes[4].get_xlabel()


@pytest.mark.parametrize(("num_rows", "num_columns"), [(1, 1), (2, 3), (10, 5)])
def test_cam_grid_is_readable(num_rows, num_columns):
    titles = ["vit_tiny_patch16_224, head", "swin_tiny_patch4_window7_224, last-4"] * 3
    rows = [grid_row(i, num_columns) for i in range(num_rows)]
    figure = explanation_figures.cam_grid(rows, titles[:num_columns], title="Five models, ten images of the test split")
    assert len(figure.axes) == num_rows * (num_columns + 1) + 1
    assert not layout_faults(figure)
