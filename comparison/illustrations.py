"""Evaluated runs -> the figures of their comparison, each with a caption."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from comparison import figures
from comparison.entries import Entry
from comparison.significance import class_differences
from data import load_dataset
from evaluation import figures as evaluation_figures
from evaluation.corruptions import SEVERITIES, by_severity
from evaluation.predictions import Predictions


def draw(entries: Sequence[Entry], groups: Mapping[str, Sequence[Entry]]) -> dict[str, tuple[Figure, str]]:
    """File name -> figure and caption."""
    names = [entry.name for entry in entries]
    metrics = [entry.metrics for entry in entries]
    accuracy = [values["accuracy"] for values in metrics]
    intervals = np.array([values["accuracy_ci95"] for values in metrics])
    latency = [values["latency_ms"]["1"]["median"] for values in metrics]
    params = [values["params"] / 1e6 for values in metrics]
    seeded = len(groups) < len(entries)
    drawn = {
        "accuracy.png": (
            figures.comparison_bars(
                names, accuracy, intervals=intervals, ylabel="accuracy, 95 % interval", percent=True
            ),
            "Accuracy with its 95 % Wilson interval.",
        ),
        "cost.png": _draw_cost(groups, seeded=seeded),
        "overview.png": (
            figures.overview(
                names,
                {
                    f"{metrics[0]['split']} accuracy": (accuracy, intervals, True),
                    "top-1 error": ([m["top1_error"] for m in metrics], 1 - intervals[:, ::-1], True),
                    "model size (M parameters)": (params, None, False),
                    "inference time (ms/image, batch 1)": (latency, None, False),
                },
            ),
            "Accuracy, error, size and inference time.",
        ),
        "curves.png": (
            figures.overlaid_curves({entry.name: _columns(entry.run.read_log()) for entry in entries}),
            "Training curves: loss, accuracy and learning rate by epoch.",
        ),
    }
    if seeded:
        seeds = [[entry.metrics["accuracy"] for entry in group] for group in groups.values()]
        drawn["seeds.png"] = (
            figures.grouped_accuracy(list(groups), seeds),
            "Accuracy of every seed, with mean and standard deviation.",
        )
    drawn |= (
        _draw_targets(entries)
        | _draw_corruptions(entries)
        | _draw_differences(groups, seeded=seeded)
        | _draw_disagreements(entries)
    )
    return drawn


def _draw_cost(groups: Mapping[str, Sequence[Entry]], *, seeded: bool) -> tuple[Figure, str]:
    """Accuracy against cost, a point per model: two runs of one network differ in nothing that a front could tell."""

    def means(read: Callable[[dict], object]) -> np.ndarray:
        return np.array([np.mean([read(entry.metrics) for entry in group], axis=0) for group in groups.values()])

    costs = {
        "GMACs": means(lambda m: m["gmacs"]),
        "ms per image, batch 1": means(lambda m: m["latency_ms"]["1"]["median"]),
        "parameters (M)": means(lambda m: m["params"] / 1e6),
    }
    accuracy, intervals = means(lambda m: m["accuracy"]), means(lambda m: m["accuracy_ci95"])
    caption = "Accuracy against cost; the line joins the models that no other beats in both (Pareto front)."
    caption += " A model of several seeds stands at their mean, with the mean of their intervals." if seeded else ""
    return figures.accuracy_against_cost(list(groups), accuracy, intervals, costs), caption


def _draw_targets(entries: Sequence[Entry]) -> dict[str, tuple[Figure, str]]:
    """Epochs to the validation accuracy at which training was to stop, where runs share such a target."""
    aiming = [entry for entry in entries if entry.training.get("target") is not None]
    targets = {round(entry.training["target"], 6) for entry in aiming}
    if len(targets) != 1:
        return {}
    figure = figures.epochs_to_target(
        [entry.name for entry in aiming],
        [entry.training["epochs_run"] for entry in aiming],
        [entry.training["stopped_because"] == "target_reached" for entry in aiming],
        target=targets.pop(),
    )
    return {"epochs_to_target.png": (figure, "Epochs of training until the validation accuracy reached the target.")}


def _draw_corruptions(entries: Sequence[Entry]) -> dict[str, tuple[Figure, str]]:
    tested = [entry for entry in entries if entry.corruptions]
    if not tested:
        return {}
    figure = evaluation_figures.accuracy_against_severity(
        {entry.name: by_severity(entry.corruptions, "accuracy") for entry in tested},
        SEVERITIES,
        {entry.name: entry.metrics["accuracy"] for entry in tested},
        intervals={entry.name: by_severity(entry.corruptions, "accuracy_ci95") for entry in tested},
        clean_intervals={entry.name: entry.metrics["accuracy_ci95"] for entry in tested},
    )
    caption = "Accuracy under corruptions of growing severity, with 95 % intervals; 0 is the clean image."
    missing = [entry.name for entry in entries if not entry.corruptions]
    caption += f" Not evaluated with --corrupt: {', '.join(missing)}." if missing else ""
    return {"corruptions.png": (figure, caption)}


def _draw_differences(groups: Mapping[str, Sequence[Entry]], *, seeded: bool) -> dict[str, tuple[Figure, str]]:
    """Accuracy of every model less that of the first, class by class, each by the first of its seeds."""
    reference, *others = [group[0] for group in groups.values()]
    first = reference.name
    labels, drawn = reference.predictions.labels, {}
    for number, entry in enumerate(others, 1):
        hits = entry.predictions.correct, reference.predictions.correct
        differences, intervals = class_differences(*hits, labels, len(entry.class_names))
        figure = figures.per_class_differences(differences, intervals, entry.class_names, names=(entry.name, first))
        caption = (
            f"Accuracy of {entry.name} less that of {first}, class by class, with intervals that hold for all classes at "
            "once with 95 %."
        )
        caption += " One seed of each model." if seeded else ""
        drawn[f"class_differences-{number}.png"] = (figure, caption)
    return drawn


def _draw_disagreements(entries: Sequence[Entry], limit: int = 15) -> dict[str, tuple[Figure, str]]:
    """Images that some runs get right and others wrong, those first on which they are surest of their different minds."""
    positions = disagreements([entry.predictions for entry in entries])[:limit]
    if not len(positions):
        return {}
    data = entries[0].run.config.data
    dataset = load_dataset(data, seed=data.split_seed)
    split = dataset.split(entries[0].metrics["split"])
    if not split.has_fingerprint(entries[0].metrics["fingerprint"]):
        raise ValueError(
            f"{data.root} holds other {split.name} images than {entries[0].run.directory} was evaluated on; evaluate it anew"
        )
    captions = []
    for i in positions:
        lines = [(f"{split.name}-{i}: {entries[0].class_names[split.labels[i]]}", None)]
        for entry in entries:
            predicted = entry.predictions.predicted[i]
            lines.append((f"{entry.name}: {entry.class_names[predicted]}", bool(entry.predictions.correct[i])))
        captions.append(lines)
    images = [split.image(int(i)).permute(1, 2, 0).numpy() for i in positions]  # 3 H W -> H W 3
    return {
        "disagreements.png": (
            evaluation_figures.image_grid(images, captions),
            "Images that one run gets right and another wrong.",
        )
    }


def disagreements(predictions: Sequence[Predictions]) -> np.ndarray:
    """Positions of images that some get right and others wrong, by the spread of the true class's probability."""
    correct = np.stack([p.correct for p in predictions])
    rows = np.arange(correct.shape[1])
    truth = np.stack([p.probabilities[rows, p.labels] for p in predictions])
    split = np.flatnonzero(correct.any(axis=0) & ~correct.all(axis=0))
    return split[np.argsort(-np.ptp(truth, axis=0)[split], kind="stable")]


def _columns(log: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Rows -> columns."""
    return {key: [row[key] for row in log] for key in log[0]} if log else {}
