"""Training curves and the learning rate."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.plotting import BLUE, DARK, ORANGE, new_figure, plot_known, scientific_ticks, shared_legend, tidy


def training_curves(
    log: Mapping[str, Sequence[float]],
    *,
    best_epoch: int | None = None,
    title: str | None = None,
    training_images: str = "",
) -> Figure:
    """Loss and accuracy by epoch, with the epoch whose weights were kept marked.

    Args:
        log: columns `epoch`, `train_loss`, `val_loss`, `train_accuracy`, `val_accuracy` of equal length; accuracies
            are fractions. NaN is not drawn: an epoch without validation, or a run without a validation split.
        best_epoch: the epoch to mark.
        training_images: how the images were changed that the training values are of, such as "augmented": these are
            means over an epoch in which the weights changed, validation's are of its end and of unchanged images.
    """
    epochs, validation = (np.asarray(log[name], dtype=float) for name in ("epoch", "val_accuracy"))
    figure = new_figure(9, 3.6, title)
    for axes, quantity, factor in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True):
        for split, name, style in (("train", "training", "--"), ("val", "validation", "-")):
            values = factor * np.asarray(log[f"{split}_{quantity}"], dtype=float)
            look = dict(color=BLUE if split == "train" else ORANGE, marker="o" if len(epochs) <= 30 else None)
            label = f"{name}, on {training_images} images" if split == "train" and training_images else name
            plot_known(axes, epochs, values, linestyle=style, **look, markersize=4, label=label)
        if best_epoch is not None and np.isfinite(validation).any():
            label = f"kept: epoch {best_epoch}, validation accuracy {100 * validation[epochs == best_epoch][0]:.2f} %"
            axes.axvline(best_epoch, color=DARK, linestyle=":", linewidth=1.2, zorder=1, label=label)
        axes.set(xlabel="epoch", ylabel="accuracy (%)" if factor == 100 else "cross-entropy (nats)")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        tidy(axes)
    shared_legend(figure)
    return figure


def learning_rate(epochs: Sequence[float], lr: Sequence[float], *, title: str | None = None) -> Figure:
    """The learning rate of every step.

    Args:
        epochs: where each step stands, in (fractional) epochs.
        lr: the rate used at that step.
    """
    figure = new_figure(6, 3, title)
    axes = figure.subplots()
    axes.plot(epochs, lr, color=BLUE, marker="o" if len(lr) <= 30 else None, markersize=4)
    axes.set(xlabel="epoch", ylabel="learning rate")
    axes.set_ylim(bottom=0)
    scientific_ticks(axes)
    tidy(axes)
    return figure
