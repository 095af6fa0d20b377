"""Figures over several runs show the numbers that they were given, readably: long names, one run, twelve runs."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from support import class_names, layout_faults, training_log

from common import plotting
from comparison import figures as comparison_figures
from comparison import pareto
from evaluation import figures as evaluation_figures


def run_names(count: int) -> list[str]:
    models = ["vit_base_patch16_224_augreg", "swin_tiny_patch4_window7_224", "resnet18"]
    return [f"cifar10/{models[i % 3]}_lr{i + 1}e-5" for i in range(count)]


def around(values, width: float = 0.006) -> np.ndarray:
    """Intervals that are not symmetric."""
    return np.stack([np.asarray(values) - width, np.asarray(values) + 2 * width], axis=-1)


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def shown_texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts if text.get_text()]


# Accuracy against cost


@pytest.mark.parametrize("levels", [3, 1000])
def test_pareto_front_is_what_a_search_over_all_pairs_finds(levels):
    rng = np.random.default_rng(levels)
    for _ in range(50):
        costs, accuracy = rng.integers(0, levels, (2, 12)).astype(float)  # three levels: many ties
        costs[3] = np.nan
        expected = [
            not np.isnan(costs[i])
            and not any(
                costs[j] <= costs[i]
                and accuracy[j] >= accuracy[i]
                and (costs[j], accuracy[j]) != (costs[i], accuracy[i])
                for j in range(12)
            )
            for i in range(12)
        ]
        assert pareto.pareto_front(costs, accuracy).tolist() == expected


def test_pareto_front_keeps_equal_runs_and_drops_the_dearer_of_equally_accurate_ones():
    front = pareto.pareto_front([1, 1, 2, 3], [0.9, 0.9, 0.9, 0.95])
    assert front.tolist() == [True, True, False, True]


def test_accuracy_against_cost_draws_the_front_as_steps():
    costs = {"GMACs": [0.5, 20, 4, 1], "ms per image": [1, 2, 3, 4]}
    accuracy = np.array([0.8, 0.95, 0.9, 0.7])
    figure = pareto.accuracy_against_cost(["a", "b", "c", "d"], accuracy, around(accuracy), costs)
    macs, time = figure.axes
    (front,) = (line for line in macs.lines if line.get_label() == "Pareto front")
    np.testing.assert_allclose(front.get_xydata(), [[0.5, 80], [4, 90], [20, 95]])
    assert front.get_drawstyle() == "steps-post"
    assert [macs.get_xscale(), time.get_xscale()] == ["log", "linear"]
    (whiskers,) = macs.containers[0].lines[2]
    np.testing.assert_allclose([segment[:, 1] for segment in whiskers.get_segments()], 100 * around(accuracy))
    assert shown_texts(macs) == shown_texts(time) == ["a", "b", "c", "d"]


def test_accuracy_against_cost_names_the_runs_without_a_value():
    costs = {"GMACs": [np.nan, 1, 0], "none": [np.nan] * 3}
    figure = pareto.accuracy_against_cost(["vit", "swin", "mlp"], [0.9, 0.8, 0.7], None, costs)
    macs, none = figure.axes
    assert macs.get_xlabel() == "GMACs\nwithout a value: vit" and shown_texts(macs) == ["swin", "mlp"]
    assert macs.get_xscale() == "linear"  # a log axis has no zero
    assert not shown_texts(none)
    assert not layout_faults(figure)


@pytest.mark.parametrize("num_runs", [1, 5, 12])
@pytest.mark.parametrize("spread", [0, 0.001, 1])
def test_labels_of_points_do_not_collide_or_leave_the_panel(num_runs, spread):
    rng = np.random.default_rng(num_runs)
    accuracy = 0.9 + 0.08 * spread * rng.random(num_runs)
    costs = {
        "GMACs": 10 ** (spread * rng.uniform(-1, 1.3, num_runs)),
        "ms per image at batch 1": 3 + 5 * spread * rng.random(num_runs),
        "parameters (M)": rng.choice([5.7, 28, 86], num_runs),
    }
    names = run_names(num_runs)
    figure = pareto.accuracy_against_cost(names, accuracy, around(accuracy), costs, title="cost")
    assert not layout_faults(figure)
    assert set(names) < {text.replace("\n", "") for text in legend_texts(figure)}
    for axes in figure.axes:
        panel = axes.get_window_extent().padded(1)
        texts = [text for text in axes.texts if text.get_text()]
        assert [text.get_text() for text in texts] == [str(i + 1) for i in range(num_runs)]
        for text in texts:
            box = text.get_window_extent()
            assert panel.contains(box.x0, box.y0) and panel.contains(box.x1, box.y1)


def test_a_label_stands_beside_its_point_where_there_is_room():
    accuracy = np.array([0.5, 0.7, 0.9])
    figure = pareto.accuracy_against_cost(run_names(3), accuracy, around(accuracy), {"cost": [1, 2, 3]})
    (axes,) = figure.axes
    assert len(axes.texts) == 3  # no line to a point
    for text, point in zip(axes.texts, [(1, 50), (2, 70), (3, 90)], strict=True):
        box = text.get_window_extent()
        x, y = axes.transData.transform(point)
        gap = max(box.x0 - x, x - box.x1, box.y0 - y, y - box.y1)
        assert 3 < gap * 72 / figure.dpi < 8


# One row a run


@pytest.mark.parametrize("num_runs", [1, 4, 12])
def test_overview_shows_each_quantity_in_a_panel_of_its_own(num_runs):
    accuracy = np.linspace(0.9, 0.95, num_runs)
    sizes, times = np.arange(num_runs) + 5.5, np.zeros(num_runs)
    quantities = {
        "test accuracy": (accuracy, around(accuracy), True),
        "top-1 error": (1 - accuracy, None, True),
        "model size (M parameters)": (sizes, None, False),
        "inference time per image (ms)": (times, None, False),
    }
    figure = comparison_figures.overview(run_names(num_runs), quantities, title="Overview")
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels == ["test accuracy (%)", "top-1 error (%)", *list(quantities)[2:]]
    np.testing.assert_allclose([bar.get_width() for bar in figure.axes[1].patches], 100 * (1 - accuracy))
    np.testing.assert_allclose([bar.get_width() for bar in figure.axes[2].patches], sizes)
    assert figure.axes[0].texts[0].get_text() == "90.00 %  [89.40, 91.20]"
    assert figure.axes[3].get_xlim()[0] == 0
    assert not layout_faults(figure)


def test_overview_leaves_no_empty_panel():
    quantities = {name: ([1.0, 2.0], None, False) for name in "abc"}
    assert len(comparison_figures.overview(["one", "other"], quantities).axes) == 3


def test_epochs_to_target_marks_runs_that_never_reached_it():
    names = run_names(4)
    figure = comparison_figures.epochs_to_target(names, [1, 30, 0, 12], [True, False, True, True], target=0.905)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [1, 30, 0, 12]
    assert [bool(bar.get_hatch()) for bar in axes.patches] == [False, True, False, False]
    assert shown_texts(axes) == ["1 epoch", "not reached in 30 epochs", "0 epochs", "12 epochs"]
    assert "90.5 %" in axes.get_xlabel()
    assert not layout_faults(figure)


def test_grouped_accuracy_shows_each_seed_and_their_spread():
    groups = [[0.90, 0.92, np.nan, 0.94], [0.8], [], [0.85, 0.85]]
    figure = comparison_figures.grouped_accuracy(run_names(4), groups)
    (axes,) = figure.axes
    dots = [line.get_xydata().tolist() for line in axes.lines if line.get_label() == "one seed"]
    np.testing.assert_allclose(dots[0], [[90, 0], [92, 0], [94, 0]])
    assert len(dots) == 3
    assert shown_texts(axes) == ["92.00 ± 2.00 %, n = 3", "80.00 %, n = 1", "no value", "85.00 ± 0.00 %, n = 2"]
    (whisker,) = axes.containers[0].lines[2]
    np.testing.assert_allclose(whisker.get_segments()[0][:, 0], [90, 94])
    assert not layout_faults(figure)


# One row a class


def of_classes(num_runs: int, num_classes: int, *, low: float, high: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each run a value for each class, the first of which has no images, and its interval."""
    rng, found = np.random.default_rng(0), {}
    for run in run_names(num_runs):
        values = rng.uniform(low, high, num_classes)
        values[0] = np.nan
        found[run] = (values, around(values, 0.03))
    return found


