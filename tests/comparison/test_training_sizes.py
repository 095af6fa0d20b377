"""Accuracy against the number of training images, and where models cross."""

from types import SimpleNamespace

import numpy as np
import pytest
from support import make_config

from comparison.entries import Entry
from comparison.training_sizes import Curve, crossings, draw_curves, find_curves


def hits(accuracy, runs=3, images=2000, seed=0):
    """Runs that agree on most images, as those of one model do."""
    random = np.random.default_rng(seed)
    hard = random.random(images)
    return np.stack([hard + random.normal(0, 0.02, images) < accuracy for _ in range(runs)])


def entry(model, fraction, seed, epochs=2):
    config = make_config(
        name=f"{model}-{fraction}-{seed}",
        seed=seed,
        data={"train_fraction": fraction},
        model={"name": model},
        train={"epochs": epochs},
    )
    predictions = SimpleNamespace(correct=hits(0.5, runs=1)[0])
    run, training = SimpleNamespace(config=config), {"num_images": {"train": int(1000 * fraction)}}
    return Entry(config.name, run, {}, training, predictions, [], None)


def test_runs_of_one_model_on_several_numbers_of_images_are_a_curve():
    entries = [
        entry(model, f, seed, epochs=round(2 / f)) for model in ("a", "b") for f in (0.5, 0.1) for seed in (0, 1)
    ]
    curves = find_curves([*entries, entry("c", 1.0, 0)])
    assert [(curve.name, list(curve.hits)) for curve in curves] == [("a", [100, 500]), ("b", [100, 500])]
    assert all(runs.shape == (2, 2000) for curve in curves for runs in curve.hits.values())


def test_crossings_are_named_and_only_real_ones_are_called_so():
    vit = Curve("vit", {100: hits(0.30), 1000: hits(0.50), 10000: hits(0.80)})
    swin = Curve("swin", {100: hits(0.40, seed=1), 1000: hits(0.55, seed=1), 10000: hits(0.70, seed=1)})
    assert crossings([vit, swin]) == [
        "vit and swin cross between 1,000 and 10,000 (vit takes over); chance does not explain it."
    ]
    near = Curve("near", {100: hits(0.31, seed=2), 1000: hits(0.49, seed=2)})
    assert "chance may explain it" in crossings([Curve("vit", {100: hits(0.30), 1000: hits(0.50)}), near])[0]
    below = Curve("below", {100: hits(0.1, seed=3), 1000: hits(0.2, seed=3)})
    assert crossings([below, swin]) == [
        "swin is above below throughout; no crossing between 100 and 1,000 training images. "
        "The difference is more than chance explains at each number of images."
    ]
    assert "fewer than two numbers" in crossings([below, Curve("other", {7: hits(0.1), 100: hits(0.1)})])[0]


def test_intervals_of_several_seeds_hold_what_seeds_add():
    spread = np.concatenate([hits(accuracy, runs=1, seed=5) for accuracy in (0.5, 0.6, 0.7)])
    wide, narrow = Curve("x", {1: spread}).intervals()[0], Curve("x", {1: hits(0.6, seed=5)}).intervals()[0]
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])
    assert wide[0] < spread.mean() < wide[1]
    assert Curve("x", {1: np.ones((1, 50), bool)}).intervals()[0] == pytest.approx([0.9287, 1], abs=1e-3)


def test_the_figure_has_a_line_for_each_model():
    curves = [Curve("vit", {100: hits(0.3), 1000: hits(0.5)}), Curve("swin", {100: hits(0.4), 500: hits(0.45)})]
    axes = draw_curves(curves).axes[0]
    assert [line.get_label() for line in axes.lines] == ["vit", "swin"]
    assert [float(x) for x in axes.get_xticks()] == [100, 500, 1000]
