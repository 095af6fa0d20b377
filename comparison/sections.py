"""The sections of the report on several runs."""

import os
from collections.abc import Mapping, Sequence

from common.config_files import differing_values
from common.documents import NO_VALUE, Section
from common.folders import Folder
from common.runs import Run
from common.shapes import Grid
from common.stored import check, read_json
from comparison import further, tables
from comparison.caveats import WEIGHTS, Caveat
from comparison.entries import Comparison, Entry, hardware_of
from comparison.significance import rule_notes
from comparison.training_sizes import crossings, find_curves
from evaluation import explained, reported
from evaluation.tables import classification_rows, data_name
from evaluation.variant import Variant
from explanation.quality import report
from explanation.quality.verdicts import verdict

ALIKE = "Apart from what is compared, the runs differ in nothing that was recorded."
ONE_MODEL = "There is nothing to test: all runs are seeds of one model."
MAX_SENTENCES = 3  # pairs of models that are told in full; of more, those with the reference


def compose(
    comparison: Comparison,
    warnings: Sequence[Caveat],
    remark: str | None,
    captions: Mapping[str, str],
    folder: Folder,
    suffix: str,
) -> list[Section]:
    """The whole report; ``captions``: file name -> caption of the figures that exist."""

    def figure(*names: str) -> dict[str, str]:
        return {name: captions[name] for name in names if name in captions}

    entries = comparison.entries
    results = [tables.describe(entry) for entry in entries]
    sections = [
        Section("", text=headline(comparison), figures=figure("accuracy.png")),
        Section(
            "Accuracy",
            table=tables.seed_rows(comparison.seeds)
            if comparison.seeded
            else tables.comparison_rows(results, tables.SCORES),
            folded=({"Every run": tables.comparison_rows(results, tables.SCORES)} if comparison.seeded else {})
            | {"Further scores": further.score_rows(entries)},
        ),
        _differences(comparison, remark),
        _caveats(warnings),
        Section(
            "In which classes do they differ?",
            tables.class_rows(comparison),
            figures=figure("class_differences.png", "per_class_accuracy.png"),
        ),
        Section("Which classes are confused?", figures=figure("confusion.png")),
        Section("On which images do they disagree?", figures=figure("disagreements.png")),
        Section("How reliable is their confidence?", figures=figure("risk_coverage.png")),
        Section("Do they err on the same images?", further.consistency_rows(comparison), [further.ALIKE_WORDS]),
        _costs(entries, results, figure("cost.png", "overview.png")),
        Section("Accuracy on corrupted images", *further.robustness(comparison), figures=figure("corruptions.png")),
        Section(
            "How much data do they need?",
            findings=crossings(find_curves(entries)),
            figures=figure("training_sizes.png"),
        ),
        Section(
            "How were they trained?",
            further.progress_rows(entries),
            figures=figure("curves.png", "epochs_to_target.png"),
        ),
        *_explanations(entries, folder),
        *reported.sections([(entry.name, entry.run, entry.metrics) for entry in entries]),
        Section("In which settings do the runs differ?", table=setting_rows(entries)),
        _each_run(entries, folder, suffix),
        Section(
            "How it was computed", findings=notes(comparison), folded={"Provenance of each run": origin_rows(entries)}
        ),
    ]
    return [s for s in sections if s.text or s.table or s.findings or s.figures or s.folded or s.overlays]


def _costs(entries: Sequence[Entry], results: Sequence[Mapping], figures: Mapping[str, str]) -> Section:
    table = tables.comparison_rows(results, tables.COSTS)
    return Section(
        "What do they cost?", table, figures=figures, folded={"Cost of training": further.training_rows(entries)}
    )


def title_of(comparison: Comparison) -> str:
    names = list(comparison.groups)
    first = comparison.entries[0]
    if len(names) == 1:
        what = f"{len(comparison.entries)} seeds of {names[0]}"
    elif len(names) <= 4:
        what = " vs ".join(names)
    else:
        what = f"{', '.join(names[:3])} and {len(names) - 3} more"
    return f"{what} on {data_name(first.run.config)} ({Variant.of(first.metrics).words})"


