"""The overview of several runs shows the numbers that it was given, and no two texts overlap or leave the page."""

import numpy as np
import pytest
from support import layout_faults

from comparison import figures as comparison_figures


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
