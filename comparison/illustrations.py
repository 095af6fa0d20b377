"""The figures of a comparison, each with a caption."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from comparison import figures
from comparison.entries import Comparison, Entry
from comparison.pareto import accuracy_against_cost
from comparison.significance import accuracy_interval, class_differences
from comparison.training_sizes import draw_curves, find_curves
from data import Split, load_dataset
from evaluation import figures as evaluation_figures
from evaluation.confidence import risk_curve
from evaluation.corruptions import SEVERITIES, by_severity
from evaluation.metrics import confusion_counts, per_class_accuracy
from evaluation.predictions import Predictions


def draw(comparison: Comparison) -> dict[str, tuple[Figure, str]]:
    """File name -> figure and caption."""
    entries, groups, seeded = comparison.entries, comparison.groups, comparison.seeded
    return (
        {"accuracy.png": _draw_accuracy(comparison)}
        | {"per_class_accuracy.png": _draw_classes(comparison)}
        | _draw_differences(comparison)
        | {"confusion.png": _draw_confusion(comparison)}
        | _draw_disagreements(comparison)
        | {"cost.png": _draw_cost(groups, seeded=seeded), "overview.png": _draw_overview(entries)}
        | {"risk_coverage.png": _draw_risk(groups, seeded=seeded)}
        | _draw_corruptions(comparison)
        | {"curves.png": _draw_curves(comparison)}
        | _draw_targets(entries)
        | _draw_training_sizes(entries)
    )


def _draw_accuracy(comparison: Comparison) -> tuple[Figure, str]:
    if comparison.seeded:
        accuracies = [[entry.metrics["accuracy"] for entry in group] for group in comparison.groups.values()]
        figure = figures.grouped_accuracy(list(comparison.groups), accuracies)
        return figure, "Accuracy of every seed, with mean and standard deviation over the seeds of a model."
    metrics = [entry.metrics for entry in comparison.entries]
    figure = figures.comparison_bars(
        [entry.name for entry in comparison.entries],
        [values["accuracy"] for values in metrics],
        intervals=np.array([values["accuracy_ci95"] for values in metrics]),
        ylabel="accuracy, 95 % interval",
        percent=True,
    )
    caption = (
        "Accuracy of each run with its 95 % interval (Wilson), over images. Overlapping intervals do not mean that two runs "
        "are equally good: they were tested on the same images, and their difference has its own interval."
    )
    return figure, caption


def _draw_overview(entries: Sequence[Entry]) -> tuple[Figure, str]:
    metrics = [entry.metrics for entry in entries]
    accuracy, intervals = [m["accuracy"] for m in metrics], np.array([m["accuracy_ci95"] for m in metrics])
    quantities = {
        f"{metrics[0]['split']} accuracy": (accuracy, intervals, True),
        "top-1 error": ([m["top1_error"] for m in metrics], 1 - intervals[:, ::-1], True),
        "model size (M parameters)": ([m["params"] / 1e6 for m in metrics], None, False),
        "forward pass (GFLOPs)": ([2 * m["gmacs"] for m in metrics], None, False),
        "inference time (ms/image, batch 1)": ([m["latency_ms"]["1"]["median"] for m in metrics], None, False),
        "training time (min)": ([entry.training["seconds"] / 60 for entry in entries], None, False),
    }
    figure = figures.overview([entry.name for entry in entries], quantities)
    caption = (
        "Every run at a glance: accuracy and error with 95 % intervals, size, FLOPs (two for a multiply-accumulate), "
    )
    return figure, caption + "median inference time, and what training took."


def _draw_classes(comparison: Comparison) -> tuple[Figure, str]:
    names = comparison.entries[0].class_names
    accuracies = {
        model: per_class_accuracy(group[0].predictions, len(names)) for model, group in comparison.groups.items()
    }
    caption = "Accuracy of each class with its 95 % interval (Wilson)."
    caption += " By the first seed of each model." if comparison.seeded else ""
    return figures.per_class_accuracy(accuracies, names), caption


def _draw_curves(comparison: Comparison) -> tuple[Figure, str]:
    logs = {entry.name: _columns(entry.run.read_log()) for entry in comparison.entries}
    caption = (
        "Loss, accuracy and learning rate by epoch. Where labels are smoothed or mixed, the training loss is of those labels, "
        "and the validation loss of the true ones."
    )
    return figures.overlaid_curves(logs, models=comparison.models), caption + _one_colour(comparison)


def _one_colour(comparison: Comparison) -> str:
    return " The seeds of a model share its colour." if comparison.seeded and comparison.models else ""


def _draw_confusion(comparison: Comparison) -> tuple[Figure, str]:
    names = comparison.entries[0].class_names
    counts = {
        model: sum(confusion_counts(entry.predictions, len(names)) for entry in group)
        for model, group in comparison.groups.items()
    }
    caption = "How often a true class (row) is taken for another (column): images, and their share of the true class. "
    caption += "Colours are linear in the share." + (" Counts of all seeds together." if comparison.seeded else "")
    return evaluation_figures.confusion_matrices(counts, names), caption


def _draw_cost(groups: Mapping[str, Sequence[Entry]], *, seeded: bool) -> tuple[Figure, str]:
    """Accuracy against cost, a point per model, since seeds of one network have the same cost."""

    def means(read: Callable[[dict], object]) -> np.ndarray:
        return np.array([np.mean([read(entry.metrics) for entry in group], axis=0) for group in groups.values()])

    costs = {
        "GMACs": means(lambda m: m["gmacs"]),
        "ms per image, batch 1": means(lambda m: m["latency_ms"]["1"]["median"]),
        "parameters (M)": means(lambda m: m["params"] / 1e6),
    }
    accuracy = means(lambda m: m["accuracy"])
    hits = [np.stack([entry.predictions.correct for entry in group]) for group in groups.values()]
    intervals = np.array([accuracy_interval(found) for found in hits])
    caption = "Accuracy against cost; the line joins the models that no other beats in both (Pareto front)."
    caption += (
        " A model with several seeds is drawn at their mean, with the interval of that mean over images and seeds."
        if seeded
        else ""
    )
    return accuracy_against_cost(list(groups), accuracy, intervals, costs), caption


def _draw_risk(groups: Mapping[str, Sequence[Entry]], *, seeded: bool) -> tuple[Figure, str]:
    curves = {
        name: np.mean([risk_curve(entry.predictions) for entry in group], axis=0) for name, group in groups.items()
    }
    caption = "Errors among the most confident images, as fewer are kept. Lower is better; a line that falls to the left shows "
    caption += "that errors have lower confidence." + (" Means over the seeds of a model." if seeded else "")
    return evaluation_figures.risk_coverage(curves), caption


def _draw_targets(entries: Sequence[Entry]) -> dict[str, tuple[Figure, str]]:
    """Epochs until training reached its target accuracy, if the runs have the same target."""
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


def _draw_training_sizes(entries: Sequence[Entry]) -> dict[str, tuple[Figure, str]]:
    curves = find_curves(entries)
    caption = "Test accuracy against the number of training images; bands are 95 % intervals."
    return {"training_sizes.png": (draw_curves(curves), caption)} if curves else {}


def _draw_corruptions(comparison: Comparison) -> dict[str, tuple[Figure, str]]:
    tested = [entry for entry in comparison.entries if entry.corruptions]
    if not tested:
        return {}
    figure = evaluation_figures.accuracy_against_severity(
        {entry.name: by_severity(entry.corruptions, "accuracy") for entry in tested},
        SEVERITIES,
        {entry.name: entry.metrics["accuracy"] for entry in tested},
        intervals={entry.name: by_severity(entry.corruptions, "accuracy_ci95") for entry in tested},
        clean_intervals={entry.name: entry.metrics["accuracy_ci95"] for entry in tested},
        models=comparison.models,
    )
    caption = "Accuracy under corruptions of growing severity, with 95 % intervals; 0 is the clean image."
    caption += _one_colour(comparison)
    missing = [entry.name for entry in comparison.entries if not entry.corruptions]
    caption += f" Not evaluated with --corrupt: {', '.join(missing)}." if missing else ""
    return {"corruptions.png": (figure, caption)}


def _draw_differences(comparison: Comparison) -> dict[str, tuple[Figure, str]]:
    """Accuracy of every model minus that of the reference in each class, for the first seed of each model."""
    if len(comparison.groups) < 2:
        return {}
    reference = comparison.groups[comparison.reference][0]
    labels, names = reference.predictions.labels, reference.class_names
    differences = {
        model: class_differences(group[0].predictions.correct, reference.predictions.correct, labels, len(names))
        for model, group in comparison.groups.items()
        if model != comparison.reference
    }
    caption = (
        f"Accuracy minus that of {comparison.reference} in each class, with simultaneous 95 % intervals for all classes of a "
        "panel."
    )
    caption += " For the first seed of each model." if comparison.seeded else ""
    figure = figures.per_class_differences(differences, names, reference=comparison.reference)
    return {"class_differences.png": (figure, caption)}


def _draw_disagreements(comparison: Comparison) -> dict[str, tuple[Figure, str]]:
    """Images that some runs get right and others wrong; the runs take turns in being right."""
    entries = comparison.firsts
    positions = disagreements([entry.predictions for entry in entries])
    if not len(positions):
        return {}
    split = load_images(entries[0])
    names, captions = entries[0].class_names, []
    for i in positions:
        lines = [(f"{split.name}-{i}: {names[split.labels[i]]}", None)]
        for entry in entries:
            guess = names[entry.predictions.predicted[i]]
            lines.append((f"{entry.name}: {guess}", bool(entry.predictions.correct[i])))
        captions.append(lines)
    images = [split.image(int(i)).permute(1, 2, 0).numpy() for i in positions]  # 3 H W -> H W 3
    caption = "Images that one run gets right and another wrong. The runs take turns in being right, the clearest cases first. "
    caption += "Below each image: its true class, then each run's prediction."
    caption += " The first seed of each model." if comparison.seeded and len(comparison.groups) > 1 else ""
    return {"disagreements.png": (evaluation_figures.image_grid(images, captions), caption)}


def load_images(entry: Entry) -> Split:
    """The images that the run was evaluated on. Raises ValueError if they have changed since."""
    data = entry.run.config.data
    dataset = load_dataset(data, seed=data.split_seed)
    split = dataset.split(entry.metrics["split"])
    dataset.check_images({split.name: entry.metrics["fingerprint"]})
    return split


def disagreements(predictions: Sequence[Predictions], limit: int = 15) -> np.ndarray:
    """Positions of images that some runs get right and others wrong; the runs take turns, the clearest cases first.

    A case is clear if the run that is right gives the true class a high probability, and one that is wrong a low one.
    """
    correct = np.stack([p.correct for p in predictions])
    rows = np.arange(correct.shape[1])
    truth = np.stack([p.probabilities[rows, p.labels] for p in predictions])
    apart = correct.any(axis=0) & ~correct.all(axis=0)
    lowest = np.where(correct, np.inf, truth).min(axis=0)  # among the runs that are wrong
    queues = []
    for own, hits in zip(truth, correct):
        cases = np.flatnonzero(apart & hits)
        queues.append(deque(cases[np.argsort(lowest[cases] - own[cases], kind="stable")].tolist()))
    chosen: dict[int, None] = {}
    while any(queues) and len(chosen) < limit:
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.popleft()
            if queue:
                chosen[queue.popleft()] = None
    return np.array(list(chosen)[:limit], dtype=int)


def _columns(log: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Rows -> columns."""
    return {key: [row[key] for row in log] for key in log[0]} if log else {}
