"""Further parts of a comparison: other scores, error consistency, robustness to corruptions, and cost of training."""

from collections.abc import Mapping, Sequence

import numpy as np

from common.documents import NO_VALUE
from comparison.entries import Comparison, Entry
from comparison.significance import Hits, compare_pairs, error_consistency, two_way_difference
from evaluation.corruptions import CORRUPTIONS, SEVERITIES
from evaluation.reported import epochs_to_target
from evaluation.variant import Variant

ALIKE_WORDS = (
    "Error consistency (Cohen's kappa of which images are right; Geirhos et al. 2020): 1 means the same errors, 0 as many in "
    "common as models of these accuracies would have by chance. On the diagonal: between the seeds of a model."
)


def score_rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """Further scores that are computed from predictions, a row per run."""
    return [{"run": entry.name} | _score_cells(entry.metrics) for entry in entries]


def _score_cells(metrics: Mapping) -> dict[str, str]:
    def number(value: float | None, scale: float = 1, digits: int = 4) -> str:
        return NO_VALUE if value is None else f"{scale * value:.{digits}f}"

    risks, conformal = metrics.get("risk_at_coverage") or {}, metrics.get("conformal") or {}
    size = conformal.get("mean_set_size")
    return {
        "balanced accuracy (%)": number(metrics.get("balanced_accuracy"), 100, 2),
        "MCC": number(metrics.get("mcc")),
        "ROC AUC": number(metrics.get("macro_roc_auc")),
        "PR AUC": number(metrics.get("macro_pr_auc")),
        "Brier": number(metrics.get("brier")),
        "AURC": number(metrics.get("aurc")),
        "errors among the surest 80 % (%)": number(risks.get("0.8"), 100, 2),
        "classes in a 90 % set": NO_VALUE
        if size is None
        else f"{size:.2f} (holds {100 * conformal['coverage']:.1f} %)",
    }


def consistency_rows(comparison: Comparison) -> list[dict[str, str]]:
    """Error consistency within and between models, the mean over pairs of their runs."""
    if len(comparison.entries) < 2:
        return []
    kappa = error_consistency([entry.predictions.correct for entry in comparison.entries])
    places = {id(entry): place for place, entry in enumerate(comparison.entries)}

    def mean(first: Sequence[Entry], second: Sequence[Entry]) -> str:
        values = np.array([kappa[places[id(a)], places[id(b)]] for a in first for b in second if a is not b])
        values = values[np.isfinite(values)]
        return f"{values.mean():.3f}" if len(values) else NO_VALUE

    return [
        {"model": name} | {other: mean(group, members) for other, members in comparison.groups.items()}
        for name, group in comparison.groups.items()
    ]


def training_rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """The cost of training, a row per run: images seen, multiply-accumulates of their forward passes, minutes, hardware."""
    rows = []
    for entry in entries:
        training, environment = entry.training, entry.run.read_json("environment.json")
        seen = training["epochs_run"] * training["num_images"]["train"]
        rows.append(
            {
                "run": entry.name,
                "epochs": str(training["epochs_run"]),
                "images seen": f"{seen:,}",
                "forward passes (PMACs)": f"{entry.metrics['gmacs'] * seen / 1e6:.3g}",
                "training (min)": f"{training['seconds'] / 60:.1f}",
                "on": f"{environment['device']} ({environment['cpu']}), {environment['threads']} CPU threads",
            }
        )
    return rows


def progress_rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """How far training came, a row per run: accuracies of the weights that were kept, and epochs to the target if any."""
    split = entries[0].metrics["split"]
    aiming = any(entry.training.get("target") is not None for entry in entries)
    rows = []
    for entry in entries:
        training, target = entry.training, entry.training.get("target")
        best = training["best_epoch"]
        row = {
            "run": entry.name,
            "epochs": str(training["epochs_run"]),
            "kept epoch": NO_VALUE if best is None else str(best),
        }
        values = {"training": training["train_accuracy"], "validation": training["val_accuracy"]}
        for name, value in (values | {split: entry.metrics["accuracy"]}).items():
            row[f"{name} accuracy (%)"] = NO_VALUE if value is None else f"{100 * value:.2f}"
        if aiming:
            row["target (%)"] = NO_VALUE if target is None else f"{100 * target:.2f}"
            row["epochs to the target"] = epochs_to_target(training)
        rows.append(row)
    return rows


