"""Heat maps are drawn as they are, and no two texts of a figure overlap or leave the page."""

import numpy as np
import pytest
from support import class_names, layout_faults, random_cam, random_image

from explanation import figures as explanation_figures
from explanation.grids import PAGE_HEIGHT, Cell, cam_grid
from explanation.overlays import View


def overview(image, cam, **options):
    return explanation_figures.cam_overview(View.whole(image), cam, **options)


def test_cam_overview_shows_the_map_on_its_own_grid():
    image, cam = random_image(60, 120), random_cam(4, 7, scale=3e-3)
    figure = overview(image, cam, title="image #42\nlabel cat")
    picture, grid, overlay = figure.axes
    np.testing.assert_array_equal(picture.images[0].get_array(), image)
    np.testing.assert_array_equal(grid.images[0].get_array(), cam)
    assert grid.images[0].get_interpolation() == "nearest"
    assert grid.images[0].get_clim() == (0, cam.max())
    assert "4 × 7" in grid.get_title()
    assert overlay.images[1].get_interpolation() == "bilinear"
    assert overlay.images[1].get_extent() == overlay.images[0].get_extent()

    figure.draw_without_rendering()
    sizes = [(box.width, box.height) for box in (axes.get_window_extent() for axes in figure.axes)]
    np.testing.assert_allclose(sizes, [sizes[0]] * 3, rtol=0.01)  # the panels have the picture's shape
    assert sizes[0][0] / sizes[0][1] == pytest.approx(2, rel=0.01)


def test_cam_overview_frames_what_the_model_saw():
    figure = explanation_figures.cam_overview(View(random_image(80, 120), (20, 0, 100, 80)), random_cam(), title="")
    picture, grid, overlay = figure.axes
    for axes in (picture, overlay):
        (frame,) = axes.patches
        assert (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()) == (19.5, -0.5, 80, 80)
    assert overlay.images[1].get_extent() == [19.5, 99.5, 79.5, -0.5]
    figure.draw_without_rendering()
    box = grid.get_window_extent()
    assert box.width == pytest.approx(box.height, rel=0.01)  # of the seen square
    assert not overview(random_image(), random_cam(), title="").axes[0].patches


@pytest.mark.parametrize("shape", [(8, 8), (16, 16), (32, 32), (224, 224), (120, 400), (400, 200)])
def test_cam_overview_is_readable(shape):
    probabilities = [(name, 0.01) for name in class_names(7)] + [("sunflowers", 0.93)]
    figure = overview(
        random_image(*shape),
        random_cam(),
        title="flowers_vit_tiny: image #42, label tulips\npredicted sunflowers (93.0 %), Grad-CAM at blocks.10.norm1",
        probabilities=probabilities,
        scale_note="weighted sum of the layer's output, after ReLU",
    )
    assert figure.axes[0].images[0].get_interpolation() == ("nearest" if max(shape) < 64 else "auto")
    assert not layout_faults(figure)


def test_cam_overview_highlights_the_explained_class():
    likeliest = dict(cat=0.1, dog=0.7, deer=0.05, frog=0.05, ship=0.06, bird=0.04, truck=0.0001)
    expected = {None: (5, "dog"), "ship": (5, "ship"), "truck": (6, "truck")}
    for explained, (count, bold) in expected.items():
        index = explained and list(likeliest).index(explained)
        pairs = list(likeliest.items())
        figure = overview(random_image(), random_cam(), title="", probabilities=pairs, explained=index)
        axes = figure.axes[3]
        labels = axes.get_yticklabels()
        order = ["dog", "cat", "ship", "deer", "frog", "truck"][:count]
        assert [label.get_text() for label in labels] == order
        assert [label.get_text() for label in labels if label.get_fontweight() == "bold"] == [bold]
        np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [100 * likeliest[name] for name in order])
        colors = {name: bar.get_facecolor() for name, bar in zip(order, axes.patches)}
        assert [name for name in order if list(colors.values()).count(colors[name]) == 1] == [bold]
        assert axes.get_xlim() == (0, 100)
    assert not layout_faults(figure)
    assert axes.texts[0].get_text() == "70.0 %"


def test_blank_cam_is_named_and_drawn_without_warning(recwarn):
    figure = overview(random_image(), np.zeros((4, 4)), title="blank")
    assert "zero everywhere" in figure.axes[1].get_title()
    figure.draw_without_rendering()
    assert not recwarn.list