@pytest.mark.parametrize(("num_runs", "num_classes"), [(1, 2), (2, 10), (5, 10), (1, 100)])
def test_per_class_differences_keep_the_order_of_the_classes_and_are_readable(num_runs, num_classes):
    names, found = class_names(num_classes), of_classes(num_runs, num_classes, low=-0.1, high=0.1)
    figure = comparison_figures.per_class_differences(found, names, reference="swin", title="t")
    assert len(figure.axes) == num_runs
    for axes, (run, (difference, _)) in zip(figure.axes, found.items(), strict=True):
        assert axes.get_title().replace("\n", "") == run
        bars = sorted(axes.patches, key=lambda bar: bar.get_y())
        np.testing.assert_allclose([bar.get_width() for bar in bars], 100 * difference[1:])
        for bar in bars:
            color = plotting.BLUE if bar.get_width() > 0 else plotting.ORANGE
            assert bar.get_facecolor() == pytest.approx(style_color(color))
        assert shown_texts(axes) == ["no images"] and axes.texts[0].get_position()[1] == 0
        assert axes.get_xlim() == figure.axes[0].get_xlim()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names
    assert set(legend_texts(figure)) == {"better than swin", "worse than swin", "95 % interval"}
    assert not layout_faults(figure)


@pytest.mark.parametrize(("num_runs", "num_classes"), [(1, 2), (6, 10), (2, 100)])
def test_per_class_accuracy_has_a_panel_for_each_run(num_runs, num_classes):
    names, found = class_names(num_classes), of_classes(num_runs, num_classes, low=0.1, high=0.9)
    figure = comparison_figures.per_class_accuracy(found, names, title="t")
    for axes, (run, (accuracy, _)) in zip(figure.axes, found.items(), strict=True):
        assert axes.get_title().replace("\n", "") == run and axes.get_xlim() == (0, 100)
        bars = sorted(axes.patches, key=lambda bar: bar.get_y())
        np.testing.assert_allclose([bar.get_width() for bar in bars], 100 * accuracy[1:])
        assert shown_texts(axes) == ["no images"]
    assert legend_texts(figure) == ["95 % interval"] and not layout_faults(figure)