TRAINING_WORDS = (
    "Training compute: multiply-accumulates of a forward pass times images seen. If all layers are trained, the backward pass "
    "takes about twice as much in addition; with frozen layers it takes less."
)
COUNTING_WORDS = (
    "As a check, gmacs_torch in metrics.json is the count of PyTorch's own counter: only matrix products and convolutions; "
    "fvcore also counts normalisation."
)


def corrupted_hits(comparison: Comparison) -> dict[str, np.ndarray]:
    """Model -> its hits, bool S C V N (seeds, corruptions, severities, images); only models whose runs were all tested."""
    found = {}
    for name, group in comparison.groups.items():
        if all(entry.corruptions for entry in group):
            files = [f"corruptions{Variant.of(entry.metrics).suffix}.npz" for entry in group]
            hits = [_stored_hits(entry, file) for entry, file in zip(group, files)]
            found[name] = np.stack([rows[1:].reshape(len(CORRUPTIONS), len(SEVERITIES), -1) for rows in hits])
    return found


def _stored_hits(entry: Entry, file: str) -> np.ndarray:
    """Which images a run recognised, bool V N: first the clean ones, then by corruption and severity."""
    hits = entry.run.load_arrays(file, {"hits": ("b", "VN")})["hits"]
    if hits.shape != (1 + len(CORRUPTIONS) * len(SEVERITIES), len(entry.predictions.labels)):
        raise ValueError(f"{entry.run.path(file)} is of other images or corruptions; evaluate the run with --corrupt")
    return hits


def robustness(comparison: Comparison) -> tuple[list[dict[str, str]], list[str]]:
    """Rows with the mean accuracy for each corruption and differences to the reference; sentences on each pair of models."""
    hits = corrupted_hits(comparison)
    if not hits:
        return [], []
    shares = {name: values.mean(axis=2) for name, values in hits.items()}  # S C N, over severities
    reference = comparison.reference if comparison.reference in shares else next(iter(shares))
    others = [name for name in shares if name != reference]
    level = 0.05 / max(1, len(CORRUPTIONS) * len(others))
    rows = []
    for place, corruption in enumerate(CORRUPTIONS):
        row = {"corruption": corruption, f"{reference} (%)": f"{100 * shares[reference][:, place].mean():.2f}"}
        for name in others:
            pair = (Hits.of(shares[which][:, place]) for which in (name, reference))
            difference = two_way_difference(*pair)
            low, high = difference.interval(level)
            row[f"{name} (%)"] = f"{100 * shares[name][:, place].mean():.2f}"
            cell = f"{100 * difference.value:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
            row[f"{name} less {reference} (points)"] = cell
        rows.append(row)
    pairs = compare_pairs(list(shares), [values.mean(axis=1) for values in shares.values()])
    return rows, [
        f"Mean over the {len(CORRUPTIONS)} corruptions and {len(SEVERITIES)} severities, with its share of the clean accuracy: "
        + "; ".join(f"{name} {_quoted(comparison.groups[name])}" for name in shares)
        + ".",
        *[f"Over all corruptions: {pair['sentence']}" for pair in pairs],
        *(["The intervals in the table are simultaneous: all hold at once with 95 % (Bonferroni)."] if others else []),
    ]


def _quoted(group: Sequence[Entry]) -> str:
    """The mean and relative corruption accuracy of a model's first run, with their intervals."""
    entry, texts = group[0], []
    stored = entry.run.read_json(f"corruptions{Variant.of(entry.metrics).suffix}.json")
    for key in ("mean_corruption_accuracy", "relative_corruption_accuracy"):
        if stored[key] is not None:
            low, high = stored[f"{key}_ci95"]
            texts.append(f"{100 * stored[key]:.2f} % ({100 * low:.2f} to {100 * high:.2f})")
    return ", ".join(texts) + (f" by {entry.name}" if len(group) > 1 else "")


def numbers(comparison: Comparison) -> dict:
    """Error consistency and differences on corrupted images, for comparison.json."""
    kappa = error_consistency([entry.predictions.correct for entry in comparison.entries])
    plain = [[float(value) if np.isfinite(value) else None for value in row] for row in kappa]
    found = {"error_consistency": {"runs": [entry.name for entry in comparison.entries], "kappa": plain}}
    hits = corrupted_hits(comparison)
    shares = [values.mean(axis=(1, 2)) for values in hits.values()]  # S N
    return found | ({"corruption_pairs": compare_pairs(list(hits), shares)} if len(hits) > 1 else {})