def grid_row(index: int, num_columns: int) -> list[Cell]:
    """An image, and overlays whose j-th is right for even j, wrong for odd j."""
    view = View.whole(random_image())
    overlays = [
        Cell(view, "n01532829_house_finch 51 %" if j % 2 else "cat 87 %", j % 2 == 0, random_cam(scale=j + 1))
        for j in range(num_columns)
    ]
    return [Cell(view, f"#{index} automobile"), *overlays]


def test_cam_grid_marks_right_and_wrong_predictions():
    row = [*grid_row(42, 2), Cell(View.whole(random_image()), "dog 50 %", None, None, "the map is blank")]
    (figure,) = cam_grid([row], ["vit", "swin", "resnet18"])
    image, right, wrong, unjudged = figure.axes[:4]
    assert image.get_xlabel() == "#42 automobile"
    assert right.get_xlabel() == "✓ cat 87 %"
    assert wrong.get_xlabel().startswith("✗ n01532829") and wrong.get_xlabel().endswith("51 %")
    assert unjudged.get_xlabel() == "dog 50 %"
    assert len({axes.xaxis.label.get_color() for axes in (right, wrong, unjudged)}) == 3


def test_a_map_that_cannot_be_shown_says_why_in_its_cell():
    row = [
        *grid_row(0, 1),
        Cell(View.whole(random_image()), "dog", None, None, "the map is blank, nothing speaks for it"),
    ]
    (figure,) = cam_grid([row], ["vit", "swin"])
    cell = figure.axes[2]
    assert " ".join(cell.texts[0].get_text().split()) == "no map: the map is blank, nothing speaks for it"
    assert len(cell.images) == 1 and cell.images[0].get_array().min() > 180  # the pale photo
    assert not layout_faults(figure)


def test_cam_grid_shares_the_scale_of_a_row_on_request():
    row = grid_row(0, 3)
    shares = [cell.cam.max() / row[3].cam.max() for cell in row[1:]]
    for shared, expected in ((False, [1, 1, 1]), (True, shares)):
        (figure,) = cam_grid([row], ["a", "b", "c"], shared_scale=shared)
        np.testing.assert_allclose([axes.images[1].get_array().max() for axes in figure.axes[1:4]], expected)
        assert ("row" if shared else "map") in figure.axes[4].get_xlabel()


@pytest.mark.parametrize(
    ("num_rows", "num_columns", "pages", "columns"),
    [(1, 1, 1, 2), (2, 3, 1, 4), (10, 1, 1, 6), (5, 5, 2, 6), (3, 8, 2, 6), (18, 2, 3, 6), (5, 6, 2, 7)],
)
def test_cam_grid_is_readable_and_no_taller_than_a_page(num_rows, num_columns, pages, columns):
    titles = ["vit_tiny_patch16_224, head", "swin_tiny_patch4_window7_224, last-4"] * 4
    rows = [grid_row(i, num_columns) for i in range(num_rows)]
    figures = cam_grid(rows, titles[:num_columns], title="Five models, ten images of the test split")
    assert len(figures) == pages
    assert sum(len(figure.axes) - 1 for figure in figures) == num_rows * (num_columns + 1)
    for figure in figures[:1]:
        assert max(axes.get_subplotspec().get_gridspec().ncols for axes in figure.axes[:-1]) == columns
        assert not layout_faults(figure)
        assert figure.get_figheight() <= PAGE_HEIGHT + 0.1
    assert (f"({pages} of {pages})" in figures[-1].get_suptitle()) == (pages > 1)


@pytest.mark.parametrize("count", [1, 3])
def test_similarities_are_drawn_with_names_that_can_be_read(count):
    layers = [f"layers.{i // 6}.blocks.{i % 6}" for i in range(24)], [f"blocks.{i}" for i in range(12)]
    matrix = np.random.default_rng(0).random((12, 24))
    pair = {"names": ("vit", "swin_tiny_patch4_window7_224"), "layers": layers[::-1], "cka": matrix.tolist()}
    figure = explanation_figures.similarity_matrices([pair] * count, title="Similarity of layers")
    assert not layout_faults(figure)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), matrix)


@pytest.mark.parametrize("num_heads", [3, 16])
def test_heads_are_drawn_with_the_patch_that_looks(num_heads):
    heads = np.random.default_rng(0).random((num_heads, 4, 6))
    title = "vit: where patch 1, 2 looks at blocks.11.attn\nphoto"
    view = View.whole(random_image(40, 60))
    figure = explanation_figures.head_panels(view, heads, title=title, patch=(1, 2))
    assert not layout_faults(figure)
    assert len(figure.axes) == num_heads + 2
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), heads[0])
    for axes in figure.axes:
        (frame,) = axes.patches
        assert (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()) == (19.5, 9.5, 10, 10)
