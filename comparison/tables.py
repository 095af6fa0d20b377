"""Numbers of runs -> rows of readable cells."""

from collections.abc import Mapping, Sequence

from common.documents import NO_VALUE, format_interval

SCORES = {
    "run": "run",
    "model": "model",
    "image_size": "image size",
    "accuracy": "accuracy (%)",
    "accuracy_ci95": "95 % interval (%)",
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
PERCENT = ("accuracy", "top1_error", "top5_accuracy", "macro_f1", "ece")


def comparison_rows(metrics: Sequence[Mapping], columns: Mapping[str, str] = SCORES | COSTS) -> list[dict[str, str]]:
    """One row of readable cells per run, from ``metrics.json`` with ``run``, ``model`` and a readable ``image_size``.

    ``columns``: key -> title; those of SCORES and COSTS are what is usually reported of a classifier. Memory, which is not
    measured on CPU, has no column where no run has it.
    """
    measured = any(values.get("peak_memory_mb") is not None for values in metrics)
    columns = {key: title for key, title in columns.items() if measured or key != "peak_memory_mb"}
    return [{title: _cell(key, _lookup(key, values)) for key, title in columns.items()} for values in metrics]


def reported_rows(metrics: Sequence[Mapping], reported: Sequence[Mapping[str, float]]) -> list[dict[str, str]]:
    """Numbers of others (by the names of ``metrics.json``) beside ours, a row per run that has any."""
    titles = SCORES | COSTS | {"loss": "loss"}
    keys = [key for key in titles if any(key in numbers for numbers in reported)]
    rows = []
    for values, numbers in zip(metrics, reported):
        if numbers:
            row = {"run": str(values["run"])}
            for key in keys:
                row[f"reported {titles[key]}"] = _cell(key, numbers.get(key))
                row[titles[key]] = _cell(key, _lookup(key, values))
            rows.append(row)
    return rows


def _lookup(key: str, values: Mapping):
    if key == "gflops":
        return 2 * values["gmacs"]
    if key == "ms_per_image":
        return values["latency_ms"]["1"]["median"]
    if key == "ms_per_batch":
        size = max(values["latency_ms"], key=int)
        return f"{values['latency_ms'][size]['median']:.1f} ({size})"
    return values[key]


def _cell(key: str, value) -> str:
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
    if key == "ms_per_image":
        return f"{value:.2f}"
    if key == "loss":
        return f"{value:.4f}"
    if key in ("images_per_second", "peak_memory_mb"):
        return f"{value:.0f}"
    return str(value)