def headline(comparison: Comparison) -> str:
    """The result in one sentence, with its interval."""
    best = tables.best_model(comparison.seeds)
    if len(comparison.groups) == 1:
        found, count = comparison.seeds[best], comparison.entries[0].metrics["num_images"]
        text = f"{best} reaches {100 * found['mean']:.2f} % on {count:,} images, the mean of {found['n']} seeds with a "
        text += f"standard deviation of {100 * found['std']:.2f} points"
        if found["mean_ci95"] is None:
            return f"{text}; two seeds are too few for an interval of their mean."
        return f"{text}; 95 % interval of the mean {100 * found['mean_ci95'][0]:.2f} to {100 * found['mean_ci95'][1]:.2f} %."
    means = {name: found["mean"] for name, found in comparison.seeds.items()}
    second = max((name for name in means if name != best), key=means.get)
    against = {
        ({pair["first"], pair["second"]} - {best}).pop(): pair for pair in comparison.pairs if best in _members(pair)
    }
    first = against.pop(second)
    if not against:
        return first["sentence"]
    alike, count = [name for name, pair in against.items() if not pair["distinguishable"]], len(against)
    told, either = ("also distinguishable", "") if first["distinguishable"] else ("distinguishable", " either")
    if not alike:
        others = f"{told} from all {count} others" if count > 1 else f"{told} from the third model"
    elif len(alike) < count:
        others = f"{told} from {count - len(alike)} of the {count} others (not from {', '.join(alike)})"
    else:
        others = f"not distinguishable from {', '.join(alike)}{either}"
    return f"{first['sentence'].removesuffix('.')}; {best} is {others}."


def _members(pair: Mapping) -> tuple[str, str]:
    return pair["first"], pair["second"]


def _differences(comparison: Comparison, remark: str | None) -> Section:
    pairs, reference = comparison.pairs, comparison.reference
    shown = pairs if len(pairs) <= MAX_SENTENCES else [pair for pair in pairs if reference in _members(pair)]
    findings = [pair["sentence"] for pair in shown] + [remark] * bool(remark)
    why = "the most accurate" if reference == tables.best_model(comparison.seeds) else "chosen by --reference"
    return Section(
        "Which differences are real?",
        table=tables.difference_rows(comparison),
        findings=findings or [ONE_MODEL],
        text=f"Differences are relative to {reference} ({why}; --reference RUN chooses another)." if pairs else "",
        folded={f"All {len(pairs)} pairs": tables.pair_rows(pairs)} if len(pairs) > MAX_SENTENCES else {},
    )


def _caveats(found: Sequence[Caveat]) -> Section:
    """The section with the caveats, the most important first."""
    grouped = {weight: [caveat.text for caveat in found if caveat.weight == weight] for weight in WEIGHTS}
    return Section("Before you conclude", findings={k: texts for k, texts in grouped.items() if texts} or [ALIKE])


def data_line(entries: Sequence[Entry]) -> str:
    """A line with the dataset, its number of classes and of images."""
    first = entries[0]
    name = data_name(first.run.config) + (" (imagefolder)" if first.run.config.data.dataset == "imagefolder" else "")
    trained = sorted({entry.training["num_images"]["train"] for entry in entries})
    count = f"{trained[0]:,}" if len(trained) == 1 else f"{trained[0]:,} to {trained[-1]:,}"
    return (
        f"Data set {name}: {len(first.class_names)} classes, {count} training images, "
        f"{first.training['num_images']['test']:,} test images."
    )


def notes(comparison: Comparison) -> list[str]:
    entries, first = comparison.entries, comparison.entries[0].metrics
    kinds = dict.fromkeys(f"{hardware_of(e.metrics)}, attention {e.metrics['attention_kernel']}" for e in entries)
    return [
        f"The same {first['num_images']:,} images for every run, checked by a hash of their pixels and labels: "
        f"{first['fingerprint'][:12]}.",
        "95 % interval of an accuracy: Wilson.",
        *rule_notes([len(group) for group in comparison.groups.values()]),
        "GMACs: multiply-accumulates of one image by fvcore, including attention, whichever kernel computes it; GFLOPs are "
        "twice that. The column beside it leaves out fused attention, as many reports do.",
        further.COUNTING_WORDS,
        further.TRAINING_WORDS,
        "Calibration error: 15 bins of equal width, before temperature scaling.",
        "Milliseconds: median, batch as stated (ms/image: batch 1), networks timed in turn on random inputs, on "
        f"{' and '.join(kinds)}.",
        *([f"Memory: {first['peak_memory_kind']}, its peak in evaluation."] if first["peak_memory_kind"] else []),
        *[f"Pretrained weights of {entry.name}: {_weights(entry.run)}." for entry in entries if _weights(entry.run)],
    ]


def setting_rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """A row for each config key in which the runs differ."""
    differing = differing_values([entry.run.config for entry in entries])
    differing.pop("name", None)
    return [
        {"key": key} | {e.name: NO_VALUE if value is None else str(value) for e, value in zip(entries, values)}
        for key, values in differing.items()
    ]


