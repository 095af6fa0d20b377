"""Evaluate trained runs: scores, confusion matrix, calibration, cost, robustness; several runs side by side.

    python evaluate.py outputs/quickstart
    python evaluate.py outputs/vit outputs/swin --corrupt
    python evaluate.py outputs/vit outputs/swin --from-predictions
    torchrun --nproc_per_node=2 evaluate.py outputs/vit

Writes metrics.json, predictions.npz, report.txt and figures into each run, and for several runs report.html, report.md,
comparison.json, comparison.csv and figures into outputs/comparisons/. What is not the best checkpoint on the test split
gets -val, -train, -flip or -last in its name.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import distributed
from analysis import comparison_figures, figures, metrics
from analysis.efficiency import count_parameters, measure_cost, peak_memory_mb
from analysis.metrics import Predictions
from analysis.report import format_interval
from analysis.statistics import wilson_interval
from comparison import evaluated_on, load_predictions, open_runs
from comparison_report import compare
from console import print_result, print_table, run_script
from corruptions import SEVERITIES, by_severity, score_corrupted
from data import Split, load_dataset
from devices import autocast, select_device, select_precision
from inference import FlipAverage, predict_split
from models import apply_tuning, input_spec, restore_model
from runs import Run

# What metrics.json says that predictions alone do not tell.
FACTS = (
    *("params", "trainable_params", "gmacs", "gmacs_attention_skipped", "gmacs_convention", "uncounted_ops"),
    *("latency_ms", "images_per_second", "peak_memory_mb", "peak_memory_kind", "device", "threads", "precision"),
    *("attention_kernel", "image_size", "mean", "std", "corpus", "fingerprint", "train_fingerprint"),
)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    runs = open_runs(args.runs, args.output)
    with distributed.process_group(select_device(args.device)) as device:
        reasons = [len(runs) == 1 or reason_to_evaluate(run, args) for run in runs]
        for run, reason in zip(runs, reasons):
            if args.from_predictions:
                if distributed.is_main():
                    recompute(run, args)
            elif reason:
                evaluate(run, args, device, said=reason if isinstance(reason, str) else None)
            else:
                print(f"{run.directory} is evaluated already")
        if len(runs) > 1 and distributed.is_main():
            compare(runs, suffix_of(args), args.output)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories that train.py wrote")
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="images to evaluate on")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="weights to evaluate")
    parser.add_argument("--tta", choices=("flip",), help="average the probabilities with those of the mirrored image")
    parser.add_argument(
        "--corrupt", action="store_true", help="accuracy under noise, blur, JPEG and lost contrast, too"
    )
    parser.add_argument(
        "--from-predictions", action="store_true", help="recompute all scores from predictions.npz, without the model"
    )
    parser.add_argument("--output", type=Path, help="folder of a comparison (default: outputs/comparisons/<runs>)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    args = parser.parse_args(argv)
    if args.from_predictions and args.corrupt:
        raise ValueError("--corrupt needs the model; leave out --from-predictions")
    return args


def reason_to_evaluate(run: Run, args: argparse.Namespace) -> str | None:
    """Why a run must be evaluated (again) before it is compared; None: what is there will do."""
    suffix, weights = suffix_of(args), run.path(f"{args.checkpoint}.pt")
    files = [run.path(f"metrics{suffix}.json"), run.path(f"predictions{suffix}.npz")]
    if args.corrupt:
        files.append(run.path(f"corruptions{suffix}.json"))
    missing = [path for path in files if not path.is_file()]
    if missing:
        return "not evaluated yet" if missing[0] == files[0] else f"no {missing[0].name} yet"
    stale = [path for path in files if weights.is_file() and path.stat().st_mtime < weights.stat().st_mtime]
    if stale:
        return f"{stale[0].name} is older than {weights.name}"
    stored = run.read_json(files[0].name)
    if any(key not in stored for key in FACTS):
        return f"{files[0].name} lacks what a comparison needs"
    if stored["split"] != args.split or stored["checkpoint"] != args.checkpoint:
        return f"{files[0].name} is of {stored['checkpoint']}.pt and the {stored['split']} split"
    return None


# ---------------------------------------------------------------- one run


def suffix_of(args: argparse.Namespace, split: str | None = None) -> str:
    """What the files of these arguments (on another split, if one is named) carry in their names: nothing if all is usual."""
    usual = {"test": "", "best": "", None: ""}
    return "".join(usual.get(value, f"-{value}") for value in (split or args.split, args.tta, args.checkpoint))


def evaluate(run: Run, args: argparse.Namespace, device: torch.device, *, said: str | None = None) -> None:
    """Evaluate one run and write what was found into it."""
    if said:
        print(f"evaluating {run.directory}: {said}")
    checkpoint = run.load_checkpoint(f"{args.checkpoint}.pt")
    dataset = load_dataset(run.config.data, seed=run.config.data.split_seed)
    dataset.check_images(checkpoint.get("images", {}))
    split = dataset.split(args.split)
    model = restore_model(run.config, checkpoint).to(device)
    predictor = FlipAverage(model) if args.tta else model
    precision = select_precision(run.config.train.amp, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    batch_size = run.config.evaluate.batch_size
    predict = partial(predict_split, predictor, batch_size=batch_size, device=device, precision=precision)
    predictions, memory = predict(split), peak_memory_mb(device)
    metrics.check_finite(predictions)  # before anything is written
    held_out = predict(dataset.val) if args.split == "test" and len(dataset.val) else None
    corrupted = score_corrupted(partial(predict, split)) if args.corrupt else None
    if not distributed.is_main():
        return
    class_names = checkpoint["class_names"]
    written = []
    for part, found in ((split, predictions), (dataset.val, held_out)):
        if found is not None:
            arrays = {"logits": found.logits, "labels": found.labels, "indices": part.indices.numpy()}
            name = f"predictions{suffix_of(args, part.name)}.npz"
            written.append(run.save_arrays(name, **arrays, class_names=np.array(class_names)))
    facts = measure(model, predictor, run, split, device, precision) | {
        "peak_memory_mb": memory,
        "fingerprint": split.fingerprint(),
        "train_fingerprint": dataset.train.fingerprint(),
    }
    suffix = suffix_of(args)
    wrong = metrics.most_confidently_wrong(predictions)
    if len(wrong):
        title = f"{title_of(run, vars(args))}: most confidently wrong"
        figure = mistakes_figure(split, predictions, wrong, class_names, title)
        written.append(run.save_figure(f"figures/mistakes{suffix}.png", figure))
    if corrupted:
        values = {"split": args.split, "checkpoint": args.checkpoint, "corruptions": corrupted}
        written.append(run.save_json(f"corruptions{suffix}.json", values))
        name = run.config.name
        figure = comparison_figures.accuracy_against_severity(
            {name: by_severity(corrupted, "accuracy")},
            SEVERITIES,
            {name: predictions.accuracy},
            intervals={name: by_severity(corrupted, "accuracy_ci95")},
            clean_intervals={name: wilson_interval(predictions.correct.sum(), len(predictions.labels))},
            title=title_of(run, vars(args)),
        )
        written.append(run.save_figure(f"figures/corruptions{suffix}.png", figure))
    finish(run, args, args.checkpoint, predictions, held_out, class_names, facts, written)


def measure(
    model: nn.Module, predictor: nn.Module, run: Run, split: Split, device: torch.device, precision: str
) -> dict:
    """What the model is and takes, by the names of ``metrics.json``; ``predictor`` is what is timed."""
    spec = input_spec(model)
    apply_tuning(model, run.config.model.tune)  # for the count of trainable parameters
    params, trainable = count_parameters(model)
    cost = measure_cost(
        predictor,
        spec.size,
        batch_size=min(run.config.evaluate.batch_size, len(split)),
        seconds=run.config.evaluate.latency_seconds,
        device=device,
        context=lambda: autocast(device, precision),
    )
    fed = {"image_size": list(spec.size), "mean": list(spec.mean), "std": list(spec.std), "corpus": spec.corpus}
    return {"params": params, "trainable_params": trainable, **cost, "precision": precision, **fed}


def recompute(run: Run, args: argparse.Namespace) -> None:
    """Every score anew from ``predictions.npz``; what only the model can tell stays as it was measured."""
    suffix = suffix_of(args)
    before = run.read_json(f"metrics{suffix}.json")
    predictions, class_names = load_predictions(run, f"predictions{suffix}.npz")
    held_out, name = None, f"predictions{suffix_of(args, 'val')}.npz"
    if args.split == "test" and run.path(name).is_file():
        held_out, _ = load_predictions(run, name)
    facts = {key: before[key] for key in FACTS if key in before}
    finish(run, args, before["checkpoint"], predictions, held_out, class_names, facts, [])


def finish(
    run: Run,
    args: argparse.Namespace,
    checkpoint: str,
    predictions: Predictions,
    held_out: Predictions | None,
    class_names: list[str],
    facts: dict,
    written: list[Path],
) -> None:
    """Write what follows from predictions, and say it; ``facts`` are those that do not, and come last in the file."""
    suffix = suffix_of(args)
    result = {
        "split": args.split,
        "checkpoint": checkpoint,
        "tta": args.tta,
        **metrics.summarize(predictions, class_names),
        "temperature_scaling": scale_temperature(predictions, held_out),
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
    print_table(summary(run, result))
    short = ("split", "accuracy", "accuracy_ci95", "loss", "ece", "params", "gmacs")
    print_result({"run": str(run.directory)} | {key: result[key] for key in short}, written)


def scale_temperature(predictions: Predictions, held_out: Predictions | None) -> dict | None:
    """Calibration after temperature scaling, fitted on the validation images; null where there are none."""
    if held_out is None:
        return None
    temperature = metrics.fit_temperature(held_out)
    scaled = metrics.scale_logits(predictions, temperature)
    found = {"temperature": temperature, "fitted_on": "val", "num_images": len(held_out.labels), "loss": scaled.loss}
    return found | metrics.calibration(scaled)


def draw(run: Run, predictions: Predictions, result: dict, class_names: list[str]) -> dict[str, Figure]:
    title = title_of(run, result)
    accuracy, interval = metrics.per_class_accuracy(predictions, len(class_names))
    scaling, scaled = result["temperature_scaling"], None
    if scaling:
        bins = metrics.calibration_bins(metrics.scale_logits(predictions, scaling["temperature"]))
        scaled = bins | {"temperature": scaling["temperature"]}
    return {
        "confusion_matrix": figures.confusion_matrix(
            metrics.confusion_counts(predictions, len(class_names)), class_names, title=title
        ),
        "per_class_accuracy": figures.per_class_accuracy(
            accuracy, interval, class_names, mean=result["accuracy"], title=title
        ),
        "reliability": figures.reliability_diagram(**metrics.calibration_bins(predictions), scaled=scaled, title=title),
    }


def mistakes_figure(
    split: Split, predictions: Predictions, wrong: np.ndarray, class_names: list[str], title: str
) -> Figure:
    """The most confidently wrong images: what they are, what they were taken for, how surely."""
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
    head = f"{title_of(run, result)}, {result['num_images']} images, {accuracy}"
    return "\n".join([head, "", table, "Most often confused (true -> predicted)", *(confused or ["nothing"])]) + "\n"


def summary(run: Run, result: dict) -> list[tuple[str, object]]:
    """The rows of the table that ends the script."""
    scaling, latency = result["temperature_scaling"], result["latency_ms"]["1"]["median"]
    calibration = f"{result['ece']:.2%} in 15 bins of equal width"
    if scaling:
        calibration += f", {scaling['ece']:.2%} after temperature {scaling['temperature']:.3f} (fitted on val)"
    kept = f"{result['checkpoint']}.pt" + (", averaged with the mirrored image" if result["tta"] else "")
    return [
        ("run", f"{run.directory}, {kept}"),
        ("images", f"{result['num_images']} of the {result['split']} split"),
        ("accuracy", f"{result['accuracy']:.2%}  (95 % interval {format_interval(result['accuracy_ci95'])})"),
        ("macro F1", f"{result['macro_f1']:.2%}"),
        ("calibration error", calibration),
        ("parameters", f"{result['params'] / 1e6:.2f} M, {result['trainable_params'] / 1e6:.2f} M trained"),
        ("forward pass", f"{result['gmacs']:.4g} GMACs, {latency:.2f} ms at batch 1 on {result['device']}"),
    ]


def title_of(run: Run, values: Mapping) -> str:
    return f"{run.config.name}, {evaluated_on(values)}"


if __name__ == "__main__":
    run_script(main)
