"""Predictions of a model, and numbers from predictions: arrays in, numbers out. Fractions are in [0, 1].

Legend: N images, K classes.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import Tensor

from analysis.statistics import wilson_interval


@dataclass(frozen=True)
class Predictions:
    logits: np.ndarray  # float32 N K
    labels: np.ndarray  # int64 N

    @property
    def correct(self) -> np.ndarray:
        """Which images are recognised, bool N."""
        return self.predicted == self.labels

    @property
    def probabilities(self) -> np.ndarray:
        """N K."""
        return softmax(self.logits.astype(np.float64), axis=1)

    @property
    def predicted(self) -> np.ndarray:
        """Class of the largest logit, int64 N."""
        return self.logits.argmax(axis=1)

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats, without label smoothing."""
        log_p = log_softmax(self.logits.astype(np.float64), axis=1)
        return float(-log_p[np.arange(len(self.labels)), self.labels].mean())


def predict(
    model: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    context: Callable[[], AbstractContextManager] = nullcontext,
) -> list[Predictions]:
    """Logits and labels of each batch.

    Args:
        model: maps images as the batches hold them to logits B K; in evaluation mode already.
        batches: (images, int64 labels B) on the model's device.
        context: makes the context of each forward pass, such as autocast.
    """
    results = []
    with torch.inference_mode():
        for images, labels in batches:
            with context():
                logits = model(images)
            results.append((logits.float(), labels))  # stay on the device: no synchronisation per batch
    return [Predictions(logits.cpu().numpy(), labels.cpu().numpy()) for logits, labels in results]


def summarize(predictions: Predictions, class_names: list[str]) -> dict:
    """The scores of a classifier, by the names of ``metrics.json``.

    Precision, recall and F1 are scikit-learn's; 0 where undefined. ``per_class[...]["accuracy"]`` is the share of the
    class's images that were recognised, null for a class without images.
    Raises ValueError if a logit is not finite.
    """
    from sklearn.metrics import precision_recall_fscore_support

    check_finite(predictions)
    labels, predicted = predictions.labels, predictions.predicted
    correct, count, num_classes = int((predicted == labels).sum()), len(labels), len(class_names)
    classes = range(num_classes)
    accuracy, interval = per_class_accuracy(predictions, num_classes)
    scores = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    summary = {
        "num_images": count,
        "accuracy": predictions.accuracy,
        "accuracy_ci95": wilson_interval(correct, count).tolist(),
        "top1_error": 1 - predictions.accuracy,
        "top5_accuracy": top_k_accuracy(predictions, 5) if num_classes > 5 else None,
        "loss": predictions.loss,
        **calibration(predictions),
        "balanced_accuracy": float(np.nanmean(accuracy)),
    }
    for average in ("macro", "weighted"):
        precision, recall, f1, _ = precision_recall_fscore_support(
            labels, predicted, labels=classes, average=average, zero_division=0
        )
        summary |= {f"{average}_precision": precision, f"{average}_recall": recall, f"{average}_f1": f1}
    summary["per_class"] = {
        name: {
            **{key: float(scores[i][k]) for i, key in enumerate(("precision", "recall", "f1"))},
            "support": int(scores[3][k]),
            "accuracy": float(accuracy[k]) if scores[3][k] else None,
            "accuracy_ci95": interval[k].tolist() if scores[3][k] else None,
        }
        for k, name in enumerate(class_names)
    }
    return summary


def check_finite(predictions: Predictions) -> None:
    """Raise ValueError if a logit is not finite."""
    bad = int((~np.isfinite(predictions.logits)).any(axis=1).sum())
    if bad:
        raise ValueError(f"the model gives NaN or infinite logits for {bad} of {len(predictions.labels)} images")


def top_k_accuracy(predictions: Predictions, k: int) -> float:
    """Share of images whose label is among the ``k`` largest logits."""
    largest = np.argpartition(-predictions.logits, k - 1, axis=1)[:, :k]
    return float((largest == predictions.labels[:, None]).any(axis=1).mean())


def confusion_counts(predictions: Predictions, num_classes: int) -> np.ndarray:
    """K x K counts; rows are true classes, columns predicted ones."""
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (predictions.labels, predictions.predicted), 1)
    return counts


def per_class_accuracy(predictions: Predictions, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy within each true class (K) and its 95 % Wilson interval (K 2); NaN for classes without images."""
    counts = confusion_counts(predictions, num_classes)
    correct, support = counts.diagonal(), counts.sum(axis=1)
    accuracy = np.divide(correct, support, out=np.full(num_classes, np.nan), where=support > 0)
    return accuracy, wilson_interval(correct, support)


def most_confused(counts: np.ndarray, class_names: list[str], limit: int = 10) -> list[dict]:
    """Pairs of classes that are taken for one another most often, from confusion counts K x K, commonest first.

    ``count`` images of class ``true`` were taken for class ``predicted``: ``share`` of the class.
    """
    errors = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-errors, axis=None, kind="stable")[:limit]
    pairs = [tuple(map(int, np.unravel_index(i, counts.shape))) for i in order]
    return [
        {
            "true": class_names[row],
            "predicted": class_names[column],
            "count": int(errors[row, column]),
            "share": float(errors[row, column] / counts[row].sum()),
        }
        for row, column in pairs
        if errors[row, column]
    ]


def most_confidently_wrong(predictions: Predictions, limit: int = 20) -> np.ndarray:
    """Positions of the wrong predictions with the largest probabilities, most confident first."""
    wrong = np.flatnonzero(~predictions.correct)
    confidence = predictions.probabilities.max(axis=1)[wrong]
    return wrong[np.argsort(-confidence, kind="stable")][:limit]


# ---------------------------------------------------------------- calibration


def calibration(predictions: Predictions) -> dict[str, float]:
    """How far probabilities can be believed: expected calibration error in 15 bins of equal width (``ece``) and of equal
    mass (``ece_equal_mass``; Nguyen and O'Connor 2015), and the Brier score, summed over classes (Brier 1950: 0 to 2).
    """
    probabilities = predictions.probabilities
    truth = np.eye(probabilities.shape[1])[predictions.labels]
    return {
        "ece": calibration_bins(predictions)["ece"],
        "ece_equal_mass": calibration_bins(predictions, equal_mass=True)["ece"],
        "brier": float(((probabilities - truth) ** 2).sum(axis=1).mean()),
    }


def calibration_bins(predictions: Predictions, num_bins: int = 15, *, equal_mass: bool = False) -> dict:
    """Confidence against accuracy in bins, and the expected calibration error (Guo et al. 2017).

    Bins are equally wide, or hold equally many images (the last ones one less where that does not come out even).
    Returns ``confidence`` and ``accuracy`` (means per bin, 0 in empty ones), ``counts``, and ``ece``: the mean over images
    of their bin's gap between the two.
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
    """The temperature by which logits are divided for the smallest cross-entropy (Guo et al. 2017), from 0.01 to 100.

    Accuracy does not change with it. Fit it on images that the scores are not computed on.
    """

    def loss(log_temperature: float) -> float:
        return scale_logits(predictions, np.exp(log_temperature)).loss

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded").x))


def scale_logits(predictions: Predictions, temperature: float) -> Predictions:
    """The predictions with their logits divided by ``temperature``."""
    return Predictions(predictions.logits / np.float32(temperature), predictions.labels)
