"""Curves and the learning rate show the log that they were given, and no two texts overlap or leave the page."""

import numpy as np
from support import layout_faults, training_log

from training import figures as training_figures


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


def test_top5_accuracy_has_a_panel_of_its_own():
    log = training_log(30)
    log["val_top5_accuracy"] = np.sqrt(log["val_accuracy"])
    figure = training_figures.training_curves(log, best_epoch=30)
    assert [axes.get_ylabel() for axes in figure.axes][2:] == ["top-5 accuracy (%)"]
    np.testing.assert_allclose(figure.axes[2].lines[0].get_ydata(), 100 * log["val_top5_accuracy"])
    assert not layout_faults(figure)
    log["val_top5_accuracy"] = np.full(30, np.nan)  # of five classes
    assert len(training_figures.training_curves(log).axes) == 2


def test_training_curves_without_validation_show_training_alone():
    figure = training_figures.training_curves(training_log(40, validated=False))
    assert [len(axes.lines) for axes in figure.axes] == [1, 1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training"]
    figure = training_figures.training_curves(training_log(4), training_images="augmented and mixed")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["training, on augmented and mixed images", "validation"] and not layout_faults(figure)


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
