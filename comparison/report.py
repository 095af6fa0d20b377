"""The report over several runs: tables, tests, figures, written into one folder."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from common import documents
from common.config_files import differing_values
from common.console import print_result, print_table
from common.documents import Section, format_interval
from common.runs import Folder, Run, comparison_folder
from comparison import tables
from comparison.caveats import WEIGHTS, Caveat, caveats
from comparison.entries import Entry, check_comparable, group_by_seed, hardware_of, read_entry, size_of
from comparison.illustrations import draw
from comparison.significance import compare_pairs, rule_notes, single_seed_remark, summarize_seeds
from evaluation.variant import Variant
from explanation.quality import report

NOT_ALIKE = (
    "Reported numbers are from other code and hardware, and may count other things: 'FLOPs' that are multiply-accumulates "
    "with the fused attention left out, say."
)

ALIKE = "The runs differ in nothing that was recorded beside what is compared."

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
    verdicts = [pair["sentence"] for pair in pairs] + [remark for remark in [single_seed_remark(pairs)] if remark]
    seeds = {name: summarize_seeds([e.metrics["accuracy"] for e in group]) for name, group in groups.items()}
    warnings = caveats(entries, groups)
    results = [describe(entry) for entry in entries]
    rows = tables.comparison_rows(results)
    reported = tables.reported_rows(results, [entry.run.config.reported for entry in entries])
    drawn = draw(entries, groups)
    sections = [
        Section(
            "Accuracy",
            table=tables.comparison_rows(results, tables.SCORES),
            figures={"accuracy.png": drawn["accuracy.png"][1]},
        ),
        *([Section("Over seeds", table=seed_rows(seeds))] if len(groups) < len(entries) else []),
        *([Section("Reported elsewhere", table=reported, findings=[NOT_ALIKE])] if reported else []),
        Section("Which differences are real?", findings=verdicts or [ONE_MODEL]),
        *caveat_sections(warnings),
        Section(
            "Cost", table=tables.comparison_rows(results, tables.COSTS), figures={"cost.png": drawn["cost.png"][1]}
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
    title = f"Comparison of {len(entries)} runs on {first['num_images']:,} images ({Variant.of(first).words})"
    written = [folder.save_figure(name, figure) for name, (figure, _) in drawn.items()]
    images = {name: folder.path(name).read_bytes() for section in sections for name in section.figures}
    stored = {key: first[key] for key in ("split", "checkpoint", "tta")} | {"runs": results, "pairs": pairs}
    written = [
        folder.save_text("report.html", documents.to_html(title, sections, images, lead=data_line(entries))),
        folder.save_text("report.md", documents.to_markdown(title, sections, lead=data_line(entries))),
        folder.save_json(
            "comparison.json", stored | {"groups": seeds, "caveats": [warning.text for warning in warnings]}
        ),
        folder.save_text("comparison.csv", documents.to_csv(rows)),
        *written,
    ]
    shown = ("run", "model", "accuracy (%)", "95 % interval (%)", "parameters (M)", "GMACs", "ms/image")
    print_table([[row[key] for key in shown] for row in rows], header=shown)
    for line in verdicts + [f"caveat: {warning.text}" for warning in warnings]:
        print(line)
    names, accuracies = [entry.name for entry in entries], [entry.metrics["accuracy"] for entry in entries]
    print_result({"runs": names, "accuracy": accuracies}, written)


def caveat_sections(found: Sequence[Caveat]) -> list[Section]:
    """One for each weight, the weightiest first."""
    if not found:
        return [Section("Before you conclude", findings=[ALIKE])]
    titles = {weight: f"Before you conclude: {weight[0].lower()}{weight[1:]}" for weight in WEIGHTS}
    grouped = {weight: [caveat.text for caveat in found if caveat.weight == weight] for weight in WEIGHTS}
    return [Section(titles[weight], findings=texts) for weight, texts in grouped.items() if texts]


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
    return [
        f"The same {first['num_images']:,} images for every run, checked by a hash of labels, positions and file names: "
        f"{first['fingerprint'][:12]}.",
        "95 % interval of an accuracy: Wilson.",
        *rule_notes([len(group) for group in groups.values()]),
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
            "standard deviation (points)": documents.NO_VALUE if found["std"] is None else f"{100 * found['std']:.2f}",
            "95 % interval of the mean (%)": documents.NO_VALUE
            if found["mean_ci95"] is None
            else format_interval(found["mean_ci95"], unit=""),
        }
        for name, found in seeds.items()
    ]


def setting_rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """Config keys in which the runs differ, a row each."""
    differing = differing_values([entry.run.config for entry in entries])
    differing.pop("name", None)
    return [
        {"key": key}
        | {e.name: documents.NO_VALUE if value is None else str(value) for e, value in zip(entries, values)}
        for key, values in differing.items()
    ]


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
        folder.save_figure("explanations.png", report.statistics_figure(results))
        sections.append(report.section(results, arrays, ["explanations.png"]))
    return sections


def _own_figures(entries: Sequence[Entry], folder: Folder, suffix: str) -> dict[str, str]:
    """Confusion matrix and accuracy by class of each run, where it has them: path relative to the report -> caption."""
    kinds = {
        "confusion_matrix": "Confusion matrix",
        "per_class_accuracy": "Accuracy by class",
        "embedding": "Features before the classifier (t-SNE)",
    }
    return {
        os.path.relpath(path, folder.directory): f"{kinds[kind]} of {entry.name}."
        for entry in entries
        for kind in kinds
        if (path := entry.run.path(f"figures/{kind}{suffix}.png")).is_file()
    }


def _weights(run: Run) -> str | None:
    """Which pretrained weights a run started from, and under which licence."""
    source = run.read_json("environment.json").get("pretrained")
    return source and f"{source['corpus']}, licence {source['license'] or 'unknown'}, SHA-256 {source['sha256'][:12]}"
