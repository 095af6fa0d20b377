"""Write docs/results.md from what the scripts left in outputs/: no number in it is typed by hand.

    python -m comparison.results            # reads outputs/, writes docs/results.md

A run is listed if it has been evaluated on the test split; a comparison if evaluate.py wrote one.
"""

import argparse
import json
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
    "ImageNet weights could not be downloaded where this was run, so that no fine-tuning from them is reported: the configs of "
    "configs/cifar10_lr, configs/cifar10_freeze and configs/cifar10_partial are tested with local weights only.",
    "The original CIFAR files could not be downloaded either. Where CIFAR-10 is named, it is a JPEG re-encoding in folders: a "
    "little harder, and not comparable digit by digit.",
    "mini10 is the first 10 classes by name of mini-ImageNet at 32 px (4,500 training, 500 validation and 1,000 test images); "
    "the study that it stands for has 100.",
    "Nothing here was run on a GPU. Depths, widths, epochs and classes were cut to what CPU cores do in minutes; these models "
    "are far from converged, and the table shows that the tools work, not how good the architectures are.",
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
    return "python " + shlex.join(run.read_json("environment.json")["command"])


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
