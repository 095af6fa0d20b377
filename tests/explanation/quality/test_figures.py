"""Each figure shows the numbers that it was given, and no two of its texts overlap or leave the page."""

import numpy as np
import pytest
from support import drawn_texts, layout_faults

from explanation.quality import figures

METHODS = ["gradcam", "hirescam", "layercam", "a random map", "a centred Gaussian"]


def texts(figure):
    return " ".join(text.get_text().replace("\n", " ") for text in drawn_texts(figure))


@pytest.mark.parametrize("count", [1, 3, 12])
def test_statistics_panels_draw_each_value_with_its_interval(count):
    values = np.random.default_rng(0).random((4, count))
    names = [f"vit_base_patch16_224-full-lr-{i}: gradcam++" for i in range(count)]
    panels = {
        f"quantity {i} (share)": (row.tolist(), [[v - 0.1, v + 0.1] for v in row]) for i, row in enumerate(values)
    }
    panels["quantity 3 (share)"] = ([None] * count, [None] * count)  # blank maps have none
    figure = figures.statistics_panels(names, panels, references={"quantity 0 (share)": 0.5}, title="two runs")
    assert not layout_faults(figure)
    points = [line.get_xdata()[0] for line in figure.axes[1].lines if line.get_marker() == "o"]
    whiskers = [line.get_xdata().tolist() for line in figure.axes[1].lines if len(line.get_xdata()) == 2]
    assert points == values[1].tolist() and whiskers == [[v - 0.1, v + 0.1] for v in values[1].tolist()]
    assert [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() == "--"] == [0.5]
    assert not figure.axes[3].lines and "quantity 3 (share)" in texts(figure)


def test_curves_draw_percent_with_bands_and_baselines_dashed():
    fractions = np.linspace(0, 1, 11)
    curves = {name: 0.8 + fractions * (i + 1) / 60 for i, name in enumerate(METHODS)}
    bounds = {name: np.stack([curve - 0.01, curve + 0.02], axis=1) for name, curve in curves.items()}
    panels = {
        f"{way}, {fill}": {name: (curves[name], bounds[name]) for name in METHODS}
        for way in ("insertion", "deletion")
        for fill in ("blurred", "mean colour")
    }
    figure = figures.faithfulness_curves(fractions, panels, baselines=METHODS[3:], title="swin")
    assert not layout_faults(figure) and len(figure.axes) == 4
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert 75 < low <= 79 and 100 * (0.8 + 5 / 60 + 0.02) <= high < 95  # where the curves are
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["hirescam"].get_ydata(), 100 * curves["hirescam"])
    assert [name for name, line in lines.items() if line.get_linestyle() == "--"] == METHODS[3:]
    assert len({(line.get_color(), line.get_marker()) for line in lines.values()}) == len(METHODS)
    for name, band in zip(METHODS, figure.axes[0].collections, strict=True):
        edge = band.get_paths()[0].vertices
        for side in (100 * bounds[name]).T:
            assert all(np.abs(edge - point).sum(axis=1).min() < 1e-6 for point in zip(100 * fractions, side))


@pytest.mark.parametrize("depth", [3, 14, 26])
def test_randomization_starts_at_one_and_leaves_gaps_for_blank_maps(depth):
    groups = ["head", *[f"layers.2.blocks.{i}" for i in range(depth - 2)], "stem"]
    means = [0.5, *[None] * (depth - 2), 0.1]
    intervals = [[0.4, 0.6], *[None] * (depth - 2), [0.0, 0.2]]
    figure = figures.randomization(
        groups, {"gradcam": (means, intervals), "layercam": (means, intervals)}, title="swin"
    )
    assert not layout_faults(figure)
    line = figure.axes[0].lines[0].get_ydata()
    assert line[0] == 1 and line[1] == 0.5 and line[-1] == 0.1 and np.isnan(line[2:-1]).all()
    edge = figure.axes[0].collections[0].get_paths()[0].vertices
    assert all(np.abs(edge - point).sum(axis=1).min() < 1e-6 for point in ((0, 1), (1, 0.4), (1, 0.6)))
    assert all(group in texts(figure) for group in groups)


@pytest.mark.parametrize("depth", [1, 4, 12, 24])
def test_attention_heads_draw_each_head_and_the_mean(depth):
    random = np.random.default_rng(0)
    layers = [f"layers.{i // 6}.blocks.{i}.attn" for i in range(depth)]
    distance = [random.random(3 * 2 ** (i // 6)).tolist() for i in range(depth)]
    figure = figures.attention_heads(layers, distance, [[1.0]] * depth, title="swin")
    assert not layout_faults(figure)
    *heads, mean = figure.axes[0].lines
    assert [list(line.get_ydata()) for line in heads] == distance
    np.testing.assert_allclose(mean.get_ydata(), [np.mean(row) for row in distance])
