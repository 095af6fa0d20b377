"""Scores computed from predictions: arrays in, numbers out. Fractions are in [0, 1].

Legend: N images, K classes.
"""

import numpy as np

from common.intervals import wilson_interval
from evaluation.calibration import calibration
from evaluation.confidence import risk_coverage
from evaluation.predictions import Predictions


def summarize(predictions: Predictions, class_names: list[str]) -> dict:
    """The scores of a classifier, by the names of ``metrics.json``.

    Precision, recall and F1 are scikit-learn's; 0 if undefined. ``per_class[...]["accuracy"]`` is the share of the class's
    images that were recognised, None for a class without images.
    Raises ValueError if a logit is not finite.
    """
    from sklearn.metrics import matthews_corrcoef, precision_recall_fscore_support

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
        "mcc": float(matthews_corrcoef(labels, predicted)),
        **ranking_scores(predictions),
        **risk_coverage(predictions),
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


def without_copies(predictions: Predictions) -> dict:
    """The accuracy without exact copies of training or validation images; None if it is unknown which are copies."""
    keys = ("num_copies", "accuracy_without_copies", "accuracy_without_copies_ci95")
    if predictions.copies is None:
        return dict.fromkeys(keys)
    rest = predictions.correct[~predictions.copies]
    interval = wilson_interval(int(rest.sum()), len(rest)).tolist() if len(rest) else None
    return dict(zip(keys, (int(predictions.copies.sum()), float(rest.mean()) if len(rest) else None, interval)))


def ranking_scores(predictions: Predictions) -> dict[str, float | None]:
    """Area under the ROC curve and average precision of each class against the others: means over classes.

    A class that has no image or all images has neither and is left out; None if there are no other classes.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    probabilities, counts = predictions.probabilities, np.bincount(predictions.labels)
    known = np.flatnonzero((counts > 0) & (counts < len(predictions.labels)))
    if not len(known):
        return {"macro_roc_auc": None, "macro_pr_auc": None}
    pairs = [(predictions.labels == k, probabilities[:, k]) for k in known]
    return {
        "macro_roc_auc": float(np.mean([roc_auc_score(*pair) for pair in pairs])),
        "macro_pr_auc": float(np.mean([average_precision_score(*pair) for pair in pairs])),
    }


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
    """The most frequent confusions, from confusion counts K x K, the most frequent first.

    ``count`` images of class ``true``, the ``share`` of that class, were predicted as ``predicted``.
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
    """Positions of the most confident wrong predictions, the most confident first."""
    wrong = np.flatnonzero(~predictions.correct)
    confidence = predictions.probabilities.max(axis=1)[wrong]
    return wrong[np.argsort(-confidence, kind="stable")][:limit]