def style_color(color: str) -> tuple:
    return (*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0)


def test_equal_classes_have_no_bar_but_the_legend_says_what_a_bar_means():
    differences = {"vit": (np.zeros(3), np.zeros((3, 2)))}
    figure = comparison_figures.per_class_differences(differences, list("abc"), reference="swin")
    assert not figure.axes[0].patches
    assert figure.axes[0].get_xlim() == pytest.approx((-1.05, 1.05))
    assert len(legend_texts(figure)) == 3


# One line a run


def lines_of(axes, color: str) -> dict[str, np.ndarray]:
    """The lines of a colour that hold data, by their dashes."""
    lines = [line for line in axes.lines if line.get_color() == color and len(line.get_xdata())]
    return {line.get_linestyle(): line.get_xydata() for line in lines}


def test_overlaid_curves_tell_runs_by_colour_and_splits_by_dashes():
    logs = {"vit": training_log(20) | {"lr": np.linspace(1e-4, 0, 20)}}
    logs["swin"] = training_log(10, validated=False) | {"lr": np.linspace(2e-4, 0, 10)}
    logs["swin"]["test_accuracy"] = np.where(np.arange(10) % 3 == 0, 0.5, np.nan)
    figure = comparison_figures.overlaid_curves(logs)
    loss, accuracy, rate = figure.axes
    first, second = lines_of(accuracy, plotting.RUN_COLORS[0]), lines_of(accuracy, plotting.RUN_COLORS[1])
    assert set(first) == {"-", "--"} and set(second) == {"--", ":"}
    np.testing.assert_allclose(first["-"][:, 1], 100 * logs["vit"]["val_accuracy"])
    np.testing.assert_allclose(first["--"][:, 1], 100 * logs["vit"]["train_accuracy"])
    np.testing.assert_allclose(second[":"], [[1, 50], [4, 50], [7, 50], [10, 50]])
    np.testing.assert_allclose(lines_of(loss, plotting.RUN_COLORS[0])["-"][:, 1], logs["vit"]["val_loss"])
    np.testing.assert_allclose(lines_of(rate, plotting.RUN_COLORS[1])["-"][:, 1], logs["swin"]["lr"])
    assert legend_texts(figure) == ["vit", "swin", "validation", "training", "test"]
    assert rate.get_yscale() == "linear"


def test_seeds_of_a_model_share_its_colour():
    models = {"vit-seed0": "vit", "vit-seed1": "vit", "swin-seed0": "swin"}
    logs = {name: training_log(5) | {"lr": np.full(5, 1e-3)} for name in models}
    figure = comparison_figures.overlaid_curves(logs, models=models)
    assert legend_texts(figure) == ["vit", "swin", "validation", "training"]
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert [line.get_color() for line in lines] == [plotting.RUN_COLORS[i] for i in (0, 0, 0, 0, 1, 1)]
    curves = {name: {"contrast": [0.5, 0.4]} for name in models}
    clean = dict.fromkeys(models, 0.6)
    figure = evaluation_figures.accuracy_against_severity(curves, [1, 3], clean, models=models)
    assert legend_texts(figure) == ["vit", "swin"]
    assert [line.get_color() for line in figure.axes[0].lines] == [plotting.RUN_COLORS[i] for i in (0, 0, 1)]


