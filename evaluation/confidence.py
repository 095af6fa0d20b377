"""Uses of confidence: selective prediction (leaving out uncertain images), and conformal sets of classes.

Legend: N images, K classes.
"""

import math

import numpy as np

from common.intervals import wilson_interval
from evaluation.predictions import Predictions

COVERAGES = (1.0, 0.9, 0.8, 0.5)


def risk_coverage(predictions: Predictions) -> dict:
    """Share of errors (risk) among the most confident images, for several coverages (El-Yaniv and Wiener 2010).

    Confidence is the largest probability; images with equal confidence each count with their mean error.

    Returns:
        ``aurc``: the mean risk over all coverages 1/N, ..., 1 (Geifman et al. 2019); ``aurc_excess``: ``aurc`` minus that of
        a confidence that ranks every error last; ``risk_at_coverage``: "0.9" -> errors among the most confident 90 %.
    """
    risk = risk_curve(predictions)
    count, errors = len(risk), int((~predictions.correct).sum())
    best = np.maximum(0, np.arange(1, count + 1) - (count - errors)) / np.arange(1, count + 1)
    kept = {f"{coverage:g}": float(risk[max(1, round(coverage * count)) - 1]) for coverage in COVERAGES}
    return {"aurc": float(risk.mean()), "aurc_excess": float(risk.mean() - best.mean()), "risk_at_coverage": kept}


def risk_curve(predictions: Predictions) -> np.ndarray:
    """Share of errors among the 1, 2, ..., N most confident images."""
    confidence, wrong = predictions.probabilities.max(axis=1), ~predictions.correct
    order = np.argsort(-confidence, kind="stable")
    _, tied = np.unique(-confidence[order], return_inverse=True)
    mean = np.bincount(tied, weights=wrong[order]) / np.bincount(tied)  # over images with equal confidence
    return np.cumsum(mean[tied]) / np.arange(1, len(order) + 1)


def conformal_sets(predictions: Predictions, held_out: Predictions, level: float = 0.9) -> dict:
    """Sets of classes that contain the true one with probability ``level``, whatever the model (Sadinle et al. 2019).

    A class belongs to an image's set if its probability is at least a threshold, which is fitted on ``held_out`` images. The
    guarantee holds on average over images from the same distribution as those.

    Returns:
        ``level``, ``threshold``, ``mean_set_size``, ``empty_sets`` (share), ``coverage`` with ``coverage_ci95`` (Wilson),
        ``num_images``: how many it was fitted on. With too few: ``threshold`` is None, and ``reason`` says so.
    """
    count = len(held_out.labels)
    rank = math.ceil((count + 1) * level)  # of the scores 1 - p, ascending
    found = {"level": level, "fitted_on": "val", "num_images": count, "threshold": None}
    if rank > count:
        least = math.ceil(level / (1 - level) - 1e-9)
        return found | {
            "reason": f"{count} validation images are too few for a level of {level:.0%}; at least {least} are needed"
        }
    of_label = np.sort(held_out.probabilities[np.arange(count), held_out.labels])[::-1]
    chosen = predictions.probabilities >= of_label[rank - 1]
    covered = chosen[np.arange(len(chosen)), predictions.labels]
    return found | {
        "threshold": float(of_label[rank - 1]),
        "mean_set_size": float(chosen.sum(axis=1).mean()),
        "empty_sets": float((~chosen.any(axis=1)).mean()),
        "coverage": float(covered.mean()),
        "coverage_ci95": wilson_interval(covered.sum(), len(covered)).tolist(),
    }
