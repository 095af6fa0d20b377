"""The results of evaluating one run: metrics.json, the text report, figures, the page, and the printed table."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from common.console import print_result, print_table
from common.documents import format_interval
from common.runs import Run
from data import Split
from evaluation import calibration, confidence, figures, metrics, page
from evaluation.predictions import Predictions
from evaluation.variant import Variant

# Values in metrics.json that cannot be computed from predictions alone.
MEASURED_KEYS = (
    *(
        "params",
        "trainable_params",
        "gmacs",
        "gmacs_attention_skipped",
        "gmacs_torch",
        "gmacs_convention",
        "uncounted_ops",
    ),
    *("latency_ms", "images_per_second", "peak_memory_mb", "peak_memory_kind", "device", "threads", "precision"),
    *("attention_kernel", "image_size", "mean", "std", "interpolation", "corpus", "fingerprint", "train_fingerprint"),
    *("val_fingerprint", "checkpoint_sha256", "images_since_training"),
)


def finish(
    run: Run,
    variant: Variant,
    predictions: Predictions,
    held_out: Predictions | None,
    class_names: list[str],
    facts: dict,
    written: list[Path],
) -> None:
    """Compute all scores from predictions, write them, and print a summary.

    Args:
        held_out: predictions for the validation images, to fit the temperature and the conformal threshold; None if none.
        facts: values that do not follow from predictions (MEASURED_KEYS); they come last in the file.
        written: files that are already written, to be listed.
    """
    suffix = variant.suffix
    result = {
        **asdict(variant),
        **metrics.summarize(predictions, class_names),
        **metrics.without_copies(predictions),
        "temperature_scaling": scale_temperature(predictions, held_out),
        "conformal": held_out and confidence.conformal_sets(predictions, held_out),
        "most_confused": metrics.most_confused(metrics.confusion_counts(predictions, len(class_names)), class_names),
        **facts,
    }
    figures_ = draw(run, predictions, result, class_names)
    written = [
        run.save_json(f"metrics{suffix}.json", result),
        run.save_text(f"report{suffix}.txt", text_report(run, predictions, result, class_names)),
        *[run.save_figure(f"figures/{name}{suffix}.png", figure) for name, figure in figures_.items()],
        *written,
    ]
    rows = summary(run, result)
    written.insert(0, page.save_page(run, suffix, result, rows))
    print_table(rows)
    short = ("split", "accuracy", "accuracy_ci95", "loss", "ece", "params", "gmacs")
    print_result({"run": str(run.directory)} | {key: result[key] for key in short}, written)


def scale_temperature(predictions: Predictions, held_out: Predictions | None) -> dict | None:
    """Calibration after temperature scaling, fitted on the validation images; None without validation images.

    If no temperature is best, ``temperature`` is None and ``reason`` says why.
    """
    if held_out is None:
        return None
    about, reason = {"fitted_on": "val", "num_images": len(held_out.labels)}, calibration.no_temperature(held_out)
    if reason:
        return {"temperature": None, "reason": reason} | about
    temperature = calibration.fit_temperature(held_out)
    scaled = calibration.scale_logits(predictions, temperature)
    return {"temperature": temperature} | about | {"loss": scaled.loss} | calibration.calibration(scaled)


def draw(run: Run, predictions: Predictions, result: dict, class_names: list[str]) -> dict[str, Figure]:
    title = title_of(run, Variant.of(result))
    accuracy, interval = metrics.per_class_accuracy(predictions, len(class_names))
    counts = metrics.confusion_counts(predictions, len(class_names))
    seen, met = np.arange(len(class_names)), np.arange(len(class_names))
    if unseen_classes(result) > len(class_names) / 2:  # weights of 1,000 classes on a folder of a few
        seen, met = np.flatnonzero(counts.sum(axis=1)), np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
        title += f": {len(seen)} of {len(class_names):,} classes have images"
    scaling, scaled = result["temperature_scaling"], None
    if scaling and scaling["temperature"]:
        bins = calibration.calibration_bins(calibration.scale_logits(predictions, scaling["temperature"]))
        scaled = bins | {"temperature": scaling["temperature"]}
    return {
        "confusion_matrix": figures.confusion_matrix(
            counts[np.ix_(met, met)], [class_names[k] for k in met], title=title
        ),
        "per_class_accuracy": figures.per_class_accuracy(
            accuracy[seen], interval[seen], [class_names[k] for k in seen], mean=result["accuracy"], title=title
        ),
        "reliability": figures.reliability_diagram(
            **calibration.calibration_bins(predictions), scaled=scaled, title=title
        ),
        "risk_coverage": figures.risk_coverage({"": confidence.risk_curve(predictions)}, title=title),
    }


def mistakes_figure(
    split: Split, predictions: Predictions, wrong: np.ndarray, class_names: list[str], title: str
) -> Figure:
    """The most confidently wrong images, with true class, predicted class and its probability."""
    confidence = predictions.probabilities.max(axis=1)
    captions = [
        f"{class_names[predictions.labels[i]]}, taken for {class_names[predictions.predicted[i]]} ({confidence[i]:.1%})"
        for i in wrong
    ]
    images = [split.image(int(i)).permute(1, 2, 0).numpy() for i in wrong]  # 3 H W -> H W 3
    return figures.image_grid(images, captions, title=title)


def text_report(run: Run, predictions: Predictions, result: dict, class_names: list[str]) -> str:
    from sklearn.metrics import classification_report

    table = classification_report(
        predictions.labels,
        predictions.predicted,
        labels=range(len(class_names)),
        target_names=class_names,
        digits=4,
        zero_division=0,
    )
    accuracy = f"accuracy {result['accuracy']:.2%}, 95 % interval {format_interval(result['accuracy_ci95'])}"
    confused = [
        f"{pair['true']} -> {pair['predicted']}: {pair['count']} images, {pair['share']:.1%} of {pair['true']}"
        for pair in result["most_confused"]
    ]
    head = [f"{title_of(run, Variant.of(result))}, {result['num_images']} images, {accuracy}"]
    head += [f"{name}: {value}" for name, value in without_copies(result)]
    return "\n".join([*head, "", table, "Most often confused (true -> predicted)", *(confused or ["nothing"])]) + "\n"


def without_copies(result: Mapping) -> list[tuple[str, str]]:
    """A row with the accuracy without copies of training or validation images, if there are any."""
    count, accuracy = result["num_copies"], result["accuracy_without_copies"]
    if not count:
        return []
    rest = "no image is left" if accuracy is None else f"{accuracy:.2%}"
    if accuracy is not None:
        rest += f"  (95 % interval {format_interval(result['accuracy_without_copies_ci95'])})"
    return [("accuracy without copies", f"{rest}, without {count:,} exact copies of training or validation images")]


def summary(run: Run, result: dict) -> list[tuple[str, object]]:
    """The rows of the table that ends the script."""
    scaling, latency = result["temperature_scaling"], result["latency_ms"]["1"]["median"]
    calibration = f"{result['ece']:.2%} in 15 bins of equal width"
    if scaling and scaling["temperature"]:
        calibration += f", {scaling['ece']:.2%} after temperature {scaling['temperature']:.3f} (fitted on val)"
    elif scaling:
        calibration += f"; no temperature: {scaling['reason']}"
    risks = result["risk_at_coverage"]
    sure = ", ".join(f"{risks[coverage]:.2%} of {float(coverage):.0%}" for coverage in ("0.5", "0.8", "0.9"))
    kept = f"{result['checkpoint']}.pt" + (", averaged with the mirrored image" if result["tta"] else "")
    changed = result.get("images_since_training") == "changed"
    said = ", different from those when the run was trained" if changed else ""
    empty, classes = unseen_classes(result), len(result["per_class"])
    unseen = f"  ({empty:,} of {classes:,} classes have no images, and count as 0)" if empty else ""
    return [
        ("run", f"{run.directory}, {kept}"),
        ("images", f"{result['num_images']} of the {result['split']} split{said}"),
        ("accuracy", f"{result['accuracy']:.2%}  (95 % interval {format_interval(result['accuracy_ci95'])})"),
        *without_copies(result),
        ("macro F1", f"{result['macro_f1']:.2%}{unseen}"),
        ("calibration error", calibration),
        ("errors, most confident", sure),
        ("parameters", f"{result['params'] / 1e6:.2f} M, {result['trainable_params'] / 1e6:.2f} M trained"),
        ("forward pass", f"{result['gmacs']:.4g} GMACs, {latency:.2f} ms at batch 1 on {result['device']}"),
    ]


def unseen_classes(result: Mapping) -> int:
    """How many classes have no image among those that were evaluated."""
    return sum(values["support"] == 0 for values in result["per_class"].values())


def title_of(run: Run, variant: Variant) -> str:
    return f"{run.config.name}, {variant.words}"
