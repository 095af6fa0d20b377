"""Each figure of one run shows the numbers that it was given, and no two of its texts overlap or leave the page."""

import numpy as np
import pytest
from support import class_names, layout_faults, make_config, random_image

from common import plotting
from evaluation import figures as evaluation_figures
from evaluation import metrics, report
from evaluation.predictions import Predictions


def random_counts(num_classes: int, *, empty_class: int | None = None) -> np.ndarray:
    """A confusion matrix of a good model, K K."""
    counts = np.random.default_rng(0).poisson(0.7, (num_classes, num_classes)) + np.diag([40] * num_classes)
    if empty_class is not None:
        counts[empty_class] = 0
    return counts


# Confusion matrix


@pytest.mark.parametrize("num_classes", [2, 5, 10, 12, 20])
def test_confusion_cells_carry_counts_and_row_percentages(num_classes):
    counts = random_counts(num_classes)
    axes = evaluation_figures.confusion_matrix(counts, class_names(num_classes)).axes[0]
    assert len(axes.texts) == num_classes**2
    for text in axes.texts:
        column, row = text.get_position()
        count, *percent = text.get_text().split("\n")
        assert int(count.replace(",", "")) == counts[row, column]
        shown = [f"{100 * counts[row, column] / counts[row].sum():.1f} %"] if counts[row, column] else []
        assert percent == shown


def test_confusion_colors_are_row_percentages_on_a_linear_scale():
    counts = np.array([[99, 1], [0, 50]])
    image = evaluation_figures.confusion_matrix(counts, ["cat", "dog"]).axes[0].images[0]
    np.testing.assert_allclose(image.get_array(), [[99, 1], [0, 100]])
    np.testing.assert_allclose(image.norm([0, 1, 50, 100]), [0, 0.01, 0.5, 1])


@pytest.mark.parametrize(("num_runs", "num_classes"), [(2, 2), (3, 10), (2, 20), (2, 100)])
def test_confusion_matrices_stand_side_by_side_in_one_scale(num_runs, num_classes):
    counts = {f"cifar10/vit_base_patch16_224_{i}": random_counts(num_classes) * (i + 1) for i in range(num_runs)}
    figure = evaluation_figures.confusion_matrices(counts, class_names(num_classes), title="test split")
    drawn = figure.axes[:num_runs]
    assert [axes.get_title().replace("\n", "") for axes in drawn] == list(counts)
    images = [axes.images[0] for axes in drawn]
    assert {(image.norm.vmin, image.norm.vmax) for image in images} == {(0, 100)}
    np.testing.assert_allclose(images[1].get_array(), images[0].get_array())  # the same shares of other counts
    if num_classes <= 20:
        assert int(drawn[1].texts[0].get_text().split("\n")[0]) == 2 * next(iter(counts.values()))[0, 0]
    assert len({round(axes.get_position().y0, 6) for axes in drawn[:2]}) == (1 if num_classes <= 10 else 2)
    assert not layout_faults(figure)


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
def test_per_class_bars_keep_the_order_of_the_classes_and_are_readable(num_classes):
    accuracy = np.random.default_rng(0).random(num_classes)
    accuracy[2] = np.nan
    interval = np.stack([accuracy - 0.05, accuracy + 0.03], axis=1).clip(0, 1)
    names = class_names(num_classes)
    figure = evaluation_figures.per_class_accuracy(accuracy, interval, names, mean=0.512, title="run")
    axes = figure.axes[0]

    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, 100 * np.delete(accuracy, 2))
    assert axes.yaxis_inverted()  # row 0 is on top
    shown = [label.get_text() for label in axes.get_yticklabels()]
    if num_classes <= 100:
        assert shown == names
    assert [text.get_text() for text in axes.texts] == ["no images"]
    assert axes.texts[0].get_position()[1] == 2
    assert any("51.20 %" in text.get_text() for text in figure.legends[0].get_texts())
    assert not layout_faults(figure)


def test_per_class_whiskers_are_the_interval():
    figure = evaluation_figures.per_class_accuracy(
        np.array([0.5, 0.9]), np.array([[0.4, 0.55], [0.85, 0.99]]), ["a", "b"]
    )
    (whiskers,) = figure.axes[0].containers[1].lines[2]
    ends = [segment[:, 0] for segment in whiskers.get_segments()]
    np.testing.assert_allclose(ends, [[40, 55], [85, 99]])


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


def test_risk_is_drawn_from_twenty_images_on():
    errors = np.zeros(200, dtype=bool)
    errors[[30, 150]] = True
    risk = np.cumsum(errors) / np.arange(1, 201)
    (axes,) = evaluation_figures.risk_coverage({"a": risk, "b": risk / 2}).axes
    first, second = axes.lines
    assert first.get_xdata()[[0, -1]] == pytest.approx([10, 100])  # percent of 200
    assert first.get_ydata()[[0, 11, -1]] == pytest.approx([0, 100 / 31, 1]) and second.get_ydata()[
        -1
    ] == pytest.approx(0.5)


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


@pytest.mark.parametrize("num_classes", [3, 12, 30])
def test_embedding_names_classes_beside_the_points_and_says_how_well_neighbours_predict(num_classes):
    random = np.random.default_rng(0)
    labels = random.integers(0, num_classes, 60)
    predicted = np.where(random.random(60) < 0.8, labels, 0)
    note = "accuracy of the head 68.9%, of the 20 nearest of 3,600 training images 71.1% (95 % interval 56.6 to 82.3 %)"
    names = class_names(num_classes)
    figure = evaluation_figures.embedding(
        random.normal(size=(60, 2)), labels, predicted, names, note=note, title="swin"
    )
    assert not layout_faults(figure)
    (axes,) = figure.axes
    assert sum(len(dots.get_offsets()) for dots in axes.collections) == 60
    assert note in axes.get_xlabel().replace("\n", " ")
    figure.draw_without_rendering()
    panel, page = axes.get_window_extent(), figure.bbox
    assert panel.height > 0.6 * page.height and panel.width > 0.5 * page.width  # the points fill it
    if num_classes <= 20:
        assert axes.get_legend().get_window_extent().x0 - panel.x1 < 0.05 * page.width


def test_classes_without_images_are_left_out_where_they_are_most():
    logits = np.full((6, 50), -9.0, np.float32)
    labels = np.array([3, 3, 3, 40, 40, 40])
    logits[range(6), [3, 3, 7, 40, 40, 40]] = 9
    predictions = Predictions(logits, labels)
    names = [f"class {k}" for k in range(50)]
    result = metrics.summarize(predictions, names) | {"temperature_scaling": None, "split": "test"}
    result |= {"checkpoint": "best", "tta": None}
    run = type("Run", (), {"config": make_config()})
    drawn = report.draw(run, predictions, result, names)
    ticks = {name: [label.get_text() for label in figure.axes[0].get_yticklabels()] for name, figure in drawn.items()}
    assert ticks["confusion_matrix"] == ["class 3", "class 7", "class 40"]
    assert ticks["per_class_accuracy"] == ["class 3", "class 40"]
    assert "2 of 50 classes have images" in drawn["confusion_matrix"].get_suptitle().replace("\n", " ")
