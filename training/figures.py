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
    """Loss and accuracy by epoch; the epoch whose weights were kept is marked.

    Args:
        log: columns `epoch`, `train_loss`, `val_loss`, `train_accuracy`, `val_accuracy` of equal length; accuracies
            are fractions. NaN values (a run without a validation split) are not drawn. `val_top5_accuracy`, if there is
            one, gets a separate panel.
        best_epoch: the epoch to mark.
        training_images: how the training images were changed, such as "augmented". Training values are means over an
            epoch, during which the weights change; validation values are measured at its end, on unchanged images.
    """
    epochs, validation = (np.asarray(log[name], dtype=float) for name in ("epoch", "val_accuracy"))
    panels = {"loss": (1, "cross-entropy (nats)"), "accuracy": (100, "accuracy (%)")}
    if np.isfinite(np.asarray(log.get("val_top5_accuracy", []), dtype=float)).any():
        panels["top5_accuracy"] = 100, "top-5 accuracy (%)"
    figure = new_figure(4.5 * len(panels), 3.6, title)
    for axes, (quantity, (factor, ylabel)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for split, name, style in (("train", "training", "--"), ("val", "validation", "-")):
            if f"{split}_{quantity}" not in log:  # top-5 of training images is not counted
                continue
            values = factor * np.asarray(log[f"{split}_{quantity}"], dtype=float)
            look = dict(color=BLUE if split == "train" else ORANGE, marker="o" if len(epochs) <= 30 else None)
            label = f"{name}, on {training_images} images" if split == "train" and training_images else name
            plot_known(axes, epochs, values, linestyle=style, **look, markersize=4, label=label)
        if best_epoch is not None and np.isfinite(validation).any():
            label = f"kept: epoch {best_epoch}, validation accuracy {100 * validation[epochs == best_epoch][0]:.2f} %"
            axes.axvline(best_epoch, color=DARK, linestyle=":", linewidth=1.2, zorder=1, label=label)
        axes.set(xlabel="epoch", ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        tidy(axes)
    shared_legend(figure)
    return figure


def learning_rate(epochs: Sequence[float], lr: Sequence[float], *, title: str | None = None) -> Figure:
    """The learning rate of every step.

    Args:
        epochs: the (fractional) epoch of each step.
        lr: the learning rate of each step.
    """
    figure = new_figure(6, 3, title)
    axes = figure.subplots()
    axes.plot(epochs, lr, color=BLUE, marker="o" if len(lr) <= 30 else None, markersize=4)
    axes.set(xlabel="epoch", ylabel="learning rate")
    axes.set_ylim(bottom=0)
    scientific_ticks(axes)
    tidy(axes)
    return figure
