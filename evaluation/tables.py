"""Tables of one run's scores: rows of readable cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.config import Config
from common.documents import NO_VALUE, format_interval
from data import Split
from evaluation.metrics import most_confidently_wrong
from evaluation.predictions import Predictions
from images.files import printable

SCORES = {
    "run": "run",
    "model": "model",
    "image_size": "image size",
    "accuracy": "accuracy (%)",
    "accuracy_ci95": "95 % interval (%)",
    "accuracy_without_copies": "accuracy without copies (%)",
    "top1_error": "top-1 error (%)",
    "top5_accuracy": "top-5 (%)",
    "macro_f1": "macro F1 (%)",
    "ece": "calibration error (%)",
    "corpus": "pretrained on",
}
COSTS = {
    "run": "run",
    "params": "parameters (M)",
    "trainable_params": "trainable (M)",
    "gmacs": "GMACs",
    "gflops": "GFLOPs",
    "gmacs_attention_skipped": "GMACs, fused attention skipped",
    "ms_per_image": "ms/image",
    "ms_per_batch": "ms/batch (images)",
    "images_per_second": "images/s",
    "peak_memory_mb": "memory (MB)",
}
PERCENT = (
    *("accuracy", "accuracy_without_copies", "top1_error", "top5_accuracy", "macro_f1", "ece", "val_accuracy"),
    *("map_mean", "map_std", "map_high_region"),
)


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
    """The most frequent confusions of classes."""
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
    """The name of a run's dataset; for a folder of images, the folder's name."""
    return config.data.dataset if config.data.dataset != "imagefolder" else Path(config.data.root).name


def lookup(key: str, values: Mapping):
    """What a column of SCORES or COSTS shows of ``metrics.json``."""
    if key == "gflops":
        return 2 * values["gmacs"]
    if key in ("ms_per_image", "scorecam_seconds"):
        return values["latency_ms"]["1"]["median"]
    if key == "ms_per_batch":
        size = max(values["latency_ms"], key=int)
        return f"{values['latency_ms'][size]['median']:.1f} ({size})"
    return values[key]


def cell(key: str, value) -> str:
    """A value of such a column, readable."""
    if value is None:
        return NO_VALUE
    if key in PERCENT:
        return f"{100 * value:.2f}"
    if key == "accuracy_ci95":
        return format_interval(value, unit="")
    if key.endswith("params"):
        return f"{value / 1e6:.2f}"
    if key.startswith("g"):
        return f"{value:.4g}"
    if key in ("ms_per_image", "scorecam_seconds"):
        return f"{value:.2f}"
    if key == "loss":
        return f"{value:.4f}"
    if key in ("images_per_second", "peak_memory_mb"):
        return f"{value:.0f}"
    return str(value)
