"""Scores of one run -> rows of readable cells."""

from collections.abc import Mapping
from pathlib import Path

from common.config import Config
from common.documents import NO_VALUE, format_interval


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


def data_name(config: Config) -> str:
    """What the data set of a run is called."""
    return config.data.dataset if config.data.dataset != "imagefolder" else Path(config.data.root).name
