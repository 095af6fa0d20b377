"""Several runs -> one table, as Markdown and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence

COLUMNS = {
    "run": "run",
    "model": "model",
    "image_size": "image size",
    "accuracy": "accuracy (%)",
    "accuracy_ci95": "95 % interval (%)",
    "top1_error": "top-1 error (%)",
    "top5_accuracy": "top-5 (%)",
    "macro_f1": "macro F1 (%)",
    "params": "parameters (M)",
    "gmacs": "GMACs",
    "latency_ms": "ms at batch 1",
    "images_per_second": "images/s",
    "corpus": "pretrained on",
}
PERCENT = ("accuracy", "top1_error", "top5_accuracy", "macro_f1")


def comparison_rows(metrics: Sequence[Mapping]) -> list[dict[str, str]]:
    """One row of readable cells per run, from ``metrics.json`` with ``run``, ``model``, ``image_size`` and ``corpus``."""
    return [{title: _cell(key, values[key]) for key, title in COLUMNS.items()} for values in metrics]


def to_csv(rows: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def to_markdown(
    title: str,
    rows: Sequence[Mapping[str, str]],
    findings: Sequence[str],
    notes: Sequence[str],
    figures: Sequence[str],
) -> str:
    """A report: table, findings, how they were computed, figures (paths relative to the report)."""
    lines = [f"# {title}", "", _markdown_row(rows[0].keys()), _markdown_row("---" for _ in rows[0])]
    lines += [_markdown_row(row.values()) for row in rows]
    lines += ["", "## Which differences are real?", "", *[f"- {finding}" for finding in findings]]
    lines += ["", "## How it was computed", "", *[f"- {note}" for note in notes], ""]
    lines += [f"![{figure}]({figure})" for figure in figures]
    return "\n".join(lines) + "\n"


def _markdown_row(cells) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(key: str, value) -> str:
    if value is None:
        return "-"
    if key in PERCENT:
        return f"{100 * value:.2f}"
    if key == "accuracy_ci95":
        return f"{100 * value[0]:.2f} to {100 * value[1]:.2f}"
    if key == "params":
        return f"{value / 1e6:.2f}"
    if key == "gmacs":
        return f"{value:.3g}"
    if key == "latency_ms":
        return f"{value['1']['median']:.2f}"
    if key == "images_per_second":
        return f"{value:.0f}"
    return str(value)
