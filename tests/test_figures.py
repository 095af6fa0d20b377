"""Each figure shows the numbers that it was given, and no two of its texts overlap or leave the page."""

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from common import plotting
from comparison import figures as comparison_figures
from evaluation import figures as evaluation_figures
from explanation import figures as explanation_figures
from training import figures as training_figures


def class_names(num_classes: int) -> list[str]:
    """The flowers' names, or as many names as long as those of ImageNet's folders."""
    if num_classes == 5:
        return ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
    return [f"n{1532829 + i:08}_house_finch" for i in range(num_classes)]


def random_counts(num_classes: int, *, empty_class: int | None = None) -> np.ndarray:
    """A confusion matrix of a good model, K K."""
    counts = np.random.default_rng(0).poisson(0.7, (num_classes, num_classes)) + np.diag([40] * num_classes)
    if empty_class is not None:
        counts[empty_class] = 0
    return counts


def random_image(height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def random_cam(height: int = 7, width: int = 7, *, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(1).random((height, width))


def drawn_texts(figure: Figure) -> list[Text]:
    """Every text on the page; a tick outside its axis has a label that is never drawn."""
    figure.draw_without_rendering()
    unseen = set()
    for axes, axis in ((axes, axis) for axes in figure.findobj(matplotlib.axes.Axes) for axis in (0, 1)):
        low, high = sorted(axes.get_ylim() if axis else axes.get_xlim())
        slack = 1e-6 * (high - low)
        for tick in (axes.yaxis if axis else axes.xaxis).get_major_ticks():
            if not low - slack <= tick.get_loc() <= high + slack:
                unseen |= {tick.label1, tick.label2}
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_text().strip())
    return [text for text in texts if text.get_visible() and text not in unseen]


def layout_faults(figure: Figure) -> list[str]:
    """Pairs of texts whose boxes overlap, and texts that leave the page."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in drawn_texts(figure)]
    page = figure.bbox.padded(0.5)
    faults = [
        f"{text!r} leaves the page"
        for text, box in boxes
        if not (page.contains(box.x0, box.y0) and page.contains(box.x1, box.y1))
    ]
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5:
            faults.append(f"{one!r} overlaps {other!r}")
    return faults


def test_layout_faults_are_found():
    figure = Figure(figsize=(3, 3))
    figure.text(0.5, 0.5, "one")
    figure.text(0.51, 0.5, "other")
    figure.text(0.95, 0.1, "outside")
    assert layout_faults(figure) == ["'outside' leaves the page", "'one' overlaps 'other'"]


def test_marks_exist_in_the_font():
    font = FT2Font(matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf")
    for mark, _ in plotting.MARKS.values():
        assert all(font.get_char_index(ord(character)) for character in mark)


# Training


def training_log(num_epochs: int, *, validated: bool = True) -> dict[str, np.ndarray]:
    epochs = np.arange(1, num_epochs + 1)
    accuracy = 1 - 0.8 * np.exp(-epochs / 8)
    return {
        "epoch": epochs,
        "train_loss": 2 * np.exp(-epochs / 8),
        "train_accuracy": accuracy,
        "val_loss": 2 * np.exp(-epochs / 9) if validated else np.full(num_epochs, np.nan),
        "val_accuracy": accuracy - 0.01 * epochs if validated else np.full(num_epochs, np.nan),
    }


def test_training_curves_draw_percent_and_mark_the_best_epoch():
    log = training_log(30)
    best = int(np.argmax(log["val_accuracy"])) + 1
    assert 1 < best < 30
    figure = training_figures.training_curves(log, best_epoch=best, title="run")
    loss, accuracy = figure.axes
    np.testing.assert_array_equal(loss.lines[1].get_ydata(), log["val_loss"])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), 100 * log["train_accuracy"])
    for axes in figure.axes:
        assert set(axes.lines[2].get_xdata()) == {best}
    assert any(f"epoch {best}, " in text.get_text() for text in figure.legends[0].get_texts())
    assert not layout_faults(figure)


def test_training_curves_without_validation_show_training_alone():
    figure = training_figures.training_curves(training_log(40, validated=False))
    assert [len(axes.lines) for axes in figure.axes] == [1, 1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training"]


def test_training_curves_of_one_epoch_are_visible():
    figure = training_figures.training_curves(training_log(1))
    for axes in figure.axes:
        assert [line.get_marker() for line in axes.lines[:2]] == ["o", "o"]
    assert not layout_faults(figure)


def test_training_curves_skip_epochs_without_validation():
    log = training_log(6)
    log["val_accuracy"][::2] = np.nan
    figure = training_figures.training_curves(log)
    np.testing.assert_array_equal(figure.axes[1].lines[1].get_xdata(), [2, 4, 6])


def test_learning_rate_draws_every_step():
    rates = np.linspace(3e-4, 0, 5000)
    figure = training_figures.learning_rate(np.arange(5000) / 391, rates, title="run")
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), rates)
    assert figure.axes[0].get_ylim()[0] == 0
    assert not layout_faults(figure)


# Confusion matrix


@pytest.mark.parametrize("num_classes", [2, 5, 10, 12, 20])
def test_confusion_cells_carry_counts_and_row_percentages(num_classes):
    counts = random_counts(num_classes)
    axes = evaluation_figures.confusion_matrix(counts, class_names(num_classes)).axes[0]
    assert len(axes.texts) == num_classes**2
    for text in axes.texts:
        column, row = text.get_position()
        count, *percent = text.get_text().split("\n")
        assert int(count) == counts[row, column]
        if percent:
            assert percent == [f"{100 * counts[row, column] / counts[row].sum():.1f} %"]
        assert bool(percent) == (num_classes <= 12 and counts[row, column] > 0)


def test_confusion_colors_are_row_percentages_that_show_rare_errors():
    counts = np.array([[99, 1], [0, 50]])
    image = evaluation_figures.confusion_matrix(counts, ["cat", "dog"]).axes[0].images[0]
    np.testing.assert_allclose(image.get_array(), [[99, 1], [0, 100]])
    assert image.norm(1) > 0.1  # ten times what a linear scale would give
    assert image.norm(100) == 1 and image.norm(0) == 0


@pytest.mark.parametrize("num_classes", [5, 100])
def test_confusion_of_an_empty_class_is_zero(num_classes):
    figure = evaluation_figures.confusion_matrix(random_counts(num_classes, empty_class=3), class_names(num_classes))
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert np.isfinite(shown).all() and not shown[3].any()


@pytest.mark.parametrize("num_classes", [2, 5, 10, 20, 21, 100])
def test_confusion_is_readable(num_classes):
    names = class_names(num_classes)
    counts = random_counts(num_classes) * (1000 if num_classes <= 20 else 1)  # wide numbers in the cells
    figure = evaluation_figures.confusion_matrix(counts, names, title="run: test split, accuracy 91.2 %")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == names
    assert min(label.get_fontsize() for label in figure.axes[0].get_xticklabels()) >= 6
    assert not layout_faults(figure)


def test_confusion_cell_text_stays_in_its_cell():
    figure = evaluation_figures.confusion_matrix(random_counts(20) * 1000, class_names(20))
    axes = figure.axes[0]
    figure.draw_without_rendering()
    cell = axes.get_window_extent().width / 20
    assert max(text.get_window_extent().width for text in axes.texts) < cell


def test_confusion_of_many_classes_names_every_nth():
    figure = evaluation_figures.confusion_matrix(random_counts(150), class_names(150))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == class_names(150)[::2]
    assert not figure.axes[0].texts


def test_confusion_rejects_names_of_another_length():
    with pytest.raises(AssertionError):
        evaluation_figures.confusion_matrix(np.eye(3, dtype=int), ["cat", "dog"])


# Accuracy by class


@pytest.mark.parametrize("num_classes", [5, 10, 100, 150])
def test_per_class_bars_are_sorted_and_readable(num_classes):
    accuracy = np.random.default_rng(0).random(num_classes)
    accuracy[2] = np.nan
    interval = np.stack([accuracy - 0.05, accuracy + 0.03], axis=1).clip(0, 1)
    names = class_names(num_classes)
    figure = evaluation_figures.per_class_accuracy(accuracy, interval, names, mean=0.512, title="run")
    axes = figure.axes[0]

    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, 100 * np.sort(accuracy[np.isfinite(accuracy)])[::-1])
    assert axes.yaxis_inverted()  # row 0 is on top
    shown = [label.get_text() for label in axes.get_yticklabels()]
    if num_classes <= 100:
        assert shown[-1] == names[2] and shown[0] == names[np.nanargmax(accuracy)]
    assert [text.get_text() for text in axes.texts] == ["no images"]
    assert axes.texts[0].get_position()[1] == num_classes - 1
    assert any("51.20 %" in text.get_text() for text in figure.legends[0].get_texts())
    assert not layout_faults(figure)


def test_per_class_whiskers_are_the_interval():
    figure = evaluation_figures.per_class_accuracy(
        np.array([0.5, 0.9]), np.array([[0.4, 0.55], [0.85, 0.99]]), ["a", "b"]
    )
    (whiskers,) = figure.axes[0].containers[1].lines[2]
    ends = [segment[:, 0] for segment in whiskers.get_segments()]
    np.testing.assert_allclose(ends, [[85, 99], [40, 55]])


# Calibration


def test_reliability_diagram_shows_filled_bins_alone():
    confidence, accuracy = np.array([np.nan, 0.4, 0.6, 0.95]), np.array([np.nan, 0.5, 0.5, 0.9])
    counts = np.array([0, 10, 20, 970])
    figure = evaluation_figures.reliability_diagram(confidence, accuracy, counts, ece=0.0515, title="run")
    top, bottom = figure.axes
    bars, gaps = top.containers
    np.testing.assert_allclose([bar.get_height() for bar in bars], [50, 50, 90])
    np.testing.assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in bars], [37.5, 62.5, 87.5])
    np.testing.assert_allclose([gap.get_y() + gap.get_height() for gap in gaps], [40, 60, 95])
    np.testing.assert_array_equal([bar.get_height() for bar in bottom.patches], counts)
    assert "5.15 %" in top.get_title() and "1,000 images" in top.get_title()
    assert not layout_faults(figure)


def test_reliability_diagram_adds_the_curve_after_temperature_scaling():
    before = dict(confidence=[np.nan, 0.6, 0.95], accuracy=[np.nan, 0.5, 0.9], counts=[0, 30, 970], ece=0.0515)
    after = dict(confidence=[0.3, 0.6, np.nan], accuracy=[0.25, 0.62, np.nan], counts=[3000, 70, 0], ece=0.0102)
    figure = evaluation_figures.reliability_diagram(**before, scaled=after | {"temperature": 1.434}, title="run")
    top, bottom = figure.axes
    np.testing.assert_allclose(top.lines[1].get_xydata(), [[30, 25], [60, 62]])
    np.testing.assert_array_equal(bottom.patches[-1].get_data().values, after["counts"])
    assert bottom.get_ylim()[1] > 3000
    assert "5.15 %" in top.get_title() and "1.02 %" in top.get_title()
    assert any("T = 1.43" in text.get_text() for text in figure.legends[0].get_texts())
    assert not layout_faults(figure)
    assert len(evaluation_figures.reliability_diagram(**before).axes[0].lines) == 1


def test_reliability_line_leaves_out_bins_of_a_few_images():
    bins = dict(confidence=[0.3, 0.6, 0.95], accuracy=[0, 0.62, 0.9], counts=[4, 5, 900], ece=0.01)
    top, _ = evaluation_figures.reliability_diagram(**bins, scaled=bins | {"temperature": 1.4}).axes
    np.testing.assert_allclose(top.lines[1].get_xydata(), [[60, 62], [95, 90]])
    np.testing.assert_allclose([bar.get_height() for bar in top.containers[0]], [0, 62, 90])


# Pictures with captions


@pytest.mark.parametrize(("size", "count", "columns"), [(28, 20, 5), (224, 20, 5), (32, 1, 5), (64, 7, 3)])
def test_image_grid_is_readable(size, count, columns):
    images = [random_image(size, size + 10 * (i % 3)) for i in range(count)]
    captions = [f"#{i}: n01532829_house_finch\npredicted n01532830_zebra_finch, 99.9 %" for i in range(count)]
    figure = evaluation_figures.image_grid(images, captions, columns=columns, title="Most confidently wrong")
    assert len(figure.axes) == count
    for axes, image in zip(figure.axes, images, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image)
    assert "".join(figure.axes[-1].texts[0].get_text().split()) == "".join(captions[-1].split())
    assert not layout_faults(figure)
    assert min(axes.get_window_extent().width for axes in figure.axes) > 1.5 * figure.dpi


def test_image_grid_colours_lines_by_correctness():
    name = "cifar10/vit_base_patch16_224_augreg_lr5e-5"
    lines = [("label cat", None), (f"{name}: cat 93.1 %", True), ("swin: dog 51.2 %", False)]
    figure = evaluation_figures.image_grid([random_image()] * 2, [lines, lines[:1]])
    texts = figure.axes[0].texts
    assert [text.get_color() for text in texts] == [plotting.DARK, plotting.GREEN, plotting.VERMILLION]
    assert [text.get_text()[0] for text in texts] == ["l", "✓", "✗"]
    assert len(figure.axes[1].texts) == 1
    assert not layout_faults(figure)


# Class activation maps


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


# Comparison of runs


@pytest.mark.parametrize("num_runs", [2, 6, 20])
@pytest.mark.parametrize("with_intervals", [False, True])
def test_comparison_is_readable(num_runs, with_intervals):
    names = ["flowers_vit_tiny_patch16_224_augreg_in21k_ft_in1k_last4_seed0"]
    names += [f"cifar10_shallow_vit_depth{i}" for i in range(num_runs - 1)]
    values = np.linspace(0.82, 0.9, num_runs)
    intervals = np.stack([values - 0.008, values + 0.007], axis=1) if with_intervals else None
    figure = comparison_figures.comparison_bars(
        names, values, intervals=intervals, ylabel="test accuracy", title="Accuracy", percent=True
    )
    axes = figure.axes[0]
    assert [label.get_text().replace("\n", "") for label in axes.get_yticklabels()] == names
    assert axes.yaxis_inverted() and axes.get_xlabel() == "test accuracy (%)"
    assert [text.get_text()[:7] for text in axes.texts] == [f"{100 * value:.2f} %" for value in values]
    assert (axes.get_xlim()[0] == 0) == (not with_intervals)  # bars start at zero, points need not
    assert not layout_faults(figure)
    assert axes.get_window_extent().width > 3 * figure.dpi  # long names leave room for the data


def test_comparison_draws_points_with_their_intervals():
    figure = comparison_figures.comparison_bars(
        ["a", "b"], [3.0, 5.0], intervals=[[2, 3.5], [4, 9]], ylabel="latency (ms)"
    )
    axes = figure.axes[0]
    (whiskers,) = axes.containers[0].lines[2]
    np.testing.assert_allclose([segment[:, 0] for segment in whiskers.get_segments()], [[2, 3.5], [4, 9]])
    assert not axes.patches
    assert [text.get_text() for text in axes.texts] == ["3  [2, 3.5]", "5  [4, 9]"]


def test_comparison_says_where_a_value_is_missing():
    axes = comparison_figures.comparison_bars(["a", "b"], [5.717e6, np.nan], ylabel="parameters").axes[0]
    assert [text.get_text() for text in axes.texts] == ["5.717 M", "no value"]
    assert not any(np.isfinite(bar.get_width()) for bar in axes.patches[1:])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234567, "0.01235"),
        (45.6, "45.6"),
        (1234.4, "1,234"),
        (2.5e8, "250 M"),
        (4.25e9, "4.25 G"),
        (-3e6, "-3 M"),
    ],
)
def test_numbers_are_written_for_people(value, text):
    assert plotting.readable(value) == text


def test_long_titles_are_wrapped_and_own_line_breaks_stay():
    figure = training_figures.learning_rate([0, 1], [1, 0], title="first\n" + "a long second line " * 10)
    assert figure.get_suptitle().split("\n")[0] == "first"
    assert figure.get_suptitle().count("\n") >= 3
    assert not layout_faults(figure)
