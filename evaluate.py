"""Evaluate trained runs: scores, confusion matrix, calibration, cost; several runs side by side.

    python evaluate.py outputs/quickstart
    python evaluate.py outputs/vit outputs/swin
    torchrun --nproc_per_node=2 evaluate.py outputs/vit

Writes metrics.json, predictions.npz, report.txt and figures into each run (with the split in their names unless it is
test), and for several runs comparison.json, comparison.csv, report.md and a figure into outputs/comparisons/.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

import distributed
from analysis import comparison_figures, figures, metrics, report
from analysis.efficiency import attention_kernel, count_gmacs, count_parameters, measure_latency, peak_memory_mb
from analysis.statistics import compare_pairs
from console import print_result, print_table, run_script
from data import Split, load_dataset
from devices import autocast, select_device, select_precision
from inference import predict_split
from models import apply_tuning, input_spec, restore_model
from runs import Run, comparison_folder


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    runs = [Run.open_finished(directory) for directory in dict.fromkeys(args.runs)]
    current = [len(runs) > 1 and is_current(run, args.split, args.checkpoint) for run in runs]
    with distributed.process_group(select_device(args.device)) as device:
        for run, done in zip(runs, current):
            if done:
                print(f"{run.directory} is evaluated already")
            else:
                evaluate(run, args.split, args.checkpoint, device)
        if len(runs) > 1 and distributed.is_main():
            compare(runs, args.split, args.output)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories that train.py wrote")
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="images to evaluate on")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="weights to evaluate")
    parser.add_argument("--output", type=Path, help="folder of a comparison (default: outputs/comparisons/<runs>)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    return parser.parse_args(argv)


# ---------------------------------------------------------------- one run


def evaluate(run: Run, split_name: str, checkpoint_name: str, device: torch.device) -> None:
    """Evaluate one run and write what was found into it."""
    checkpoint = run.load_checkpoint(f"{checkpoint_name}.pt")
    split = load_dataset(run.config.data, seed=run.config.data.split_seed).split(split_name)
    model = restore_model(run.config, checkpoint).to(device)
    precision = select_precision(run.config.train.amp, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    batch_size = run.config.evaluate.batch_size
    predictions = predict_split(model, split, batch_size=batch_size, device=device, precision=precision)
    if not distributed.is_main():
        return
    class_names = checkpoint["class_names"]
    result = {
        "split": split_name,
        "checkpoint": checkpoint_name,
        **metrics.summarize(predictions, class_names),
        **measure_cost(model, run, split, device, precision),
    }
    suffix = file_suffix(split_name)
    written = [
        run.save_json(f"metrics{suffix}.json", result),
        run.save_arrays(
            f"predictions{suffix}.npz",
            logits=predictions.logits,
            labels=predictions.labels,
            indices=split.indices.numpy(),
        ),
        run.save_text(f"report{suffix}.txt", text_report(run, predictions, result, class_names)),
        *save_figures(run, predictions, result, class_names, suffix),
    ]
    latency = result["latency_ms"]["1"]["median"]
    print_table(
        [
            ("run", run.directory),
            ("images", f"{result['num_images']} of the {split_name} split"),
            ("accuracy", f"{result['accuracy']:.2%}  (95 % interval {format_interval(result['accuracy_ci95'])})"),
            ("macro F1", f"{result['macro_f1']:.2%}"),
            ("calibration error", f"{result['ece']:.2%}"),
            ("parameters", f"{result['params'] / 1e6:.2f} M"),
            (
                "forward pass",
                f"{result['gmacs']:.4g} GMACs, {latency:.2f} ms at batch 1 on {device}",
            ),
        ]
    )
    short = ("split", "accuracy", "accuracy_ci95", "loss", "ece", "params", "gmacs")
    print_result({"run": str(run.directory)} | {key: result[key] for key in short}, written)


def measure_cost(model: nn.Module, run: Run, split: Split, device: torch.device, precision: str) -> dict:
    """Parameters, GMACs, latency and memory, by the names of ``metrics.json``."""
    memory = peak_memory_mb(device)
    apply_tuning(model, run.config.model.tune)  # for the count of trainable parameters
    params, trainable = count_parameters(model)
    size = input_spec(model).size
    gmacs, uncounted = count_gmacs(model, torch.zeros(1, 3, *size, device=device))
    latency = {}
    batch_size = min(run.config.evaluate.batch_size, len(split))
    for count in tqdm(sorted({1, batch_size}), "measuring latency", leave=False):
        images = torch.zeros(count, 3, *size, device=device)
        latency[str(count)] = measure_latency(model, images, context=lambda: autocast(device, precision))
    return {
        "params": params,
        "trainable_params": trainable,
        "gmacs": gmacs,
        "gmacs_convention": "multiply-accumulates of one image by fvcore, attention counted; FLOPs are twice that",
        "uncounted_ops": uncounted,
        "latency_ms": latency,
        "images_per_second": 1000 * batch_size / latency[str(batch_size)]["median"],
        "peak_memory_mb": memory,
        "peak_memory_kind": "allocated on the device" if device.type == "cuda" else "resident set of the process",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "attention_kernel": attention_kernel(model),
        "image_size": list(size),
        "corpus": input_spec(model).corpus,
    }


def text_report(run: Run, predictions: metrics.Predictions, result: dict, class_names: list[str]) -> str:
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
    return f"{run.config.name}, {result['split']} split, {result['num_images']} images, {accuracy}\n\n{table}"


def save_figures(
    run: Run, predictions: metrics.Predictions, result: dict, class_names: list[str], suffix: str
) -> list[Path]:
    title = f"{run.config.name}, {result['split']} split"
    accuracy, interval = metrics.per_class_accuracy(predictions, len(class_names))
    drawn = {
        "confusion_matrix": figures.confusion_matrix(
            metrics.confusion_counts(predictions, len(class_names)), class_names, title=title
        ),
        "per_class_accuracy": figures.per_class_accuracy(
            accuracy, interval, class_names, mean=result["accuracy"], title=title
        ),
        "reliability": figures.reliability_diagram(**metrics.calibration_bins(predictions), title=title),
    }
    return [run.save_figure(f"figures/{name}{suffix}.png", figure) for name, figure in drawn.items()]


def format_interval(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f} %"


def file_suffix(split: str) -> str:
    return "" if split == "test" else f"-{split}"


# ---------------------------------------------------------------- several runs


def is_current(run: Run, split: str, checkpoint: str) -> bool:
    """Whether this checkpoint has been evaluated on this split since it was written."""
    suffix = file_suffix(split)
    files = [run.path(name) for name in (f"metrics{suffix}.json", f"predictions{suffix}.npz")]
    weights = run.path(f"{checkpoint}.pt")
    if not all(path.is_file() for path in [*files, weights]):
        return False
    newer = all(path.stat().st_mtime >= weights.stat().st_mtime for path in files)
    return newer and run.read_json(files[0].name)["checkpoint"] == checkpoint


def compare(runs: list[Run], split: str, output: Path | None) -> None:
    """Table, paired tests and figure of several runs on the same images."""
    suffix = file_suffix(split)
    correct = load_hits(runs, suffix)
    results = [
        {"run": run.config.name, "model": run.config.model.name} | run.read_json(f"metrics{suffix}.json")
        for run in runs
    ]
    for result in results:
        result["image_size"] = "x".join(map(str, result["image_size"]))
    rows = report.comparison_rows(results)
    pairs = compare_pairs([run.config.name for run in runs], correct)
    folder = comparison_folder(runs, output)
    figure = comparison_figures.comparison_bars(
        [result["run"] for result in results],
        [result["accuracy"] for result in results],
        intervals=np.array([result["accuracy_ci95"] for result in results]),
        ylabel="accuracy, 95 % interval",
        title=f"{results[0]['num_images']} images of the {split} split",
        percent=True,
    )
    devices = dict.fromkeys(f"{result['device']}, {result['precision']}" for result in results)
    notes = [
        f"{results[0]['num_images']} images of the {split} split; Wilson intervals in the table.",
        "Between runs: paired-bootstrap interval of the difference; McNemar's test, p-values after Holm over all pairs.",
        "GMACs count attention, whatever kernel computes it.",
        f"Latency and images/s on {' and '.join(devices)}{' (not comparable)' if len(devices) > 1 else ''}.",
    ]
    markdown = report.to_markdown(
        f"Comparison of {len(runs)} runs", rows, [pair["sentence"] for pair in pairs], notes, ["accuracy.png"]
    )
    written = [
        folder.save_json("comparison.json", {"split": split, "runs": results, "pairs": pairs}),
        folder.save_text("comparison.csv", report.to_csv(rows)),
        folder.save_text("report.md", markdown),
        folder.save_figure("accuracy.png", figure),
    ]
    shown = ("run", "model", "accuracy (%)", "95 % interval (%)", "parameters (M)", "GMACs", "ms at batch 1")
    print_table([[row[key] for key in shown] for row in rows], header=shown)
    for pair in pairs:
        print(pair["sentence"])
    print_result({"runs": [result["run"] for result in results], "accuracy": [r["accuracy"] for r in results]}, written)


def load_hits(runs: list[Run], suffix: str) -> list[np.ndarray]:
    """Which images each run gets right, bool N. Raises ValueError unless all were evaluated on the same images."""
    loaded = [np.load(run.path(f"predictions{suffix}.npz")) for run in runs]
    for run, arrays in zip(runs, loaded):
        same = all(np.array_equal(arrays[key], loaded[0][key]) for key in ("labels", "indices"))
        if run.config.data.dataset != runs[0].config.data.dataset or not same:
            raise ValueError(
                f"{run.directory} and {runs[0].directory} were not evaluated on the same images; compare runs of one "
                "dataset with the same data.split_seed and fractions"
            )
    return [arrays["logits"].argmax(axis=1) == arrays["labels"] for arrays in loaded]


if __name__ == "__main__":
    run_script(main)