def test_overlaid_top5_curves_have_a_panel():
    logs = {name: training_log(12) | {"lr": np.full(12, 1e-3)} for name in ("vit", "swin")}
    logs["vit"]["val_top5_accuracy"] = np.sqrt(logs["vit"]["val_accuracy"])
    figure = comparison_figures.overlaid_curves(logs)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "loss",
        "accuracy (%)",
        "top-5 accuracy (%)",
        "learning rate",
    ]
    drawn = lines_of(figure.axes[2], plotting.RUN_COLORS[0])["-"]
    np.testing.assert_allclose(drawn[:, 1], 100 * logs["vit"]["val_top5_accuracy"])
    assert not lines_of(figure.axes[2], plotting.RUN_COLORS[1]) and not layout_faults(figure)
    assert figure.axes[3].get_ylim()[0] == 0  # a constant rate is no line in the middle of nothing


def test_overlaid_curves_show_rates_of_different_size_on_a_log_axis():
    logs = {str(peak): training_log(5) | {"lr": np.linspace(peak, 0, 5)} for peak in (1e-5, 1e-3)}
    rate = comparison_figures.overlaid_curves(logs).axes[2]
    assert rate.get_yscale() == "log" and rate.get_ylim()[0] > 1e-8


@pytest.mark.parametrize(("num_runs", "num_epochs"), [(1, 1), (12, 30), (20, 3)])
def test_overlaid_curves_are_readable(num_runs, num_epochs):
    rates = {"lr": np.full(num_epochs, 3e-4)}
    logs = {name: training_log(num_epochs) | rates for name in run_names(num_runs)}
    figure = comparison_figures.overlaid_curves(logs, title="Curves")
    looks = {tuple(sorted(plotting.run_style(i).items())) for i in range(num_runs)}
    assert len(looks) == num_runs
    assert not layout_faults(figure)
    assert min(axes.get_window_extent().height for axes in figure.axes) > 2 * figure.dpi  # the legend leaves room
    markers = {line.get_marker() for line in figure.axes[0].lines if len(line.get_xdata())}
    assert ("o" in markers) == (num_epochs == 1 or num_runs > 8)


def test_severity_starts_at_the_clean_accuracy():
    curves = {"vit": {"noise": [0.8, 0.7], "blur": [0.6, 0.5]}, "swin": {"noise": [0.9, np.nan]}}
    intervals = {run: {name: around(values) for name, values in of.items()} for run, of in curves.items()}
    clean = {"vit": 0.9, "swin": 0.95}
    figure = evaluation_figures.accuracy_against_severity(curves, [1, 3], clean, intervals=intervals)
    noise, blur = figure.axes
    assert [noise.get_title(), blur.get_title()] == ["noise", "blur"]
    np.testing.assert_allclose(noise.lines[0].get_xydata(), [[0, 90], [1, 80], [3, 70]])
    np.testing.assert_allclose(noise.lines[1].get_ydata(), [95, 90, np.nan])
    assert len(blur.lines) == 1 and blur.lines[0].get_color() == plotting.RUN_COLORS[0]
    band = blur.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(49.4) and band[:, 1].max() == pytest.approx(61.2)
    assert legend_texts(figure) == ["vit", "swin"]
    assert band[:, 0].min() == 1
    known = {name: around(value) for name, value in clean.items()}
    figure = evaluation_figures.accuracy_against_severity(
        curves, [1, 3], clean, intervals=intervals, clean_intervals=known
    )
    band = figure.axes[1].collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(sorted(band[band[:, 0] == 0, 1])[0], 89.4)


@pytest.mark.parametrize(("num_runs", "num_corruptions"), [(1, 1), (12, 6)])
def test_severity_is_readable(num_runs, num_corruptions):
    corruptions = ["Gaussian noise", "occlusion by a grey square in the middle", *"abcd"][:num_corruptions]
    curves = {name: {corruption: [0.8, 0.7, 0.6] for corruption in corruptions} for name in run_names(num_runs)}
    clean = dict.fromkeys(curves, 0.9)
    figure = evaluation_figures.accuracy_against_severity(curves, [1, 2, 3], clean, title="Robustness")
    assert len(figure.axes) == num_corruptions
    assert not layout_faults(figure)