def origin_rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """Directory, command and commit of each run."""
    rows = []
    for entry in entries:
        environment = entry.run.read_json("environment.json")
        rows.append(
            {
                "run": entry.name,
                "directory": str(entry.run.directory),
                "command": " ".join(["python", *environment.get("command", [])]),
                "commit": (environment.get("git_commit") or NO_VALUE)[:10],
            }
        )
    return rows


def _explanations(entries: Sequence[Entry], folder: Folder) -> list[Section]:
    """Sections with results of gradcam.py for the same weights: maps of the same images, grids, and numbers."""
    weights = {entry.run.config.name: entry.metrics.get("checkpoint_sha256") for entry in entries}
    maps = [explained.overlays_of(e.run, e.name, e.metrics.get("checkpoint_sha256")) for e in entries]
    found = [explained.section("What do they look at?", [shown for shown in maps if shown])]
    figures, names = {}, {entry.run.config.name: entry.name for entry in entries}
    for path in sorted(folder.directory.glob("grid-*.json")):
        stored = read_json(path)
        shown = stored.get("checkpoint_sha256")
        if shown and isinstance(shown, dict) and shown.items() <= weights.items():  # else of other runs or weights
            check(path, stored, Grid)
            figures |= {page: _grid_caption(stored, names) for page in stored["pages"] if folder.path(page).is_file()}
    found.append(Section("Where is the evidence?", figures=figures) if figures else None)
    found.append(_explanation_numbers(entries, folder))
    return [section for section in found if section]


def _grid_caption(stored: Mapping, names: Mapping[str, str]) -> str:
    """A caption with the methods, layers and classes that a grid shows for each run."""
    places = {}
    for column in stored["maps"]:
        place = f"{column['method']} at {column['layer']}" if column["layer"] else column["method"]
        target = {None: "the predicted class", "label": "the true class"}.get(column["target"], column["target"])
        seconds = column.get("seconds_per_map")  # not in files of earlier versions
        run = names[column["run"]] + (f": {seconds:.2g} s a map" if seconds else "")
        places.setdefault(f"{place}, for {target}", dict.fromkeys([]))[run] = None
    columns = "; ".join(f"{place} ({', '.join(runs)})" for place, runs in places.items())
    return f"Heat maps of the same images: {columns}. Below each map: the run's prediction."


def _explanation_numbers(entries: Sequence[Entry], folder: Folder) -> Section | None:
    """A section with the numbers of gradcam.py --analyze, for the runs that have them; None if they cannot be compared.

    They can if they were measured with the compared weights, on the same images and with the same methods.
    """
    entries = [entry for entry in entries if entry.run.path("gradcam/statistics.npz").is_file()]
    if not entries:
        return None
    runs = [entry.run for entry in entries]
    results = [run.read_json("gradcam/statistics.json") | {"run": e.name} for run, e in zip(runs, entries)]
    alike = [[result[key] for key in ("split", "num_images", "seed", "methods")] for result in results]
    weights = [entry.metrics.get("checkpoint_sha256") for entry in entries]
    if (
        any(one != alike[0] for one in alike)
        or [r.get("checkpoint_sha256", w) for r, w in zip(results, weights)] != weights
    ):
        return None
    results = [result | {"verdict": verdict(result)} for result in results]
    forms = dict.fromkeys(("indices", "labels"), ("iu", "N"))
    forms |= {f"{method}/insertion_blur": ("f", "N") for method in ("random", *results[0]["methods"])}
    arrays = [run.load_arrays("gradcam/statistics.npz", forms) for run in runs]
    folder.save_figure("explanations.png", report.statistics_figure(results))
    return report.section(results, arrays, ["explanations.png"])


def _each_run(entries: Sequence[Entry], folder: Folder, suffix: str) -> Section:
    """The section with each run's classification report, and its own figures if it has some."""
    kinds = {"embedding": "Features before the classifier (t-SNE)"}
    figures = {
        os.path.relpath(path, folder.directory): f"{kinds[kind]} of {entry.name}."
        for entry in entries
        for kind in kinds
        if (path := entry.run.path(f"figures/{kind}{suffix}.png")).is_file()
    }
    folded = {f"Classification report of {entry.name}": classification_rows(entry.metrics) for entry in entries}
    return Section("Each run", figures=figures, folded=folded)


def _weights(run: Run) -> str | None:
    """Which pretrained weights a run started from, and under which licence."""
    source = run.read_json("environment.json").get("pretrained")
    return source and f"{source['corpus']}, licence {source['license'] or 'unknown'}, SHA-256 {source['sha256'][:12]}"
