"""Scores of one run -> rows of readable cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.config import Config
from common.documents import NO_VALUE, format_interval
from data import Split
from evaluation.metrics import most_confidently_wrong
from evaluation.predictions import Predictions
from images.files import printable


def classification_rows(metrics: Mapping) -> list[dict[str, str]]:
    """The classification report of ``metrics.json``: a row for each class in the order of the classes, then the averages."""
    rows = []
    for name, scores in metrics["per_class"].items():
        interval = scores["accuracy_ci95"]
        rows.append(
            {
                "class": name,
                "images": f"{scores['support']:,}",
                **{f"{key} (%)": f"{100 * scores[key]:.2f}" for key in ("precision", "recall")},
                "F1 (%)": f"{100 * scores['f1']:.2f}",
                "95 % interval of recall (%)": NO_VALUE if interval is None else format_interval(interval, unit=""),
            }
        )
    for average in ("macro", "weighted"):
        row = {"class": f"{average} average", "images": f"{metrics['num_images']:,}"}
        row |= {f"{key} (%)": f"{100 * metrics[f'{average}_{key}']:.2f}" for key in ("precision", "recall")}
        rows.append(row | {"F1 (%)": f"{100 * metrics[f'{average}_f1']:.2f}", "95 % interval of recall (%)": NO_VALUE})
    return rows


def confused_rows(metrics: Mapping) -> list[dict[str, str]]:
    """The classes that are taken for one another most often."""
    return [
        {
            "true class": pair["true"],
            "taken for": pair["predicted"],
            "images": f"{pair['count']:,}",
            "share of the true class (%)": f"{100 * pair['share']:.1f}",
        }
        for pair in metrics["most_confused"]
    ]


def mistake_rows(predictions: Predictions, split: Split, class_names: Sequence[str]) -> list[dict[str, object]]:
    """Every wrong prediction, the most confident first: position, file (of photos), classes and their probabilities."""
    probabilities, rows = predictions.probabilities, []
    for i in most_confidently_wrong(predictions, limit=len(predictions.labels)).tolist():
        true, taken = int(predictions.labels[i]), int(predictions.predicted[i])
        paths = getattr(split.source, "paths", None)
        rows.append(
            {
                "index": i,
                "file": printable(paths[int(split.indices[i])]) if paths is not None else None,
                "true": class_names[true],
                "predicted": class_names[taken],
                "probability": round(float(probabilities[i, taken]), 6),
                "probability_of_true": round(float(probabilities[i, true]), 6),
            }
        )
    return rows


def data_name(config: Config) -> str:
    """What the data set of a run is called."""
    return config.data.dataset if config.data.dataset != "imagefolder" else Path(config.data.root).name
