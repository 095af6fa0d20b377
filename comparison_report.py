"""The report over several runs: tables, tests, figures, written into one folder."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from analysis import comparison_figures, explanation_report, figures, report
from analysis.metrics import Predictions
from analysis.report import Section, format_interval
from analysis.statistics import compare_pairs, paired_difference, summarize_seeds
from comparison import (
    Entry,
    caveats,
    check_comparable,
    evaluated_on,
    group_by_seed,
    hardware_of,
    read_entry,
    short,
    size_of,
)
from config import differing_values
from console import print_result, print_table
from corruptions import SEVERITIES, by_severity
from data import load_dataset
from runs import Folder, Run, comparison_folder

NOT_ALIKE = (
    "Reported numbers are from other code and hardware, and may count other things: 'FLOPs' that are multiply-accumulates "
    "with the fused attention left out, say."
)

ONE_MODEL = "There is nothing to test: all runs are seeds of one model."


def compare(runs: Sequence[Run], suffix: str, output: Path | None) -> None:
    """Report over runs that have been evaluated, from the files that carry ``suffix`` in their names.

    Raises ValueError if the runs cannot be compared.
    """
    entries = [read_entry(run, suffix) for run in runs]
    check_comparable(entries)
    groups = group_by_seed(entries)
    folder = comparison_folder(runs, output, suffix)
    hits = [np.stack([entry.predictions.correct for entry in group]) for group in groups.values()]
    pairs = compare_pairs(list(groups), hits)
    seeds = {name: summarize_seeds([e.metrics["accuracy"] for e in group]) for name, group in groups.items()}
    warnings = caveats(entries, groups)
    results = [describe(entry) for entry in entries]
    rows = report.comparison_rows(results)
    reported = report.reported_rows(results, [entry.run.config.reported for entry in entries])
    drawn = draw(entries, groups)
    sections = [
        Section(
            "Accuracy",
            table=report.comparison_rows(results, report.SCORES),
            figures={"accuracy.png": drawn["accuracy.png"][1]},
        ),
        *([Section("Over seeds", table=seed_rows(seeds))] if len(groups) < len(entries) else []),
        *([Section("Reported elsewhere", table=reported, findings=[NOT_ALIKE])] if reported else []),
        Section("Which differences are real?", findings=[pair["sentence"] for pair in pairs] or [ONE_MODEL]),
        Section("Before you conclude", findings=warnings),
        Section(
            "Cost", table=report.comparison_rows(results, report.COSTS), figures={"cost.png": drawn["cost.png"][1]}
        ),
        Section(
            "Figures",
            figures={k: caption for k, (_, caption) in drawn.items() if k not in ("accuracy.png", "cost.png")},
        ),
        *_explanations(entries, folder),
        Section("Each run", figures=_own_figures(entries, folder, suffix)),
        Section("What the runs differ in", table=setting_rows(entries)),
        Section("How it was computed", findings=notes(entries, groups)),
    ]
    first = entries[0].metrics
    title = f"Comparison of {len(entries)} runs on {first['num_images']:,} images ({evaluated_on(first)})"
    written = [folder.save_figure(name, figure) for name, (figure, _) in drawn.items()]
    images = {name: folder.path(name).read_bytes() for section in sections for name in section.figures}
    stored = {key: first[key] for key in ("split", "checkpoint", "tta")} | {"runs": results, "pairs": pairs}
    written = [
        folder.save_text("report.html", report.to_html(title, sections, images, lead=data_line(entries))),
        folder.save_text("report.md", report.to_markdown(title, sections, lead=data_line(entries))),
        folder.save_json("comparison.json", stored | {"groups": seeds, "caveats": warnings}),
        folder.save_text("comparison.csv", report.to_csv(rows)),
        *written,
    ]
    shown = ("run", "model", "accuracy (%)", "95 % interval (%)", "parameters (M)", "GMACs", "ms/image")
    print_table([[row[key] for key in shown] for row in rows], header=shown)
    for line in [pair["sentence"] for pair in pairs] + [f"caveat: {warning}" for warning in warnings]:
        print(line)
    names, accuracies = [entry.name for entry in entries], [entry.metrics["accuracy"] for entry in entries]
    print_result({"runs": names, "accuracy": accuracies}, written)


def data_line(entries: Sequence[Entry]) -> str:
    """The data set, its classes and how many images it has."""
    first = entries[0]
    data = first.run.config.data
    name = data.dataset if data.dataset != "imagefolder" else f"{Path(data.root).name} ({data.dataset})"
    trained = sorted({entry.training["num_images"]["train"] for entry in entries})
    count = f"{trained[0]:,}" if len(trained) == 1 else f"{trained[0]:,} to {trained[-1]:,}"
    return (
        f"Data set {name}: {len(first.class_names)} classes, {count} training images, "
        f"{first.training['num_images']['test']:,} test images."
    )


def notes(entries: Sequence[Entry], groups: Mapping[str, Sequence[Entry]]) -> list[str]:
    first = entries[0].metrics
    kinds = dict.fromkeys(f"{hardware_of(e.metrics)}, attention {e.metrics['attention_kernel']}" for e in entries)
    several = any(len(group) > 1 for group in groups.values())
    pairs = len(groups) * (len(groups) - 1) // 2
    return [
        f"The same {first['num_images']:,} images for every run, checked by a hash of labels, positions and file names: "
        f"{first['fingerprint'][:12]}.",
        "95 % interval of an accuracy: Wilson. Between two runs: paired bootstrap of the difference, and McNemar's test (exact "
        "up to 50 images on which they disagree, chi-square with continuity correction beyond).",
        *(["Between models of several seeds: Welch's t-test over their accuracies."] if several else []),
        *([f"p-values are corrected after Holm for all {pairs} pairs."] if pairs > 1 else []),
        "GMACs: multiply-accumulates of one image by fvcore with attention counted, whatever kernel computes it; GFLOPs are "
        "twice that. Reports that skip the fused kernel print the figure beside it.",
        "Calibration error: 15 bins of equal width, before temperature scaling.",
        f"Milliseconds: median, batch as stated (ms/image: batch 1), on {' and '.join(kinds)}.",
        *([f"Memory: {first['peak_memory_kind']}, its peak in evaluation."] if first["peak_memory_kind"] else []),
        *[f"Pretrained weights of {entry.name}: {_weights(entry.run)}." for entry in entries if _weights(entry.run)],
    ]


# ---------------------------------------------------------------- how it is shown


def describe(entry: Entry) -> dict:
    """What the table shows of a run."""
    return (
        {"run": entry.name, "model": entry.run.config.model.name}
        | entry.metrics
        | {"image_size": size_of(entry.metrics)}
    )


def seed_rows(seeds: Mapping[str, dict]) -> list[dict[str, str]]:
    return [
        {
            "model": name,
            "runs": str(found["n"]),
            "mean accuracy (%)": f"{100 * found['mean']:.2f}",
            "standard deviation (points)": report.NO_VALUE if found["std"] is None else f"{100 * found['std']:.2f}",
            "95 % interval of the mean (%)": report.NO_VALUE
            if found["std"] is None
            else format_interval(found["mean_ci95"], unit=""),
        }
        for name, found in seeds.items()
    ]


def setting_rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """Config keys in which the runs differ, a row each."""
    differing = differing_values([entry.run.config for entry in entries])
    differing.pop("name", None)
    return [
        {"key": key} | {e.name: report.NO_VALUE if value is None else short(value) for e, value in zip(entries, values)}
        for key, values in differing.items()
    ]


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
            comparison_figures.comparison_bars(
                names, accuracy, intervals=intervals, ylabel="accuracy, 95 % interval", percent=True
            ),
            "Accuracy with its 95 % Wilson interval.",
        ),
        "cost.png": _draw_cost(groups, seeded=seeded),
        "overview.png": (
            comparison_figures.overview(
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
            comparison_figures.overlaid_curves({entry.name: _columns(entry.run.read_log()) for entry in entries}),
            "Training curves: loss, accuracy and learning rate by epoch.",
        ),
    }
    if seeded:
        seeds = [[entry.metrics["accuracy"] for entry in group] for group in groups.values()]
        drawn["seeds.png"] = (
            comparison_figures.grouped_accuracy(list(groups), seeds),
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
    return comparison_figures.accuracy_against_cost(list(groups), accuracy, intervals, costs), caption


def _draw_targets(entries: Sequence[Entry]) -> dict[str, tuple[Figure, str]]:
    """Epochs to the validation accuracy at which training was to stop, where runs share such a target."""
    aiming = [entry for entry in entries if entry.training.get("target") is not None]
    targets = {round(entry.training["target"], 6) for entry in aiming}
    if len(targets) != 1:
        return {}
    figure = comparison_figures.epochs_to_target(
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
    figure = comparison_figures.accuracy_against_severity(
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
        differences = np.full(len(entry.class_names), np.nan)
        intervals = np.full((len(entry.class_names), 2), np.nan)
        for k in np.unique(labels):
            chosen = labels == k
            differences[k], intervals[k] = paired_difference(
                entry.predictions.correct[chosen], reference.predictions.correct[chosen]
            )
        figure = comparison_figures.per_class_differences(
            differences, intervals, entry.class_names, names=(entry.name, first)
        )
        caption = (
            f"Accuracy of {entry.name} less that of {first}, class by class, with paired-bootstrap 95 % intervals."
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
    dataset.check_images({split.name: entries[0].metrics["fingerprint"]})
    captions = []
    for i in positions:
        lines = [(f"{split.name}-{i}: {entries[0].class_names[split.labels[i]]}", None)]
        for entry in entries:
            predicted = entry.predictions.predicted[i]
            lines.append((f"{entry.name}: {entry.class_names[predicted]}", bool(entry.predictions.correct[i])))
        captions.append(lines)
    images = [split.image(int(i)).permute(1, 2, 0).numpy() for i in positions]  # 3 H W -> H W 3
    return {
        "disagreements.png": (figures.image_grid(images, captions), "Images that one run gets right and another wrong.")
    }


def _explanations(entries: Sequence[Entry], folder: Folder) -> list[Section]:
    """What gradcam.py found: its grids in the folder of the comparison, and its numbers where all runs have them."""
    grids = {path.name: "What the models look at." for path in sorted(folder.directory.glob("grid-*.png"))}
    sections = [Section("What the models look at", figures=grids)] if grids else []
    runs = [entry.run for entry in entries]
    if not all(run.path("gradcam/statistics.npz").is_file() for run in runs):
        return sections
    results = [run.read_json("gradcam/statistics.json") for run in runs]
    alike = [[result[key] for key in ("split", "num_images", "seed", "methods")] for result in results]
    if all(sample == alike[0] for sample in alike):  # else no image is explained by all
        keys = [f"{method}/insertion_blur" for method in ("random", *results[0]["methods"])]
        arrays = [run.load_arrays("gradcam/statistics.npz", ["indices", "labels", *keys]) for run in runs]
        folder.save_figure("explanations.png", explanation_report.statistics_figure(results))
        sections.append(explanation_report.section(results, arrays, ["explanations.png"]))
    return sections


def _own_figures(entries: Sequence[Entry], folder: Folder, suffix: str) -> dict[str, str]:
    """Confusion matrix and accuracy by class of each run, where it has them: path relative to the report -> caption."""
    kinds = {"confusion_matrix": "Confusion matrix", "per_class_accuracy": "Accuracy by class"}
    return {
        os.path.relpath(path, folder.directory): f"{kinds[kind]} of {entry.name}."
        for entry in entries
        for kind in kinds
        if (path := entry.run.path(f"figures/{kind}{suffix}.png")).is_file()
    }


def disagreements(predictions: Sequence[Predictions]) -> np.ndarray:
    """Positions of images that some get right and others wrong, by the spread of the true class's probability."""
    correct = np.stack([p.correct for p in predictions])
    rows = np.arange(correct.shape[1])
    truth = np.stack([p.probabilities[rows, p.labels] for p in predictions])
    split = np.flatnonzero(correct.any(axis=0) & ~correct.all(axis=0))
    return split[np.argsort(-np.ptp(truth, axis=0)[split], kind="stable")]


def _weights(run: Run) -> str | None:
    """Which pretrained weights a run started from, and under which licence."""
    source = run.read_json("environment.json").get("pretrained")
    return source and f"{source['corpus']}, licence {source['license'] or 'unknown'}, SHA-256 {source['sha256'][:12]}"


def _columns(log: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Rows -> columns."""
    return {key: [row[key] for row in log] for key in log[0]} if log else {}
