"""Calibration: whether confidence agrees with accuracy. Calibration error, reliability bins, temperature scaling."""

import numpy as np
from scipy.optimize import minimize_scalar

from evaluation.predictions import Predictions


def calibration(predictions: Predictions) -> dict[str, float]:
    """Measures of calibration: expected calibration error in 15 bins of equal width (``ece``) and of equal mass
    (``ece_equal_mass``; Nguyen and O'Connor 2015), and the Brier score, summed over classes (Brier 1950: 0 to 2).
    """
    probabilities = predictions.probabilities
    truth = np.eye(probabilities.shape[1])[predictions.labels]
    return {
        "ece": calibration_bins(predictions)["ece"],
        "ece_equal_mass": calibration_bins(predictions, equal_mass=True)["ece"],
        "brier": float(((probabilities - truth) ** 2).sum(axis=1).mean()),
    }


def calibration_bins(predictions: Predictions, num_bins: int = 15, *, equal_mass: bool = False) -> dict:
    """Confidence and accuracy in bins, and the expected calibration error (Guo et al. 2017).

    Bins are equally wide, or hold equally many images (some of the last ones hold one less if they cannot be equal).
    Returns ``confidence`` and ``accuracy`` (means per bin, 0 in empty ones), ``counts``, and ``ece``: the mean over images
    of the gap between the two in the image's bin.
    """
    confidence = predictions.probabilities.max(axis=1)
    if equal_mass:
        bins = np.empty(len(confidence), dtype=int)
        for number, members in enumerate(np.array_split(np.argsort(confidence, kind="stable"), num_bins)):
            bins[members] = number
    else:
        bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    filled = np.maximum(counts, 1)
    mean_confidence = np.bincount(bins, weights=confidence, minlength=num_bins) / filled
    accuracy = np.bincount(bins, weights=predictions.correct, minlength=num_bins) / filled
    ece = float((counts * np.abs(mean_confidence - accuracy)).sum() / counts.sum())
    return {"confidence": mean_confidence, "accuracy": accuracy, "counts": counts, "ece": ece}


def fit_temperature(predictions: Predictions) -> float:
    """The temperature, from 0.01 to 100, with which the cross-entropy is smallest (Guo et al. 2017).

    Logits are divided by it, which does not change the accuracy. Fit it on other images than those that are scored. If
    `no_temperature` gives a reason, there is no best temperature.
    """

    def loss(log_temperature: float) -> float:
        return scale_logits(predictions, np.exp(log_temperature)).loss

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded").x))


def no_temperature(predictions: Predictions) -> str | None:
    """Why no finite temperature above 0 has the smallest cross-entropy; None if one has.

    The cross-entropy is convex in 1 / temperature. Its slope at 0 is the mean over images of (mean logit - label's logit);
    at infinity it is the mean over images of (largest logit - label's logit).
    """
    of_label = predictions.logits[np.arange(len(predictions.labels)), predictions.labels].astype(float)
    if not (predictions.logits.max(axis=1) > of_label).any():
        return (
            f"the model makes no error on {len(of_label):,} validation images, so that more confidence always seems better; "
            "use more validation images"
        )
    if predictions.logits.mean(axis=1, dtype=float).mean() >= of_label.mean():
        return "the labels' logits are on average no larger than others, so that less confidence always seems better"
    return None


def scale_logits(predictions: Predictions, temperature: float) -> Predictions:
    """The predictions with their logits divided by ``temperature``."""
    return Predictions(predictions.logits / np.float32(temperature), predictions.labels)
